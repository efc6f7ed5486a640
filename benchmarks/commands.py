"""What the commands print: the page of `--help` of each, and a short training session.

python -m benchmarks.commands            trains `digits` for 1,000 iterations and records what it prints
python -m benchmarks.commands --table    trains nothing: prints the help pages and the recorded session
python -m benchmarks.commands --write    trains nothing: writes them into docs/commands.md
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence

from absl import app, flags

from benchmarks.measure import RESULTS, put, record, recorded
from gan_jax.cli.main import COMMANDS

_TABLE = flags.DEFINE_bool("table", False, "train nothing: print the help pages and the recorded session")
_WRITE = flags.DEFINE_bool("write", False, "train nothing: write them into docs/commands.md")


def main(argv: Sequence[str]) -> None:
    """Records a session, or prints or writes the page."""
    del argv
    if not _TABLE.value and not _WRITE.value:
        with tempfile.TemporaryDirectory() as directory:
            workdir = f"{directory}/digits"
            session = printed("train", f"--workdir={workdir}", "--config.steps=1000")
            record("commands", {"session": session.replace(directory, "runs")})
    print(page())
    if _WRITE.value:
        put(RESULTS.parents[1] / "docs" / "commands.md", "benchmarks.commands", page())


def page() -> str:
    """Makes the sections of the page, in Markdown."""
    session = f"$ gan-jax train --workdir=runs/digits --config.steps=1000\n{recorded('commands')[-1]['session']}"
    texts = {f"gan-jax {verb} --help": printed(verb, "--help") for verb in COMMANDS} | {"A training session": session}
    return "\n\n".join(f"## {title}\n\n```text\n{text.strip()}\n```" for title, text in texts.items())


def printed(*words: str) -> str:
    """Runs a command and returns its output."""
    command = [sys.executable, "-m", "gan_jax", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    app.run(main)
