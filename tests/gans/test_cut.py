"""CUT's losses against values computed by hand, its random places, and FastCUT's mirrored sources."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gan_jax import core, gans
from gan_jax.types import InvalidInputError, Network

KEY = jax.random.key(0)
A, B = jax.random.normal(KEY, (2, 8, 3, 2, 2))
BATCH = {"a": A, "b": B}
STILL = {f"{player}_optimizer": optax.sgd(0.0) for player in ("generator", "discriminator")}
RAMP = np.array([1.0, -0.5]).reshape(1, 1, 2, 1)


def generator(scale, ramp=1.0):
    """Returns a generator whose features, of two layers, are its input and the input's square."""

    def apply(params, state, x, train, key=None):
        return {"image": params["scale"] * x * ramp, "features": {"one": x, "two": x[:, ::2] ** 2}}, state

    return Network(lambda key, x: ({"scale": jnp.float32(scale)}, {}), apply)


def unit():
    def apply(params, state, features, train, key=None):
        return {
            name: params["w"] * x / jnp.linalg.norm(x, axis=-1, keepdims=True) for name, x in features.items()
        }, state

    return Network(lambda key, features: ({"w": jnp.float32(1.0)}, {}), apply)


def critic(scale):
    return Network(
        lambda key, x: ({"scale": jnp.float32(scale)}, {}),
        lambda params, state, x, train, key=None: (params["scale"] * x, state),
    )


def nce(query, positive):
    """The contrastive loss per image, of all places, in float64."""
    found = []
    for layer in (lambda x: x, lambda x: x[:, ::2] ** 2):
        q, k = (np.asarray(layer(np.asarray(x, np.float64))).reshape(len(x), -1, 2) for x in (query, positive))
        q, k = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k))
        similarity = np.exp(np.einsum("bid,bjd->bij", q, k) / 0.07)
        each = -np.log(np.einsum("bii->bi", similarity) / similarity.sum(-1))
        found.append(each.mean(1))
    return np.mean(found, axis=0)


def one_step(game, key=KEY):
    state = game.init(key, BATCH)
    _, accumulator = core.make_step(game)(state, jax.tree.map(lambda x: x[None], BATCH))
    return core.accumulator_means(accumulator)


def test_losses_are_the_papers_beside_its_adversarial_term():
    """(D(G(a)) - 1)^2 + (NCE(a, G(a)) + NCE(b, G(b))) / 2, of which the loss here is the half."""
    found = one_step(gans.cut(generator(0.5, RAMP), critic(0.7), unit(), **STILL))
    fake, kept = 0.5 * np.asarray(A) * RAMP, 0.5 * np.asarray(B) * RAMP
    of_a, of_b = nce(fake, A).mean(), nce(kept, B).mean()
    np.testing.assert_allclose(found["generator/nce"], of_a, rtol=1e-4)
    np.testing.assert_allclose(found["generator/identity"], of_b, rtol=1e-4)
    papers = np.mean((0.7 * fake - 1) ** 2) + (of_a + of_b) / 2
    assert 2 * found["generator/loss"] == pytest.approx(papers, rel=1e-4)
    real = np.mean((0.7 * B - 1) ** 2) / 2
    assert found["discriminator/loss"] == pytest.approx(real + np.mean((0.7 * fake) ** 2) / 2, rel=1e-4)


def test_fastcut_mirrors_half_of_the_sources_and_mirrors_their_features_back():
    """The generator is not symmetric, so the loss of each image is one of two values, by its coin."""
    found = one_step(gans.cut(generator(0.5, RAMP), critic(0.7), unit(), **gans.FASTCUT, **STILL))
    assert "generator/identity" not in found
    straight, mirrored = (nce(0.5 * np.asarray(A) * ramp, A) for ramp in (RAMP, RAMP[:, :, ::-1]))
    sums = [np.where([(coins >> place) & 1 for place in range(8)], mirrored, straight).mean() for coins in range(2**8)]
    best = int(np.argmin(np.abs(np.array(sums) - found["generator/nce"])))
    np.testing.assert_allclose(found["generator/nce"], sums[best], rtol=1e-5)
    assert 0 < best < 2**8 - 1
    fake = [0.5 * x * RAMP for x in (np.asarray(A), np.asarray(A)[:, :, ::-1])]
    coins = np.array([(best >> place) & 1 for place in range(8)])[:, None, None, None]
    papers = np.mean((0.7 * np.where(coins, fake[1], fake[0]) - 1) ** 2) + 10 * found["generator/nce"]
    assert 2 * found["generator/loss"] == pytest.approx(papers, rel=1e-4)


def test_places_are_random_and_the_same_for_query_and_positive():
    """With 2 of 6 places and identical features the loss is that of an image with itself, for any places."""
    game = gans.cut(generator(1.0), critic(0.7), unit(), patches=2, identity_weight=None, **STILL)
    found = {one_step(game, jax.random.key(seed))["generator/nce"] for seed in range(6)}
    assert len(found) > 2
    # with equal images, each place is nearest to itself
    assert all(value < np.log(2.0) for value in found)


def test_the_projector_is_trained_with_the_generator():
    sgd = optax.sgd(0.1)
    game = gans.cut(generator(0.5, RAMP), critic(0.7), unit(), generator_optimizer=sgd, discriminator_optimizer=sgd)
    state = game.init(KEY, BATCH)
    after, _ = jax.jit(core.make_step(game))(state, jax.tree.map(lambda x: x[None], BATCH))
    before, now = (x.players["generator"].params for x in (state, after))
    assert float(now["projector"]["w"]) != float(before["projector"]["w"])
    assert float(now["translator"]["scale"]) != float(before["translator"]["scale"])
    out = game.functions["translate"](after, KEY, A)
    np.testing.assert_allclose(out, float(now["translator"]["scale"]) * A * RAMP, rtol=1e-5)
    np.testing.assert_array_equal(game.sample(after, KEY, 8, inputs=A), out)


def test_what_is_refused():
    with pytest.raises(InvalidInputError, match="patches=1"):
        gans.cut(generator(1.0), critic(1.0), unit(), patches=1)
    with pytest.raises(InvalidInputError, match=r"returns no features.*nets.CUT_FEATURES"):
        gans.cut(critic(1.0), critic(1.0), unit()).init(KEY, BATCH)
    with pytest.raises(InvalidInputError, match="CUT takes the images 'a' and 'b'"):
        gans.cut(generator(1.0), critic(1.0), unit()).init(KEY, {"a": A})
