"""Mutation testing: injects each fault of `benchmarks.fault_list` into a copy of the repository and runs the tests.

The tests near a fault run first; if they pass, the whole suite runs. A fault is caught when some test fails with the
fault and passes without it. A failure found by the whole suite must also occur a second time. The copy contains the
files of the working tree, tracked and untracked, as they are when the command starts. With --tests=REV the tests and
pyproject.toml are taken from a commit, so that older tests can be compared on the same faults. Tests that no longer fit
the library cannot be compared this way: the lines of 9b48e46 were recorded while its tests still fitted (with the
library of f1aceb5 to a7083ff).

python -m benchmarks.faults                     all faults, hours on two cores; appends to results/faults.jsonl
python -m benchmarks.faults --skip_done         only faults without a final result for these tests
python -m benchmarks.faults --only=core/rules   only faults with this text in their name or file
python -m benchmarks.faults --near_only         only the tests near each fault, not the whole suite
python -m benchmarks.faults --tests=HEAD~1      the same faults with the tests of another commit
python -m benchmarks.faults --check             runs nothing: checks that each fault can still be injected
python -m benchmarks.faults --table             runs nothing: prints the recorded results
python -m benchmarks.faults --write             runs nothing: writes that table into docs/testing.md
"""

import contextlib
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import app, flags

from benchmarks.fault_list import FAULTS, Fault
from benchmarks.measure import RESULTS, put, record, recorded, table
from gan_jax.runtime import duration

_ONLY = flags.DEFINE_string("only", "", "run only faults with this text in their name or file")
_TESTS = flags.DEFINE_string("tests", "", "commit whose tests to run; by default those of the working tree")
_CHECK = flags.DEFINE_bool(
    "check", False, "run nothing: check that every fault can be injected and that its tests exist"
)
_TABLE = flags.DEFINE_bool("table", False, "run nothing: print the newest result of each fault")
_WRITE = flags.DEFINE_bool("write", False, "run nothing: write that table into docs/testing.md")
_SKIP_DONE = flags.DEFINE_bool("skip_done", False, "skip faults that have a final result for these tests")
_NEAR_ONLY = flags.DEFINE_bool("near_only", False, "run only the tests near each fault, never the whole suite")
_LIMIT = flags.DEFINE_float("limit", 900.0, "time limit for the tests near a fault, in seconds", lower_bound=1.0)
_LIMIT_ALL = flags.DEFINE_float("limit_all", 7200.0, "time limit for the whole suite, in seconds", lower_bound=1.0)
_ROOT = RESULTS.parents[1]
_PYTEST = ("-m", "pytest", "-x", "-q", "-p", "no:cacheprovider")
_SIDE_BY_SIDE = ("-n", "2", "--dist", "loadgroup")
# A line of pytest's summary: a file and, if the file could be imported, a test with its parameters; xdist adds a group.
_SUMMARY = re.compile(r"(?:FAILED|ERROR) ([^\s:]+)(::[\w.:]+(?:\[.*?\](?=@| - |$))?)?(?:@[\w-]+)?(?: - .*)?")


class Ran(NamedTuple):
    """The outcome of a run of the tests.

    Attributes:
      code: pytest's exit code; None if the run exceeded the time limit.
      failed: ids of the tests that failed, in order.
      uncollected: files that could not be imported.
      output: pytest's output.
    """

    code: int | None
    failed: list[str]
    uncollected: list[str]
    output: str


def git(*words: str) -> bytes:
    """Runs a read-only git command and returns its output."""
    return subprocess.run(["git", "--no-optional-locks", *words], cwd=_ROOT, check=True, capture_output=True).stdout


def snapshot(target: pathlib.Path, revision: str) -> dict[str, Any]:
    """Copies the repository, with the tests of a commit if one is given.

    Args:
      target: directory to create.
      revision: commit of the tests; empty for those of the working tree.

    Returns:
      The identity of the tests: the commit, whether they differ from it, and a hash of their content.
    """
    names = git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split(b"\0")
    for name in sorted({os.fsdecode(name) for name in names if name}):
        if (_ROOT / name).is_file():  # git lists a deleted file until the deletion is committed
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(_ROOT / name, target / name)
    if revision:
        shutil.rmtree(target / "tests")
        with tarfile.open(fileobj=io.BytesIO(git("archive", revision, "tests", "pyproject.toml"))) as archive:
            archive.extractall(target, filter="data")
    digest = hashlib.sha256()
    for path in sorted([target / "pyproject.toml", *(target / "tests").rglob("*")]):
        if path.is_file():
            digest.update(f"{path.relative_to(target)}\n".encode() + path.read_bytes())
    changed = not revision and bool(git("status", "--porcelain", "--", "tests", "pyproject.toml"))
    commit = git("rev-parse", "--verify", f"{revision or 'HEAD'}^{{commit}}").decode().strip()
    return {"commit": commit, "dirty": changed, "sha256": digest.hexdigest()}


def environment(copy: pathlib.Path) -> dict[str, str]:
    """Returns environment variables with which Python imports the copy's packages, not the installed ones."""
    others = os.environ.get("PYTHONPATH", "")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(copy), *([others] if others else [])])}


def check_imports(copy: pathlib.Path) -> None:
    """Checks that Python imports the copy's packages, so that the tests test the copy."""
    packages = ("gan_jax", "experiments", "tests")
    code = f"import {', '.join(packages)}; print({', '.join(f'{name}.__file__' for name in packages)}, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=copy, env=environment(copy), check=True, capture_output=True, text=True
    )
    found = done.stdout.splitlines()
    expected = [str(copy / name / "__init__.py") for name in packages]
    if found != expected:
        raise RuntimeError(f"the tests would import {found}, expected {expected}")


def run_tests(copy: pathlib.Path, selection: Sequence[str], limit: float) -> Ran:
    """Runs tests of the copy until one fails. At the time limit, kills them and every process that they started.

    Args:
      copy: copy of the repository.
      selection: arguments of pytest that select the tests.
      limit: time limit in seconds.

    Returns:
      The outcome.
    """
    log = copy.with_name("output.txt")
    words = [sys.executable, *_PYTEST, f"--basetemp={copy.with_name('tmp')}", *selection]
    with log.open("w") as file:
        process = subprocess.Popen(
            words, cwd=copy, env=environment(copy), stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        code: int | None = None
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(limit)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the session includes processes that pytest left behind
            process.wait()
    output = log.read_text(errors="replace")
    failed, uncollected = failures(output)
    return Ran(code, failed, uncollected, output)


def failures(output: str) -> tuple[list[str], list[str]]:
    """Parses pytest's summary; returns the ids of failed tests, and the files that could not be imported."""
    _, found, summary = output.rpartition("short test summary info")
    named = [match for match in map(_SUMMARY.fullmatch, summary.splitlines()) if match] if found else []
    return [match[1] + match[2] for match in named if match[2]], [match[1] for match in named if not match[2]]


def change_hash(fault: Fault) -> str:
    """Returns a hash that identifies a fault by its edit, so that its results survive a change of its name."""
    return hashlib.sha256("\0".join((fault.file, fault.right, fault.wrong)).encode()).hexdigest()[:12]


def judge(fault: Fault, base: pathlib.Path, room: pathlib.Path) -> dict[str, Any]:
    """Injects a fault and runs the tests.

    Args:
      fault: the fault.
      base: copy of the repository without the fault.
      room: directory for the faulty copy and the files that tests write.

    Returns:
      Whether the fault was caught, by which test, at which stage, and in how many seconds.

    Raises:
      RuntimeError: if the tests say nothing about the fault: they fail without it too, fail only sometimes, or do not
        run.
    """
    copy, began = room / "copy", time.monotonic()
    for old in (copy, room / "tmp"):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(base, copy)
    check_imports(copy)
    fault.change(copy)
    stages = [("near", ["-n", "0", *fault.tests.split()], _LIMIT.value), ("all", [*_SIDE_BY_SIDE], _LIMIT_ALL.value)]
    found: dict[str, Any] = {"caught": False, "by": "", "stage": "near"}
    for stage, selection, limit in stages[:1] if _NEAR_ONLY.value else stages:
        found["stage"], ran = stage, run_tests(copy, selection, limit)
        if ran.failed or ran.uncollected:  # not by exit code: -x interrupts xdist, which then exits with 2
            again = ["-n", "0", ran.failed[0]] if ran.failed else ["--collect-only", *selection]
            if stage == "all" and run_tests(copy, again, limit).code == 0:
                raise RuntimeError(f"{again} fails only sometimes")
            shutil.copy2(base / fault.file, copy / fault.file)
            without = run_tests(copy, again, limit)
            if without.code != 0:
                raise RuntimeError(f"{again} fails without the fault too:\n{without.output[-3000:]}")
            found |= {"caught": True, "by": ran.failed[0] if ran.failed else f"import of {ran.uncollected[0]}"}
            break
        if ran.code is None:
            found["note"] = f"no end within {limit:g} s"
            break
        if ran.code != 0:
            raise RuntimeError(f"pytest {' '.join(selection)} exited with {ran.code}:\n{ran.output[-3000:]}")
    return found | {"seconds": round(time.monotonic() - began, 1)}


def newest(tests: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the last recorded line of each fault for these tests, by `change_hash`.

    A line that says "caught" counts for every uncommitted state of the tests on the same commit. A line that says "not
    caught" counts only for exactly the same tests, because a missing test may have been added since.
    """
    lines = {}
    for line in recorded("faults"):
        same = all(line["tests"][name] == tests[name] for name in ("commit", "dirty"))
        if same and (line["caught"] or line["tests"] == tests):
            lines[line["change"]] = line
    return lines


def is_done(line: Mapping[str, Any]) -> bool:
    """Whether a line is final: running the same tests again would add nothing."""
    whole = line["stage"] == "all" or _NEAR_ONLY.value
    return line["caught"] or (whole and "note" not in line)


def summary(tests: Mapping[str, Any], faults: Sequence[Fault]) -> tuple[str, int]:
    """Makes a table of the test that caught each fault; returns it with the number of faults that none caught."""
    known = newest(tests)
    lines = [(fault, known.get(change_hash(fault), {})) for fault in faults]
    rows: list[list[Any]] = [["fault", "file", "caught by"]]
    for fault, line in lines:
        where = {"near": " near", "all": ""}.get(line.get("stage", ""), "")
        missed = f"**nothing{where}**{', ' + line['note'] if 'note' in line else ''}" if line else "not run"
        rows.append([fault.name, f"`{fault.file}`", f"`{line['by']}`" if line.get("caught") else missed])
    caught = sum(line.get("caught", False) for _, line in lines)
    return f"{table(rows)}\n\n{caught} of {len(faults)} caught", len(faults) - caught


def page() -> str:
    """Makes the table of docs/testing.md: the newest result of each fault, from tests without uncommitted changes."""
    # By name, not by `change_hash`: an edit changes with the code around it.
    known = {line["fault"]: line for line in recorded("faults") if not line["tests"]["dirty"]}
    if missing := [fault.name for fault in FAULTS if fault.name not in known]:
        sys.exit(f"without a result: {'; '.join(missing)}: run python -m benchmarks.faults --only=NAME on a clean tree")
    rows: list[list[Any]] = [["fault", "file", "caught by", "tests of"]]
    for line in (known[fault.name] for fault in FAULTS):
        test = line.get("by", "").removeprefix("tests/").replace(".py::", "::")
        missed = {"near": "nothing near", "all": "nothing"}[line["stage"]]
        rows.append([line["fault"], f"`{line['file']}`", f"`{test}`" if test else missed, line["tests"]["commit"][:7]])
    caught = sum(known[fault.name].get("caught", False) for fault in FAULTS)
    return table([*rows, [f"caught, of {len(FAULTS)}", "", caught, ""]])


def main(argv: Sequence[str]) -> None:
    """Runs the faults, or checks or prints them."""
    del argv
    if _TABLE.value or _WRITE.value:
        print(page())
        if _WRITE.value:
            put(_ROOT / "docs" / "testing.md", "benchmarks.faults", page())
        return
    # SIGTERM becomes an exception, so that `run_tests` kills the tests before this process ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    faults = [fault for fault in FAULTS if _ONLY.value in fault.name or _ONLY.value in fault.file]
    if not faults:
        sys.exit(f"--only={_ONLY.value}: no fault has this text in its name or file")
    with tempfile.TemporaryDirectory(prefix="faults-") as directory:
        room = pathlib.Path(directory).resolve()
        base, errors, spent = room / "base", 0, 0.0
        tests = snapshot(base, _TESTS.value)
        problems = [f"{fault.name}: {problem}" for fault in faults if (problem := fault.problem(base))]
        if problems:
            sys.exit("\n".join(problems))
        if _CHECK.value:
            print(f"{len(faults)} faults can be injected, and their tests exist")
            return
        done = {change for change, line in newest(tests).items() if _SKIP_DONE.value and is_done(line)}
        left = [fault for fault in faults if change_hash(fault) not in done]
        for index, fault in enumerate(left):
            facts = {"fault": fault.name, "file": fault.file, "change": change_hash(fault)}
            began = time.monotonic()
            try:
                found = judge(fault, base, room)
            except RuntimeError as error:
                errors += 1
                shown = f"ERROR: {error}"
            else:
                record("faults", facts | found | {"tests": tests})
                shown = f"caught by {found['by']}" if found["caught"] else json.dumps(found)
            spent += time.monotonic() - began
            eta = duration(spent / (index + 1) * (len(left) - index - 1))
            print(f"[{index + 1}/{len(left)}] {fault.name}: {shown}; ETA {eta}", flush=True)
    text, missed = summary(tests, faults)
    print(f"\n{text}, by the tests of {tests['commit'][:12]}{', changed' if tests['dirty'] else ''}")
    if missed or errors:
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
