"""One command that uses nine minutes with an accelerator, or as long as --budget: seven parts, most important first.

Each part runs in a process of its own, with a deadline that holds even if a compiler hangs, and appends a line to
DIR/results.jsonl for everything that it has measured. SIGTERM or SIGINT end the command early, with all results so far.
The same command continues: what has a result of the same code on the same device is not measured again, compiled
programs are found in DIR/work, and the training of `stacked_mnist` goes on from its checkpoint. Nothing is installed or
downloaded. A part that needs a package, or a file, that is not there is skipped, and says so.

python -m benchmarks.accelerator --out=DIR                      everything, in less than nine minutes
python -m benchmarks.accelerator --out=DIR --parts=numerics     some parts
python -m benchmarks.accelerator --out=DIR --tiny               small sizes: a trial on a CPU
python -m benchmarks.accelerator --pack_mnist=FILE --data_dir=DIR  makes the file for --mnist from TFDS
python -m benchmarks.accelerator --table                        prints the recorded results; with --out those in DIR
python -m benchmarks.accelerator --write                        writes them into docs/accelerator.md; with --out it
                                                                records the results in DIR first
"""

import argparse
import fcntl
import os
import pathlib
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from typing import Any

from benchmarks.accelerator import plan
from benchmarks.accelerator.supervise import Ended, supervise

_STOPPED = 75  # exit code, as of the other commands: the same command continues
_INVALID = 2
_TRIES = 4  # processes of a part, if they crash
_LEAST = 30.0  # seconds of the shortest budget
_OWN = 4.0  # seconds that the command itself needs at its end


def arguments() -> argparse.ArgumentParser:
    """Makes the parser of the command line."""
    parts = "\n".join(f"  {name:14} {part.what}" for name, part in plan.PARTS.items())
    parser = argparse.ArgumentParser(
        "python -m benchmarks.accelerator", description=__doc__, epilog=f"parts, in order:\n{parts}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--out", type=pathlib.Path, help="directory of the results; a few small files")
    parser.add_argument("--work", type=pathlib.Path, help="directory of caches and checkpoints; DIR/work by default")
    parser.add_argument("--parts", default=",".join(plan.PARTS), help="names of the parts to run, separated by commas")
    parser.add_argument("--budget", type=float, default=540.0, help="seconds in all, 540 by default")
    parser.add_argument("--mnist", type=pathlib.Path, help="file with MNIST, in the format of Keras' mnist.npz")
    parser.add_argument("--tiny", action="store_true", help="small sizes, for a trial on a CPU")
    parser.add_argument("--again", action="store_true", help="run parts that are done once more")
    parser.add_argument("--try_anyway", action="store_true", help="run with versions that are too old")
    parser.add_argument("--table", action="store_true", help="run nothing: print the results")
    parser.add_argument("--write", action="store_true", help="run nothing: write the results into docs/accelerator.md")
    parser.add_argument("--pack_mnist", type=pathlib.Path, help="run nothing: make the file for --mnist")
    parser.add_argument("--data_dir", default="", help="directory in which TFDS prepared mnist, for --pack_mnist")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = arguments()
    options = parser.parse_args(argv)
    if options.pack_mnist:
        from benchmarks.accelerator import mnist  # noqa: PLC0415 - needs TFDS

        mnist.pack(options.pack_mnist, options.data_dir)
        return 0
    if options.table or options.write:
        from benchmarks.accelerator import report  # noqa: PLC0415 - imports JAX

        print(report.table_command(options.out, write=options.write))
        return 0
    names = [name for name in plan.PARTS if name in options.parts.split(",") or name == "machine"]
    if unknown := set(options.parts.split(",")) - set(plan.PARTS):
        parser.error(f"--parts={','.join(sorted(unknown))}: expected some of {', '.join(plan.PARTS)}")
    if not options.budget >= _LEAST:
        parser.error(f"--budget={options.budget:g}: expected {_LEAST:g} seconds or more")
    if options.out is None:
        parser.error("--out is missing: the directory of the results")
    if options.mnist and not options.mnist.is_file():
        parser.error(f"--mnist={options.mnist}: there is no such file; --pack_mnist makes it")
    if (faults := plan.shortcomings()) and not options.try_anyway:
        parser.error("; ".join(faults) + " (--try_anyway runs nevertheless)")
    return Command(options).run(names)


class Command:
    """One call of the command."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Makes the directories; they are used by one call at a time.

        Raises:
          SystemExit: if another call is using the directory, or it cannot be written.
        """
        self.options, self.began, self.stop = options, time.monotonic(), threading.Event()
        self.out = options.out.resolve()
        self.work = (options.work or self.out / "work").resolve()
        try:
            for directory in (self.out, self.work):
                directory.mkdir(parents=True, exist_ok=True)
            self.lock = (self.work / "lock").open("w")
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(_fault(f"--out={options.out}: another call is using it; wait for it, or use another directory"))
        except OSError as error:
            sys.exit(_fault(f"--out={options.out}: {error}; give a directory that can be written"))
        self.code, self.commit = plan.code(), plan.commit()
        self.began_at = time.time()
        self.since = self.began_at if options.again else 0.0

    @property
    def left(self) -> float:
        """Seconds of the budget that are left for parts."""
        return self.options.budget - _OWN - (time.monotonic() - self.began)

    def run(self, names: Sequence[str]) -> int:
        """Runs parts, and prints the summary. Returns the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop.set())
        statuses: dict[str, str] = {}
        for index, name in enumerate(names):
            statuses[name] = self._part(name, plan.allowance(max(self.left, 0.0), names[index:]))
            if name == "machine" and not self._has_device(statuses[name]):
                self._summarise(statuses)
                return _INVALID if statuses[name] == plan.SKIPPED else 1
        self._summarise(statuses)
        if self.stop.is_set():
            print("stopped; the same command continues")
            return _STOPPED
        return int(any(status in (plan.FAILED, plan.TIMEOUT) for status in statuses.values()))

    def _has_device(self, status: str) -> bool:
        """Whether the first part has found a device, even if it had no time to measure its rates."""
        new = [x for x in self._lines() if x["part"] == "machine" and x.get("time", 0.0) >= self.began_at]
        return status in (plan.DONE, plan.PARTIAL, plan.STOPPED) or any(x["name"] == "device" for x in new)

    def _part(self, name: str, seconds: float) -> str:
        """Runs a part, unless it is done; after a crash it runs again, while there is time. Returns how it ended."""
        if self.stop.is_set():
            return plan.STOPPED
        if name != "machine" and not self.options.again and self._is_done(name):
            print(f"{name}: done by an earlier call", flush=True)
            return plan.DONE
        over, status = time.monotonic() + min(seconds, self.left - plan.GRACE), plan.PARTIAL
        for _ in range(_TRIES):
            seconds = over - time.monotonic()
            if seconds < 1:
                print(f"{name}: no time left", flush=True)
                break
            print(f"{name}: {plan.PARTS[name].what}; {seconds:.0f} of {self.left:.0f} s", flush=True)
            status, crashed = self._process(name, seconds)
            if not crashed:
                break
        return status

    def _process(self, name: str, seconds: float) -> tuple[str, bool]:
        """Runs a part's process; returns how it ended, and whether it crashed. Records it if the part could not."""
        from benchmarks.accelerator.context import BEGINS, Context  # noqa: PLC0415 - imports JAX, once its version is known

        context = Context(
            name, self.out, self.work, self.options.tiny, time.time() + seconds, self.code, self.commit,
            str(self.options.mnist.resolve()) if self.options.mnist else "", self.since,
        )  # fmt: skip
        before, log = len(context.lines()), self.out / "log.txt"
        size = log.stat().st_size if log.exists() else 0
        ended = supervise(
            [sys.executable, "-m", "benchmarks.accelerator.child", context.dump()], self._environment(),
            where=plan.ROOT, log=log, seconds=seconds, grace=plan.GRACE, stop=self.stop,
        )  # fmt: skip
        new = context.lines()[before:]
        own = [line["status"] for line in new if line["name"] == "ended"]
        begun = re.findall(f"^{name}: {BEGINS}(.*)$", log.read_bytes()[size:].decode(errors="replace"), re.MULTILINE)
        cut = [unit for unit in begun if unit not in {line["name"] for line in new}]
        status = own[-1] if own else self._note(context, ended, cut)
        print(f"{name}: {status} after {ended.seconds:.0f} s", flush=True)
        return status, not own and self._crashed(ended)

    def _crashed(self, ended: Ended) -> bool:
        return ended.code < 0 and not ended.late and not self.stop.is_set()

    def _note(self, context: Any, ended: Ended, cut: Sequence[str]) -> str:
        """Records the end of a part that could not do so itself, with the units that it was in the middle of."""
        from gan_jax.host import append_line  # noqa: PLC0415 - imports JAX

        status = plan.STOPPED if self.stop.is_set() else plan.TIMEOUT if ended.late else plan.FAILED
        line = {"part": context.part, "name": "ended", "status": status, "tiny": context.tiny, "code": self.code}
        line |= {"device": self._device(), "in_the_middle_of": list(cut), "crashed": self._crashed(ended)}
        line |= {
            "exit_code": ended.code,
            "seconds": round(ended.seconds, 1),
            "output": ended.tail,
            "commit": self.commit,
        }
        append_line(self.out / "results.jsonl", line)
        return status

    def _lines(self) -> list[dict[str, Any]]:
        from benchmarks.accelerator.context import REMEDY, Line  # noqa: PLC0415 - imports JAX
        from gan_jax.host import read_lines  # noqa: PLC0415

        return read_lines(self.out / "results.jsonl", Line, remedy=REMEDY)

    def _is_done(self, name: str) -> bool:
        wanted = {
            "part": name, "name": "ended", "device": self._device(), "tiny": self.options.tiny, "code": self.code,
        }  # fmt: skip
        ends = [x["status"] for x in self._lines() if all(x.get(key) == value for key, value in wanted.items())]
        return bool(ends) and ends[-1] == plan.DONE

    def _device(self) -> str:
        """Returns the device that the first part has found; empty if it has found none."""
        return next((x["device"] for x in reversed(self._lines()) if x["part"] == "machine" and "device" in x), "")

    def _environment(self) -> dict[str, str]:
        defaults = {
            "JAX_COMPILATION_CACHE_DIR": str(self.work / f"compiled-{plan.processor()}"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        }
        return defaults | dict(os.environ) | {"PYTHONUNBUFFERED": "1"}

    def _summarise(self, statuses: dict[str, str]) -> None:
        from benchmarks.accelerator import report  # noqa: PLC0415 - imports JAX

        try:
            text = report.summary(self.out, self.code)
        except Exception:  # the results are there nevertheless, and the exit code tells of the parts
            text = f"the summary failed:\n{traceback.format_exc()}"
        (self.out / "summary.md").write_text(text + "\n", encoding="utf-8")
        print(f"\n{text}\n\n" + ", ".join(f"{name} {status}" for name, status in statuses.items()))
        print(f"results in {self.options.out}/results.jsonl and summary.md, output of the parts in log.txt")


def _fault(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return _INVALID


if __name__ == "__main__":
    sys.exit(main())
