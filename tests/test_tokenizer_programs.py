"""The programs of docs/tokenizers.md: they are short, they train, and the page says what they are."""

import re
import runpy

import pytest

from tests.processes import ROOT

HOME = ROOT / "docs" / "examples" / "tokenizers"
PROGRAMS = sorted(HOME.glob("*.py"))


def test_the_page_has_a_row_for_each_and_their_lengths():
    text = (ROOT / "docs" / "tokenizers.md").read_text()
    told = dict(re.findall(r"^\| \[(\w+)\.py\]\(examples/tokenizers/\1\.py\) \| (\d+) \|", text, re.MULTILINE))
    assert {name: int(lines) for name, lines in told.items()} == {
        path.stem: len(path.read_text().splitlines()) for path in PROGRAMS
    }
    assert len(told) == 3 and max(map(int, told.values())) < 60


@pytest.mark.slow
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_programs_train(path):
    """The pixels' error falls before the discriminator joins, and on; at the end nearly all codes are in use."""
    log = runpy.run_path(str(path))["log"]
    pixels, used = zip(*log, strict=True)
    assert len(log) == 300
    assert pixels[99] < 0.4 * pixels[0] and pixels[-1] < 0.9 * pixels[99]
    assert used[-1] > 0.85  # of one batch


def test_the_game_of_the_page_is_built():
    text = (ROOT / "docs" / "tokenizers.md").read_text()
    program = next(code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "gans.tokenizer" in code)
    namespace = {"__name__": "program"}
    exec(compile(program, "tokenizers.md", "exec"), namespace)
    assert {"encode", "codes", "decode", "reconstruct", "sample"} <= set(namespace["game"].functions)
