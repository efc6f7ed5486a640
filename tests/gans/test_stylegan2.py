"""StyleGAN2's game by hand: linear styles, images of one pixel, and statistics where draws are random."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gan_jax import core, gans, losses, nets
from gan_jax.gans.stylegan2 import mix_styles, with_styles
from gan_jax.types import InvalidInputError, Network, Prior

KEY = jax.random.key(0)
A = jnp.array([[1.0, 2.0], [0.5, -1.0]])  # mapping: w = z A, for each of two layers
B = jnp.array([[3.0, 4.0], [0.0, 12.0]])  # synthesis: the pixel is w_0 . B_0 + w_1 . B_1
Z = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, -1.0]])
W = Z @ A
PIXEL = W @ B[0] + W @ B[1]
FIXED = Prior(lambda key, n, truncation=None: jnp.tile(Z, (n // 4 + 1, 1))[:n], lambda a, b, t: a)
SGD = {"generator_optimizer": optax.sgd(0.0), "discriminator_optimizer": optax.sgd(0.0)}
MAPPING = Network(
    lambda key, z, *label: ({"a": A}, {}),
    lambda params, state, z, *label, train, key=None: (jnp.stack([z @ params["a"]] * 2, axis=1), state),
)
SYNTHESIS = Network(
    lambda key, w: ({"b": B}, {}),
    lambda params, state, w, train, key=None: (jnp.sum(w * params["b"], (1, 2))[:, None, None, None], state),
)
CRITIC = Network(
    lambda key, x, *label: ({"v": jnp.float32(0.1)}, {}),
    lambda params, state, x, *label, train, key=None: (params["v"] * x[:, 0, 0, 0], state),
)


def game(prior=FIXED, **options):
    return gans.stylegan2(MAPPING, SYNTHESIS, CRITIC, prior, **{"style_mixing": 0.0} | SGD | options)


def run(game, steps=1, size=4, **batch):
    """Trains some iterations; returns the state, and the metrics of the last iteration."""
    batch = {"real": jnp.zeros((size, 1, 1, 1)), **batch}
    state = game.init(KEY, batch)
    step = jax.jit(core.make_step(game))
    for _ in range(steps):
        state, accumulator = step(
            state, jax.tree.map(lambda x: jnp.stack([x] * core.batches_per_iteration(game)), batch)
        )
    return state, core.accumulator_means(accumulator)


def test_the_adversarial_losses():
    _, metrics = run(game(r1_gamma=3.0))
    fake = np.log1p(np.exp(-0.1 * PIXEL))
    np.testing.assert_allclose(metrics["generator/loss"], fake.mean(), rtol=1e-5)
    expected = np.log(2) + np.log1p(np.exp(0.1 * PIXEL)).mean()
    np.testing.assert_allclose(metrics["discriminator/loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["discriminator_r1/loss"], 16 * 1.5 * 0.1**2, rtol=1e-5)
    _, relativistic = run(game(loss=losses.relativistic_pairing))
    np.testing.assert_allclose(relativistic["generator/loss"], fake.mean(), rtol=1e-5)  # reals are 0


def test_path_lengths():
    """The gradient by layer l is y B_l with y ~ N(0, 1), so the path length is |y| sqrt((5^2 + 12^2) / 2)."""
    size, length = 40_000, math.sqrt((25 + 144) / 2)
    mean, variance = length * math.sqrt(2 / math.pi), length**2 * (1 - 2 / math.pi)
    lengths = game(path_length_weight=3.0, path_length_every=5)
    state, metrics = run(lengths, size=size)
    target = 0.01 * mean  # it starts at 0, and moves by a hundredth of the way
    np.testing.assert_allclose(state.aux["path_length_mean"], target, rtol=0.02)
    np.testing.assert_allclose(metrics["generator_path_length/mean"], target, rtol=0.02)
    expected = variance + (mean - target) ** 2
    np.testing.assert_allclose(metrics["generator_path_length/path_length"], expected, rtol=0.03)
    np.testing.assert_allclose(metrics["generator_path_length/loss"], 5 * 3.0 * expected, rtol=0.03)
    state, metrics = run(lengths, steps=6, size=size)
    assert "generator_path_length/loss" in metrics and "generator_path_length/loss" not in run(lengths, steps=5)[1]
    np.testing.assert_allclose(state.aux["path_length_mean"], 1.99 * target, rtol=0.02)
    without = game(path_length_weight=None)
    state, metrics = run(without)
    assert "path_length_mean" not in state.aux and "path_length_weight" not in state.hparams
    assert [phase.name for phase in without.phases] == ["discriminator", "discriminator_r1", "generator"]


def test_path_lengths_take_every_second_latent_and_label():
    seen = []

    def apply(params, state, z, label, train, key=None):
        seen.append((z.shape, label))
        return MAPPING.apply(params, state, z, train=train, key=key)

    lengths = gans.stylegan2(Network(MAPPING.init, apply), SYNTHESIS, CRITIC, FIXED, num_classes=9, **SGD)
    batch = {"real": jnp.zeros((6, 1, 1, 1)), "label": jnp.arange(6)}
    state = lengths.init(KEY, batch)
    seen.clear()
    lengths.phases[-1].loss(state.players["generator"].params, state, batch, KEY)
    assert len(seen) == 2 and all(shape == (3, 2) for shape, _ in seen)  # the latents, and those to mix with
    np.testing.assert_array_equal(seen[0][1], [0, 2, 4])
    with pytest.raises(InvalidInputError, match="path_length_shrink=2: the batch of 7"):
        run(game(), size=7)


def test_both_optimisers_are_corrected_for_their_lazy_phases():
    adam = gans.stylegan2(MAPPING, SYNTHESIS, CRITIC, FIXED)
    hparams = core.get_hparams(adam.init(KEY, {"real": jnp.zeros((4, 1, 1, 1))}))
    for player, k in (("generator", 4), ("discriminator", 16)):
        c = k / (k + 1)
        np.testing.assert_allclose(hparams[f"{player}/learning_rate"], c * 2e-3, rtol=1e-6)
        np.testing.assert_allclose(hparams[f"{player}/b1"], 0.0)
        np.testing.assert_allclose(hparams[f"{player}/b2"], 0.99**c, rtol=1e-6)
    assert float(hparams["r1_weight"]) == 5.0 and float(hparams["path_length_weight"]) == 2.0
    plain = gans.stylegan2(MAPPING, SYNTHESIS, CRITIC, FIXED, path_length_weight=None)
    hparams = core.get_hparams(plain.init(KEY, {"real": jnp.zeros((4, 1, 1, 1))}))
    np.testing.assert_allclose(hparams["generator/learning_rate"], 2e-3, rtol=1e-6)


def test_the_average_of_w_moves_with_the_generator_and_truncation_towards_it():
    truncated = game(w_average_decay=0.9, ema_halflife_images=None)
    state, _ = run(truncated, steps=2)
    average = state.players["generator"].model_state["mapping"]["w_average"]
    expected = (1 - 0.9**2) * jnp.stack([W.mean(0)] * 2)
    np.testing.assert_allclose(average, expected, rtol=1e-5)
    small = truncated.init(KEY, {"real": jnp.zeros((4, 1, 1, 1))})  # its mapping, times 1/100, keeps pixels in [-1, 1]
    player = state.players["generator"]
    player = player.replace(params={"mapping": {"a": A / 100}, "synthesis": {"b": B}})
    average = jnp.array([[0.01, -0.02], [0.03, 0.01]])
    player = player.replace(
        model_state={"mapping": {"network": {}, "w_average": average}, "synthesis": {}}, opt_state=player.opt_state
    )
    small = small.replace(players={**small.players, "generator": player})
    center, pixel = float(jnp.sum(average * B)), PIXEL / 100
    for psi, expected in ((None, pixel), (1.0, pixel), (0.5, (center + pixel) / 2), (0.0, [center] * 4)):
        samples = truncated.sample(small, KEY, 4, truncation=psi)
        np.testing.assert_allclose(samples[:, 0, 0, 0], expected, rtol=1e-5, atol=1e-6)
        given = truncated.sample(small, KEY, 4, inputs=Z, truncation=psi)
        np.testing.assert_array_equal(given, samples)
    for psi in (-0.5, 1.5, float("nan")):
        with pytest.raises(InvalidInputError, match=rf"truncation={psi}: expected psi from 0 .* to 1"):
            truncated.sample(small, KEY, 4, truncation=psi)
    np.testing.assert_allclose(truncated.sample(state, KEY, 4)[:, 0, 0, 0], jnp.clip(PIXEL, -1, 1))


def test_latents_are_not_truncated():
    normal = game(core.normal(2))
    assert float(jnp.abs(normal.prior.sample(KEY, 1000, 0.1)).max()) > 1.0


def test_mixing():
    """In a share of the examples, the second style begins at each of the layers 1 to 4 equally often."""
    n, layers = 20_000, 5
    w, other = jnp.zeros((n, layers, 1)), jnp.ones((n, layers, 1))
    mixed = mix_styles(KEY, w, other, 0.6)[..., 0]
    assert bool(jnp.all(jnp.diff(mixed, axis=1) >= 0)) and float(mixed[:, 0].max()) == 0.0
    count = np.bincount(np.asarray(jnp.sum(mixed, axis=1), int), minlength=5)
    np.testing.assert_allclose(count / n, [0.4, 0.15, 0.15, 0.15, 0.15], atol=0.01)
    with pytest.raises(InvalidInputError, match="at least two layers"):
        mix_styles(KEY, w[:, :1], other[:, :1], 0.6)


def test_styles_are_mixed_in_training_only_with_new_latents_and_the_average_is_of_unmixed_ones():
    mixing = with_styles(MAPPING, core.normal(2), mixing=1.0, average_decay=0.0)
    params, state = mixing.init(KEY, Z)
    np.testing.assert_array_equal(state["w_average"], jnp.zeros((2, 2)))
    w, after = mixing.apply(params, state, Z, train=True, key=KEY)
    np.testing.assert_allclose(w[:, 0], W)
    assert not np.isclose(w[:, 1], W).any()
    np.testing.assert_allclose(after["w_average"], jnp.stack([W.mean(0)] * 2))
    for arguments in ({"train": False, "key": KEY}, {"train": True}):
        plain, _ = mixing.apply(params, state, Z, **arguments)
        np.testing.assert_allclose(plain[:, 1], W)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path_length_weight": -1.0}, "path_length_weight=-1"),
        ({"path_length_every": 0}, "path_length_every=0"),
        ({"path_length_shrink": 0}, "path_length_shrink=0"),
        ({"style_mixing": 90.0}, "style_mixing=90"),
        ({"w_average_decay": float("nan")}, "w_average_decay=nan"),
    ],
)
def test_arguments_that_make_no_game(options, message):
    with pytest.raises(InvalidInputError, match=message):
        game(**options)


def test_a_mapping_of_one_style_for_all_layers_is_refused():
    flat = Network(MAPPING.init, lambda params, state, z, train, key=None: (z @ params["a"], state))
    with pytest.raises(InvalidInputError, match="mapping: it makes w"):
        gans.stylegan2(flat, SYNTHESIS, CRITIC, FIXED).init(KEY, {"real": jnp.zeros((4, 1, 1, 1))})


def test_devices_that_do_not_hold_whole_shares_are_told(mesh):
    mesh(8)
    with pytest.raises(InvalidInputError, match="on 8 devices"):
        run(game(), size=8)


def test_any_other_game_takes_the_whole_generator():
    generator = nets.from_linen(nets.StyleGAN2Generator(8, 1, 32, 4, style_size=4, mapping_layers=1))
    critic = nets.from_linen(nets.StyleGAN2Discriminator(32, 4))
    plain = gans.dcgan(generator, critic, core.normal(3))
    state = jax.jit(plain.init)(KEY, {"real": jnp.zeros((4, 8, 8, 1))})
    assert jax.jit(plain.sample, static_argnums=2)(state, KEY, 2).shape == (2, 8, 8, 1)
