"""Deprecated names, which work for one release and warn with the new name."""

import importlib
import sys

import pytest

import gan_jax.eval
from gan_jax import core, nets, ops, runs, types
from gan_jax.deprecated import MODULES, arguments


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        (types, "Out", types.LossOutput),
        (core, "Window", core.MetricAccumulator),
        (core, "window_means", core.accumulator_means),
        (core, "empty_window", core.empty_accumulator),
        (core, "num_draws", core.batches_per_iteration),
        (gan_jax.eval, "Side", gan_jax.eval.FeatureStatistics),
        (gan_jax.eval, "Request", gan_jax.eval.MetricSpec),
        (gan_jax.eval, "requests", gan_jax.eval.metric_specs),
        (nets, "ops", ops),
    ],
)
def test_an_old_name_is_the_new_thing_and_warns(module, old, new):
    with pytest.warns(DeprecationWarning, match=rf"{old} is now"):
        assert getattr(module, old) is new
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_an_old_argument_is_the_new_one_and_warns(tmp_path):
    said = []
    with pytest.warns(DeprecationWarning, match="argument 'say' is now 'log'"), pytest.raises(types.InvalidInputError):
        runs.load(tmp_path, say=said.append)

    @arguments(old="new")
    def function(new):
        return new

    with pytest.warns(DeprecationWarning):
        assert function(old=1) == function(new=1) == function(1)
    with pytest.raises(TypeError):
        function(older=1)


@pytest.mark.parametrize("old", MODULES)
def test_a_module_that_has_moved_is_imported_by_its_old_name(old):
    package, _, name = old.rpartition(".")
    assert name not in importlib.import_module(package).__all__, "importing the module would replace it"
    with pytest.warns(DeprecationWarning, match=f"{old} is now {MODULES[old]}"):
        module = importlib.import_module(old)
    assert module is importlib.import_module(MODULES[old]) and module.__name__ == MODULES[old]
    del sys.modules[old]


@pytest.mark.parametrize("name", ["settings", "workdir"])
def test_the_old_modules_of_experiments_hand_on_the_new_ones(name):
    sys.modules.pop(f"experiments.{name}", None)
    with pytest.warns(DeprecationWarning, match=f"experiments.{name} is now gan_jax.runs"):
        module = importlib.import_module(f"experiments.{name}")
    public = {"settings": "run_config", "workdir": "load"}[name]
    assert getattr(module, public) is getattr(runs, public)
