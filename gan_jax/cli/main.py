"""The entry point `gan-jax COMMAND`."""

import codecs
import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

COMMANDS = {
    "train": "trains a GAN, or continues where it stopped",
    "sample": "draws samples of a trained run, as a picture",
    "translate": "translates a folder of pictures by a trained run",
    "evaluate": "computes metrics of a trained run",
    "fetch": "downloads the weights of a feature network",
    "export": "writes a folder that others use without this library",
    "sweep": "trains many trials, in one program or many processes",
}
INTERRUPTED = 130  # exit code
_WITH_CONFIG = ("train", "sweep")


def main(before: Sequence[str] = ()) -> None:
    """Runs the command named by the first argument.

    Args:
      before: arguments placed before those of the command line, such as `['train']`.
    """
    # From here on: an import may turn an interrupt into another error, or lose it. Training replaces it by its own.
    signal.signal(signal.SIGINT, _interrupted)
    if isinstance(sys.stdout, io.TextIOWrapper) and codecs.lookup(sys.stdout.encoding).name != "utf-8":
        sys.stdout.reconfigure(errors="backslashreplace")  # a locale may lack the letters of a message
    words = [*before, *sys.argv[1:]]
    if not words or words[0] in ("-h", "--help", "help"):
        print(_usage())
        sys.exit(0)
    if words[0] == "--version":
        print(importlib.import_module("gan_jax").__version__)
        sys.exit(0)
    verb, *rest = words
    if verb not in COMMANDS:
        print(f"error: unknown command {verb!r}\n\n{_usage()}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"gan-jax {verb}", *rest]
    # Only this command is imported: commands define flags of the same names, and importing one imports JAX.
    command = importlib.import_module(f"gan_jax.cli.{verb}")
    importlib.import_module("gan_jax.cli.flags").run(command, config=verb in _WITH_CONFIG)


def _interrupted(number: int, frame: Any) -> None:
    """Ends the process at once, with the exit code that a shell gives to Ctrl-C. Nothing is left half-written."""
    del number, frame
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


def _usage() -> str:
    lines = [f"  gan-jax {name:10}{text}" for name, text in COMMANDS.items()]
    return "\n".join(["gan_jax: generative adversarial networks in JAX", "", *lines, "", "See gan-jax COMMAND --help."])
