"""Phases, batches per iteration, hooks, hyperparameters, priors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gan_jax import core
from gan_jax.types import Game, InvalidInputError, LossOutput, Phase


def count_game(**phase):
    """Builds a game of one parameter x with the loss x * mean(batch). SGD of rate 1 subtracts mean(batch) from x."""

    def loss(params, state, batch, key):
        return params["x"] * jnp.mean(batch["real"]), LossOutput({"seen": jnp.mean(batch["real"])})

    def init(key, batch):
        return core.create_state(key, {"p": core.create_player({"x": jnp.zeros(())}, {}, optax.sgd(1.0))})

    return Game(init, (Phase("p", "p", loss, **phase),), (), functions={})


def run(game, steps, values):
    state = game.init(jax.random.key(0), {})
    step = jax.jit(core.make_step(game))
    windows = []
    for values_of_step in values[:steps]:
        state, accumulator = step(state, {"real": jnp.asarray(values_of_step, jnp.float32)[:, None]})
        windows.append(accumulator)
    return state, windows


def test_repeat_gives_each_update_its_own_batch():
    state, windows = run(count_game(repeat=3), 1, [[1.0, 2.0, 4.0]])
    assert float(state.players["p"].params["x"]) == -7.0
    np.testing.assert_allclose(windows[0]["p/seen"], [7.0, 3.0])
    assert int(state.players["p"].step) == 3 and int(state.step) == 1


def test_every_runs_in_every_kth_iteration_and_reports_only_then():
    state, windows = run(count_game(every=2), 4, [[1.0], [10.0], [100.0], [1000.0]])
    assert float(state.players["p"].params["x"]) == -101.0
    assert [w["p/seen"][1] for w in windows] == [1, 0, 1, 0]
    total = jax.tree.map(lambda *x: sum(x), *windows)
    assert core.accumulator_means(total)["p/seen"] == pytest.approx(50.5)


def test_every_update_has_a_key_of_its_own():
    """Two iterations, each with a phase of two updates and a phase of one; the losses record the keys they get."""

    def loss(params, state, batch, key):
        count, keys = state.aux["count"], state.aux["keys"].at[state.aux["count"]].set(jax.random.key_data(key))
        return params["x"], LossOutput({}, aux={"count": count + 1, "keys": keys})

    def init(key, batch):
        aux = {"count": jnp.int32(0), "keys": jnp.zeros((6, 2), jnp.uint32)}
        player = core.create_player({"x": jnp.zeros(())}, {}, optax.sgd(1.0))
        return core.create_state(key, {"p": player}, aux=aux)

    phases = (Phase("twice", "p", loss, repeat=2), Phase("once", "p", loss))
    state, _ = run(Game(init, phases, (), functions={}), 2, [[0.0] * 3] * 2)
    assert int(state.aux["count"]) == 6
    assert len(np.unique(state.aux["keys"], axis=0)) == 6


def test_a_generator_that_ignores_the_reals_draws_no_batch():
    from gan_jax import gans, losses
    from tests.conformance.games import Z, mlp, mlp_critic

    def draws(loss):
        return core.batches_per_iteration(gans.vanilla(mlp(), mlp_critic(), Z, loss=loss))

    assert draws(losses.hinge) == draws(losses.non_saturating) == draws(losses.least_squares) == 1
    assert draws(losses.relativistic_pairing) == 2
    with pytest.raises(InvalidInputError, match="critic_steps=2 with a lazy penalty"):
        gans.vanilla(mlp(), mlp_critic(), Z, critic_steps=2, penalties=(gans.r1(1.0, every=4),))


def test_draws():
    phases = lambda *specs: Game(None, tuple(Phase(str(i), "p", None, **s) for i, s in enumerate(specs)), (), {})  # noqa: E731
    assert core.batches_per_iteration(phases({"repeat": 5}, {})) == 6
    assert core.batches_per_iteration(phases({}, {"reuse_batch": True}, {})) == 2
    for bad in ({"every": 0}, {"repeat": 0}, {"reuse_batch": True}):
        with pytest.raises(InvalidInputError, match="phase '0'"):
            core.batches_per_iteration(phases(bad))


def test_a_scan_equals_steps_one_by_one():
    game = count_game(repeat=2)
    values = jnp.arange(6.0).reshape(3, 2, 1)
    state = game.init(jax.random.key(0), {})
    batch, step = {"real": values[0]}, core.make_step(game)
    scan = jax.jit(core.make_scan(step, lambda data, inputs, step: {"real": inputs + data}, 3))
    scanned, accumulator = scan(state, core.empty_accumulator(step, state, batch), (jnp.float32(1.0), {}), values)
    by_hand, windows = run(game, 3, np.asarray(values)[..., 0] + 1)
    assert float(scanned.players["p"].params["x"]) == float(by_hand.players["p"].params["x"])
    np.testing.assert_allclose(accumulator["p/loss"], sum(w["p/loss"] for w in windows), rtol=1e-6)


def make_ema_state(halflife, rampup, batch_size=8):
    params = {"w": jnp.zeros(3), "half": jnp.zeros(2, jnp.bfloat16)}
    player = core.create_player(params, {"count": jnp.zeros((), jnp.int32), "mean": jnp.zeros(1)}, optax.sgd(1.0))
    state = core.create_state(
        jax.random.key(0), {"generator": player}, averaged=("generator",),
        aux={"batch_size": jnp.float32(batch_size)}, hparams={"ema_halflife_images": halflife, "ema_rampup": rampup},
    )  # fmt: skip
    moved = jax.tree.map(lambda x: x + 1, {"params": player.params, "model_state": player.model_state})
    return state.replace(players={"generator": player.replace(**moved)})


def test_ema_halves_the_distance_in_its_halflife_of_images():
    state, hook = make_ema_state(halflife=80.0, rampup=0.0), core.ema("generator")
    for _ in range(10):
        state = hook(state)
    np.testing.assert_allclose(state.ema["generator"]["params"]["w"], 0.5, rtol=1e-5)
    np.testing.assert_allclose(state.ema["generator"]["model_state"]["mean"], 0.5, rtol=1e-5)
    assert int(state.ema["generator"]["model_state"]["count"]) == 1  # integers are copied
    assert state.ema["generator"]["params"]["half"].dtype == jnp.bfloat16


def test_ema_ramp_up_shortens_the_halflife_at_the_start():
    hook = core.ema("generator")
    state = hook(make_ema_state(halflife=1e6, rampup=0.05))
    beta = 0.5 ** (8 / (0.05 * 8))  # at the first iteration the half-life is 5% of the 8 images seen
    np.testing.assert_allclose(state.ema["generator"]["params"]["w"], 1 - beta, rtol=1e-5)
    late = make_ema_state(halflife=1e6, rampup=0.05).replace(step=jnp.int32(10**7))
    np.testing.assert_allclose(hook(late).ema["generator"]["params"]["w"], 1 - 0.5 ** (8 / 1e6), rtol=1e-3)


def test_hyperparameters_are_found_in_chains_and_set():
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), core.adam(1e-3, 0.5))
    player = core.create_player({"w": jnp.ones(2)}, {}, optimizer)
    state = core.create_state(jax.random.key(0), {"generator": player}, hparams={"r1_weight": 5.0})
    found = core.get_hparams(state)
    assert float(found["generator/b1"]) == 0.5 and float(found["r1_weight"]) == 5.0
    changed = core.set_hparams(state, {"generator/learning_rate": 0.1, "r1_weight": 2.0})
    assert float(core.get_hparams(changed)["generator/learning_rate"]) == pytest.approx(0.1)
    assert jax.tree.structure(changed) == jax.tree.structure(state)
    with pytest.raises(InvalidInputError, match=r"generator/learning_rat'.*generator/learning_rate"):
        core.set_hparams(state, {"generator/learning_rat": 0.1})


def test_adam_is_optax_adam_and_lazy_adam_is_corrected():
    gradients, params = jnp.array([[0.3, -2.0], [1.3, 0.1], [-0.2, 4.0]]), {"w": jnp.ones(2)}  # equal ones hide betas
    pairs = [
        (core.adam(1e-3, 0.5, 0.9), optax.adam(1e-3, 0.5, 0.9)),
        (core.adam(1e-3, 0.5, 0.9, lazy_interval=16), optax.adam(1e-3 * 16 / 17, 0.5 ** (16 / 17), 0.9 ** (16 / 17))),
    ]
    for ours, theirs in pairs:
        a, b = ours.init(params), theirs.init(params)
        for gradient in gradients:
            update_a, a = ours.update({"w": gradient}, a, params)
            update_b, b = theirs.update({"w": gradient}, b, params)
            np.testing.assert_allclose(update_a["w"], update_b["w"], rtol=1e-5)


def test_players_are_ready_for_scan_and_donation():
    state = make_ema_state(1.0, 0.0)
    assert state.players["generator"].step.dtype == jnp.int32
    donated = jax.jit(lambda s: s, donate_argnums=0)(state)  # fails if two leaves share a buffer
    assert int(donated.step) == 0


@pytest.mark.parametrize("prior", [core.normal, core.uniform])
def test_priors(prior):
    prior = prior(6)
    key = jax.random.key(0)
    z = prior.sample(key, 1000)
    assert z.shape == (1000, 6) and abs(float(z.mean())) < 0.05
    assert float(jnp.abs(prior.sample(key, 1000, 0.5)).max()) <= 0.5 < float(jnp.abs(z).max())
    t = jnp.array([0.0, 1.0])
    np.testing.assert_allclose(prior.interpolate(z[:2], z[2:4], t), jnp.stack([z[0], z[3]]), atol=1e-4)
    with pytest.raises(InvalidInputError, match="truncation"):
        prior.sample(key, 1, -1.0)


def test_a_uniform_prior_has_no_more_than_its_range():
    with pytest.raises(InvalidInputError, match="truncation=2"):
        core.uniform(3).sample(jax.random.key(0), 1, 2.0)


def test_slerp_keeps_the_norm_and_survives_parallel_latents():
    z0, z1 = jnp.array([[3.0, 0.0]]), jnp.array([[0.0, 3.0]])
    middle = core.normal(2).interpolate(z0, z1, jnp.array([0.5]))
    np.testing.assert_allclose(jnp.linalg.norm(middle), 3.0, rtol=1e-5)
    np.testing.assert_allclose(core.normal(2).interpolate(z0, z0, jnp.array([0.3])), z0, rtol=1e-5)


def test_constrain_batch_without_a_mesh_does_nothing():
    x = jnp.ones((4, 2))
    assert core.constrain_batch(x) is x
