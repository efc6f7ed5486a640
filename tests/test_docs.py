"""Checks of docs/: the programs in losses.md run, its tables are complete, and all flags on the pages exist."""

import ast
import math
import re

import jax.numpy as jnp
import numpy as np
import pytest

import gan_jax
from gan_jax import losses, regularizers
from gan_jax.cli.main import COMMANDS
from gan_jax.runs import Run, load_module
from tests.processes import ROOT, finish, run, start_module

TEXT = (ROOT / "docs" / "losses.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WRITTEN = re.compile(r"<!-- written by python -m (\S+) --write -->\n(.*?)\n<!-- end of what is written -->", re.DOTALL)
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
    states |= {"BalancerState", "init_balancer"}
    assert {*losses.__all__, *regularizers.__all__} - states <= named


def test_the_tables_say_when_and_what_is_healthy():
    """Each row has its formula, when to use it, and how its curve looks; adversarial losses are in a measured table."""
    rows = [[cell.strip() for cell in row[1:-1].split(" | ")] for row in TEXT.splitlines() if row.startswith("| `")]
    measured = {cells[0] for cells in rows if re.fullmatch(r"-?[\d.]+|diverged.*", cells[1])}
    told = [cells for cells in rows if cells[0] not in measured or not re.match(r"-?[\d.]+$|diverged", cells[1])]
    assert len(told) > 40 and all(len(cells) == 5 and all(cells) for cells in told), [x for x in told if not all(x)]
    pairs = {name for name in losses.__all__ if isinstance(getattr(losses, name), losses.GANLoss)}
    assert {f"`{name}`" for name in pairs} <= measured


def test_the_values_at_chance_are_those_of_the_tables():
    zeros, label, four = jnp.zeros((8, 4)), jnp.arange(8) % 4, math.log(4)
    found = {
        "auxiliary": (losses.auxiliary_classifier(zeros, label), four),
        "hinge": (losses.multi_hinge(zeros, label), 1.0),
        "code": (losses.discrete_mutual_information(zeros, label), four),
        "patches": (losses.patch_nce(jnp.ones((2, 16, 3)), jnp.ones((2, 16, 3))), math.log(16)),
        "bernoulli": (losses.bernoulli_nll(jnp.zeros((2, 9)), jnp.ones((2, 9))) / 9, math.log(2)),
    }
    code = jnp.linspace(-1, 1, 2001)[:, None]
    spread = jnp.full_like(code, -0.5 * math.log(3))  # of the uniform distribution in [-1, 1]
    found["gaussian"] = (losses.gaussian_mutual_information(0 * code, spread, code).mean(), 0.87)
    for name, (value, wanted) in found.items():
        np.testing.assert_allclose(value, wanted, atol=2e-3, err_msg=name)


def test_whatever_runs_the_code_of_a_workdir_says_so():
    """The help pages, which are the modules' docstrings; the functions; and README."""
    for command in ("train", "sample", "translate", "evaluate", "export"):
        text = " ".join(ast.get_docstring(ast.parse((ROOT / f"gan_jax/cli/{command}.py").read_text())).split())
        assert "only workdirs of people whose code you would run" in text, command
    for function in (gan_jax.load, Run.__init__):
        assert "This runs the code in the workdir" in function.__doc__
    assert "**A workdir is code.**" in (ROOT / "README.md").read_text()


def test_every_flag_in_the_documentation_is_there():
    """In README and docs, after any launcher. Flags of other programs are found in their sources."""
    told = "".join(run(command, "--helpfull") for command in COMMANDS)
    known = set(re.findall(r"--(?:\[no\])?(\w+)", told))
    sources = "".join(path.read_text() for path in (ROOT / "benchmarks").rglob("*.py"))
    known |= set(re.findall(r"flags\.DEFINE_\w+\(\s*\"(\w+)\"", sources))
    sources += (ROOT / "tests" / "affected.py").read_text()
    known |= set(re.findall(r"add_argument\(\"--(\w+)\"", sources))
    configs = (ROOT / "experiments" / "configs").glob("[!_]*.py")
    keys = {"key", "KEY", *(key for path in configs for key in load_module(path).get_config())}  # the first two for any
    for page in PAGES:
        text = page.read_text()
        commands = re.findall(rf"(?:experiments\.|gan-jax )(?:{'|'.join(COMMANDS)})((?:[^`\n]|\\\n)*)", text)
        written = {name for command in commands for name in re.findall(r"--([\w.]+)", command)}
        written |= set(re.findall(r"`--([\w.]+)(?:=[^`]*)?`", text)) - {"signal", "worker", "xla_gpu_deterministic_ops"}
        for name in written:
            assert name.removeprefix("config.") in keys if name.startswith("config.") else name in known, (page, name)


def test_what_the_commands_print_fits_a_terminal():
    text = (ROOT / "docs" / "commands.md").read_text()
    assert (
        text.count("```text") == len(COMMANDS) + 1
        and max(map(len, re.findall(r"```text\n(.*?)```", text, re.S)[-1].split("\n"))) <= 80
    )


@pytest.mark.slow
def test_what_benchmarks_wrote_into_pages_is_what_their_results_say():
    found = [match.groups() for page in PAGES for match in WRITTEN.finditer(page.read_text())]
    assert len(found) >= 4
    for module, text in found:
        code, printed = finish(start_module(module, "--table"))
        assert code == 0 and text in printed, f"python -m {module} --write"
