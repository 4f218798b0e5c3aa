"""YAML as people write it: without aliases, which let a short file stand for more than fits into memory.

Nine lines of ten aliases each are a billion values. An alias may also refer to what it lies in, without end.
"""

from __future__ import annotations

from typing import Any

import yaml


class _WithoutAliases(yaml.SafeLoader):
    """Refuses `*NAME`, and half of a surrogate pair."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Return the next node."""
        if self.check_event(yaml.AliasEvent):
            event: Any = self.get_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, f"an alias, *{event.anchor}, is not read here: write the value out", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_scalar(self, node: Any) -> Any:
        """Return the text of a node; JSON writes a character beyond U+FFFF as two halves, which YAML does not join."""
        text: Any = super().construct_scalar(node)
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16") if isinstance(text, str) else text
        except UnicodeDecodeError:
            raise yaml.constructor.ConstructorError(
                None, None, "half of a surrogate pair, which no text can hold", node.start_mark
            ) from None


class _TextsOnly(_WithoutAliases, yaml.BaseLoader):
    """Takes every scalar for a text."""

    yaml_implicit_resolvers = yaml.BaseLoader.yaml_implicit_resolvers
    yaml_constructors = yaml.BaseLoader.yaml_constructors


def plain_yaml(text: str, *, as_texts: bool = False) -> Any:
    r"""Return what a YAML document holds.

    >>> plain_yaml("a: [1, yes]"), plain_yaml("a: [1, yes]", as_texts=True)
    ({'a': [1, True]}, {'a': ['1', 'yes']})
    >>> plain_yaml(r'"\ud83d\ude3a"') == "\N{SMILING CAT FACE WITH OPEN MOUTH}"
    True

    Args:
        as_texts: take every scalar for a text; else 1 is a number and yes is true.

    Raises:
        yaml.YAMLError: it is not YAML, has an alias or half of a surrogate pair, or is nested too deep.
    """
    try:
        return yaml.load(text, Loader=_TextsOnly if as_texts else _WithoutAliases)
    # A ValueError is a date that does not exist, or a number of too many digits.
    except (ValueError, RecursionError) as error:
        what = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise yaml.YAMLError(what) from None
