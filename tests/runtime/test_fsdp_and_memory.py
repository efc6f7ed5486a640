"""Players split over devices, and batches in parts: the same update, less memory, only the documented collectives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gan_jax import core, gans, losses, nets, runtime
from gan_jax.core.sharding import MIN_SPLIT, fsdp_spec
from gan_jax.runtime import ahead
from gan_jax.types import InvalidInputError, Term, Value
from tests.conformance.games import REAL, SmallDecoder, SmallEncoder
from tests.conformance.test_games import collectives

BOTH = pytest.mark.parametrize("fsdp", [pytest.param(n, marks=pytest.mark.xdist_group(f"fsdp{n}")) for n in (2, 8)])
SGD = {"generator_optimizer": optax.sgd(1e-3), "discriminator_optimizer": optax.sgd(1e-3)}


FIXED = nets.from_linen(nets.DCGANDiscriminator(16, norm="none"))


def judged(view, key):
    """Computes a frozen network's output for the samples."""
    return Value(FIXED.apply(view.state.frozen["fixed"], {}, view.fake, train=False)[0])


def frozen():
    return runtime.Frozen(FIXED.init(jax.random.key(5), jnp.zeros((1, 8, 8, 1)))[0], "a test")


def wide(count=1, remat=False, width=32, **options):
    """Builds a game with kernels large enough to be split, and without batch norm, which microbatches change."""

    def network(module):
        made = nets.microbatched(nets.from_linen(module), count)
        return nets.rematerialized(made) if remat else made

    return gans.dcgan(
        network(nets.MLPGenerator((8, 8, 1), (64,))),
        network(nets.DCGANDiscriminator(width, norm="none")),
        core.normal(16),
        penalties=(gans.r1(0.1),),
        terms=(Term("judged", "generator", 0.1, judged),),
        ema_halflife_images=100,
        **(SGD | options),
    )


def experiment(game, *, fsdp=1, batch_size=32):
    return runtime.Experiment(
        game=game, source=lambda: REAL, preview=runtime.image_grid, seed=3, batch_size=batch_size, steps=100,
        report_every=2, sample_every=0, checkpoint_every=2, fsdp=fsdp, frozen={"fixed": frozen},
    )  # fmt: skip


def compiled(game, devices=1, *, fsdp=1, batch_size=32):
    run = experiment(game, fsdp=fsdp, batch_size=batch_size)
    mesh = runtime.make_mesh(jax.devices()[:devices], fsdp=fsdp)
    with jax.set_mesh(mesh):
        start = runtime.build_start(run, REAL.spec, mesh)
        return start, runtime.build_program(run, REAL, mesh, start)


def trained(start, program):
    carried, sent = start.init(), program.stream(0)
    state, accumulator = carried["state"], carried["window"]
    for _ in range(3):
        state, accumulator = program.run(state, accumulator, program.data, next(sent))
    return core.accumulator_means(accumulator), {
        name: jax.device_get(player.params) for name, player in state.players.items()
    }


@functools.cache
def split(fsdp):
    """Returns the program on eight devices, with players split over `fsdp` of them, compiled once for two tests."""
    return compiled(wide(), 8, fsdp=fsdp)


@functools.cache
def plain():
    return trained(*compiled(wide()))


def same(found, wanted=None):
    means, params = plain() if wanted is None else wanted
    for name, value in means.items():
        assert found[0][name] == pytest.approx(value, rel=1e-5, abs=1e-5), name
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-6), found[1], params)


def test_what_is_split_is_the_longest_axis_that_divides():
    assert fsdp_spec((64, 32), 8) == jax.P("fsdp") and fsdp_spec((3, 3, 32, 64), 8) == jax.P(None, None, None, "fsdp")
    assert fsdp_spec((64, 36), 8) == jax.P("fsdp") and fsdp_spec((36, 64), 8) == jax.P(None, "fsdp")
    assert fsdp_spec((MIN_SPLIT - 8,), 8) == fsdp_spec((4099,), 8) == fsdp_spec((64, 64), 1) == jax.P()


@BOTH
def test_splitting_the_players_changes_nothing_but_where_they_lie(fsdp):
    start, program = split(fsdp)
    same(trained(start, program))
    state = start.abstract["state"]
    parts = [
        x.sharding.shard_shape(x.shape) != x.shape
        for tree in (state.players["discriminator"].params, state.ema["generator"]["params"])
        for x in jax.tree.leaves(tree)
        if x.size >= MIN_SPLIT
    ]
    assert parts and all(parts)


@pytest.mark.slow
def test_a_codebook_of_running_codes_is_the_same_with_split_players():
    """Its k-means start, its means and its restarts are those of one device; model state is not split."""
    autoencoder = nets.Tokenizer(SmallEncoder(), nets.VectorQuantizer(128, 8, decay=0.9, kmeans=2), SmallDecoder())

    def game():
        return gans.tokenizer(
            nets.from_linen(autoencoder), nets.from_linen(nets.BlurPatchDiscriminator(16, 1, 2)),
            gans.TokenizerRecipe(losses.non_saturating), bottleneck={"commitment": 0.25},
            last_layer=nets.TOKENIZER_LAST_LAYER, num_codes=128, **SGD,
        )  # fmt: skip

    states = []
    for start, program in (compiled(game()), compiled(game(), 8, fsdp=2)):
        carried, sent = start.init(), program.stream(0)
        state, accumulator = carried["state"], carried["window"]
        for _ in range(3):
            state, accumulator = program.run(state, accumulator, program.data, next(sent))
        states.append(state)
    kernel = states[1].players["discriminator"].params["conv_0"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) != kernel.shape
    kept = [
        jax.device_get([(player.params, player.model_state) for player in state.players.values()]) for state in states
    ]
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5), *kept)


def test_optimiser_states_are_split_too():
    adam = {"generator_optimizer": core.adam(1e-3), "discriminator_optimizer": core.adam(1e-3)}
    both = [compiled(wide(**adam), 8, fsdp=fsdp) for fsdp in (1, 8)]
    sizes = [program.memory.argument_size_in_bytes - program.memory.alias_size_in_bytes for _, program in both]
    kernels = [x.nbytes for x in jax.tree.leaves(frozen().params) if x.size >= MIN_SPLIT]
    data = sizes[0] - sum(kernels)
    assert kernels and sizes[1] - sum(kernels) / 8 == pytest.approx(data, rel=0.02)
    state = [program.memory.alias_size_in_bytes for _, program in both]
    assert state[1] < 0.2 * state[0]


@BOTH
def test_split_players_are_gathered_and_their_gradients_summed_and_nothing_else_travels(fsdp):
    start, program = split(fsdp)
    found = collectives(program.run.as_text())
    players = start.abstract["state"].players
    networks = [frozen().params, *(player.params for player in players.values())]
    kernels = {x.size for x in jax.tree.leaves(networks)}
    assert {kind for kind, _ in found} <= {"all-gather", "all-reduce", "reduce-scatter"}
    gathered = [size for kind, size in found if kind == "all-gather"]
    assert gathered and set(gathered) <= {size for size in kernels if size >= MIN_SPLIT}
    sizes = {name: sum(x.size for x in jax.tree.leaves(player.params)) for name, player in players.items()}
    terms = 3 * sizes["discriminator"] + sizes["generator"]  # D's gradient has parts of reals, fakes, penalty
    assert sum(size for kind, size in found if kind != "all-gather") <= 1.5 * terms + 16  # in two stages; logged means
    twice = compiled(wide(), 8, fsdp=fsdp, batch_size=64)[1]
    assert sorted(collectives(twice.run.as_text())) == sorted(found), "something grows with the batch"


@pytest.mark.parametrize("fsdp", [1, 2])
def test_a_dry_run_lowers_sampler_and_training_from_shapes_with_frozen_networks(fsdp):
    run = experiment(wide(), fsdp=fsdp)
    mesh = runtime.make_mesh(jax.devices()[:8], fsdp=fsdp)
    found = {one.name: one for one in ahead.programs(run, REAL, mesh, lambda _: None)}
    assert set(found) == {"training", "sampler"}
    shapes = {name: {x.shape for x in jax.tree.leaves(one.lowered.in_avals)} for name, one in found.items()}
    first = next(x.shape for x in jax.tree.leaves(frozen().params) if x.ndim == 4)
    assert first in shapes["training"] and first not in shapes["sampler"], "the sampler uses no frozen network"


def test_a_split_that_the_devices_do_not_divide():
    with pytest.raises(InvalidInputError, match="fsdp=3: expected a divisor of the number of devices, 8"):
        runtime.make_mesh(jax.devices()[:8], fsdp=3)


@pytest.mark.parametrize(("count", "remat", "devices"), [(4, False, 1), (1, True, 1), (4, True, 1), (4, False, 8)])
def test_microbatches_and_rematerialisation_give_the_same_update(count, remat, devices):
    same(trained(*compiled(wide(count, remat), devices)))


def test_parts_of_a_batch_have_dropout_of_their_own():
    critic = nets.MLPDiscriminator((16,), dropout=0.5)
    network = nets.microbatched(nets.from_linen(critic), 4)
    x, key = jnp.ones((8, 8, 8, 1)), jax.random.key(0)
    params, model_state = network.init(key, x[:1])
    out, _ = network.apply(params, model_state, x, train=True, key=key)
    assert len(np.unique(np.asarray(out))) == 8, "parts share their dropout"
    still, _ = network.apply(params, model_state, x, train=False)
    assert len(np.unique(np.asarray(still))) == 1


def test_a_batch_that_microbatches_do_not_divide():
    network = nets.microbatched(nets.from_linen(nets.MLPDiscriminator((4,))), 3)
    params, model_state = network.init(jax.random.key(0), jnp.ones((1, 8, 8, 1)))
    with pytest.raises(InvalidInputError, match="microbatches=3: the batch of 8"):
        network.apply(params, model_state, jnp.ones((8, 8, 8, 1)), train=True)
    with pytest.raises(InvalidInputError, match="microbatches=8: the batch of 32, on 8 devices"):
        compiled(wide(8), 8)  # examples would move between devices
    with pytest.raises(InvalidInputError, match="microbatches=0"):
        nets.microbatched(network, 0)


def test_eight_microbatches_hold_an_eighth_of_the_activations():
    """As `docs/running_on_a_pod.md` says, one part's activations remain, and what lies outside the networks."""
    temporaries = [compiled(wide(count, width=64), batch_size=512)[1].memory.temp_size_in_bytes for count in (1, 8)]
    assert temporaries[1] < 0.35 * temporaries[0], temporaries


def test_rematerialisation_keeps_no_activations():
    """Counts what the forward pass keeps for the backward pass, because XLA's figures on CPUs do not show it."""
    x = jnp.ones((64, 8, 8, 1))
    kept = []
    for wrap in (lambda network: network, nets.rematerialized):
        network = wrap(nets.from_linen(nets.DCGANDiscriminator(32, norm="layer")))
        params, model_state = network.init(jax.random.key(0), x[:1])
        _, backward = jax.vjp(lambda p, n=network, s=model_state: n.apply(p, s, x, train=True)[0], params)
        own = sum(leaf.size for leaf in jax.tree.leaves(params)) + x.size
        kept.append(sum(leaf.size for leaf in jax.tree.leaves(backward)) - own)
    assert kept[0] > 100_000 and kept[1] <= 0, kept


def test_microbatches_move_no_examples_between_devices():
    found = collectives(compiled(wide(4), 8)[1].run.as_text())
    assert {kind for kind, _ in found} == {"all-reduce"}


def test_the_program_that_trains_holds_its_state_once():
    start, program = compiled(wide())
    state = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(start.abstract["state"]))
    assert program.memory.alias_size_in_bytes == pytest.approx(state, rel=0.01)


def test_donated_buffers_are_used_again():
    """The state is not held twice: with donation all of it is aliased, and the peak is lower by its size."""
    networks = nets.MLPGenerator((8, 8, 1), (512, 512)), nets.MLPDiscriminator((512, 512))
    game = gans.vanilla(*map(nets.from_linen, networks), core.normal(8))
    batch = jnp.zeros((4, 8, 8, 1))  # small, so that intermediate values hardly count
    state = jax.eval_shape(game.init, jax.random.key(0), {"real": batch})
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    step = core.make_step(game)
    batches = {"real": jax.ShapeDtypeStruct((core.batches_per_iteration(game), *batch.shape), batch.dtype)}
    with_donation, without = (
        jax.jit(step, donate_argnums=donated).lower(state, batches).compile().memory_analysis()
        for donated in ((0,), ())
    )

    def peak(memory):
        total = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
        return total - memory.alias_size_in_bytes

    assert with_donation.alias_size_in_bytes == pytest.approx(size, rel=0.01) and without.alias_size_in_bytes == 0
    assert peak(without) - peak(with_donation) > 0.8 * size
