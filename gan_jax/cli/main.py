"""The entry point `gan-jax COMMAND`."""

import importlib
import sys
from collections.abc import Sequence

_COMMANDS = {
    "train": "trains a GAN, or continues where it stopped",
    "sample": "draws samples of a trained run, as a picture",
    "evaluate": "computes metrics of a trained run",
    "sweep": "trains many trials, in one program or many processes",
}
_WITH_CONFIG = ("train", "sweep")


def main(before: Sequence[str] = ()) -> None:
    """Runs the command named by the first argument.

    Args:
      before: arguments placed before those of the command line, such as `['train']`.
    """
    words = [*before, *sys.argv[1:]]
    if not words or words[0] in ("-h", "--help", "help"):
        print(_usage())
        sys.exit(0)
    if words[0] == "--version":
        print(importlib.import_module("gan_jax").__version__)
        sys.exit(0)
    verb, *rest = words
    if verb not in _COMMANDS:
        print(f"error: unknown command {verb!r}\n\n{_usage()}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"gan-jax {verb}", *rest]
    # Only this command is imported: commands define flags of the same names, and importing one imports JAX.
    command = importlib.import_module(f"gan_jax.cli.{verb}")
    importlib.import_module("gan_jax.cli.flags").run(command, config=verb in _WITH_CONFIG)


def _usage() -> str:
    lines = [f"  gan-jax {name:10}{text}" for name, text in _COMMANDS.items()]
    return "\n".join(["gan_jax: generative adversarial networks in JAX", "", *lines, "", "See gan-jax COMMAND --help."])
