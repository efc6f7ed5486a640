"""Games of each family and the commands, compiled for slices of TPUs by the TPU compiler, where it is installed."""

import dataclasses
import importlib.util
import re

import jax
import numpy as np
import pytest

from gan_jax import eval as evals
from gan_jax import runs, runtime
from gan_jax.data.rows import gathered, rows
from gan_jax.distributed import topology
from gan_jax.ops import primitives
from gan_jax.ops.geometry import ConvGeometry
from gan_jax.runtime import ahead, costs, hlo
from gan_jax.sweep import Member
from gan_jax.sweep import ahead as populations
from gan_jax.types import InvalidInputError
from tests.conformance.games import GAMES, SLOW
from tests.experiments.test_flags import refused
from tests.processes import ROOT, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("slices"),  # the compiler uses all cores
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None,
        reason="the TPU compiler is not installed: pip install -e '.[tpu]' (Linux on x86-64)",
    ),
]
SLICE = topology.parse("v5e:2x2x1")


def experiment(name, **options):
    make, source = GAMES[name]
    return runtime.Experiment(
        game=make(), source=lambda: source, preview=runtime.image_grid, seed=0, batch_size=8, steps=10,
        steps_per_dispatch=5, report_every=5, sample_every=0, checkpoint_every=10, **options,
    )  # fmt: skip


def forecasts(made, target=SLICE):
    mesh = ahead.slice_mesh(target, fsdp=made.fsdp)
    return {
        one.name: ahead.compiled(one, target, made)
        for one in ahead.programs(made, made.open_source(), mesh, lambda _: None)
    }


@pytest.mark.parametrize("name", [name for name in GAMES if name not in SLOW])
def test_a_game_of_each_family_compiles_and_only_reduces(name):
    found = forecasts(experiment(name))
    training = found["training"]
    assert training.fits and training.operations > 1e4 and training.total_seconds > 0
    assert set(training.collectives) == {"all-reduce"}, "only gradients, batch statistics and means are exchanged"
    assert ("sampler" in found) == (GAMES[name][0]().prior is not None)


def test_split_players_are_gathered_and_the_metrics_feature_pass_is_compiled():
    found = forecasts(runs.build("digits", batch_size=8, fsdp=4, metrics="fcd2k", evaluate_every=1000, width=16))
    assert set(found) == {"training", "sampler", "features of classifier"}
    assert {"all-gather", "all-reduce"} <= set(found["training"].collectives)
    assert found["features of classifier"].operations > 0


def test_iterations_of_a_dispatch_change_no_cost_of_an_iteration_and_microbatches_are_counted():
    """XLA's own analysis counts the body of a loop once: with microbatches it finds fewer operations, not more."""

    def cost(**values):
        made = runs.build("digits", batch_size=64, width=16, **values)
        return forecasts(made)["training"].operations

    one = cost(steps_per_dispatch=1)
    assert cost(steps_per_dispatch=50) == pytest.approx(one, rel=1e-3)
    assert one < cost(steps_per_dispatch=1, microbatches=4) < 2 * one


def executed(lowered):
    module = hlo.parse(lowered.compile().as_text())
    return list(hlo.executed(module))


@pytest.mark.parametrize("example", [(28, 28, 1), (32, 32, 3), (7, 5, 2)])
def test_a_data_set_is_gathered_from_where_it_is(example):
    """Without `rows`, or with rows of other lengths than multiples of 128, the whole of it is copied first."""
    mesh = ahead.slice_mesh(SLICE)
    data = rows(np.zeros((4096, *example), np.uint8))

    def mean(data, indices):
        return jax.lax.map(lambda index: gathered(data, index, example).astype(float).mean(), indices)

    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    shapes = [jax.ShapeDtypeStruct(*x, sharding=whole) for x in ((data.shape, data.dtype), ((10, 8), np.int32))]
    found = executed(jax.jit(mean).lower(*shapes))
    sizes = [x.size for one in found for x in one.instruction.arrays if x.dtype == "u8"]
    assert sizes and max(sizes) < data.nbytes / 100


def test_the_gradient_of_joined_groups_is_exchanged_without_the_zeros_between_them():
    mesh, geometry = ahead.slice_mesh(SLICE), ConvGeometry(1, 1, (32, 32), (3, 3))
    specs = jax.sharding.PartitionSpec(None, mesh.axis_names), jax.sharding.PartitionSpec()
    along, whole = (jax.sharding.NamedSharding(mesh, spec) for spec in specs)

    def loss(x, kernel):
        return (primitives.forward_p.bind(x, kernel, geometry=geometry) ** 2).sum()

    with jax.set_mesh(mesh):
        x = jax.ShapeDtypeStruct((6, 32, 32, 32, 16), np.float32, sharding=along)
        kernel = jax.ShapeDtypeStruct((6, 3, 3, 16, 16), np.float32, sharding=whole)
        found = executed(jax.jit(jax.grad(loss, 1), out_shardings=whole).lower(x, kernel))
    assert [one.size for one in map(costs.collective, found) if one] == [6 * 3 * 3 * 16 * 16 * 4]


def test_members_of_a_population_exchange_nothing():
    made = experiment("dcgan")
    members = [Member(seed) for seed in range(8)]
    lowered = populations.lower(made, made.open_source(), members, topology.devices(SLICE))
    found = ahead.compiled(lowered, SLICE, made)
    assert found.fits and not found.exchanges and lowered.images == 8 * made.batch_size


def test_published_networks_are_compiled_without_their_files():
    network, mesh = evals.inception(), ahead.slice_mesh(SLICE)
    lowered = ahead.feature_pass("x", evals.Extractor(network.apply, network.shapes(), {}), (8, 8, 3), mesh)
    assert lowered.images == 64 and "tensor<64x8x8x3xui8>" in lowered.lowered.as_text()


def test_the_chips_are_as_the_compiler_describes_them():
    for name, chip in topology.CHIPS.items():
        target = topology.parse(f"{name}:{'2x2' if chip.torus == 2 else '2x2x1'}")
        found = topology.devices(target)
        assert len(found) == target.size and {x.device_kind for x in found} == {chip.kind}
        mesh = runtime.make_mesh(found)
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        matrix = jax.ShapeDtypeStruct((8192, 8192), jax.numpy.bfloat16, sharding=sharding)
        text = jax.jit(lambda a: a @ a, out_shardings=sharding).lower(matrix).compile().as_text()
        (cycles,) = (int(x) for x in re.findall(r'"estimated_cycles":"(\d+)"', text))
        assert chip.clock == pytest.approx(cycles * chip.flops / (2 * 8192**3), rel=0.02)
        huge = jax.ShapeDtypeStruct((2**20, 2**17), np.float32, sharding=sharding)
        with pytest.raises(jax.errors.JaxRuntimeError, match=f"{chip.memory / 2**30:.2f}G"):
            jax.jit(lambda a: jax.numpy.sort(a, axis=0), out_shardings=sharding).lower(huge).compile()


def test_a_slice_that_the_compiler_does_not_know():
    unknown = dataclasses.replace(topology.parse("v5e:4x4"), name="v5e:3x3", shape=(3, 3))
    with pytest.raises(InvalidInputError, match=r"(?s)v5e:3x3.*refuses it.*Known are"):
        topology.devices(unknown)


SMALL = ("--dry_run", "--topology=v5e:2x2", "--config.width=8")


def test_the_command_prints_the_costs_and_says_what_cannot_be():
    output = run("train", *SMALL)
    for said in ("compiling for v5e:2x2: 4 chips with 15.75 GiB", "training: compiled in", "sampler: compiled in"):
        assert said in output, output
    for said in ("memory per chip", "all-reduce", "time, by a model", "not a measurement"):
        assert said in output, output
    assert "batch_size=6 does not divide over 4 devices" in refused("train", *SMALL, "--config.batch_size=6")
    assert "fsdp=3: expected a divisor of the number of devices, 4" in refused("train", *SMALL, "--config.fsdp=3")
    assert "no such slice of v5e" in refused("train", "--dry_run", "--topology=v5e:3x3")


def test_the_command_says_what_makes_a_program_fit():
    said = refused("train", *SMALL, "--config.width=4096", "--config.batch_size=16384")
    assert re.search(r"training needs [\d.]+ GiB per chip, and a program on v5e:2x2 can use 15.75", said), said
    assert "--config.microbatches=2" in said and "--config.remat=True" in said and "--config.fsdp=" in said


def test_the_program_on_the_page_runs(capsys):
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "tpu.md").read_text(), re.DOTALL)
    exec(compile(program, "docs/tpu.md", "exec"), {"__name__": "program"})
    assert capsys.readouterr().out.startswith("training ")


def test_a_sweep_is_compiled_as_one_population():
    output = run("sweep", *SMALL, "--grid_size=2")
    assert "4 trials of learning_rate, r1_gamma" in output and re.search("collectives +none", output), output
