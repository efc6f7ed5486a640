"""Whether the tests notice: each fault of `benchmarks.fault_list` is made in a copy of the repository, and they run.

First the tests near a fault, then, where those pass, all of them. A fault is caught when a test fails with it that
passes without it; one that is found among all tests must fail twice. Copies are of the files that git tracks and of new
ones, as they lie in the working tree when this begins; with --tests=REV the tests (and pyproject.toml) are those of a
commit, so that older tests meet the same faults. Tests that the library has grown away from can't tell any more: the
lines of 9b48e46 were made while they still fitted (with the library of f1aceb5 to a7083ff).

python -m benchmarks.faults                     all, hours on two cores; appends to results/faults.jsonl
python -m benchmarks.faults --skip_done         those that these tests have not caught yet
python -m benchmarks.faults --only=core/rules   those with this in their name or file; --near_only: no whole suite
python -m benchmarks.faults --tests=HEAD~1      the same faults, other tests
python -m benchmarks.faults --check             whether each fault can still be made; runs nothing
python -m benchmarks.faults --table             what is recorded; --write puts it into docs/testing.md
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

_ONLY = flags.DEFINE_string("only", "", "those faults that have this in their name or file")
_TESTS = flags.DEFINE_string("tests", "", "commit whose tests are to notice; the working tree's by default")
_CHECK = flags.DEFINE_bool("check", False, "run nothing: can every fault be made, and are its tests there?")
_TABLE = flags.DEFINE_bool("table", False, "run nothing: print what is recorded, by the first and the last tests")
_WRITE = flags.DEFINE_bool("write", False, "the same, into its page")
_SKIP_DONE = flags.DEFINE_bool("skip_done", False, "leave out what is recorded of these tests")
_NEAR_ONLY = flags.DEFINE_bool("near_only", False, "where the near tests pass, leave it at that")
_LIMIT = flags.DEFINE_float("limit", 900.0, "seconds for the tests near a fault", lower_bound=1.0)
_LIMIT_ALL = flags.DEFINE_float("limit_all", 7200.0, "seconds for all tests", lower_bound=1.0)
_ROOT = RESULTS.parents[1]
_PYTEST = ("-m", "pytest", "-x", "-q", "-p", "no:cacheprovider")
_SIDE_BY_SIDE = ("-n", "2", "--dist", "loadgroup")
# A line of pytest's summary: a file, and where it could be imported a test with its parameters; xdist adds the group.
_SUMMARY = re.compile(r"(?:FAILED|ERROR) ([^\s:]+)(::[\w.:]+(?:\[.*?\](?=@| - |$))?)?(?:@[\w-]+)?(?: - .*)?")


class Ran(NamedTuple):
    """How tests ended.

    Attributes:
      code: pytest's exit code; None if they had not ended at the limit.
      failed: ids of tests that failed, the first one first.
      uncollected: files that could not be imported.
      output: what pytest printed.
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
      target: a directory that is not there yet.
      revision: whose tests; empty for those of the working tree.

    Returns:
      Which tests they are: the commit, whether they differ from it, and a hash of them.
    """
    names = git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split(b"\0")
    for name in sorted({os.fsdecode(name) for name in names if name}):
        if (_ROOT / name).is_file():  # what is deleted is tracked until the commit
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
    """In which the copy's packages are imported, not those that the environment was installed from."""
    others = os.environ.get("PYTHONPATH", "")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(copy), *([others] if others else [])])}


def check_imports(copy: pathlib.Path) -> None:
    """Makes sure that what would be tested is the copy."""
    packages = ("gan_jax", "experiments", "tests")
    code = f"import {', '.join(packages)}; print({', '.join(f'{name}.__file__' for name in packages)}, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=copy, env=environment(copy), check=True, capture_output=True, text=True
    )
    found = done.stdout.splitlines()
    expected = [str(copy / name / "__init__.py") for name in packages]
    if found != expected:
        raise RuntimeError(f"imported are {found}, expected {expected}")


def run_tests(copy: pathlib.Path, selection: Sequence[str], limit: float) -> Ran:
    """Runs tests of the copy until one fails; at the limit they are killed with all that they have started.

    Args:
      copy: of the repository.
      selection: arguments of pytest.
      limit: in seconds.

    Returns:
      How they ended.
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
                os.killpg(process.pid, signal.SIGKILL)  # also what pytest has left behind
            process.wait()
    output = log.read_text(errors="replace")
    failed, uncollected = failures(output)
    return Ran(code, failed, uncollected, output)


def failures(output: str) -> tuple[list[str], list[str]]:
    """Parses pytest's summary into ids of failed tests, and files that could not be imported."""
    _, found, summary = output.rpartition("short test summary info")
    named = [match for match in map(_SUMMARY.fullmatch, summary.splitlines()) if match] if found else []
    return [match[1] + match[2] for match in named if match[2]], [match[1] for match in named if not match[2]]


def change_hash(fault: Fault) -> str:
    """Identifies a fault by its edit, so that rewording its name keeps its results."""
    return hashlib.sha256("\0".join((fault.file, fault.right, fault.wrong)).encode()).hexdigest()[:12]


def judge(fault: Fault, base: pathlib.Path, room: pathlib.Path) -> dict[str, Any]:
    """Makes a fault, and runs the tests.

    Args:
      fault: which.
      base: the repository without it.
      room: a directory for a copy, and what tests write.

    Returns:
      Whether it was caught, by what, at which stage, and how long that took.

    Raises:
      RuntimeError: if the tests tell nothing about it: they fail without the fault too, or do not run.
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
        if ran.failed or ran.uncollected:  # whose exit code xdist makes 2, not 1, as -x interrupts it
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

    That a fault was caught counts for all states of a changed working tree on a commit; that it was not, for the very
    same tests, as those that are missing may have been added.
    """
    lines = {}
    for line in recorded("faults"):
        same = all(line["tests"][name] == tests[name] for name in ("commit", "dirty"))
        if same and (line["caught"] or line["tests"] == tests):
            lines[line["change"]] = line
    return lines


def is_done(line: Mapping[str, Any]) -> bool:
    """Whether a line says all that running the tests again would."""
    whole = line["stage"] == "all" or _NEAR_ONLY.value
    return line["caught"] or (whole and "note" not in line)


def summary(tests: Mapping[str, Any], faults: Sequence[Fault]) -> tuple[str, int]:
    """Makes a table of which test caught each fault, and counts those that none caught."""
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
    """Makes the table of docs/testing.md: by the first and the last tests that have met every fault."""
    lines = [line for line in recorded("faults") if not line["tests"]["dirty"]]
    known = {(line["fault"], line["tests"]["commit"]): line for line in lines}  # an edit moves with its code
    commits = list(dict.fromkeys(line["tests"]["commit"] for line in lines))
    whole = [commit for commit in commits if all((fault.name, commit) in known for fault in FAULTS)]
    if not whole:
        sys.exit("no tests have met every fault yet: python -m benchmarks.faults")
    shown = dict.fromkeys([whole[0], whole[-1]])
    rows: list[list[Any]] = [["fault", "file", *(f"caught by the tests of {commit[:7]}" for commit in shown)]]
    counts = dict.fromkeys(shown, 0)
    for fault in FAULTS:
        row = [fault.name, f"`{fault.file}`"]
        for commit in shown:
            line = known.get((fault.name, commit), {})
            counts[commit] += line.get("caught", False)
            test = line.get("by", "").removeprefix("tests/").replace(".py::", "::")
            missed = {"near": "nothing near", "all": "nothing"}[line["stage"]] if line else "not run"
            row.append(f"`{test}`" if test else missed)
        rows.append(row)
    rows.append([f"caught, of {len(FAULTS)}", "", *counts.values()])
    return table(rows)


def main(argv: Sequence[str]) -> None:
    """See the module."""
    del argv
    if _TABLE.value or _WRITE.value:
        print(page())
        if _WRITE.value:
            put(_ROOT / "docs" / "testing.md", "benchmarks.faults", page())
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and not before the tests have been ended
    faults = [fault for fault in FAULTS if _ONLY.value in fault.name or _ONLY.value in fault.file]
    if not faults:
        sys.exit(f"--only={_ONLY.value}: no fault has this in its name or file")
    with tempfile.TemporaryDirectory(prefix="faults-") as directory:
        room = pathlib.Path(directory).resolve()
        base, errors, spent = room / "base", 0, 0.0
        tests = snapshot(base, _TESTS.value)
        problems = [f"{fault.name}: {problem}" for fault in faults if (problem := fault.problem(base))]
        if problems:
            sys.exit("\n".join(problems))
        if _CHECK.value:
            print(f"{len(faults)} faults can be made, and their tests are there")
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
