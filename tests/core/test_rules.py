"""Update rules: one step by hand, the bilinear game on which they differ, and a real game under each."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gan_jax import core, gans, runtime
from gan_jax.augment import diff_augment
from gan_jax.types import Game, InvalidInputError, LossOutput, Phase
from tests.conformance.games import GAMES, REAL, Z, mlp, mlp_critic

KEY = jax.random.key(0)
RULES = {
    "alternating": core.alternating,
    "simultaneous": core.simultaneous,
    "extragradient": core.extragradient,
    "consensus": core.consensus(1.0),
    "unrolled": core.unrolled(3),
}


def bilinear(optimizer, coupling=1.0):
    """Builds the game min over x, max over y of x y, without friction. The 'discriminator' is y, and moves first."""

    def init(key, batch):
        players = {
            "generator": core.create_player({"x": jnp.float32(1.0)}, {}, optimizer),
            "discriminator": core.create_player({"y": jnp.float32(0.5)}, {}, optimizer),
        }
        return core.create_state(key, players)

    def value(x, y):
        return coupling * x * y

    def maximise(params, state, batch, key):
        return -value(state.players["generator"].params["x"], params["y"]), LossOutput({})

    def minimise(params, state, batch, key):
        return value(params["x"], state.players["discriminator"].params["y"]), LossOutput({})

    phases = (Phase("discriminator", "discriminator", maximise), Phase("generator", "generator", minimise))
    return Game(init, phases, (), {})


def play(rule, optimizer, steps, coupling=1.0):
    game = bilinear(optimizer, coupling)
    batch = {"real": jnp.zeros((core.batches_per_iteration(game, rule), 1))}
    step = jax.jit(core.make_step(game, rule))
    state = game.init(KEY, batch)
    for _ in range(steps):
        state, _ = step(state, batch)
    return float(state.players["generator"].params["x"]), float(state.players["discriminator"].params["y"])


X, Y, H = 1.0, 0.5, 0.1


def unrolled_by_hand():
    y = Y + H * X  # the discriminator has moved
    # three steps ahead y_3 = y + 3 h x, and d/dx (x y_3) = y_3 + 3 h x
    return X - H * (y + 3 * H * X + 3 * H * X), y


BY_HAND = {
    "alternating": (X - H * (Y + H * X), Y + H * X),
    "simultaneous": (X - H * Y, Y + H * X),
    "extragradient": (X - H * (Y + H * X), Y + H * (X - H * Y)),
    "consensus": (X - H * (Y + X), Y + H * (X - Y)),  # ||F||^2 / 2 = (x^2 + y^2) / 2
    "unrolled": unrolled_by_hand(),
}


@pytest.mark.parametrize("name", sorted(RULES))
def test_one_step_by_hand(name):
    np.testing.assert_allclose(play(RULES[name], optax.sgd(H), 1), BY_HAND[name], rtol=1e-6)


def test_the_bilinear_game_tells_the_rules_apart():
    """Simultaneous descent spirals out, alternation circles for ever, and the others find the equilibrium."""
    radius = {name: np.hypot(*play(rule, optax.sgd(H), 1000)) for name, rule in RULES.items()}
    start = np.hypot(X, Y)
    assert radius["simultaneous"] > 50 * start
    assert 0.5 * start < radius["alternating"] < 2 * start
    assert all(radius[name] < 0.1 for name in ("extragradient", "consensus", "unrolled")), radius
    optimistic = play(core.simultaneous, optax.optimistic_gradient_descent(H), 1000)
    assert np.hypot(*optimistic) < 0.1


def test_extra_adam_keeps_its_moments_and_returns_to_where_it_was():
    adam = optax.adam(0.1, 0.5, 0.9)
    x, y = play(core.extragradient, adam, 1)
    params, opt_state = jnp.array([X, Y]), adam.init(jnp.zeros(2))
    ahead, opt_state = adam.update(jnp.array([Y, -X]), opt_state)
    half = params + ahead
    moved, _ = adam.update(jnp.array([half[1], -half[0]]), opt_state)
    np.testing.assert_allclose((x, y), params + moved, rtol=1e-5)


def test_both_steps_of_extragradient_have_a_batch_of_their_own():
    """For (x - b)^2 / 2 from 0, the look-ahead is at h b_1; the update uses the gradient there for b_2, h b_1 - b_2."""

    def init(key, batch):
        return core.create_state(key, {"p": core.create_player({"x": jnp.float32(0.0)}, {}, optax.sgd(H))})

    def loss(params, state, batch, key):
        return jnp.mean((params["x"] - batch["real"]) ** 2) / 2, LossOutput({})

    game = Game(init, (Phase("p", "p", loss),), (), {})
    assert core.batches_per_iteration(game, core.extragradient) == 2
    state, _ = core.make_step(game, core.extragradient)(init(KEY, None), {"real": jnp.array([[2.0], [5.0]])})
    np.testing.assert_allclose(state.players["p"].params["x"], -H * (H * 2.0 - 5.0), rtol=1e-6)


@pytest.mark.slow
def test_the_step_ahead_of_extragradient_leaves_no_trace_but_in_the_optimisers():
    """Adaptive augmentation and spectral norm see one batch per iteration, as under simultaneous updates."""
    batch = {"real": REAL.arrays["real"][:16] / 127.5 - 1.0}
    augment = gans.Augmentation(diff_augment(["color"]), 0.1, target=0.6)
    still = {"generator_optimizer": optax.sgd(0.0), "discriminator_optimizer": optax.sgd(0.0)}
    game = gans.vanilla(mlp(), mlp_critic(norm="spectral"), Z, augment=augment, **still)
    states = []
    for rule in (core.simultaneous, core.extragradient):
        batches = {
            "real": jnp.stack([jnp.asarray(batch["real"], jnp.float32)] * core.batches_per_iteration(game, rule))
        }
        states.append(
            jax.jit(core.make_step(game, rule))(jax.jit(game.init)(KEY, {"real": batches["real"][0]}), batches)[0]
        )
    assert float(states[0].aux["ada"].seen) == float(states[1].aux["ada"].seen) == 16
    for one, two in zip(*(jax.tree.leaves(s.players["discriminator"].model_state) for s in states), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["consensus", "extragradient"])  # one has a metric of its own, one two passes
def test_rules_run_a_real_game_through_the_runtime_and_resume(name, tmp_path):
    """A run that is stopped half-way and continued ends in the state of an uninterrupted run."""
    rule = RULES[name]
    game = GAMES["vanilla"][0](
        generator_optimizer=core.adam(1e-3), discriminator_optimizer=core.adam(1e-3, eps_root=1e-8)
    )
    settings = runtime.Experiment(
        game=game, source=lambda: REAL, preview=runtime.image_grid, seed=0, batch_size=16, steps=6,
        steps_per_dispatch=3, report_every=3, sample_every=0, checkpoint_every=3, update_rule=rule,
    )  # fmt: skip
    quiet = lambda message: None  # noqa: E731
    whole = runtime.train(settings, tmp_path / "whole", log=quiet)
    assert runtime.train(dataclasses.replace(settings, steps=3), tmp_path / "parts", log=quiet).step == 3
    assert runtime.train(settings, tmp_path / "parts", log=quiet).state_sha256 == whole.state_sha256
    assert np.isfinite(whole.metrics["generator/loss"])
    if name == "consensus":
        assert whole.metrics["consensus/penalty"] > 0


def test_rules_train_differently():
    states = {}
    game = GAMES["vanilla"][0](generator_optimizer=optax.sgd(0.1), discriminator_optimizer=optax.sgd(0.1))
    for name, rule in RULES.items():
        batches = {"real": jax.random.normal(KEY, (core.batches_per_iteration(game, rule), 8, 8, 8, 1))}
        start = game.init(KEY, {"real": batches["real"][0]})
        state, _ = jax.jit(core.make_step(game, rule))(start, batches)
        leaves = jax.tree.leaves(state.players["generator"].params)
        states[name] = np.concatenate([np.ravel(leaf) for leaf in leaves])
    names = sorted(states)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            assert np.abs(states[first] - states[second]).max() > 1e-7, (first, second)


def test_unrolled_by_nothing_is_alternation():
    game = GAMES["vanilla"][0](generator_optimizer=optax.sgd(0.1), discriminator_optimizer=optax.sgd(0.1))
    batches = {"real": jnp.ones((1, 8, 8, 8, 1))}
    start = game.init(KEY, {"real": batches["real"][0]})
    one, two = (
        jax.jit(core.make_step(game, rule))(start, batches)[0].players for rule in (core.alternating, core.unrolled(0))
    )
    for name in one:
        jax.tree.map(np.testing.assert_array_equal, one[name].params, two[name].params)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: core.make_step(GAMES["wgan_gp"][0](), core.simultaneous), "repeat=5.*critic_steps=1"),
        (lambda: core.make_step(GAMES["adversarial"][0](), core.consensus(1.0)), "one phase per player"),
        (lambda: core.consensus(-1.0), "weight=-1"),
        (lambda: core.unrolled(-1), "steps=-1"),
        (lambda: core.make_step(GAMES["dcgan"][0](), core.unrolled(1, opponent="critic")), "the game has the players"),
    ],
)
def test_what_a_rule_cannot_do_is_refused(make, message):
    with pytest.raises(InvalidInputError, match=message):
        make()
