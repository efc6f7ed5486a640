"""The standard game against values computed by hand: a linear generator, a linear critic, one known batch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gan_jax import core, gans, losses
from gan_jax.types import InvalidInputError, Network, Prior

V = jnp.array([[1.0, 2.0], [0.5, -1.0]])  # the generator's kernel
W = jnp.array([3.0, 4.0])  # the critic's kernel, of norm 5
Z = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, -1.0]])
X = jnp.array([[0.3, -0.2], [1.0, 1.0], [-0.5, 0.4], [0.0, 2.0]])
FAKE = Z @ V
KEY = jax.random.key(0)


def linear(kernel):
    return Network(
        lambda key, *inputs: ({"kernel": kernel}, {}),
        lambda params, state, x, *rest, train, key=None: (x @ params["kernel"], state),
    )


PRIOR = Prior(lambda key, n, truncation=None: Z[:n], lambda a, b, t: a)


def game(**options):
    sgd = optax.sgd(0.1)
    options = {"loss": losses.hinge, "generator_optimizer": sgd, "discriminator_optimizer": sgd} | options
    return gans.adversarial(linear(V), linear(W), PRIOR, **options)


def run(game, steps=1):
    """Trains some iterations; returns the initial state, the final one, and the metrics of the last iteration."""
    batch = {"real": X}
    state = game.init(KEY, batch)
    before, batches = state, {"real": jnp.stack([X] * core.batches_per_iteration(game))}
    for _ in range(steps):
        state, accumulator = core.make_step(game)(state, batches)
    return before, state, core.accumulator_means(accumulator)


def test_the_discriminators_loss_and_its_penalties():
    penalties = (gans.r1(0.3), gans.r2(0.5), gans.gradient_penalty(2.0))
    _, _, metrics = run(game(penalties=penalties))
    adversarial = np.mean(np.maximum(0, 1 - X @ W) + np.maximum(0, 1 + FAKE @ W))
    expected = adversarial + 0.15 * 25 + 0.25 * 25 + 2.0 * (5 - 1) ** 2
    np.testing.assert_allclose(metrics["discriminator/loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["discriminator/r1"], 25, rtol=1e-5)
    np.testing.assert_allclose(metrics["discriminator/gradient_penalty"], 16, rtol=1e-5)
    np.testing.assert_allclose(metrics["discriminator/real_logits"], np.mean(X @ W), rtol=1e-5)
    np.testing.assert_allclose(metrics["discriminator/fake_logits"], np.mean(FAKE @ W), rtol=1e-5)
    flat = (np.mean(X @ W > 1) + np.mean(FAKE @ W < -1)) / 2  # where the hinge is 0
    assert 0 < flat < 1
    np.testing.assert_allclose(metrics["discriminator/saturated_logits"], flat, rtol=1e-5)


def test_the_updates_of_both_players():
    """The critic moves first, by the gradient at the start; the generator sees the updated critic."""
    _, after, metrics = run(game(loss=losses.wasserstein))
    w = W - 0.1 * (jnp.mean(FAKE, 0) - jnp.mean(X, 0))
    np.testing.assert_allclose(after.players["discriminator"].params["kernel"], w, rtol=1e-5)
    v = V + 0.1 * jnp.mean(Z, 0)[:, None] * w  # the gradient of -E z V w
    np.testing.assert_allclose(after.players["generator"].params["kernel"], v, rtol=1e-5)
    np.testing.assert_allclose(metrics["generator/loss"], -np.mean(FAKE @ w), rtol=1e-5)


def test_a_relativistic_generator_sees_reals():
    _, _, metrics = run(game(loss=losses.relativistic_pairing, discriminator_optimizer=optax.sgd(0.0)))
    np.testing.assert_allclose(metrics["generator/loss"], np.mean(np.log1p(np.exp((X - FAKE) @ W))), rtol=1e-5)


def test_a_lazy_penalty_is_k_times_as_heavy_every_kth_step():
    lazy = game(penalties=(gans.r1(0.3, every=4),), discriminator_optimizer=optax.sgd(0.0))
    _, _, first = run(lazy)
    np.testing.assert_allclose(first["discriminator_r1/loss"], 4 * 0.15 * 25, rtol=1e-5)
    np.testing.assert_allclose(first["discriminator_r1/r1"], 25, rtol=1e-5)
    assert "discriminator_r1/loss" not in run(lazy, steps=2)[2]
    assert "discriminator_r1/loss" in run(lazy, steps=5)[2]


def test_adam_is_corrected_for_a_lazy_penalty_of_the_critic_alone():
    lazy = gans.dcgan(linear(V), linear(W), PRIOR, penalties=(gans.r1(1.0, every=16),), learning_rate=1e-3)
    hparams = core.get_hparams(lazy.init(KEY, {"real": X}))
    c = 16 / 17
    np.testing.assert_allclose(hparams["discriminator/learning_rate"], c * 1e-3, rtol=1e-6)
    np.testing.assert_allclose(hparams["discriminator/b2"], 0.999**c, rtol=1e-6)
    np.testing.assert_allclose(hparams["generator/learning_rate"], 1e-3, rtol=1e-6)


def test_samples_come_from_the_average():
    averaged = game(ema_halflife_images=4.0, ema_rampup=0.0)
    before, after, _ = run(averaged)
    kernel = (before.players["generator"].params["kernel"] + after.players["generator"].params["kernel"]) / 2
    np.testing.assert_allclose(averaged.sample(after, KEY, 4), Z @ kernel, rtol=1e-5)  # one half-life has passed
    plain = game()
    _, after, _ = run(plain)
    np.testing.assert_allclose(plain.sample(after, KEY, 4), Z @ after.players["generator"].params["kernel"], rtol=1e-5)


def test_the_scale_of_latents_is_data():
    doubled, plain = game(latent_scale=2.0), game()
    before, after, _ = run(doubled)
    kernel = after.players["generator"].params["kernel"]
    np.testing.assert_allclose(doubled.sample(after, KEY, 4), 2 * Z @ kernel, rtol=1e-5)
    np.testing.assert_allclose(doubled.sample(after, KEY, 4, inputs=Z), 2 * Z @ kernel, rtol=1e-5)
    one = core.set_hparams(before, {"latent_scale": 1.0})
    batches = {"real": X[None]}
    scaled, unscaled = (core.make_step(doubled)(one, batches)[0], run(plain)[1])
    for name in ("generator", "discriminator"):
        ours, theirs = (x.players[name].params["kernel"] for x in (scaled, unscaled))
        assert jnp.array_equal(ours, theirs), "by one, they are as they were"
        assert not jnp.allclose(ours, after.players[name].params["kernel"]), "training has them scaled too"


def test_r1_is_taken_at_the_reals_and_r2_at_the_fakes():
    """The gradient of the critic w . x^2 / 2 is w x."""
    critic = Network(
        lambda key, x: ({"w": W}, {}), lambda params, state, x, train, key=None: (x**2 @ params["w"] / 2, state)
    )
    sgd = optax.sgd(0.0)
    both = gans.adversarial(
        linear(V), critic, PRIOR, loss=losses.hinge, generator_optimizer=sgd, discriminator_optimizer=sgd,
        penalties=(gans.r1(1.0), gans.r2(1.0)),
    )  # fmt: skip
    _, _, metrics = run(both)
    np.testing.assert_allclose(metrics["discriminator/r1"], np.mean(np.sum((W * X) ** 2, -1)), rtol=1e-5)
    np.testing.assert_allclose(metrics["discriminator/r2"], np.mean(np.sum((W * FAKE) ** 2, -1)), rtol=1e-5)


def test_the_critic_keeps_what_it_saw_of_the_reals_once_for_each_of_its_steps():
    """Statistics and spectral vectors change once per critic step: not for fakes, nor in the generator's update."""

    def apply(params, state, x, train, key=None):
        seen = {"passes": state["passes"] + 1, "mean": jnp.mean(x, 0)}
        return x @ params["kernel"], seen if train else state

    critic = Network(lambda key, x: ({"kernel": W}, {"passes": jnp.int32(0), "mean": jnp.zeros(2)}), apply)
    sgd = optax.sgd(0.1)
    keeping = gans.adversarial(
        linear(V), critic, PRIOR, loss=losses.hinge, critic_steps=3,
        generator_optimizer=sgd, discriminator_optimizer=sgd,
    )  # fmt: skip
    state = keeping.init(KEY, {"real": X})
    after, _ = core.make_step(keeping)(state, {"real": jnp.stack([X, 2 * X, 3 * X])})
    kept = after.players["discriminator"].model_state
    assert int(kept["passes"]) == 3
    np.testing.assert_allclose(kept["mean"], 3 * jnp.mean(X, 0), rtol=1e-6)


def test_samples_are_of_every_class_equally_often_where_none_is_asked_for():
    labels = Network(
        lambda key, z, label: ({}, {}), lambda params, state, z, label, train, key=None: (0.0 * z + label[:, None], {})
    )
    sgd = optax.sgd(0.1)
    conditional = gans.adversarial(
        labels, linear(W), core.normal(2), loss=losses.hinge, num_classes=3,
        generator_optimizer=sgd, discriminator_optimizer=sgd,
    )  # fmt: skip
    state = conditional.init(KEY, {"real": X, "label": jnp.arange(4) % 3})
    drawn = np.asarray(conditional.sample(state, KEY, 3000))[:, 0]
    np.testing.assert_array_equal(np.unique(drawn), [0, 1, 2])
    np.testing.assert_allclose(np.bincount(drawn.astype(int)), 1000, rtol=0.1)


def test_several_critic_steps_see_new_batches():
    steps = game(loss=losses.wasserstein, critic_steps=3, generator_optimizer=optax.sgd(0.0))
    state = steps.init(KEY, {"real": X})
    after, _ = core.make_step(steps)(state, {"real": jnp.stack([X, 2 * X, 3 * X])})
    expected = W - 0.1 * (3 * jnp.mean(FAKE, 0) - 6 * jnp.mean(X, 0))
    np.testing.assert_allclose(after.players["discriminator"].params["kernel"], expected, rtol=1e-5)


def test_augmentation_reaches_reals_fakes_and_penalties():
    _, _, metrics = run(game(augment=gans.Augmentation(lambda key, x, p: x * 4 * p, 0.5), penalties=(gans.r1(1.0),)))
    np.testing.assert_allclose(metrics["discriminator/real_logits"], 2 * np.mean(X @ W), rtol=1e-5)
    np.testing.assert_allclose(metrics["discriminator/fake_logits"], 2 * np.mean(FAKE @ W), rtol=1e-5)
    np.testing.assert_allclose(metrics["discriminator/r1"], 4 * 25, rtol=1e-5)


@pytest.mark.slow
def test_augmentation_adapts_to_the_signs_of_the_reals():
    """D is positive for 3 of 4 reals, a mean sign of 1/2: with a target of 0.4 p rises, with 0.6 it falls."""
    positive = jnp.array([3.0, 1.0])  # its logits for X are 0.7, 4, -1.1, 2
    for target, sign in ((0.4, 1), (0.6, -1)):
        adaptive = gans.adversarial(
            linear(V),
            linear(positive),
            PRIOR,
            loss=losses.hinge,
            generator_optimizer=optax.sgd(0.0),
            discriminator_optimizer=optax.sgd(0.0),
            augment=gans.Augmentation(lambda key, x, p: x, 0.5, target=target, speed_images=100.0, interval=2),
        )
        for steps, moves in ((1, 0), (2, 1), (3, 1), (4, 2)):
            _, state, metrics = run(adaptive, steps)
            np.testing.assert_allclose(state.aux["ada"].p, 0.5 + sign * moves * 4 * 2 / 100, rtol=1e-6)
        np.testing.assert_allclose(metrics["discriminator/augment_probability"], 0.5 + sign * 0.08, rtol=1e-5)


def test_where_the_probability_of_augmentation_begins_and_what_several_critic_steps_count():
    same = lambda key, x, p: x  # noqa: E731
    constant, adaptive = (game(augment=gans.Augmentation(same, target=target)) for target in (None, 0.6))
    assert float(constant.init(KEY, {"real": X}).hparams["augment_probability"]) == 1.0
    assert float(adaptive.init(KEY, {"real": X}).aux["ada"].p) == 0.0
    several = game(augment=gans.Augmentation(same, 0.5, target=0.9, speed_images=240.0, interval=1), critic_steps=3)
    _, after, _ = run(several)
    np.testing.assert_allclose(after.aux["ada"].p, 0.5 + 3 * 4 / 240, rtol=1e-5)  # three batches of four were seen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"penalties": (gans.r1(1.0), gans.r1(2.0))}, "is given twice"),
        ({"ema_halflife_images": -1.0}, "ema_halflife_images=-1"),
        ({"augment": gans.Augmentation(lambda key, x, p: x, 1.5)}, "a probability from 0 to 1"),
        ({"augment": gans.Augmentation(lambda key, x, p: x, target=60.0)}, "a target from -1 to 1"),
        ({"critic_steps": 2, "penalties": (gans.r1(1.0, every=2),)}, "critic_steps=2 with a lazy penalty"),
    ],
)
def test_arguments_that_make_no_game(options, message):
    with pytest.raises(InvalidInputError, match=message):
        game(**options)


@pytest.mark.parametrize("make", [lambda: gans.r1(-1.0), lambda: gans.gradient_penalty(float("nan"))])
def test_weights_are_not_negative(make):
    with pytest.raises(InvalidInputError, match="at least 0"):
        make()


@pytest.mark.parametrize("arguments", [(-1e-4, 0.5), (1e-4, 1.0), (1e-4, -0.1), (float("nan"), 0.5)])
def test_adam_refuses_what_it_cannot_be(arguments):
    with pytest.raises(InvalidInputError, match="adam with"):
        core.adam(*arguments)
