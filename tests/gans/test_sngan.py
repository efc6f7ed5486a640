"""SNGAN's loss, steps and optimiser against values computed by hand, and the learning rate of its experiment."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import core, gans, losses
from gan_jax.runs import load_module
from tests.gans.test_adversarial import FAKE, KEY, PRIOR, V, W, X, Z, linear
from tests.processes import ROOT

RATE = 1e-2


def test_five_critic_steps_of_adam_on_the_hinge_loss_and_one_of_the_generator():
    """Adam with betas 0 and 0.9 divides a gradient by the root of the corrected average of its squares."""
    game = gans.sngan(linear(V), linear(W), PRIOR, learning_rate=RATE)
    assert core.batches_per_iteration(game) == 5
    scales = (1.0, 0.5, -1.0, 2.0, 0.25)
    batches = {"real": jnp.stack([scale * X for scale in scales])}
    after, accumulator = core.make_step(game)(game.init(KEY, {"real": X}), batches)
    w, square, hinges = np.asarray(W, np.float64), np.zeros(2), []
    for step, scale in enumerate(scales, 1):
        real, fake = scale * np.asarray(X, np.float64), np.asarray(FAKE, np.float64)
        hinges.append(np.mean(np.maximum(0, 1 - real @ w) + np.maximum(0, 1 + fake @ w)))
        gradient = np.mean((fake @ w > -1)[:, None] * fake - (real @ w < 1)[:, None] * real, axis=0)
        square = 0.9 * square + 0.1 * gradient**2
        w = w - RATE * gradient / np.sqrt(square / (1 - 0.9**step))
    metrics = core.accumulator_means(accumulator)
    np.testing.assert_allclose(metrics["discriminator/loss"], np.mean(hinges), rtol=1e-5)
    np.testing.assert_allclose(after.players["discriminator"].params["kernel"], w, rtol=1e-5)
    np.testing.assert_allclose(metrics["generator/loss"], -np.mean(FAKE @ w), rtol=1e-5)
    gradient = -np.mean(Z, axis=0)[:, None] * w
    np.testing.assert_allclose(after.players["generator"].params["kernel"], V - RATE * np.sign(gradient), rtol=1e-5)


def test_its_parts_are_options():
    other = gans.sngan(linear(V), linear(W), PRIOR, critic_steps=1, loss=losses.wasserstein, penalties=(gans.r1(2.0),))
    state = other.init(KEY, {"real": X})
    _, accumulator = core.make_step(other)(state, {"real": X[None]})
    expected = np.mean(FAKE @ W) - np.mean(X @ W) + 25
    np.testing.assert_allclose(core.accumulator_means(accumulator)["discriminator/loss"], expected, rtol=1e-5)
    assert float(core.get_hparams(state)["r1_weight"]) == 1.0
    defaults = core.get_hparams(gans.sngan(linear(V), linear(W), PRIOR).init(KEY, {"real": X}))
    for player in ("generator", "discriminator"):
        found = [float(defaults[f"{player}/{name}"]) for name in ("learning_rate", "b1", "b2")]
        np.testing.assert_allclose(found, [2e-4, 0.0, 0.9], rtol=1e-6)


@pytest.mark.parametrize(("decay", "expected"), [(2, [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]), (0, [1.0] * 6)])
def test_the_experiments_learning_rate_falls_to_zero(decay, expected):
    """Two updates per iteration decay over two iterations. The gradient is constant, so Adam's step is its rate."""
    module = load_module(ROOT / "experiments" / "configs" / "sngan_cifar10.py")
    config = module.get_config()
    config.learning_rate, config.decay_steps = 0.5, decay
    optimizer = module.optimizer(config, 2)
    state, moved = optimizer.init(jnp.zeros(1)), []
    for _ in expected:
        update, state = optimizer.update(jnp.full(1, 3.0), state)
        moved.append(-float(update[0]) / 0.5)
    np.testing.assert_allclose(moved, expected, rtol=1e-5)


def test_the_experiments_players_slow_down_together():
    """Rates fall by iteration, in which the critic makes five updates and the generator one; every gradient is 3."""
    module = load_module(ROOT / "experiments" / "configs" / "sngan_cifar10.py")
    config = module.get_config()
    config.decay_steps, config.generator_width, config.discriminator_width = 4, 4, 4
    game = module.build(config).game
    start = jax.eval_shape(game.init, KEY, {"real": jnp.zeros((2, 32, 32, 3))})
    updates = {phase.player: phase.repeat for phase in game.phases}
    assert updates == {"generator": 1, "discriminator": 5}
    for player, repeat in updates.items():
        optimizer, moved = start.players[player].tx, []
        state = optimizer.init(jnp.zeros(1))
        for _ in range(5 * repeat):
            update, state = optimizer.update(jnp.full(1, 3.0), state)
            moved.append(-float(update[0]) / config.learning_rate)
        np.testing.assert_allclose(moved[::repeat], [1.0, 0.75, 0.5, 0.25, 0.0], rtol=1e-5, atol=1e-9, err_msg=player)
