"""Tests of exact resume: runs that signals end again and again must end as uninterrupted ones do.

Each scenario of `benchmarks.storm_scenarios` runs a small command once without interruption, and then again and again
with signals at random moments: SIGKILL, SIGTERM, SIGINT, two of these, or SIGSTOP and later SIGCONT; while it starts,
compiles, trains, evaluates, saves, goes back after a divergence, prunes or copies members, or ends. A command that has
ended is started again, as a user would. At its end everything that it has left must be equal to what the uninterrupted
one has left: the hash of the state, every line of the logs, tables, pictures and kept checkpoints. All exit codes must
be the documented ones, and no process may go on beyond a time limit.

The scenario `digits` is another one, in `benchmarks.storm_digits`.

python -m benchmarks.storm                             all scenarios; appends a line for each to results/storm.jsonl
python -m benchmarks.storm --scenarios=lecam,halving   some of them
python -m benchmarks.storm --skip_done                 those without a line of this commit, seed and number of events
python -m benchmarks.storm --table                     runs nothing: prints the last result of each scenario
python -m benchmarks.storm --write                     runs nothing: writes that table into docs/testing.md
"""

import collections
import functools
import pathlib
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags

from benchmarks.measure import put, record, recorded, table
from benchmarks.storm_digits import storm
from benchmarks.storm_events import KINDS
from benchmarks.storm_scenarios import SCENARIOS, Storm
from gan_jax.runtime import duration
from gan_jax.runtime.environment import versions
from tests import processes as started

ROOT = pathlib.Path(__file__).parents[1]

DIGITS = "digits"
_SCENARIOS = flags.DEFINE_list("scenarios", [*SCENARIOS, DIGITS], "names of the scenarios to run")
_EVENTS = flags.DEFINE_integer("events", 20, "number of events in each scenario", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "seed of the random moments")
_SKIP_DONE = flags.DEFINE_bool("skip_done", False, "skip scenarios that this commit has passed with this seed")
_TABLE = flags.DEFINE_bool("table", False, "run nothing: print the last result of each scenario")
_WRITE = flags.DEFINE_bool("write", False, "run nothing: write that table into docs/testing.md")


def play(name: str, root: pathlib.Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Plays a scenario until its end or its first failure.

    Args:
      name: name of the scenario.
      root: empty directory for its runs.
      say: is called with a description of each event.

    Returns:
      The line to record: events by kind and phase, exit codes by kind, and the outcome, `equal` or what is wrong.
    """
    events, codes, facts, began = collections.Counter[str](), collections.Counter[str](), {}, time.monotonic()
    outcome = "equal"
    try:
        if name == DIGITS:
            for one in storm(root, _EVENTS.value, _SEED.value):
                facts = {"state_sha256": one.get("state_sha256"), "lines": one.get("lines")}
                if "kill" in one:
                    events[f"{one['kind']}, {one['processes']} processes"] += 1
                    codes[f"{one['kind']}: {' and '.join(map(str, one['codes']))}"] += 1
                    say(f"{one['kind']}, {one['processes']} processes: {one['codes']}")
        else:
            whole = Storm(name, root, _EVENTS.value, _SEED.value)
            for event, ended in whole.run():
                events[f"{event.kind}: {event.phase}"] += 1
                codes[f"{event.kind}: {' and '.join(map(str, ended)) or 'goes on'}"] += 1
                say(f"{event.kind} in {event.phase}: {ended or 'goes on'}")
                facts = {"laps": whole.laps, "starts": whole.starts}
            if "log" in whole.undisturbed:
                facts |= {"state_sha256": whole.undisturbed["result"]["state_sha256"]}
                facts |= {"lines": len(whole.undisturbed["log"])}
    except (AssertionError, TimeoutError) as error:
        outcome = str(error).split("\n")[0]
        say(f"failed; its files stay in {root}: {error}")
    return {
        "scenario": name, "seed": _SEED.value, "wanted": _EVENTS.value, "events": sum(events.values()),
        "kinds": dict(sorted(events.items())), "codes": dict(sorted(codes.items())), **facts, "outcome": outcome,
        "seconds": round(time.monotonic() - began),
    }  # fmt: skip


def is_done(name: str) -> bool:
    """Whether this commit, perhaps with changes, has passed a scenario with this seed and number of events."""
    now = {"scenario": name, "seed": _SEED.value, "wanted": _EVENTS.value, "outcome": "equal"}
    known = [x["versions"].get("commit", "") for x in recorded("storm") if now.items() <= x.items()]
    commit = versions().get("commit", "").removesuffix("-dirty")  # the lines themselves are such a change
    return commit in [one.removesuffix("-dirty") for one in known]


def summary() -> str:
    """Makes the table of the last result of each scenario."""
    lines = {line["scenario"]: line for line in recorded("storm") if "scenario" in line}
    rows: list[list[Any]] = [["scenario", "events", *KINDS, "others", "starts", "exit codes", "outcome"]]
    for name in [*SCENARIOS, DIGITS]:
        if name in lines:
            kinds, codes = collections.Counter[str](), collections.Counter[str]()
            for kind, times in lines[name]["kinds"].items():
                kinds[kind.split(":")[0]] += times
            for code, times in lines[name]["codes"].items():
                codes[code.split(": ")[1]] += times
            others = sum(times for kind, times in kinds.items() if kind not in KINDS)
            ends = ", ".join(f"{code} ({times})" for code, times in sorted(codes.items()))
            shown = [kinds[kind] for kind in KINDS]
            starts = lines[name].get("starts", "")
            rows.append([name, lines[name]["events"], *shown, others, starts, ends, lines[name]["outcome"]])
    return table(rows)


def main(argv: Sequence[str]) -> None:
    """Runs the scenarios and records their outcomes, or prints or writes the table; exits with 1 after a failure."""
    del argv
    if unknown := set(_SCENARIOS.value) - {*SCENARIOS, DIGITS}:
        raise app.UsageError(f"--scenarios={','.join(sorted(unknown))}: expected {', '.join([*SCENARIOS, DIGITS])}")
    if _TABLE.value or _WRITE.value:
        print(summary())
        if _WRITE.value:
            put(ROOT / "docs" / "testing.md", "benchmarks.storm", summary())
        return
    # A shell that starts this in the background ignores SIGINT, which the commands would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    started.adopt()
    wanted = [name for name in _SCENARIOS.value if not (_SKIP_DONE.value and is_done(name))]
    began, done, failed = time.monotonic(), 0, 0

    def say(name: str, what: str) -> None:
        nonlocal done
        done += 1
        whole = len(wanted) * _EVENTS.value
        left = (time.monotonic() - began) / done * max(0, whole - done)
        print(f"{done}/{whole}, ETA {duration(left)}: {name}: {what}", flush=True)

    for name in wanted:
        root = pathlib.Path(tempfile.mkdtemp(prefix="storm_"))
        try:
            line = play(name, root, functools.partial(say, name))
        finally:
            started.kill_left_over()
        record("storm", line)
        failed += line["outcome"] != "equal"
        if line["outcome"] == "equal":
            shutil.rmtree(root)
        print(f"{name}: {line['outcome']}, {line['events']} events in {line['seconds']} s", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    app.run(main)
