"""Slices of TPUs: their names, links between chips, and a compiler that is not installed. No wheel is needed."""

import importlib.util
import re
import types

import jax
import pytest

from gan_jax import runs
from gan_jax.cli import slices
from gan_jax.distributed import topology
from gan_jax.runtime import memory
from gan_jax.runtime.forecast import Forecast
from gan_jax.types import InvalidInputError
from tests.experiments.test_flags import refused

US = topology.HOP


@pytest.mark.parametrize(
    ("name", "shape", "size"),
    [
        ("v5e:2x4", (2, 4), 8),
        ("v5e:4x2", (4, 2), 8),
        ("v5p:4x4x12", (4, 4, 12), 192),
        ("v5e:2x2x1", (2, 2), 4),
        ("v5p:8x8x8", (8, 8, 8), 512),
        ("v6e:16x16", (16, 16), 256),
    ],
)
def test_names_of_slices(name, shape, size):
    target = topology.parse(name)
    assert (target.shape, target.size) == (shape, size) and target.chip is topology.CHIPS[name[:3]]
    assert topology.parse(target.name) == target


def test_documented_slices_are_parsed():
    for name, chip in topology.CHIPS.items():
        assert all(topology.parse(f"{name}:{shape}").chip is chip for shape in chip.shapes)
        assert chip.source.startswith("https://") and chip.flops > 1e14 and chip.memory > 15 * 2**30


@pytest.mark.parametrize(
    "name",
    [
        "",
        "v5e",
        "v5e:",
        "v5e:2x",
        "h100:8",
        "v5e:2,4",
        "v5p:2x2",
        "v5e:2x4x2",
        "v5e:0x4",
        "v5e:3x3",
        "v5e:32x32",
        "v5e:2x8",
        "v5p:1x1x1",
        "v4:32x32x32",
    ],
)
def test_other_names_are_refused_with_the_known_ones(name):
    with pytest.raises(
        InvalidInputError, match=r"(?s)topology=.*(expected|axes|no such slice).*v5e: 1x1, 2x2, 2x4.*v5p: 2x2x1"
    ):
        topology.parse(name)


def test_without_the_compiler_it_is_said_which_extra_has_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InvalidInputError, match=r"v5e:2x4.*libtpu.*no TPU is needed.*extra tpu"):
        topology.devices(topology.parse("v5e:2x4"))


def test_an_all_reduce_over_lines_and_rings():
    size, link = 8 * 10**6, topology.CHIPS["v5e"].link
    line = topology.parse("v5e:2x4")  # 1 + 3 hops, one link along each axis
    assert line.seconds("all-reduce", size, 8) == pytest.approx(2 * size * 7 / 8 / (2 * link) + 2 * 4 * US)
    rings = topology.parse("v5e:16x16")  # 8 + 8 hops, two links along each axis
    assert rings.seconds("all-reduce", size, 256) == pytest.approx(2 * size * 255 / 256 / (4 * link) + 2 * 16 * US)
    gather = rings.seconds("all-gather", size, 256)
    assert (
        gather
        == rings.seconds("reduce-scatter", size, 256)
        == pytest.approx(rings.seconds("all-reduce", size, 256) / 2)
    )


def test_parts_of_a_slice_and_chips_alone():
    target = topology.parse("v5p:8x8x8")
    one_axis = target.seconds("all-gather", 10**6, 8)  # a ring of 8: v5p links the ends of axes of 4 and more
    assert one_axis == pytest.approx(10**6 * 7 / 8 / (2 * target.chip.link) + 4 * US)
    part = target.seconds("all-gather", 10**6, 4)  # half of an axis is a line
    assert part == pytest.approx(10**6 * 3 / 4 / target.chip.link + 3 * US)
    assert target.seconds("all-reduce", 10**6, 1) == 0.0
    assert target.seconds("collective-permute", 10**6, 2) == pytest.approx(10**6 / target.chip.link + US)
    assert target.seconds("all-to-all", 10**6, 512) > target.seconds("all-gather", 10**6, 512)


def test_groups_that_interleave_share_links():
    target = topology.parse("v5p:8x8x8")
    link = target.chip.link
    every_second = target.seconds("all-gather", 10**6, 4, 2)  # a ring of 4 among 8: two groups on the same links
    assert every_second == pytest.approx(10**6 * 3 / 4 / link + 4 * US)
    assert target.seconds("all-gather", 10**6, 8, 8) == target.seconds("all-gather", 10**6, 8), "along another axis"
    columns = topology.parse("v5e:2x4").seconds("all-gather", 10**6, 2, 4)
    assert columns == pytest.approx(10**6 / 2 / topology.CHIPS["v5e"].link + US)


def test_the_memory_of_a_chip_that_is_not_there():
    device = types.SimpleNamespace(platform="tpu", device_kind="TPU v5 lite")
    assert memory.available(device) == topology.CHIPS["v5e"].memory
    assert topology.chip_of(jax.devices()[0]) is None


def test_what_makes_a_program_fit_is_what_takes_the_memory():
    """Splitting the players is said first where they are the larger part, with as many parts as it takes."""
    target, gib = topology.parse("v5e:2x4"), 2**30
    config = runs.load_module(runs.find("digits")).get_config()
    large = Forecast("training", 1.0, {"needed": 22 * gib}, fits=False)
    said = slices.remedy(large, target, config, state=12 * gib)
    assert "--config.fsdp=4 splits the players' arrays, 12.00 GiB" in said, said
    assert "microbatches" not in said and "remat" not in said
    said = slices.remedy(large, target, config, state=gib)
    assert re.search(r"(?s)microbatches=2 .*remat=True .*fsdp=8 .*below 64, or more chips", said), said
    config.batch_size = 8
    said = slices.remedy(large, target, config, state=gib)
    assert "microbatches" not in said and "below" not in said and "chips with more memory" in said


def test_flags_that_contradict_each_other():
    assert "--topology=v5e:2x4 needs --dry_run" in refused("train", "--topology=v5e:2x4")
    assert "topology='v9:2x4': expected a chip" in refused("train", "--dry_run", "--topology=v9:2x4")
    assert "along 2 axes" in refused("sweep", "--dry_run", "--topology=v5e:2x4x4")
    assert "--dry_run is for --engine=population" in refused("sweep", "--dry_run", "--engine=local")
