"""The game of tokenizers: gradients, orders and starts, counts of codes, functions, and what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gan_jax import core, gans, nets
from gan_jax.core.phase import gradient
from gan_jax.types import InvalidInputError, Term, Value
from tests.conformance.games import BATCH, SmallDecoder, SmallEncoder, linen

RECIPE = gans.TokenizerRecipe(adaptive=False, learning_rate=1e-2)
REAL = jnp.tanh(jax.random.normal(jax.random.key(1), (BATCH, 8, 8, 1)))
PERCEPTUAL = gans.FrozenFeatures("net", lambda w, y, x: jnp.mean((w * (y - x)) ** 2, (1, 2, 3)))


def network(bottleneck=None):
    bottleneck = nets.FiniteScalarQuantizer((5, 3)) if bottleneck is None else bottleneck
    return linen(nets.Tokenizer(SmallEncoder(), bottleneck, SmallDecoder()))


def critic():
    return linen(nets.BlurPatchDiscriminator(4, 1, 2))


def game(recipe=RECIPE, discriminator=True, **options):
    return gans.tokenizer(network(options.pop("of", None)), critic() if discriminator else None, recipe, **options)


def start(made, step=0):
    state = made.init(jax.random.key(0), {"real": REAL}).replace(frozen={"net": jnp.float32(2.0)})
    return state.replace(step=jnp.int32(step))


def test_the_gradient_is_that_of_the_weighted_sum_of_losses():
    recipe = RECIPE._replace(pixel_weight=0.7, perceptual_weight=0.4, adversarial_weight=0.3)
    made = game(recipe, perceptual=PERCEPTUAL)
    state = start(made)
    generator = made.phases[0]
    tokens, judge = network(), critic()

    @jax.jit
    def direct(params):
        y = tokens.apply(params, {}, REAL, train=True)[0]["images"]
        player = state.players["discriminator"]
        logits = judge.apply(player.params, player.model_state, y, train=True)[0]
        perceptual = jnp.mean(PERCEPTUAL.apply(2.0, y, REAL))
        return 0.7 * jnp.mean(jnp.abs(y - REAL)) + 0.4 * perceptual - 0.3 * jnp.mean(logits)

    value, slope = jax.value_and_grad(direct)(state.players["generator"].params)
    found, _, total = jax.jit(functools.partial(gradient, generator))(state, {"real": REAL}, jax.random.key(0))
    np.testing.assert_allclose(total, value, rtol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), found, slope)


@pytest.mark.parametrize("last", [None, nets.TOKENIZER_LAST_LAYER])
def test_the_adaptive_weight_makes_both_gradients_equally_long(last):
    signs = nets.LookupFreeQuantizer(5, temperature=None)
    recipe = RECIPE._replace(adaptive=True, adversarial_weight=1.0)
    made = game(recipe, last_layer=last, of=signs, bottleneck={"commitment": 0.25})
    state, batch = start(made), {"real": REAL}
    run = jax.jit(lambda state: gradient(made.phases[0], state, batch, jax.random.key(0)))

    def of(**weights):
        return run(core.set_hparams(state, weights))

    def kernel(found):
        return np.linalg.norm(found[0]["decoder"]["output"]["kernel"])

    both = of()
    weight = float(both[1].metrics["adaptive_weight"])
    pixels = of(adversarial_weight=0.0)
    total = jax.tree.map(lambda a, b: a - b, both[0], pixels[0])
    if last is not None:
        np.testing.assert_allclose(np.linalg.norm(total["decoder"]["output"]["kernel"]), kernel(pixels), rtol=2e-2)
    assert np.isfinite(weight) and weight > 0
    np.testing.assert_allclose(float(both[1].metrics["adversarial_factor"]), weight, rtol=1e-6)


def test_orders_starts_and_ramps():
    late = RECIPE._replace(discriminator_start=2, adversarial_start=3, adversarial_ramp=2)
    first, second = (game(late._replace(generator_first=which)) for which in (True, False))
    assert [(p.player, p.start, p.reuse_batch) for p in first.phases] == [
        ("generator", 0, False), ("discriminator", 2, True),
    ]  # fmt: skip
    assert [p.player for p in second.phases] == ["discriminator", "generator"]
    step = jax.jit(core.make_step(first))
    state, factors, judged = start(first), [], []
    for _ in range(6):
        state, sums = step(state, {"real": REAL[None]})
        means = core.accumulator_means(sums)
        factors.append(round(float(means["generator/adversarial_factor"]) / 0.8, 5))
        judged.append("discriminator/loss" in means and np.isfinite(means["discriminator/loss"]))
    assert factors == [0, 0, 0, 0, 0.5, 1]
    with pytest.raises(InvalidInputError, match="has not begun"):
        game(RECIPE._replace(discriminator_start=5, adversarial_start=4))


def test_the_discriminator_sees_the_updated_autoencoder_unless_updates_are_simultaneous():
    made = game(RECIPE, generator_optimizer=optax.sgd(10.0))
    state, batches = start(made), {"real": REAL[None]}
    fakes = {
        rule: float(
            core.accumulator_means(jax.jit(core.make_step(made, rule))(state, batches)[1])["discriminator/loss"]
        )
        for rule in (core.alternating, core.simultaneous)
    }
    assert fakes[core.alternating] != fakes[core.simultaneous]


def test_codes_are_counted_over_whole_epochs():
    made = game(discriminator=False, num_codes=15, epoch_images=2 * BATCH)
    state = start(made)
    step = jax.jit(core.make_step(made))
    encode = jax.jit(made.functions["encode"])
    seen, shown = [], []
    for _ in range(5):
        seen.append(np.asarray(encode(state, jax.random.key(0), REAL)).ravel())
        state, sums = step(state, {"real": REAL[None]})
        shown.append(float(core.accumulator_means(sums)["generator/codes_used"]))
    share = [
        len(np.unique(np.concatenate(seen[low:high]))) / 15 for low, high in ((0, 1), (0, 2), (0, 2), (0, 2), (2, 4))
    ]
    np.testing.assert_allclose(shown, share, rtol=1e-6)


def test_an_autoencoder_alone_learns_and_its_functions_agree():
    made = game(discriminator=False)
    assert [phase.player for phase in made.phases] == ["generator"]
    state, step = start(made), jax.jit(core.make_step(made))
    values = []
    for _ in range(40):
        state, sums = step(state, {"real": REAL[None]})
        values.append(float(core.accumulator_means(sums)["generator/pixels"]))
    assert values[-1] < 0.8 * values[0]
    key = jax.random.key(0)
    encode, decode, codes = (made.functions[name] for name in ("encode", "decode", "codes"))
    expected = made.functions["reconstruct"](state, key, REAL)
    assert float(jnp.abs(expected).max()) <= 1
    for inputs in (encode(state, key, REAL), codes(state, key, REAL)):
        np.testing.assert_allclose(decode(state, key, inputs), expected, atol=1e-6)
    np.testing.assert_allclose(made.sample(state, key, 3, inputs=REAL), expected[:3], atol=1e-6)


@pytest.mark.slow
def test_a_discriminator_on_frozen_features():
    """The features are those of a network in `state.frozen`, differentiated through to the image."""

    def tokens(w, x):
        return [w * x.reshape(x.shape[0], 16, 4), jnp.sin(x.reshape(x.shape[0], 16, 4))]

    made = gans.tokenizer(
        network(), nets.feature_heads(2, 4), RECIPE._replace(penalties=(gans.r1(1.0),)),
        features=gans.FrozenFeatures("net", tokens),
    )  # fmt: skip
    _, sums = jax.jit(core.make_step(made))(start(made), {"real": REAL[None]})
    means = core.accumulator_means(sums)
    assert means["discriminator/r1"] > 0 and all(np.isfinite(value) for value in means.values())


def test_recipes_are_those_of_the_page():
    assert set(gans.TOKENIZER_RECIPES) == {"vqgan", "maskgit", "open_magvit2", "titok", "rae"}
    for name, recipe in gans.TOKENIZER_RECIPES.items():
        made = game(recipe, of=nets.VectorQuantizer(6, 3), bottleneck=gans.VQ_WEIGHTS)
        assert made.phases[0].player == ("discriminator" if name == "maskgit" else "generator")
    weights = {
        name: (
            recipe.pixel_weight,
            recipe.perceptual_weight,
            recipe.adversarial_weight,
            *(x.weight for x in recipe.penalties),
        )
        for name, recipe in gans.TOKENIZER_RECIPES.items()
    }
    assert weights == {
        "vqgan": (1.0, 1.0, 0.8), "maskgit": (0.25, 0.1, 0.1, 40.0), "open_magvit2": (1.0, 1.0, 0.1, 0.1),
        "titok": (0.25, 0.1, 0.01, 0.002), "rae": (0.5, 1.0, 0.75),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: start(game(bottleneck={"kl": 1.0})), r"terms \(none\)"),
        (lambda: start(game(of=nets.VectorQuantizer(6, 3), bottleneck={"commitment": 1.0})), "codebook, commitment"),
        (lambda: game(epoch_images=0), "epoch_images=0"),
        (lambda: game(discriminator=False, terms=(gans.r1(1.0),)), "there is none"),
        (
            lambda: core.make_step(
                made := game(
                    discriminator=False, terms=(Term("x", "generator", 1.0, lambda view, key: Value(view.fake_out)),)
                )
            )(start(made), {"real": REAL[None]}),
            "discriminator=None",
        ),
        (lambda: game().init(jax.random.key(0), {"real": REAL, "label": jnp.zeros(BATCH, jnp.int32)}), "label"),
        (lambda: game(RECIPE._replace(adversarial_ramp=-1)), "adversarial_ramp=-1"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(InvalidInputError, match=message):
        make()
