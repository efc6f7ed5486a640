"""Costs of compiled programs, from a stored text of the TPU compiler's and from programs for CPUs. No wheel is needed.

`tpu_program.txt` is a loop of a hidden number of iterations for v5e:2x2. Each gathers 4 examples of 8x8x32 a chip from
1,000 rows, takes three gradient steps (a 3x3 convolution to 64 channels and its kernel's gradient, then an all-reduce),
and in the scope `lazy`, in every fourth iteration, a convolution of stride 2.
"""

import pathlib

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from gan_jax.distributed import topology
from gan_jax.runtime import costs, forecast, hlo
from gan_jax.types import InvalidInputError
from tests.conformance.games import GAMES

TEXT = (pathlib.Path(__file__).parent / "tpu_program.txt").read_text()
STEP = 2 * 4 * 32 * 64 * 22**2  # 22 pairs of a tap and a result meet one of 8 pixels, along each axis
LAZY = 2 * 4 * 32 * 64 * 11**2
V5E = topology.parse("v5e:2x2")


def operations(iterations=1, share=None):
    module = hlo.parse(TEXT)
    found = hlo.executed(module, iterations, share)
    return sum(one.times * costs.operations(module, one.instruction, one.computation)[0] for one in found)


def test_loops_are_counted_as_often_as_they_run_and_conditions_by_their_share():
    assert operations() == 3 * 2 * STEP + LAZY
    assert operations(5) == 5 * operations()
    assert operations(5, {"lazy": 0.25}) == 5 * (3 * 2 * STEP + LAZY / 4)
    assert operations(5, {"other": 0.25}) == operations(5)


def test_collectives_have_their_bytes_and_groups():
    module = hlo.parse(TEXT)
    found = [(costs.collective(one), one.times) for one in hlo.executed(module, 5)]
    assert [x for x in found if x[0]] == [
        (costs.Collective("all-reduce", 3 * 3 * 32 * 64 * 4, 4, False), 15.0),
        (costs.Collective("all-reduce", 4, 4, False), 5.0),
    ]


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("replica_groups=mesh['a'=4,'b'=2] {'a'}", [0, 2, 4, 6]),
        ("replica_groups=mesh['a'=4,'b'=2] {'a','b'}", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("replica_groups=mesh['a'=1,'b'=2,'c'=4], device_ids=([4,2]T(1,0)) {'b'}, dimensions={2}", [0, 1]),
        ("replica_groups=mesh['a'=1,'b'=2,'c'=4], device_ids=([4,2]T(1,0)) {'c'}, dimensions={2}", [0, 2, 4, 6]),
        ("replica_groups=mesh['a'=2,'b'=4], device_ids=([8]) {'b'}", [0, 1, 2, 3]),
        ("replica_groups=[2,4]<=[8]", [0, 1, 2, 3]),
        ("replica_groups=[2,4]<=[4,2]T(1,0)", [0, 2, 4, 6]),
        ("replica_groups={{0,1},{2,3}}", [0, 1]),
        ("source_target_pairs={{0,1},{1,0}}", [0, 1]),
    ],
)
def test_groups_of_chips_in_all_their_forms(text, members):
    assert costs._members(text) == members
    with pytest.raises(ValueError, match="no group of devices is known in: channel_id=1"):
        costs._members("channel_id=1")


def test_arrays_take_whole_tiles_and_those_on_the_chip_are_not_in_hbm():
    (image,) = hlo.arrays("bf16[8,32,32,3]{0,3,2,1:T(8,128)(2,1)S(1)}")
    assert (image.bits, image.space, image.size) == (16, 1, 8 * 32 * 32 * 3 * 2)
    assert image.padded == 128 * 8 * 32 * 32 * 2  # 8 images fill 128 lanes, 3 channels 8 rows
    pair = hlo.arrays("(f32[]{:T(128)}, (u8[50000,3072]{1,0:T(8,128)(4,1)}, pred[3]))")
    assert [x.dtype for x in pair] == ["f32", "u8", "pred"]
    assert [x.padded for x in pair] == [512, 50000 * 3072, 3]


def test_bytes_of_a_gather_are_those_of_the_rows():
    module = hlo.parse(TEXT)
    rows = [one for one in hlo.executed(module) if one.instruction.shape.startswith("u8[4,2048]")]
    assert len(rows) == 1 and costs.moved(module, rows[0]) == 4 * 2048  # of the 2 MB that are gathered from


@pytest.mark.parametrize("options", [
    {"window_strides": (1, 1), "padding": "SAME"},
    {"window_strides": (2, 2), "padding": ((1, 1), (0, 2))},
    {"window_strides": (1, 1), "padding": ((2, 2), (2, 3)), "lhs_dilation": (2, 2)},
    {"window_strides": (3, 2), "padding": ((4, 1), (0, 0)), "lhs_dilation": (2, 3), "rhs_dilation": (2, 1)},
    {"window_strides": (1, 1), "padding": "SAME", "feature_group_count": 2},
])  # fmt: skip
def test_operations_of_convolutions_are_those_that_xla_counts(options):
    groups = options.get("feature_group_count", 1)

    def conv(x, k):
        return lax.conv_general_dilated(x, k, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options)

    compiled = jax.jit(conv).lower(jnp.zeros((2, 9, 8, 4)), jnp.zeros((3, 4, 4 // groups, 6))).compile()
    module = hlo.parse(compiled.as_text())
    found = sum(costs.operations(module, one.instruction, one.computation)[0] for one in hlo.executed(module))
    assert found == compiled.cost_analysis()["flops"] > 0


def test_operations_of_products_and_of_higher_precision():
    text = (
        "ENTRY %main (a: f32[8,16], b: f32[16,4]) -> f32[8,4] {\n"
        "  %a = f32[8,16]{1,0} parameter(0)\n"
        "  %b = f32[16,4]{1,0} parameter(1)\n"
        "  ROOT %dot = f32[8,4]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}, "
        "operand_precision={highest,highest}\n}\n"
    )
    module = hlo.parse(text)
    (one,) = hlo.executed(module)
    assert costs.operations(module, one.instruction, one.computation) == (2 * 8 * 16 * 4, 6 * 2 * 8 * 16 * 4)
    assert costs.moved(module, one) == 4 * (8 * 16 + 16 * 4 + 8 * 4)


class Compiled:
    """A compiled program, or a compiler that refuses it."""

    def __init__(self, text=TEXT, error=""):
        self.text, self.error = text, error

    def compile(self):
        if self.error:
            raise jax.errors.JaxRuntimeError(self.error)
        return self

    def as_text(self):
        return self.text

    def memory_analysis(self):
        class Analysis:
            argument_size_in_bytes, output_size_in_bytes, alias_size_in_bytes = 3 * 2**20, 2**20, 2**20
            temp_size_in_bytes, generated_code_size_in_bytes = 2**30, 0

        return Analysis()


def test_the_time_of_a_program_is_that_of_its_instructions_and_of_its_links():
    found = forecast.forecast("training", Compiled(), V5E, iterations=5, shares={"lazy": 0.25})
    assert found.fits and found.needed == 2**30 + 3 * 2**20
    assert found.operations == 3 * 2 * STEP + LAZY / 4
    assert found.collectives == {"all-reduce": (3.25, 3 * 3 * 3 * 32 * 64 * 4 + 1)}  # one of 4 bytes is in `lazy`
    links = 3 * V5E.seconds("all-reduce", 3 * 3 * 32 * 64 * 4, 4) + V5E.seconds("all-reduce", 4, 4) / 4
    assert found.seconds["links"] == pytest.approx(links)
    assert found.total_seconds > found.operations / V5E.chip.flops + links
    assert found.total_seconds >= found.moved / V5E.chip.bandwidth
    text = "\n".join(forecast.lines(found, V5E, 64))
    assert "1,027.0 MiB, 6.4% of 15.75 GiB" in text and "3.25 all-reduce (221 kB)" in text and "images/s" in text
    assert max(map(len, text.splitlines())) <= 80
    forecast.check_fits([found], V5E, lambda one: "less")


@pytest.mark.parametrize(
    ("error", "needed"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (671.20G) "
            "exceeds available HBM (15.75G).",
            671.2,
        ),
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 18.02G "
            "of 15.75G hbm.",
            18.02,
        ),
    ],
)
def test_a_program_that_the_compiler_refuses_for_its_memory(error, needed):
    found = forecast.forecast("training", Compiled(error=error), V5E)
    assert not found.fits and found.needed == pytest.approx(needed * 2**30, rel=1e-6)
    assert "DOES NOT FIT" in "\n".join(forecast.lines(found, V5E))
    with pytest.raises(InvalidInputError, match=rf"training needs {needed:.2f} GiB per chip.*v5e:2x2.*15.75: less"):
        forecast.check_fits([found], V5E, lambda one: "less")


def test_other_errors_of_the_compiler_are_not_taken_for_it():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        forecast.forecast("training", Compiled(error="INTERNAL: a bug"), V5E)


def test_lazy_phases_have_their_share():
    make, _ = GAMES["stylegan2"]
    assert forecast.lazy_shares(make()) == {phase.name: 0.5 for phase in make().phases if phase.every == 2} != {}
