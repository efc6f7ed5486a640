"""The cases, the tables and the scaling curves of the TPU benchmark, from costs whose curves are known."""

import re

import pytest
from PIL import Image

from benchmarks import tpu_report, tpu_scaling
from gan_jax.distributed import topology
from tests.conformance.games import GAMES
from tests.processes import ROOT, finish, start_module


def line(name, target, batch, cycles, size, kind="every", **more):
    target = topology.parse(target)
    links = target.seconds("all-reduce", size, target.size)
    costs = {
        "program": "training", "memory": {"arguments": 2**30, "temporaries": 2**20}, "fits": True, "operations": 2e9,
        "moved": 3e6, "exchanges": [["all-reduce", size, target.size, False, 1.0]],
        "seconds": {"cycles": cycles, "links": links}, "compile_seconds": 9.0,
    }  # fmt: skip
    case = {"kind": kind, "name": name, "topology": target.name, "batch_size": batch, "options": []}
    versions = {"commit": "0123456789abcdef"}
    return {"case": case, "costs": costs | more, "processor_seconds": 4.0, "images": batch, "versions": versions}


def test_each_config_and_game_is_compiled_for_each_slice_cheap_ones_first():
    code, printed = finish(start_module("benchmarks.tpu", "--list"))
    assert code == 0, printed
    words = re.findall(r"^(\w+) +((?:game )?\w+) +(v\w+:\w+) +batch", printed, re.MULTILINE)
    configs = {path.stem for path in (ROOT / "experiments" / "configs").glob("[!_]*.py")}
    slices = {"v5e:2x4", "v5e:16x16", "v6e:16x16", "v5p:8x8x8"}
    found = {(name.removeprefix("game "), target) for kind, name, target in words if kind == "every"}
    assert found == {(name, target) for name in configs | set(GAMES) for target in slices}
    assert words[0][1] == "ring" and words[-1][1] == "stylegan2_cifar10"


def test_where_efficiency_falls_only_the_links_grow():
    one = line("a", "v5p:8x8x8", 512, 1e-3, 10**6)
    curve = tpu_scaling.weak(one)
    assert list(curve) == [8, 16, 32, 64, 128, 256, 512] and curve[8] == 1.0
    links = topology.parse("v5p:8x8x8").seconds("all-reduce", 10**6, 512)
    first = topology.parse("v5p:2x2x2").seconds("all-reduce", 10**6, 8)
    assert curve[512] == pytest.approx((1e-3 + first) / (1e-3 + links))


def test_weak_curves_from_few_chips_are_compared_with_programs_for_many():
    few, many = (line("a", target, 8, 1e-3, 10**6) for target in ("v5e:2x4", "v5e:16x16"))
    assert list(tpu_scaling.weak(few)) == [8, 16, 32, 64, 128, 256]
    said = tpu_scaling.agreement([few, many, line("b", "v5e:2x4", 8, 1e-3, 0)])
    assert said.startswith("1 configs and games") and "in 1, and 1.000 to 1.000 of it in all" in said
    slower = line("a", "v5e:16x16", 8, 2e-3, 10**6)
    assert "in 0, and 0.5" in tpu_scaling.agreement([few, slower])
    assert tpu_scaling.agreement([few]) == ""


def test_where_a_config_stops_scaling_and_why():
    chips = {"v5e:2x4": 8, "v5e:4x4": 16, "v5e:4x8": 32}
    halves = [line("a", target, 32, 1e-3 / n, 0, "strong") for target, n in chips.items()]
    assert tpu_scaling.stop(tpu_scaling.strong(halves)) == ("32 or more", "a chip has one example")
    same = [line("a", target, 64, 1e-3, 0, "strong") for target in chips]
    assert tpu_scaling.stop(tpu_scaling.strong(same)) == (
        "8", "the chips still need 100% of the time for 50% of the batch",
    )  # fmt: skip
    linked = [line("a", target, 64, 1e-6 / n, 10**8, "strong") for target, n in chips.items()]
    stopped, reason = tpu_scaling.stop(tpu_scaling.strong(linked))
    assert stopped == "8" and reason.startswith("links take 100%")


def test_tables_and_picture(tmp_path):
    lines = [line("a", "v5e:2x4", 64, 1e-3, 10**6), line("a", "v5p:8x8x8", 4096, 1e-3, 10**6)]
    lines += [line("a", "v5e:4x4", 64, 6e-4, 10**6, "strong")]
    lines += [line("b", "v5e:2x4", 64, 0.0, 0, fits=False, seconds={}, exchanges=[])]
    lines += [line("game c", "v5e:2x4", 16, 1e-3, 0)]
    text = tpu_report.tables(lines, {"gan-jax train": "compiled"}, ["every: d on v5e:2x4"])
    assert text.index("| a |") < text.index("### Games of the conformance suite") < text.index("| game c |")
    assert "Results by commit: 5 at 012345678.\n\nNot compiled yet:\n\n- every: d on v5e:2x4" in text
    assert "| a | v5e:2x4 | 64 | 4 | 1,025 MiB, 6.4% | 2 | 3 | 1 all-reduce, 1 MB |" in text
    assert "| b | v5e:2x4 | 64 | 4 | 1,025 MiB, 6.4%, too much |" in text
    assert "### Scaling, by the model" in text and "```text\n$ gan-jax train\ncompiled\n```" in text
    assert all(f"[{name}](https://" in text for name in topology.CHIPS)
    tpu_scaling.draw(lines, tmp_path / "scaling.png")
    with Image.open(tmp_path / "scaling.png") as picture:
        assert picture.size[0] > 800
