"""The README's commands and code are what they say."""

import pathlib
import re
import shlex

from tests.processes import ROOT, run

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
    code = [block for kind, block in BLOCKS if kind == "python"]
    assert len(code) == 2 and "from gan_jax import load" in code[0]  # tested in tests/experiments
    exec(compile(code[1], "README.md", "exec"), {"__name__": "readme"})


def test_every_config_is_listed():
    configs = {path.stem for path in (ROOT / "experiments" / "configs").glob("*.py")} - {"__init__"}
    assert configs == set(re.findall(r"^\| `(\w+)`", TEXT, re.MULTILINE))


def test_links_and_pictures_are_there():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert pathlib.Path(page.parent, target).exists(), f"{page.name} links to {target}"


def test_constraints_pin_every_package_and_name_no_address():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines and all(re.fullmatch(r"[A-Za-z0-9_.-]+==[\w.+!-]+( ; [\w.'<>=! ]+)?", line) for line in lines)
    assert {line.partition("==")[2].partition(".2")[0] for line in lines if line.startswith("jax==")} == {"0.10", "0.11"}
