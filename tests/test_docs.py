"""The programs in docs/losses.md run, and its tables name what there is."""

import re

import pytest

from gan_jax import losses, regularizers
from tests.experiments.commands import ROOT

TEXT = (ROOT / "docs" / "losses.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_there_are_four_styles():
    assert len(PROGRAMS) == 4
    for program, framework in zip(PROGRAMS, ("import jax\n", "flax import nnx", "equinox", "flax.linen"), strict=True):
        assert framework in program


@pytest.mark.parametrize("index", range(len(PROGRAMS)))
def test_programs_train(index):
    namespace = {"__name__": "program"}
    exec(compile(PROGRAMS[index], f"docs/losses.md, program {index}", "exec"), namespace)
    assert len(namespace["values"]) == 50


def test_the_tables_name_every_loss_and_penalty():
    named = set(re.findall(r"`(\w+)(?:\(\w+\))?`", TEXT))
    states = {"GANLoss", "LeCamState", "init_lecam", "gaussian_kernel", "rational_quadratic_kernel"}
    assert {*losses.__all__, *regularizers.__all__} - states <= named
