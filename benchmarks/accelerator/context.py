"""What a part knows: where results go, how much time is left, and which results are there already."""

import dataclasses
import importlib.metadata
import json
import pathlib
import platform
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent import futures
from typing import Any

from benchmarks.accelerator import plan
from gan_jax.host import append_line, read_lines

REMEDY = "remove the line, or use another --out"
Line = dict[str, Any]
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint", "torch")
BEGINS = "begins "  # before the name of a unit, in the output: what was interrupted is found by it
_WRITING = threading.Lock()
_ENDING = 3.0  # seconds before the deadline in which nothing is begun


class SkippedError(Exception):
    """Raised where a part cannot run here; the text says what is missing."""


@dataclasses.dataclass
class Context:
    """A part's context.

    Attributes:
      part: name of the part.
      out: directory of the results.
      work: directory of compiled programs, checkpoints and CPU values, which the next call uses again.
      tiny: whether to use sizes for a CPU.
      ends: time (`time.time`) at which the part is asked to stop.
      code: hash of the code.
      commit: commit of the code, if it is known.
      mnist: path of the file with MNIST; empty for none.
      since: time from which results count; earlier ones are measured again.
      left_out: units that were not reached.
      failed: units that failed.
    """

    part: str
    out: pathlib.Path
    work: pathlib.Path
    tiny: bool
    ends: float
    code: str
    commit: str
    mnist: str
    since: float = 0.0
    left_out: list[str] = dataclasses.field(default_factory=list)
    failed: list[str] = dataclasses.field(default_factory=list)

    @classmethod
    def parse(cls, text: str) -> "Context":
        """Makes a context from the text of `dump`."""
        values = json.loads(text)
        return cls(**values | {name: pathlib.Path(values[name]) for name in ("out", "work")})

    def dump(self) -> str:
        """Returns the context as text, for the part's process."""
        return json.dumps(dataclasses.asdict(self), default=str)

    @property
    def left(self) -> float:
        """Seconds until the part is asked to stop."""
        return self.ends - time.time()

    def lines(self) -> list[Line]:
        """Returns all results in the directory."""
        return read_lines(self.out / "results.jsonl", Line, remedy=REMEDY)

    def known(self, name: str) -> Line | None:
        """Returns the result of a unit, if this code has one on this device; errors do not count."""
        fields = self._identity() | {"name": name}
        found = [line for line in self.lines() if all(line.get(key) == value for key, value in fields.items())]
        good = [x for x in found if not x.keys() & {"error", "skipped"} and x["time"] >= self.since]
        return good[-1] if good else None

    def record(self, name: str, **values: Any) -> None:
        """Writes the result of a unit; it is on disk when this returns."""
        line = self._identity() | {"name": name} | values | {"commit": self.commit, "versions": versions()}
        line |= {"time": round(time.time(), 1)}
        with _WRITING:
            append_line(self.out / "results.jsonl", json.loads(json.dumps(line, default=_plain)))
        shown = {key: value for key, value in values.items() if not isinstance(value, dict | list)}
        print(f"{self.part}: {name}: {', '.join(f'{key} {_short(value)}' for key, value in shown.items())}", flush=True)

    def each(self, units: Mapping[str, Callable[[], Mapping[str, Any]]], *, workers: int = 1) -> None:
        """Runs units that have no result yet, in order, while there is time; a unit that fails does not end the part.

        Units in whose middle an earlier process has crashed come last, one at a time. One that has crashed alone is not
        tried again.

        Args:
          units: by name, functions that return the values to record. A value `ok` that is false makes the part fail.
          workers: number of units at a time; they compile side by side.
        """
        known = {name: line for name in units if (line := self.known(name))}
        self.failed += [name for name, line in known.items() if line.get("ok") is False]
        if known:
            print(f"{self.part}: known from an earlier call: {', '.join(known)}", flush=True)
        crashes = self._crashes()
        suspects = {name for crash in crashes for name in crash} - known.keys()
        culprits = {crash[0] for crash in crashes if len(crash) == 1} & suspects

        def one(name: str) -> None:
            if self.left < _ENDING:
                self.left_out.append(name)
            else:
                self._run(name, units[name])

        with futures.ThreadPoolExecutor(workers) as pool:
            list(pool.map(one, [name for name in units if name not in known and name not in suspects]))
        for name in [name for name in units if name in suspects - culprits]:
            one(name)
        for name in [name for name in units if name in culprits]:
            self.failed.append(name)
            self.record(name, error="has ended the process before; it is not tried again")

    def _crashes(self) -> list[list[str]]:
        """Returns, for each process of this part that a signal of its own has ended, the units in the middle."""
        wanted = self._identity() | {"name": "ended", "crashed": True}
        lines = [x for x in self.lines() if all(x.get(key) == value for key, value in wanted.items())]
        return [line["in_the_middle_of"] for line in lines]

    def _run(self, name: str, run: Callable[[], Mapping[str, Any]]) -> None:
        print(f"{self.part}: {BEGINS}{name}", flush=True)
        began = time.monotonic()
        try:
            values = dict(run())
        except ModuleNotFoundError as error:
            self.record(name, skipped=f"needs the package {error.name}")
        except Exception as error:
            traceback.print_exc()
            self.failed.append(name)
            self.record(name, error=f"{type(error).__name__}: {error}"[:500])
        else:
            if values.get("ok") is False:
                self.failed.append(name)
            self.record(name, **values, seconds=round(time.monotonic() - began, 2))

    def _identity(self) -> Line:
        import jax  # noqa: PLC0415 - finds the devices, which only a part's process may do

        device = jax.devices()[0].device_kind
        return {"part": self.part, "device": device, "tiny": self.tiny, "code": self.code}


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def missing(error: ModuleNotFoundError) -> str:
    """Returns the name of the package that an error misses; empty if it is one of this repository's own modules."""
    name = (error.name or "").split(".")[0]
    return "" if name in ("gan_jax", "benchmarks", "tests", "") else name


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


__all__ = ["Context", "Line", "SkippedError", "missing", "plan", "versions"]
