"""The text of `--help`: one page with the command's description, its own flags, and the keys of the config."""

import inspect
import os
import re
import sys
import textwrap
from collections.abc import Mapping
from typing import Any

from absl import flags

from gan_jax.runs.experiment_file import describe

_WIDTH, _NAMES = 80, 28  # columns of the page, and of the names on its left


def asked(argv: list[str]) -> str:
    """Returns `helpfull` or `help` if the arguments ask for all flags or for the help page, else an empty string."""
    words = {word.lstrip("-").partition("=")[0] for word in argv[1:] if word.startswith("-")}
    if "helpfull" in words:
        return "helpfull"
    return "help" if words & {"h", "help", "helpshort"} else ""


def page(command: Any, chosen: Mapping[str, Any]) -> str:
    """Formats the help page of a command.

    Args:
      command: module of the command.
      chosen: path, module and config of the experiment file; empty for a command without one.

    Returns:
      The text of the page, at most 80 columns wide.
    """
    own = sorted(flags.FLAGS.flags_by_module_dict()[command.__name__], key=lambda flag: flag.name)
    parts = [inspect.getdoc(command) or "", "Flags (--helpfull adds those for launching processes and for JAX):"]
    entries = [_entry(*_signature(flag)) for flag in own]
    if chosen:
        entries = sorted([*entries, _entry("--config=NAME", "name of a shipped config, or path of a file")])
    parts.append("\n".join(entries))
    if chosen:
        config = flags.FLAGS.config.to_dict()
        parts.append(f"Keys of {chosen['name']}, set by --config.KEY=VALUE:")
        keys = [
            _entry(f"{name}={_shown(config[name])}", text, lines=1) for name, text in describe(chosen["module"]).items()
        ]
        parts.append("\n".join(keys))
    return "\n\n".join(parts)


def show(text: str) -> None:
    """Prints a text; the reader may stop early, as `head` does."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        unread()


def unread() -> None:
    """Discards further output, whose reader has closed the pipe; Python would write into the pipe again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def whole(command: Any) -> str:
    """Formats the command's description, followed by every flag of the process, those of JAX and absl included."""
    return f"{inspect.getdoc(command)}\n{flags.FLAGS.get_help()}"


def _signature(flag: flags.Flag) -> tuple[str, str]:
    """Returns a flag with its default or the form of its values, and its text, which may begin with that form."""
    text = flag.help or ""
    if flag.boolean:
        return f"--{'no' if flag.default else ''}{flag.name}", text
    kind = {"int": "N", "float": "X", "comma separated list of strings": "A,B"}.get(flag.flag_type(), "TEXT")
    if form := re.match(r"([A-Z=,.:]+): ", text):
        kind, text = form[1], text[form.end() :]
    return f"--{flag.name}={_shown(flag.default) if flag.default not in (None, '', []) else kind}", text


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _entry(name: str, text: str, *, lines: int | None = None) -> str:
    """Formats a name and, beside it, its wrapped description; `lines=1` shortens the description to one line."""
    text = " ".join(text.split())
    if lines == 1:
        text = textwrap.shorten(text, max(_WIDTH - max(_NAMES, len(name) + 2) - 2, 20), placeholder=" ...")
    wrapped = textwrap.wrap(text, _WIDTH - _NAMES - 2) or [""]
    if len(name) > _NAMES - 2 and lines != 1:
        wrapped = ["", *wrapped]
    first, *rest = wrapped
    return "\n".join([f"  {name:{_NAMES - 2}}  {first}".rstrip(), *(f"{'':{_NAMES + 2}}{line}" for line in rest)])
