"""Every block of Python in README and docs runs as printed, with small numbers, or is marked as what it is.

Above a block, `<!-- fragment -->` says that it is a part of something, and `<!-- needs ... -->` that it needs what is
not here. Blocks of most pages run in the tests of these pages; those of other pages run here, in one process. The
commands that a beginner meets first run here too, page after page in one directory.
"""

import re
import shlex

import pytest

from tests.processes import ROOT, run, start_module

BLOCK = re.compile(r"^(?:<!-- (fragment|needs [\w ]+) -->\n)?```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ELSEWHERE = {  # the file of tests that runs all blocks of a page
    "README.md": "test_readme",
    "docs/losses.md": "test_docs",
    "docs/adding_a_gan.md": "test_pages",
    "docs/your_own_data.md": "test_pages",
    "docs/your_own_experiment.md": "test_pages",
}
HERE = {  # what is written smaller in the blocks of a page, and what a page needs to be there before
    "docs/start.md": ({"steps=2000": "steps=2, steps_per_dispatch=2, report_every=2, checkpoint_every=2, width=4"}, ""),
    "docs/evaluation.md": ({"(2, 5000, 64)": "(2, 1000, 8)"}, ""),
    "docs/sweeps.md": (
        {
            "steps=4000": "steps=20, steps_per_dispatch=10, report_every=10, checkpoint_every=20, width=4",
            "evaluate_every=1000": "evaluate_every=10",
            "range(4)": "range(2)",
            "Halving(1000)": "Halving(10)",
        },
        "",
    ),
    "docs/tokenizers.md": ({}, ""),
    "docs/gans_and_vaes.md": (
        {"components=10": "components=2"},
        "from gan_jax import runs, runtime\n"
        "few = {'steps': 2, 'steps_per_dispatch': 2, 'report_every': 2, 'checkpoint_every': 2, 'width': 4}\n"
        "runtime.train(runs.build('vae_digits', **few), 'runs/vae_digits')",
    ),
    "docs/export.md": ({}, "from gan_jax import runs\nruns.export('runs/python', 'digits_model')"),
}
BEGIN = ("docs/start.md", "docs/training.md", "docs/evaluation.md", "docs/export.md")  # pages whose commands run here
PLACEHOLDER = re.compile(r"=(?:DIR|NAME/MODEL)\b")
SMALL = [f"--config.{key}" for key in ("steps_per_dispatch=10", "report_every=10", "checkpoint_every=20", "width=4")]
SMALLER = {"steps=1000": "steps=20", "evaluate_every=1000": "evaluate_every=10", "10k": "1k", "fcd2k": "fcd1k"}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FOUND = {str(page.relative_to(ROOT)): BLOCK.findall(page.read_text(encoding="utf-8")) for page in PAGES}


def test_every_block_runs_or_is_marked():
    for page, blocks in FOUND.items():
        unmarked = [block for mark, block in blocks if not mark]
        how = "put <!-- fragment --> above them, or add the page to tests/test_blocks.py"
        assert not unmarked or page in ELSEWHERE or page in HERE, (
            f"{page} has blocks of Python that nothing runs: {how}"
        )
    runs = sum(not mark for blocks in FOUND.values() for mark, _ in blocks)
    assert runs >= 25, "blocks that run"


@pytest.mark.slow
def test_blocks_run_as_printed(tmp_path):
    parts, count = [f"import os\nos.chdir({str(tmp_path)!r})"], 0
    for page, (smaller, before) in HERE.items():
        parts.append(before)
        text = "\n".join(block for mark, block in FOUND[page] if not mark)
        for old, new in smaller.items():
            assert old in text, f"{page} no longer has {old}"
            text = text.replace(old, new)
        parts.append(f"{text}\nprint('ran', {page!r})")
        count += 1
    file = tmp_path / "blocks.py"
    file.write_text("\n".join(parts), encoding="utf-8")
    code, printed = start_module("tests.program", str(file)).finish()
    assert code == 0 and printed.count("ran docs/") == count, printed


def commands(page):
    """Returns the commands of a page's blocks, one a line, without those that need what only the reader has."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = "".join(re.findall(r"^```bash\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)).replace("\\\n", "")
    return [line for line in lines.splitlines() if line.startswith("gan-jax ") and not PLACEHOLDER.search(line)]


@pytest.mark.slow
def test_the_first_commands_run_one_after_the_other(tmp_path):
    """As on the pages: later ones take what earlier ones made, and none refuses a run that has ended."""
    count = 0
    for line in (line for page in BEGIN for line in commands(page)):
        for old, new in SMALLER.items():
            line = line.replace(old, new)
        for place in ("--workdir=", "--out="):
            line = line.replace(place, f"{place}{tmp_path}/")
        _, command, *flags = shlex.split(line)
        if command == "train":
            flags += SMALL if any("config.steps=" in flag for flag in flags) else [*SMALL, "--config.steps=20"]
        run(command, *flags, XDG_CACHE_HOME=str(tmp_path / "cache"))
        count += 1
    assert count == 7 and {"grid.png", "digits_model"} <= {path.name for path in tmp_path.iterdir()}
