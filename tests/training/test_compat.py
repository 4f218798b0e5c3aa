"""What training relies on in the Trainer is there, and is called as our methods can be called."""

import inspect
from types import SimpleNamespace

import pytest
from transformers import Trainer

from embedsmith.errors import ModelError
from embedsmith.training.compat import OPTIONAL, OVERRIDDEN, check_trainer, take_loss_as_it_is
from embedsmith.training.trainer import ContrastiveTrainer


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_a_trainer_that_lacks_a_method_is_refused_by_its_name(name):
    kept = {key: getattr(Trainer, key) for key in OVERRIDDEN if key != name}
    with pytest.raises(ModelError, match=rf"transformers \d+\.\d+.* has no Trainer\.{name}\b") as caught:
        check_trainer(type("Trainer", (), kept))
    assert "transformers" in caught.value.hint
    check_trainer(type("Trainer", (), {**kept, name: None}))


def test_a_trainer_that_would_divide_the_loss_is_refused():
    with pytest.raises(ModelError, match=r"has no Trainer\.model_accepts_loss_kwargs\b"):
        take_loss_as_it_is(SimpleNamespace())


def test_every_method_that_is_overridden_is_asked_for():
    ours = {name for name in vars(ContrastiveTrainer) if not name.startswith("__")}
    assert {name for name in ours if hasattr(Trainer, name)} - set(OPTIONAL) == set(OVERRIDDEN)


def refusals(ours, theirs) -> list[str]:
    """Return which ways to call a method that theirs allows are refused by ours: by place, and by name."""
    parameters = [
        parameter
        for parameter in inspect.signature(theirs).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    named = {parameter.name: parameter.name for parameter in parameters if parameter.name != "self"}
    by_place = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    only_named = {p.name: p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    refused = []
    for arguments, keywords in ((by_place, only_named), (["self"], named)):
        try:
            inspect.signature(ours).bind(*arguments, **keywords)
        except TypeError as error:
            refused.append(str(error))
    return refused


@pytest.mark.parametrize("name", [*OVERRIDDEN, *OPTIONAL])
def test_ours_can_be_called_in_every_way_that_theirs_can(name):
    if name in OPTIONAL and not hasattr(Trainer, name):
        pytest.skip(f"this version has no {name}")
    assert refusals(getattr(ContrastiveTrainer, name), getattr(Trainer, name)) == []


def test_a_method_that_lacks_a_parameter_is_seen():
    def theirs(self, model, trial=None): ...

    def ours(self, model): ...

    def renamed(self, model, other=None): ...

    assert len(refusals(ours, theirs)) == 2
    assert refusals(renamed, theirs) == ["got an unexpected keyword argument 'trial'"]
