"""What the games of image translation share: microbatches, and fakes that both players see."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gan_jax import core, gans, nets, runs
from gan_jax.types import Network

SGD = {f"{player}_optimizer": optax.sgd(1e-2) for player in ("generator", "discriminator")}
KEY = jax.random.key(0)


def networks(count, **options):
    """Small networks that take their batch in `count` parts."""
    generator = nets.TranslationResNet(1, 4, 1, 1, **options)
    return [
        nets.microbatched(nets.from_linen(x), count)
        for x in (generator, nets.PatchDiscriminator(4, 1, norm="instance"))
    ]


GAMES = {
    "pix2pix": lambda count: gans.pix2pix(*networks(count), **SGD),
    "cyclegan": lambda count: gans.cyclegan(*networks(count), pool_size=4, **SGD),
    "cut": lambda count: gans.cut(
        *networks(count, features=("down_0", "block_0")), nets.from_linen(nets.PatchProjector(8)), patches=9, **SGD
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["cut", *(pytest.param(name, marks=pytest.mark.long) for name in ("cyclegan", "pix2pix"))]
)
def test_microbatches_give_the_same_update(name):
    batch = dict(zip("ab", jax.random.uniform(KEY, (2, 4, 8, 8, 1), minval=-1.0), strict=True))

    @jax.jit
    def two_steps(state):
        for _ in range(2):
            state, _ = core.make_step(game)(state, jax.tree.map(lambda x: x[None], batch))
        return state.players

    found = []
    for count in (1, 2):
        game = GAMES[name](count)
        found.append(two_steps(jax.jit(game.init)(KEY, batch)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *found)


@pytest.mark.parametrize("config", [pytest.param("pix2pix_folder", marks=pytest.mark.slow), "pix2pix_photos"])
def test_a_game_in_microbatches_translates_single_pictures(config):
    options = {"data_dir": "x"} if config == "pix2pix_folder" else {}
    values = {"width": 2, "batch_size": 4, "microbatches": 2, **options}
    game = runs.build(config, **values).game
    size = 256 if config == "pix2pix_folder" else 64
    shapes = {"a": (4, size, size, 3 if config == "pix2pix_folder" else 1), "b": (4, size, size, 3)}
    batch = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    state = jax.eval_shape(game.init, KEY, batch)
    one = jax.ShapeDtypeStruct((1, *shapes["a"][1:]), jnp.float32)
    assert jax.eval_shape(game.functions["translate"], state, KEY, one).shape == (1, size, size, 3)


def noisy(seen):
    """Returns a generator whose output is its noise; records it."""

    def apply(params, state, x, train, key=None):
        made = params["w"] * x + jax.random.normal(key, x.shape)
        seen.append(made)
        return made, state

    return Network(lambda key, x: ({"w": jnp.float32(0.0)}, {}), apply)


def test_both_players_of_pix2pix_see_the_same_fakes_and_each_iteration_others():
    """As in the authors' code, which makes the fakes, with one mask of dropout, before both updates."""
    found = []
    judge = Network(
        lambda key, x, source: ({"w": jnp.float32(1.0)}, {}),
        lambda params, state, x, source, train, key=None: (found.append(x) or params["w"] * x.mean((1, 2, 3)), state),
    )
    still = {f"{player}_optimizer": optax.sgd(0.0) for player in ("generator", "discriminator")}
    game = gans.pix2pix(noisy([]), judge, l1_weight=None, **still)
    batch = {"a": jnp.zeros((2, 4, 4, 1)), "b": jnp.ones((2, 4, 4, 1))}
    state, noise = game.init(KEY, batch), []
    for _ in range(2):
        found.clear()
        with jax.disable_jit():
            state, _ = core.make_step(game)(state, jax.tree.map(lambda x: x[None], batch))
        fakes = [np.asarray(jax.lax.stop_gradient(x)) for x in map(_value, found) if not np.allclose(_value(x), 1.0)]
        assert len(fakes) == 2
        np.testing.assert_array_equal(*fakes)
        noise.append(fakes[0])
    assert not np.allclose(*noise)


def _value(x):
    """Returns the number behind a tracer of differentiation."""
    while hasattr(x, "primal"):
        x = x.primal
    return np.asarray(x)


def test_the_discriminators_of_cyclegan_see_the_fakes_of_the_generators_before_their_update():
    def scaled(value):
        return Network(
            lambda key, x: ({"w": jnp.float32(value)}, {}),
            lambda params, state, x, train, key=None: (params["w"] * x, state),
        )

    rates = {"generator_optimizer": optax.sgd(0.5), "discriminator_optimizer": optax.sgd(0.0)}
    game = gans.cyclegan(scaled(0.5), scaled(2.0), pool_size=4, **rates)
    batch = {name: jnp.full((2, 4, 4, 1), value) for name, value in (("a", 1.0), ("b", 3.0))}
    state, accumulator = core.make_step(game)(game.init(KEY, batch), jax.tree.map(lambda x: x[None], batch))
    means = core.accumulator_means(accumulator)
    assert abs(float(state.players["generator"].params["a"]["w"]) - 0.5) > 1e-3
    real = ((2 * 1.0 - 1) ** 2 + (2 * 3.0 - 1) ** 2) / 2
    fake = ((2 * 0.5 * 3.0) ** 2 + (2 * 0.5 * 1.0) ** 2) / 2
    np.testing.assert_allclose(means["discriminator/loss"], real + fake, rtol=1e-5)
    assert set(state.aux) == {"pool_a", "pool_b"}
