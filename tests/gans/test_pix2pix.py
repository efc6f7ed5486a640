"""pix2pix's losses against values computed by hand, its sampling in the training mode, label maps, its schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gan_jax import core, gans, losses, nets
from gan_jax.types import InvalidInputError, Network

KEY = jax.random.key(0)
A, B = jax.random.normal(KEY, (2, 4, 2, 2, 1))
BATCH = {"a": A, "b": B}


def scaling(value):
    """Returns a generator of one number, whose noise in training is a multiple of the key's first draw."""

    def apply(params, state, x, train, key=None):
        noise = jax.random.normal(key, x.shape) if train else 0.0
        return params["scale"] * x + params["noise"] * noise, state

    return Network(lambda key, x: ({"scale": jnp.float32(value), "noise": jnp.float32(0.0)}, {}), apply)


def critic(of_image, of_source):
    """Returns a discriminator that is a weighted sum of the image and its source, with features of two layers."""

    def apply(params, state, x, source, train, key=None):
        logits = params["x"] * x + params["a"] * source
        return {"logits": logits, "features": [2.0 * x, x**2]}, state

    return Network(lambda key, x, source: ({"x": jnp.float32(of_image), "a": jnp.float32(of_source)}, {}), apply)


def one_step(game, batch=BATCH):
    state = game.init(KEY, batch)
    state, accumulator = core.make_step(game)(state, jax.tree.map(lambda x: x[None], batch))
    return state, core.accumulator_means(accumulator)


STILL = {f"{player}_optimizer": optax.sgd(0.0) for player in ("generator", "discriminator")}


def softplus(x):
    return np.mean(np.logaddexp(0, x))


def test_losses():
    game = gans.pix2pix(scaling(0.5), critic(0.7, -0.3), l1_weight=10.0, feature_matching_weight=3.0, **STILL)
    _, found = one_step(game)
    real, fake = 0.7 * B - 0.3 * A, 0.7 * 0.5 * A - 0.3 * A
    np.testing.assert_allclose(found["discriminator/loss"], softplus(-real) + softplus(fake), rtol=1e-5)
    l1 = np.mean(np.abs(0.5 * A - B))
    features = (np.mean(np.abs(2 * 0.5 * A - 2 * B)) + np.mean(np.abs((0.5 * A) ** 2 - B**2))) / 2
    np.testing.assert_allclose(found["generator/l1"], l1, rtol=1e-5)
    np.testing.assert_allclose(found["generator/feature_matching"], features, rtol=1e-5)
    np.testing.assert_allclose(found["generator/loss"], softplus(-fake) + 10 * l1 + 3 * features, rtol=1e-5)


def test_the_weights_are_hyperparameters_and_a_term_that_is_off_is_absent():
    game = gans.pix2pix(scaling(0.5), critic(0.7, -0.3))
    hparams = core.get_hparams(game.init(KEY, BATCH))
    assert float(hparams["l1_weight"]) == 100.0 and float(hparams["adversarial_weight"]) == 1.0
    assert "feature_matching_weight" not in hparams
    _, found = one_step(gans.pix2pix(scaling(0.5), critic(0.7, -0.3), adversarial_weight=0.0, l1_weight=1.0, **STILL))
    np.testing.assert_allclose(found["generator/loss"], np.mean(np.abs(0.5 * A - B)), rtol=1e-5)
    _, found = one_step(gans.pix2pix(scaling(0.5), critic(0.7, -0.3), l1_weight=None, **STILL))
    assert "generator/l1" not in found


def test_the_weights_of_pix2pixhd_beside_least_squares():
    """Their (D - 1)^2, with 10 times the sum over the 4 layers of a scale, is twice our loss with the weight 20."""
    game = gans.pix2pix(
        scaling(0.5),
        critic(0.7, -0.3),
        loss=losses.least_squares,
        l1_weight=None,
        feature_matching_weight=20.0,
        **STILL,
    )
    _, found = one_step(game)
    fake = 0.7 * 0.5 * A - 0.3 * A
    mean = found["generator/feature_matching"]
    papers = np.mean((fake - 1) ** 2) + 10 * 4 * mean  # a sum over the 4 layers of a scale, the mean over scales
    assert 2 * found["generator/loss"] == pytest.approx(papers, rel=1e-5)


def test_sampling_is_that_of_training():
    """Dropout and batch statistics are used, by their key, and the state is not changed."""
    generator = scaling(0.5)
    noisy = generator._replace(init=lambda key, x: ({"scale": jnp.float32(0.5), "noise": jnp.float32(1.0)}, {}))
    game = gans.pix2pix(noisy, critic(0.7, -0.3))
    state = game.init(KEY, BATCH)
    first, again, other = (game.functions["translate"](state, jax.random.key(seed), A) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other) and not np.allclose(first, 0.5 * A)
    np.testing.assert_array_equal(game.sample(state, jax.random.key(1), 4, inputs=A), first)


def test_batch_norm_uses_the_images_at_hand():
    game = gans.pix2pix(
        nets.from_linen(nets.UNet(1, 2, 2, norm="batch")), nets.from_linen(nets.PatchDiscriminator(2, 1))
    )
    batch = {name: jnp.tile(x, (1, 4, 4, 1)) for name, x in BATCH.items()}
    state = jax.jit(game.init)(KEY, batch)
    # statistics that evaluation would use are made useless
    player = state.players["generator"]
    spoiled = jax.tree.map(lambda x: 1e6 * jnp.ones_like(x), player.model_state)
    state = state.replace(players={**state.players, "generator": player.replace(model_state=spoiled)})
    out = jax.jit(game.functions["translate"])(state, KEY, batch["a"])
    generator = nets.UNet(1, 2, 2, norm="batch")
    expected = nets.from_linen(generator).apply(player.params, player.model_state, batch["a"], train=True)[0]
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_maps_of_classes_become_one_channel_per_class():
    maps = jax.random.randint(KEY, (4, 2, 2), 0, 3)
    seen = []

    def look(name):
        def init(key, *inputs):
            return {"w": jnp.ones(())}, {}

        def apply(params, state, *inputs, train, key=None):
            seen.append((name, inputs[-1]))
            return params["w"] * inputs[0][..., :1], state

        return Network(init, apply)

    game = gans.pix2pix(look("generator"), look("critic"), classes=3, **STILL)
    for a in (maps, maps[..., None]):
        seen.clear()
        one_step(game, {"a": a, "b": B})
        one_hot = np.eye(3, dtype=np.float32)[np.asarray(maps)]
        for name in ("generator", "critic"):
            last = [x for which, x in seen if which == name and x.shape == (4, 2, 2, 3)]
            assert last and not [x for which, x in seen if which == name and x.shape[-1] != 3]
            concrete = [x for x in last if not isinstance(x, jax.core.Tracer)]
            assert all(np.array_equal(x, one_hot) for x in concrete)
        np.testing.assert_array_equal(
            game.functions["translate"](game.init(KEY, {"a": a, "b": B}), KEY, a), one_hot[..., :1]
        )
    with pytest.raises(InvalidInputError, match=r"classes=3: expected a map of classes .* got float32 \(1, 2, 2, 1\)"):
        game.init(KEY, BATCH)
    with pytest.raises(InvalidInputError, match="classes=1"):
        gans.pix2pix(scaling(1.0), critic(1.0, 1.0), classes=1)


@pytest.mark.parametrize("value", [3, 255, -1])
def test_values_that_are_no_class_are_not_silent(value):
    """The pixel's output, and the losses of its batch, are NaN; other pixels are as ever."""
    maps = jax.random.randint(KEY, (4, 2, 2), 0, 3)
    game = gans.pix2pix(scaling(0.5), critic(0.7, 0.1), classes=3, **STILL)
    assert game.map_classes == 3
    batch = {"a": maps.at[1, 0, 1].set(value), "b": jnp.tile(B, (1, 1, 1, 3))}
    _, found = one_step(game, batch)
    assert np.isnan(found["generator/loss"]) and np.isnan(found["discriminator/loss"])
    state = game.init(KEY, batch)
    made = game.functions["translate"](state, KEY, batch["a"])
    known = game.functions["translate"](state, KEY, maps)
    assert np.isnan(made[1, 0, 1]).all() and np.isfinite(known).all() and np.isnan(made).sum() == 3
    np.testing.assert_array_equal(made[np.isfinite(made)], known[np.isfinite(made)])


@pytest.mark.parametrize("make", [gans.pix2pix, gans.cyclegan])
def test_the_learning_rate_is_constant_and_then_falls_to_zero(make):
    """With 8 images constant and 8 falling, batches of 4: after 3 iterations, at 12 images, half is left."""
    networks = (scaling(0.5), critic(0.7, -0.3)) if make is gans.pix2pix else (scaling(0.5), scaling(0.7))
    game = make(*networks, learning_rate=0.02, decay=(8.0, 8.0), discriminator_optimizer=optax.sgd(0.0))
    state, step = game.init(KEY, BATCH), jax.jit(core.make_step(game))
    found = []
    for _ in range(6):
        found.append(float(core.get_hparams(state)["generator/learning_rate"]))
        state, _ = step(state, jax.tree.map(lambda x: x[None], BATCH))
    np.testing.assert_allclose(found, [0.02, 0.02, 0.02, 0.01, 0.0, 0.0], atol=1e-8)
    assert "hparams/discriminator/learning_rate" not in game.shown


@pytest.mark.parametrize(
    "batch",
    [{"a": A}, {"a": A, "b": B[:, :1]}, {"a": A, "b": B, "label": jnp.zeros(4, jnp.int32)}, {"a": A, "b": B[..., 0]}],
)
def test_batches_that_are_no_pairs_are_refused(batch):
    with pytest.raises(InvalidInputError, match="pix2pix takes the images 'a' and 'b'"):
        gans.pix2pix(scaling(0.5), critic(0.7, -0.3)).init(KEY, batch)
