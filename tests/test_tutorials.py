"""The tutorials: each runs as printed, with tiny numbers in place of those of its cell of parameters."""

import json
import re

import pytest

from tests.processes import ROOT, start_module

CELL = re.compile(r"^```\{code-cell\}[^\n]*\n((?::tags:[^\n]*\n)?)\n?(.*?)^```$", re.DOTALL | re.MULTILINE)
TINY = {
    "train_and_look": {"steps": 200},
    "your_own_images": {"count": 80, "steps": 50, "width": 4},
    "translate_your_images": {"steps": 50, "width": 2},
    "your_own_gan": {"steps": 100, "width": 8},
    "losses_in_your_project": {"steps": 5, "width": 8, "batch": 16},
    "sweep": {"steps": 200, "trials": 3, "width": 4},
    "evaluate_and_compare": {"steps": 200, "width": 4, "few": "1k", "more": "2k"},
    "another_machine": {"half": 50, "width": 4},
    "video": {"steps": 10, "width": 4},
    "plan_for_a_slice": {"slices": ("v5e:2x2",), "width": 8},
}
SLOWER = {"train_and_look", "evaluate_and_compare", "video"}
BEGIN = """
import os, pathlib, runpy, shlex, sys
os.chdir({home!r})

def command(line):
    program, *arguments = shlex.split(line)
    assert program == "gan-jax"
    sys.argv = [program, *arguments]
    try:
        runpy.run_module("gan_jax", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        assert not end.code, (line, end.code)
"""


def page(name):
    return (ROOT / "docs" / "tutorials" / f"{name}.md").read_text(encoding="utf-8")


def program(name, home):
    """Returns the cells of a tutorial as one program: commands and `%%writefile` as in a notebook."""
    parts, replaced = [BEGIN.format(home=str(home))], False
    for tags, cell in CELL.findall(page(name)):
        written = re.match(r"%%writefile (\S+)\n", cell)
        if written:
            cell = f"pathlib.Path({written[1]!r}).write_text({cell[written.end() :]!r})"
        parts.append(re.sub(r"^!(.*)$", lambda match: f"command(f{match[1]!r})", cell, flags=re.MULTILINE))
        if "parameters" in tags:
            assert not replaced and all(re.search(rf"\b{key}\b", cell) for key in TINY[name]), name
            parts, replaced = [*parts, *(f"{key} = {value!r}" for key, value in TINY[name].items())], True
    assert replaced, f"{name} has no cell tagged as parameters"
    return "\n".join(parts)


def test_every_tutorial_is_here():
    assert set(TINY) == {path.stem for path in (ROOT / "docs" / "tutorials").glob("*.md")}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name in SLOWER else pytest.mark.slow) for name in TINY]
)
def test_tutorial(name, tmp_path):
    file = tmp_path / "tutorial.py"
    file.write_text(program(name, tmp_path), encoding="utf-8")
    code, printed = start_module("tests.program", str(file), MPLBACKEND="Agg").finish()
    assert code == 0, printed
    for result in tmp_path.glob("runs/*/result.json"):
        assert json.loads(result.read_text())["status"] == "done", result
