"""Shapes and types, checked as they are annotated: what jaxtyping's import hook puts above each function.

jaxtyping's own decorator binds the arguments of every call and opens a scope for the names of axes, and is made anew
each time that a function within a function is defined: that took a third of the time of all tests. Here only functions
whose annotations name an array get it. The others are checked by beartype alone.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any, get_args, get_type_hints

import jaxtyping
from beartype import beartype
from jaxtyping import AbstractArray, jaxtyped

Check = Callable[..., object]


def install(packages: list[str]) -> None:
    """Check what is imported from packages from here on."""
    jaxtyping.jaxtyped = lambda **_: checked  # the hook finds its decorator by this name
    jaxtyping.install_import_hook(packages, "beartype.beartype")


def checked(thing: Any) -> Any:
    """Return a function or a data class that checks its arguments, and what it returns."""
    if inspect.isclass(thing):
        if dataclasses.is_dataclass(thing):
            thing.__init__ = checked(thing.__init__)
        return thing
    # Code alone does not tell the constructors of two data classes apart.
    key = thing.__module__, thing.__qualname__, thing.__code__
    if key not in _CHECKS:
        _CHECKS[key] = _checks(thing)
    checks = _CHECKS[key]
    if checks is None:
        return jaxtyped(thing, typechecker=beartype)
    arguments, returned = checks

    @functools.wraps(thing)
    def call(*words: Any, **named: Any) -> Any:
        __tracebackhide__ = True
        arguments(*words, **named)
        found = thing(*words, **named)
        if found is not NotImplemented:  # what an operator returns that leaves the answer to the other side
            returned(found)
        return found

    return call


_CHECKS: dict[tuple[str, str, CodeType], tuple[Check, Check] | None] = {}
"""What checks the arguments of a function and what it returns, made once for all of one definition; None for arrays."""


def _checks(function: FunctionType) -> tuple[Check, Check] | None:
    types = {name: _resolved(said, function) for name, said in function.__annotations__.items()}
    if any(map(_names_an_array, types.values())):
        return None

    def returned(value):
        return value

    result = types.pop("return", Any)
    returned.__module__, returned.__qualname__ = function.__module__, function.__qualname__
    returned.__annotations__ = {"return": result}
    return beartype(_same_arguments(function, types)), beartype(returned)


def _same_arguments(function: FunctionType, types: dict[str, Any]) -> FunctionType:
    """Return a function that does nothing, with the name and the arguments of another."""

    def nothing():
        pass

    code = function.__code__
    starred = code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)
    count = code.co_argcount + code.co_kwonlyargcount + starred.bit_count()
    nothing.__code__ = nothing.__code__.replace(
        co_argcount=code.co_argcount,
        co_posonlyargcount=code.co_posonlyargcount,
        co_kwonlyargcount=code.co_kwonlyargcount,
        co_varnames=code.co_varnames[:count],
        co_nlocals=count,
        co_flags=nothing.__code__.co_flags | starred,
    )
    nothing.__defaults__, nothing.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    nothing.__module__, nothing.__qualname__ = function.__module__, function.__qualname__
    nothing.__annotations__ = types
    return nothing


def _resolved(annotation: Any, function: FunctionType) -> Any:
    """Return the type that an annotation stands for; anything, where it is imported for type checkers alone."""

    def holder():
        pass

    holder.__annotations__ = {"it": annotation}
    try:
        return get_type_hints(holder, function.__globals__, include_extras=True)["it"]
    except Exception:
        return Any


def _names_an_array(kind: Any) -> bool:
    is_one = inspect.isclass(kind) and issubclass(kind, AbstractArray)
    return is_one or any(map(_names_an_array, get_args(kind)))
