"""CycleGAN's two losses against values computed by hand, and its pool of earlier fakes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gan_jax import core, gans
from gan_jax.gans.cyclegan import empty_pool, query_pool
from gan_jax.types import Network

KEY = jax.random.key(0)
A, B = jax.random.normal(KEY, (2, 4, 2, 2, 1))


def scaling(first, second):
    """Returns a network of one number, which differs by domain, in the order in which the game initialises them."""
    values = iter((first, second))
    return Network(
        lambda key, x: ({"scale": jnp.float32(next(values))}, {}),
        lambda params, state, x, train, key=None: (params["scale"] * x, state),
    )


def test_losses():
    to_a, to_b, critic_a, critic_b = 0.5, -2.0, 3.0, 0.7
    game = gans.cyclegan(
        scaling(to_a, to_b),
        scaling(critic_a, critic_b),
        cycle_weight=7.0,
        identity_weight=3.0,
        pool_size=4,
        generator_optimizer=optax.sgd(0.0),
        discriminator_optimizer=optax.sgd(0.0),
    )
    batch = {"a": A, "b": B}
    state = game.init(KEY, batch)
    _, accumulator = core.make_step(game)(state, jax.tree.map(lambda x: x[None], batch))
    metrics = core.accumulator_means(accumulator)
    fake_a, fake_b = to_a * B, to_b * A
    adversarial = np.mean((critic_a * fake_a - 1) ** 2) / 2 + np.mean((critic_b * fake_b - 1) ** 2) / 2
    cycle = np.mean(np.abs(to_a * fake_b - A)) + np.mean(np.abs(to_b * fake_a - B))
    identity = np.mean(np.abs(to_a * A - A)) + np.mean(np.abs(to_b * B - B))
    np.testing.assert_allclose(metrics["generator/loss"], adversarial + 7 * cycle + 3 * identity, rtol=1e-5)
    np.testing.assert_allclose(metrics["generator/cycle_a"], np.mean(np.abs(to_a * fake_b - A)), rtol=1e-5)
    real = np.mean((critic_a * A - 1) ** 2) / 2 + np.mean((critic_b * B - 1) ** 2) / 2
    fake = np.mean((critic_a * fake_a) ** 2) / 2 + np.mean((critic_b * fake_b) ** 2) / 2
    np.testing.assert_allclose(metrics["discriminator/loss"], real + fake, rtol=1e-5)
    np.testing.assert_allclose(game.sample(state, KEY, 4, inputs=A), fake_b, rtol=1e-6)


def test_the_default_weights_are_the_papers_beside_its_adversarial_term():
    """(D - 1)^2 + 10 cycle + 5 identity, of which the generators' loss here is the half."""
    game = gans.cyclegan(scaling(0.5, -2.0), scaling(3.0, 0.7))
    batch = {"a": A, "b": B}
    _, accumulator = core.make_step(game)(game.init(KEY, batch), jax.tree.map(lambda x: x[None], batch))
    found = core.accumulator_means(accumulator)
    papers = {
        "adversarial": np.mean((3.0 * 0.5 * B - 1) ** 2) + np.mean((0.7 * -2.0 * A - 1) ** 2),
        "cycle": 10 * (found["generator/cycle_a"] + found["generator/cycle_b"]),
        "identity": 5 * (found["generator/identity_a"] + found["generator/identity_b"]),
    }
    assert 2 * found["generator/loss"] == pytest.approx(sum(papers.values()), rel=1e-5)


def test_each_player_moves_by_its_own_optimiser():
    """The generators' rate is 0, the discriminators' 0.1. A critic of one number c has the loss (c real - 1)^2 / 2."""
    game = gans.cyclegan(
        scaling(0.5, -2.0), scaling(3.0, 0.7),
        generator_optimizer=optax.sgd(0.0), discriminator_optimizer=optax.sgd(0.1),
    )  # fmt: skip
    batch = {"a": A, "b": B}
    after, _ = jax.jit(core.make_step(game))(game.init(KEY, batch), jax.tree.map(lambda x: x[None], batch))
    assert {name: float(p["scale"]) for name, p in after.players["generator"].params.items()} == {"a": 0.5, "b": -2.0}
    for domain, critic, real, fake in (("a", 3.0, A, 0.5 * B), ("b", 0.7, B, -2.0 * A)):
        moved = critic - 0.1 * (np.mean((critic * real - 1) * real) + np.mean(critic * fake**2))
        np.testing.assert_allclose(after.players["discriminator"].params[domain]["scale"], moved, rtol=1e-5)


def test_the_pool_fills_and_then_gives_back_earlier_images_half_of_the_time():
    batch, size = 8, 16  # two images for each position in the batch
    pool = empty_pool(jnp.zeros((batch, 1, 1, 1)), size)
    returned_new = returned_old = 0
    query = jax.jit(query_pool)
    for step in range(200):
        images = jnp.full((batch, 1, 1, 1), float(step + 1))
        stored = np.asarray(pool["images"])
        out, pool = query(pool, images, jax.random.fold_in(KEY, step))
        out = np.asarray(out)[:, 0, 0, 0]
        if step < 2:
            np.testing.assert_array_equal(out, step + 1)
            continue
        old = out != step + 1
        returned_old, returned_new = returned_old + old.sum(), returned_new + (~old).sum()
        after = np.asarray(pool["images"])
        for place in range(batch):
            before, now = stored[:, place].ravel().tolist(), after[:, place].ravel().tolist()
            if old[place]:  # it came from this position's part of the pool, and the new image replaced it
                before.remove(out[place])
                assert sorted([*before, step + 1.0]) == sorted(now)
            else:
                assert before == now
    assert 0.4 < returned_old / (returned_old + returned_new) < 0.6
