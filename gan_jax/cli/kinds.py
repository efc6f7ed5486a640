"""Kinds of flags that the commands share: paths, and steps of checkpoints. A bad value ends in exit code 2."""

import math
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags

from gan_jax.host import user_path

flags.disclaim_key_flags()  # a flag belongs to the command that defines it, not to this module


class _Path(flags.ArgumentParser[str]):
    """Parses the path of a file or directory: `~` is expanded, and an empty path refused."""

    def __init__(self, empty: bool, bucket: bool) -> None:
        super().__init__()
        self.empty, self.bucket = empty, bucket

    def parse(self, argument: str) -> str:
        return "" if self.empty and not argument else str(user_path(argument, "the value", bucket=self.bucket))


class _Step(flags.ArgumentParser[str]):
    """Parses the step of a checkpoint: a number from 0, or one of a few words."""

    def __init__(self, words: Sequence[str]) -> None:
        super().__init__()
        self.words = words

    def parse(self, argument: str) -> str:
        # `isdecimal` is what `int` reads; `isdigit` is also true of such as a superscript two.
        if argument in self.words or (argument.isdecimal() and len(argument) < 19):
            return argument if argument in self.words else str(int(argument))
        raise ValueError(
            f"expected a number, {', '.join(self.words[:-1])}{' ' * (len(self.words) > 1)}or {self.words[-1]}"
        )


class _Number(flags.FloatParser):
    """Parses a finite number: the bounds of absl's parser let what is not a number pass."""

    def convert(self, argument: str | float) -> float:
        number = float(argument)
        if not math.isfinite(number):
            raise ValueError("expected a finite number")
        return number


class _Refusing(flags.ArgumentParser[str]):
    """Parses a text that must not be empty, as it is when a shell variable is not set."""

    def parse(self, argument: str) -> str:
        if not argument.strip():
            raise ValueError("expected a text; leave the flag out for the default")
        return argument


def _define(parser: flags.ArgumentParser[str], name: str, default: str | None, text: str, **options: Any) -> Any:
    return flags.DEFINE(parser, name, default, text, serializer=flags.ArgumentSerializer(), **options)


def path(
    name: str, default: str | None, text: str, *, empty: bool = False, required: bool = False, bucket: bool = False
) -> Any:
    """Defines a flag for a path; the value is a string with `~` expanded.

    Args:
      name: name of the flag.
      default: default value; None for none.
      text: description for `--help`.
      empty: whether the empty path has a meaning of its own.
      required: whether the flag must be given.
      bucket: whether it may be in a bucket, such as gs://bucket/run; see `place`.

    Returns:
      The holder of the flag.
    """
    return _define(_Path(empty, bucket), name, default, text, required=required)


def place(flag: Any) -> pathlib.Path:
    """Returns the path that the value of a flag names, which may be in a bucket."""
    return user_path(flag.value, f"--{flag.name}", bucket=True)


def step(name: str, default: str | None, text: str, *words: str) -> Any:
    """Defines a flag for the step of a checkpoint: a number, or one of the words."""
    return _define(_Step(words), name, default, text)


def number(name: str, text: str, **bounds: float) -> Any:
    """Defines a flag for a finite number, with `lower_bound` and `upper_bound`; None if the flag is left out."""
    return flags.DEFINE(_Number(**bounds), name, None, text, serializer=flags.ArgumentSerializer())


def given(name: str, text: str) -> Any:
    """Defines a flag for a text that cannot be empty; its value is None if the flag is left out."""
    return _define(_Refusing(), name, None, text)
