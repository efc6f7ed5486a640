"""The accelerator benchmark at tiny sizes: its parts, its deadlines, kills, missing packages, and its tolerances."""

import importlib
import itertools
import json
import math
import os
import pathlib
import signal
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from benchmarks import step_cases
from benchmarks.accelerator import chips, mnist, numerics, plan, report, supervise
from benchmarks.accelerator.cases import EXACT, Case
from benchmarks.accelerator.context import Context, SkippedError
from tests.processes import finish, start_module, when

KEY = jax.random.key(0)


def command(out, *flags, **env):
    return start_module("benchmarks.accelerator", f"--out={out}", "--tiny", *flags, **env)


def results(out):
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def ends(out):
    return {line["part"]: line["status"] for line in results(out) if line["name"] == "ended"}


def context(out, part="numerics", seconds=60.0, **changes):
    values = {"tiny": True, "ends": time.time() + seconds, "code": "c", "commit": "", "mnist": ""}
    return Context(part, out, out, **values | changes)


# Time.


def spent(budget, quick=()):
    """Returns the seconds of each part, if those that are not quick use all that they may."""
    left, found, waiting = budget, {}, list(plan.PARTS)
    while waiting:
        allowed = plan.allowance(left, waiting)
        name = waiting.pop(0)
        found[name] = min(allowed, 1.0) if name in quick else allowed
        left -= found[name]
    return found


def test_what_a_part_leaves_over_goes_to_those_after_it():
    usual, saved = spent(540.0, ["machine"]), spent(540.0, ["machine", "resume"])
    assert sum(usual.values()) == pytest.approx(540.0) == sum(saved.values())
    assert usual["steps"] / usual["resume"] == pytest.approx(plan.PARTS["steps"].share / plan.PARTS["resume"].share)
    names = list(plan.PARTS)
    after = names.index("resume") + 1
    assert all(saved[name] > usual[name] for name in names[after:]) and saved["numerics"] == usual["numerics"]


HANGS = """
import ctypes, faulthandler, os, signal, subprocess, sys, time
faulthandler.register(signal.SIGUSR1, all_threads=True)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("child", child.pid, flush=True)
def compiling():
    lock, library = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    library.pthread_mutex_lock(lock)
    library.pthread_mutex_lock(lock)  # never returns to the interpreter, whatever the signals: as a compiler
compiling()
"""


def supervised(code, tmp_path, seconds, stop=None, grace=0.5):
    return supervise.supervise(
        [sys.executable, "-c", code], os.environ, where=plan.ROOT, log=tmp_path / "log.txt", seconds=seconds,
        grace=grace, stop=stop or threading.Event(),
    )  # fmt: skip


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def test_a_hang_in_a_compiler_ends_at_the_deadline_with_all_its_processes_and_tells_where(tmp_path):
    ended = supervised(HANGS, tmp_path, 3.0)
    assert ended.late and ended.code == -signal.SIGKILL and ended.seconds < 60
    assert "in compiling" in ended.tail
    assert not alive(int(ended.tail.split("child ")[1].split()[0]))
    assert "in compiling" in (tmp_path / "log.txt").read_text()


def test_a_stop_ends_a_part_that_is_in_time(tmp_path):
    stop = threading.Event()
    threading.Timer(1.0, stop.set).start()
    ended = supervised("import time; print('begun', flush=True); time.sleep(600)", tmp_path, 600.0, stop, grace=30.0)
    assert not ended.late and ended.code == -signal.SIGTERM and ended.seconds < 30


def test_too_old_and_missing_packages_are_named(monkeypatch):
    assert set(plan.least_versions()) == set(plan.NEEDED) and not plan.shortcomings()
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.4.9" if name == "jax" else real(name))
    [fault] = plan.shortcomings()
    assert fault == f"jax is 0.4.9: {plan.least_versions()['jax']} or newer is needed"

    def lost(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", lost)
    assert [fault.split()[0] for fault in plan.shortcomings()] == list(plan.least_versions())


def test_a_unit_that_fails_does_not_end_the_others_and_is_tried_again(tmp_path, capsys):
    ran = []

    def unit(name, **values):
        def run():
            ran.append(name)
            if name == "broken" and ran.count(name) == 1:
                raise RuntimeError("RESOURCE_EXHAUSTED")
            return values

        return run

    units = {"first": unit("first", value=1), "broken": unit("broken"), "wrong": unit("wrong", ok=False)}
    here = context(tmp_path)
    here.each(units)
    assert ran == ["first", "broken", "wrong"] and here.failed == ["broken", "wrong"]
    assert "RuntimeError: RESOURCE_EXHAUSTED" in capsys.readouterr().err
    again = context(tmp_path)
    again.each(units)
    assert ran[3:] == ["broken"] and again.failed == ["wrong"]
    other = context(tmp_path, code="d")
    other.each({"first": units["first"]})
    assert ran[4:] == ["first"]  # a result of other code does not count
    new = context(tmp_path, since=time.time() + 1)
    new.each({"first": units["first"]})
    assert ran[5:] == ["first"]  # nor one from before `since`
    late = context(tmp_path, code="e", seconds=0.0)
    late.each(units)
    assert late.left_out == list(units) and len(ran) == 6
    missing = context(tmp_path, code="f")

    def needs():
        raise ModuleNotFoundError("no", name="a_package")

    missing.each({"needs": needs})
    assert results(tmp_path)[-1]["skipped"] == "needs the package a_package" and not missing.failed


def test_after_a_crash_the_suspects_run_alone_and_the_culprit_no_more(tmp_path):
    ran = []

    def units():
        return {name: lambda name=name: ran.append((name, threading.current_thread().name)) or {} for name in "abcd"}

    def crash(*names):
        ended = context(tmp_path)._identity() | {"name": "ended", "crashed": True, "in_the_middle_of": list(names)}
        with (tmp_path / "results.jsonl").open("a") as file:
            file.write(json.dumps(ended) + "\n")

    crash("b", "c")
    crash("c")
    here = context(tmp_path)
    here.each(units(), workers=2)
    assert {name for name, _ in ran[:2]} == {"a", "d"} and [name for name, _ in ran[2:]] == ["b"]
    assert ran[2][1] == threading.current_thread().name and here.failed == ["c"]
    assert "not tried again" in results(tmp_path)[-1]["error"]


# Numbers.


def truncated(x, bits):
    """Rounds float32 numbers to `bits` bits after the point, as tensor cores do with TF32."""
    scale = np.float32(2.0) ** (bits - np.floor(np.log2(np.abs(x))))
    return (np.round(x * scale) / scale).astype(np.float32)


def product(change):
    def arguments():
        return jax.random.normal(KEY, (64, 128)), jax.random.normal(KEY, (128, 32))

    def run(a, b):
        return {"product/value": change(np.asarray(a)) @ np.asarray(b), f"{EXACT}count": np.sum(np.asarray(a) > 0)}

    return Case(arguments, lambda precision: run, compiled=False)


@pytest.mark.parametrize(
    ("bits", "agrees"),
    [(23, ["float32", "tf32", "bfloat16"]), (10, ["tf32", "bfloat16"]), (2, [])],
)
def test_rounding_of_a_precision_agrees_in_it_and_in_coarser_ones_alone(bits, agrees):
    kept = numerics.reference(product(lambda x: x))
    found = {name: numerics.compared(product(lambda x: truncated(x, bits)), name, kept)["ok"] for name in numerics.UNIT}
    assert [name for name, ok in found.items() if ok] == agrees


def test_what_bfloat16_does_to_a_formula_is_measured():
    """A linear function has the same gradient for all arguments, so that no change of them shows how it is rounded."""

    def build(precision):
        dtype = jnp.bfloat16 if precision == "bfloat16" else jnp.float32

        def run(x):
            ones = jnp.ones(4000, dtype)
            return {"sum/value": jax.lax.fori_loop(0, 4000, lambda i, total: total + ones[i], dtype(0)) + 0 * x[0]}

        return run

    case = Case(lambda: (jnp.ones(2),), build)
    kept = numerics.reference(case)
    assert numerics.compared(case, "float32", kept)["ok"]
    assert not numerics.compared(case, "bfloat16", kept)["ok"]  # stops at 256
    kept |= numerics.own_deviations(case, "bfloat16", kept)
    assert numerics.compared(case, "bfloat16", kept)["ok"]


@pytest.mark.parametrize("fault", [lambda x: x * np.float32(1.0001), lambda x: np.where(x == x[3, 5], np.nan, x)])
def test_a_fault_is_seen_in_float32(fault):
    kept = numerics.reference(product(lambda x: x))
    found = numerics.compared(product(fault), "float32", kept)
    assert not found["ok"] and next(iter(found["worst"])) == "product/value"


def test_exact_values_must_be_equal():
    kept = dict(numerics.reference(product(lambda x: x)))
    kept[f"value/{EXACT}count"] = kept[f"value/{EXACT}count"] + 1
    found = numerics.compared(product(lambda x: x), "bfloat16", kept)
    assert not found["ok"] and found["of_tolerance"] == math.inf


def test_networks_of_the_conformance_suite_compute_in_a_dtype():
    games = importlib.import_module("tests.conformance.games")

    def traced(dtype):
        with games.computed_in(dtype):
            game = games.GAMES["dcgan"][0]()
        batch = {"real": jnp.zeros((4, 8, 8, 1))}
        return str(jax.make_jaxpr(lambda: game.sample(game.init(KEY, batch), KEY, 2))())

    assert "bf16" in traced("bfloat16") and "bf16" not in traced("float32")


def test_operations_of_a_step_are_those_of_its_products():
    """The ring's networks are dense layers, whose products can be counted by hand."""
    generator, critic = ([2, *step_cases.RING, 2], [2, *step_cases.RING, 1])
    forward, narrow = (sum(2 * a * b for a, b in itertools.pairwise(x)) for x in (generator, critic))
    first = 2 * 2 * step_cases.RING[0]  # no derivative by what a player's first layer takes
    discriminator = forward + 2 * (3 * narrow - first)
    of_generator = (3 * forward - first) + 2 * narrow
    case = step_cases.CASES["ring"]
    expected = case.batch * (discriminator + of_generator)
    assert 1.0 <= step_cases.model_operations(case, "float32") / expected < 1.05  # and some element-wise operations
    twice = step_cases.model_operations(case, "float32", 2 * case.batch)
    assert twice / step_cases.model_operations(case, "float32") == pytest.approx(2, rel=0.02)


def test_published_rates():
    assert (
        chips.peak_flops("NVIDIA H200")["bfloat16"] == chips.peak_flops("NVIDIA H100 80GB HBM3")["bfloat16"] == 989e12
    )
    assert chips.peak_flops("NVIDIA H200 NVL")["bfloat16"] < 989e12
    assert chips.peak_flops("TPU v5 lite") == {"bfloat16": 197e12} and chips.peak_flops("cpu") == {}
    assert all(
        chip.source.startswith("https://") and chip.flops["tf32"] <= chip.flops["bfloat16"] for chip in chips.GPUS
    )


# Text.


def line(name, part="numerics", device="NVIDIA H200", **values):
    return {"part": part, "name": name, "device": device, "tiny": False, "code": "c", "commit": "abc"} | values


def test_only_results_of_accelerators_are_recorded_once_and_written(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(
        "before\n<!-- written by python -m benchmarks.accelerator --write -->\n<!-- end of what is written -->\nafter"
    )
    monkeypatch.setattr(report, "RECORDED", tmp_path / "recorded.jsonl")
    monkeypatch.setattr(report, "PAGE", page)
    assert "has not run on one yet" in report.table_command(None, write=True) and "not run on one" in page.read_text()
    values = {"ok": False, "deviation": 0.5, "of_tolerance": 7.0, "worst": {"d/a|b": [7.0, 0.5]}}
    lines = [
        line("game a in tf32", **values, code="older"),
        line("game b in tf32", **values),
        line("game b in float32", **values | {"ok": True}),
        line("ended", "steps", status=plan.TIMEOUT, output="first\nin backend_compile"),
        line("ended", "fid", status=plan.TIMEOUT, output="", in_the_middle_of=["whole"]),
        line("dcgan bfloat16", "steps", error="RuntimeError: no memory"),
        line("device", "machine", "cpu"), line("x", tiny=True),
    ]  # fmt: skip
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    for _ in range(2):
        text = report.table_command(tmp_path, write=True)
    assert len((tmp_path / "recorded.jsonl").read_text().splitlines()) == 6
    assert "| game b | tf32 | NO | 5.0e-01 | 7.00 | d/a/b |" in text and "| game b | float32 | yes |" in text
    assert (
        "| steps | timeout | in backend_compile |" in text
        and "| fid | timeout | ended in the middle of whole |" in text
    )
    assert "RuntimeError: no memory" in text
    assert "game a" not in text and text in page.read_text() and page.read_text().endswith("after")


@pytest.fixture
def digits_file(tmp_path):
    """Scikit-learn's digits in the form of the file with MNIST."""
    found, path = load_digits(), tmp_path / "digits.npz"
    images = np.round(found.images * 255 / 16).astype(np.uint8)
    np.savez(path, x_train=images[:1500], y_train=found.target[:1500], x_test=images[1500:], y_test=found.target[1500:])
    return path


def test_mnist_from_a_file(digits_file, tmp_path):
    train, test = (mnist.load(str(digits_file), split) for split in ("train", "test"))
    assert len(train) == 1500 and len(test) == 297 and train.arrays["real"].shape[1:] == (8, 8, 1)
    with pytest.raises(SkippedError, match="--mnist=FILE"):
        mnist.load("", "train")
    np.savez(tmp_path / "other.npz", x_train=np.zeros(1))
    with pytest.raises(SkippedError, match="has no y_train: expected the format"):
        mnist.load(str(tmp_path / "other.npz"), "train")


# The command.


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--parts=steps,speed"], "--parts=speed: expected some of machine, numerics"),
        (["--budget=nan"], "--budget=nan: expected 30 seconds or more"),
        (["--mnist=nothing.npz"], "--mnist=nothing.npz: there is no such file; --pack_mnist makes it"),
    ],
)
def test_bad_flags(flags, told, tmp_path):
    code, output = finish(command(tmp_path, *flags))
    assert code == 2 and told in output and not (tmp_path / "results.jsonl").exists()


def test_without_an_accelerator_it_stops_and_says_so(tmp_path):
    process = start_module("benchmarks.accelerator", f"--out={tmp_path}")
    code, output = finish(process)
    assert code == 2 and "JAX finds no accelerator" in output and ends(tmp_path) == {"machine": plan.SKIPPED}


def package(directory, name, text):
    (directory / name).mkdir(parents=True)
    (directory / name / "__init__.py").write_text(text)
    return str(directory)


def test_missing_packages_and_files_skip_their_parts_by_name(tmp_path):
    path = package(tmp_path / "site", "orbax", "raise ModuleNotFoundError('there is no orbax', name='orbax')\n")
    process = command(tmp_path, "--parts=population,resume,stacked_mnist", PYTHONPATH=path, quick=True)
    code, output = finish(process)
    assert code == 0, output
    assert ends(tmp_path) == {"machine": plan.DONE} | dict.fromkeys(
        ("population", "resume", "stacked_mnist"), plan.SKIPPED
    )
    assert "| population | skipped | needs the package orbax |" in (tmp_path / "summary.md").read_text()


HANG = """
import ctypes
lock, library = ctypes.create_string_buffer(64), ctypes.CDLL(None)
library.pthread_mutex_lock(lock)
library.pthread_mutex_lock(lock)
"""


@pytest.mark.slow
@pytest.mark.long
def test_a_part_that_hangs_is_ended_and_the_next_one_runs(tmp_path):
    """The hang is in an import that does not return to the interpreter."""
    path = package(tmp_path / "site", "orbax", HANG)
    flags = "--parts=population,stacked_mnist", "--budget=50"
    code, output = finish(command(tmp_path, *flags, PYTHONPATH=path, quick=True))
    assert code == 1, output
    assert ends(tmp_path) == {"machine": plan.DONE, "population": plan.TIMEOUT, "stacked_mnist": plan.TIMEOUT}
    [hung] = [line for line in results(tmp_path) if line["part"] == "population"]
    assert "orbax/__init__.py" in hung["output"] and hung["device"] == "cpu"


@pytest.mark.long
def test_a_kill_in_the_middle_loses_nothing_and_the_second_call_continues(tmp_path):
    process = command(tmp_path, "--parts=numerics")
    when(process, lambda text: "functions in float32: ok" in text)
    process.kill()
    finish(process)
    known = [line["name"] for line in results(tmp_path) if line["part"] == "numerics"]
    assert "functions in float32" in known
    other = command(tmp_path, "--parts=numerics")
    when(other, lambda text: "numerics: " in text and " of " in text)
    code, output = finish(command(tmp_path, "--parts=numerics"))
    assert code == 2 and "another call is using it" in output
    code, output = finish(other)
    assert code == 0 and "known from an earlier call" in output, output
    units = [line["name"] for line in results(tmp_path) if line["part"] == "numerics" and line["name"] != "ended"]
    assert len(units) == len(set(units)) == 9
    code, output = finish(command(tmp_path, "--parts=numerics"))
    assert code == 0 and "numerics: done by an earlier call" in output


def test_a_part_that_crashes_runs_again(tmp_path):
    """The first process of the part aborts as it imports Orbax, as a compiler would; the second finds no Orbax."""
    mark = tmp_path / "crashed"
    text = f"""
import os, pathlib
if not pathlib.Path({str(mark)!r}).exists():
    pathlib.Path({str(mark)!r}).touch()
    os.abort()
raise ModuleNotFoundError('no', name='orbax')
"""
    path = package(tmp_path / "site", "orbax", text)
    code, output = finish(command(tmp_path, "--parts=population", PYTHONPATH=path, quick=True))
    found = [line for line in results(tmp_path) if line["part"] == "population"]
    assert [line["status"] for line in found] == [plan.FAILED, plan.SKIPPED] and code == 0, output
    assert found[0]["exit_code"] == -signal.SIGABRT and found[0]["crashed"]


@pytest.mark.slow
@pytest.mark.long
def test_all_parts_a_signal_and_a_second_call(tmp_path, digits_file):
    flags = f"--mnist={digits_file}", "--budget=1500"  # so that a busy machine comes to the end
    process = command(tmp_path, *flags)
    when(process, lambda text: "step 20/40" in text, timeout=1500)
    process.send_signal(signal.SIGTERM)
    code, output = finish(process)
    assert code == 75 and "the same command continues" in output, output
    expected = dict.fromkeys(plan.PARTS, plan.DONE)
    assert ends(tmp_path) == expected | {"stacked_mnist": plan.PARTIAL}
    code, output = finish(command(tmp_path, *flags))
    assert code == 0 and "continuing from the checkpoint" in output, output
    assert ends(tmp_path) == expected
    summary = (tmp_path / "summary.md").read_text()
    assert "NO" not in summary and "pairing_r1_r2" in summary and (tmp_path / "stacked_mnist.png").exists()
    trained = [line for line in results(tmp_path) if line["name"] == "pairing_r1_r2"]
    assert [line["status"] for line in trained] == ["stopped", "done"] and trained[-1]["images"] == 320
    assert not any("error" in line for line in results(tmp_path))
