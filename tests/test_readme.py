"""The README: its commands and code work as it says, and its tables and links are right."""

import pathlib
import re
import shlex
import tomllib

from tests.processes import ROOT, run, start_module

TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)


def test_the_first_two_blocks_are_one_line_each_and_install_what_they_run():
    (kind_a, train), (kind_b, test) = BLOCKS[:2]
    assert kind_a == kind_b == "bash" and train.count("\n") == test.count("\n") == 1
    assert "-c constraints.txt -e ." in train and "experiments.train" in train
    assert "-e '.[test]'" in test and "pytest" in test


def test_flags_of_the_commands_exist(tmp_path):
    train = shlex.split(BLOCKS[0][1].rsplit("experiments.train", 1)[1])
    assert "compiled in" in run("train", *train, "--dry_run")


def test_python_blocks_run(tmp_path):
    notebook, losses = [block for kind, block in BLOCKS if kind == "python"]
    assert len(notebook.splitlines()) < 15
    same = "\nimport numpy\nnumpy.testing.assert_allclose(again, samples, atol=1e-5)\nprint(samples.shape)\n"
    program = tmp_path / "program.py"
    program.write_text(notebook.replace("runs/notebook", str(tmp_path / "run")) + same)
    code, printed = start_module("tests.program", str(program)).finish()
    assert code == 0 and printed.endswith("(16, 8, 8, 1)\n"), printed
    exec(compile(losses, "README.md", "exec"), {"__name__": "readme"})


def test_every_config_is_listed():
    configs = {path.stem for path in (ROOT / "experiments" / "configs").glob("*.py")} - {"__init__"}
    listed = (ROOT / "docs" / "configs.md").read_text().partition("## What")[0]
    assert configs == set(re.findall(r"^\| `(\w+)`", listed, re.MULTILINE)), "add a row to docs/configs.md"


def test_links_and_pictures_are_there():
    """The README's links are absolute, because it is also the package's page on an index."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    home = urls["Repository"].removeprefix("https://github.com/")
    for target in re.findall(r"(?:\]\(|src=\")([^)#\"]+)[)\"]", TEXT):
        found = re.fullmatch(rf"https://(?:github.com/{home}/blob|raw.githubusercontent.com/{home})/main/(.*)", target)
        assert found and (ROOT / found[1]).exists(), f"README.md links to {target}"
    for page in (ROOT / "docs").rglob("*.md"):
        prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", prose):
            assert pathlib.Path(page.parent, target).exists(), f"{page.name} links to {target}"


def test_constraints_pin_every_package_and_name_no_address():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines and all(re.fullmatch(r"[A-Za-z0-9_.-]+==[\w.+!-]+( ; [\w.*'<>=! ]+)?", line) for line in lines)
    jax = {line.partition("==")[2].partition(" ")[0] for line in lines if line.startswith("jax==")}
    assert {version.rpartition(".")[0] for version in jax} == {"0.10", "0.11"}
