"""Losses, penalties and filters against values of independent packages, which make_losses.py wrote to losses.json."""

import contextlib
import json
import math
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import losses, regularizers
from gan_jax.augment import diffaug, pipeline
from gan_jax.augment.geometry import SYM6

GOLDEN = json.loads(pathlib.Path(__file__).with_name("losses.json").read_text())
ENTRIES = GOLDEN["entries"]


class Check(NamedTuple):
    """The comparison with one entry.

    Attributes:
      ours: our value, in the package's convention.
      plain: our value without the conversion, which must differ; None if the package's convention is ours.
      note: description of the conversion.
      expected: transformation of the package's output before the comparison.
      rtol: largest difference allowed, relative to the largest element.
    """

    ours: Callable[[], Any]
    plain: Callable[[], Any] | None = None
    note: str = ""
    expected: Callable[[Any], Any] = lambda output: output
    rtol: float = 1e-9


def given(name: str) -> jax.Array:
    """Returns an input of the golden file; images have the channels last."""
    array = np.array(GOLDEN["inputs"][name])
    if name == "critic":
        array = array.transpose(1, 2, 0)
    elif array.ndim == 4:
        array = array.transpose(0, 2, 3, 1)
    return jnp.asarray(array, jnp.int32 if name in ("label", "shifts") else float)


def channels_first(images: jax.Array) -> jax.Array:
    return jnp.moveaxis(images, -1, 1)


def d(loss: losses.GANLoss, real: str = "real", fake: str = "fake") -> jax.Array:
    return loss.discriminator(given(real), given(fake))


def g(loss: losses.GANLoss, real: str = "real", fake: str = "fake") -> jax.Array:
    return loss.generator(given(real), given(fake))


def d_of(loss: losses.GANLoss, change: Callable) -> jax.Array:
    return jnp.mean(loss.discriminator(change(given("real")), change(given("fake"))))


def mean_d(loss: losses.GANLoss, *names: str) -> jax.Array:
    return jnp.mean(d(loss, *names))


def mean_g(loss: losses.GANLoss, *names: str) -> jax.Array:
    return jnp.mean(g(loss, *names))


@contextlib.contextmanager
def draws(**values):
    """Makes functions of jax.random return the given arrays, one after the other, in the requested shape."""
    with contextlib.ExitStack() as stack:
        for name, arrays in values.items():
            queue = iter(arrays)

            def next_array(key, shape, *args, queue=queue, **kwargs):
                return jnp.broadcast_to(jnp.asarray(next(queue)), shape)

            stack.enter_context(mock.patch(f"jax.random.{name}", next_array))
        yield


def key() -> jax.Array:
    return jax.random.key(0)


def critic(x: jax.Array) -> jax.Array:
    return jnp.sum(given("critic") * jnp.tanh(x), axis=(1, 2, 3))


def vector_critic(x: jax.Array) -> jax.Array:
    return jnp.sum(given("critic_vector") * jnp.tanh(x), axis=-1)


def r1() -> jax.Array:
    return jnp.mean(regularizers.zero_centered_penalty(critic, given("images")))


def gradient_penalty(alpha: Callable = lambda alpha: 1 - alpha, **options) -> jax.Array:
    with draws(uniform=[alpha(given("alpha")).reshape(3, 1, 1, 1)]):
        return jnp.mean(regularizers.interpolated_penalty(critic, given("images"), given("fakes"), key(), **options))


def pixel_penalty() -> jax.Array:
    """Computes the penalty per pixel: the critic is a sum over pixels, so every pixel can be an example."""
    real, fake = (given(name).reshape(27, 2) for name in ("images", "fakes"))
    weight = jnp.tile(given("critic").reshape(9, 2), (3, 1))
    with draws(uniform=[1 - jnp.repeat(given("alpha"), 9)[:, None]]):
        penalty = regularizers.interpolated_penalty(lambda x: jnp.sum(weight * jnp.tanh(x), -1), real, fake, key())
    return jnp.mean(penalty)


def three_channel_penalty() -> jax.Array:
    real, fake = (jnp.concatenate([x, x[..., :1]], -1) for x in (given("images"), given("fakes")))
    with draws(uniform=[1 - given("alpha").reshape(3, 1, 1, 1)]):
        return jnp.mean(
            regularizers.interpolated_penalty(
                lambda x: critic(x[..., :2]) + jnp.sum(x[..., 2], (1, 2)), real, fake, key()
            )
        )


def whole_batch_penalty() -> jax.Array:
    real, fake, alpha = given("images"), given("fakes"), given("alpha").reshape(3, 1, 1, 1)
    between = real + (1 - alpha) * (fake - real)
    return (jnp.sqrt(jnp.sum(regularizers.zero_centered_penalty(critic, between))) - 1) ** 2


def dragan(scale: float) -> jax.Array:
    with draws(uniform=[given("uniform"), jnp.full((1, 1), 0.25)]):
        return jnp.mean(regularizers.dragan_penalty(vector_critic, given("vectors"), key(), scale=scale))


def path_length(mean: jax.Array, decay: float) -> tuple[jax.Array, jax.Array]:
    def synthesize(w):
        flat = jnp.tanh(jnp.sum(w, 1) @ given("synthesis") + jnp.sum(w[:, 0], 1)[:, None])
        return jnp.moveaxis(flat.reshape(3, 2, 2, 2), 1, -1)

    with draws(normal=[given("path_noise")]):
        return regularizers.path_length(synthesize, given("w"), key(), mean, decay=decay)


def path_figures() -> jax.Array:
    mean = given("path_mean")
    penalty, new = path_length(mean, 0.01)
    return jnp.stack([jnp.mean(penalty), (new - 0.99 * mean) / 0.01, new])


def adaptive(**options) -> jax.Array:
    kernel = given("kernel")
    return losses.adaptive_weight(2 * kernel, 1 - jnp.tanh(kernel) ** 2, **options)


def classes(name: str = "class_logits") -> jax.Array:
    return losses.auxiliary_classifier(given(name), given("label"))


def gaussian() -> jax.Array:
    return losses.gaussian_mutual_information(given("mean"), given("log_std"), given("code"))


def two_class_hinges() -> jax.Array:
    """Computes the Weston-Watkins hinge: the sum of the two-class hinges over the other classes."""
    logits, label = given("class_logits"), given("label")
    own = jnp.take_along_axis(logits, label[:, None], 1)[:, 0]
    zeros = jnp.zeros_like(label)
    each = [losses.multi_hinge(jnp.stack([own, logits[:, j]], 1), zeros) for j in range(5)]
    return jnp.sum(jnp.stack([jnp.where(label == j, 0, x) for j, x in enumerate(each)]), 0)


def contrastive(temperature: float) -> jax.Array:
    return losses.conditional_contrastive(given("embedding"), given("proxy"), given("label"), temperature=temperature)


def adc() -> jax.Array:
    logits, label = given("twice_logits"), given("label")
    return jnp.stack(
        [
            losses.auxiliary_discriminative(logits, label, real=True),
            losses.auxiliary_discriminative(logits, label, real=False),
            losses.auxiliary_discriminative_generator(logits, label),
        ]
    )


def mmd(**options) -> jax.Array:
    return losses.maximum_mean_discrepancy(given("features_real"), given("features_fake"), **options)


def energy(**options) -> jax.Array:
    return losses.energy_distance(given("features_real"), given("features_fake"), **options)


def layers(of: Callable, **options) -> jax.Array:
    return of(*([given(f"{name}_1"), given(f"{name}_2")] for name in ("layer", "target")), **options)


def pixels(of: Callable, **options) -> jax.Array:
    return channels_first(of(given("layer_1"), given("target_1"), **options))


def lpips(weights: Any, shape: tuple[int, ...] = (2, 1, 1, 1)) -> jax.Array:
    return layers(losses.perceptual, weights=weights, normalize=True).reshape(shape)


def f_gan(name: str, logit: Callable) -> jax.Array:
    """Computes the output activation g, and f*(g), at the logit for which g is the derivative of f."""
    v = logit(given("ratio"))
    return -jnp.stack([losses.f_divergence(name, practical=p).generator(v, v) for p in (True, False)])


def fenchel(output: list) -> np.ndarray:
    """Computes f'(u) and, by Fenchel and Young, f*(f'(u)) = u f'(u) - f(u)."""
    value, slope = np.array(output)
    return np.stack([slope, np.array(GOLDEN["inputs"]["ratio"]) * slope - value])


def bands() -> np.ndarray:
    return np.stack([np.pad(taps, 32 - len(taps) // 2)[:64] for taps in pipeline.band_filters()])


def hue() -> jax.Array:
    with draws(uniform=[given("angle"), jnp.zeros(2)]):
        return channels_first(pipeline.transform_color(key(), given("pixels"), 1.0, operations=["hue_rotation"]))


def color() -> jax.Array:
    values = [*given("uniforms").reshape(3, 2, 1, 1, 1), jnp.zeros(2)]
    with draws(uniform=values):
        return channels_first(diffaug.color(key(), given("pixels"), 1.0))


def translation(sign: int) -> jax.Array:
    with draws(uniform=[jnp.zeros(2)], randint=list(sign * given("shifts"))):
        return channels_first(diffaug.translation(key(), given("pixels"), 1.0))


def cutout() -> jax.Array:
    with draws(uniform=[jnp.zeros(2), *given("centers")[..., None]]):
        return channels_first(diffaug.cutout(key(), given("pixels"), 1.0))


def ns_gradient() -> jax.Array:
    logits = given("extreme")
    return jax.grad(lambda f: jnp.mean(losses.non_saturating.generator(f, f)))(logits)


def vanished() -> jax.Array:
    probability = jax.nn.sigmoid(given("extreme"))
    return ns_gradient() * probability / (probability + 1e-8)


def mean_energies() -> jax.Array:
    means = jnp.mean((given("real") / 2) ** 2), jnp.mean(given("fake") ** 2)
    return 0.5 * losses.energy_based(6.0).discriminator(*means)


def flat(loss: losses.GANLoss, player: str) -> jax.Array:
    return jnp.mean(getattr(loss, player)(given("real_map").ravel(), given("fake_map").ravel()))


HALF, FLIPPED = "the package takes half", "the package's logits have the other sign"
NS, LS, HINGE, WASSERSTEIN, RA = (
    losses.non_saturating, losses.least_squares, losses.hinge, losses.wasserstein, losses.relativistic_average,
)  # fmt: skip
TWICE = "the package leaves out the factor one half"
TF = 2e-6  # TF-GAN computes in float32

# fmt: off
CHECKS = {
    # torchgan: unreduced
    "torchgan_minimax_d": Check(lambda: d(losses.minimax)),
    "torchgan_minimax_g": Check(lambda: g(NS), lambda: g(losses.minimax), "its minimax is non-saturating by default"),
    "torchgan_saturating_g": Check(lambda: g(losses.minimax)),
    "torchgan_least_squares_d": Check(lambda: d(LS)),
    "torchgan_least_squares_g": Check(lambda: g(LS)),
    "torchgan_wasserstein_d": Check(lambda: d(WASSERSTEIN)),
    "torchgan_wasserstein_g": Check(lambda: g(WASSERSTEIN)),
    "torchgan_energy_d": Check(lambda: d(losses.energy_based(2.0), "energy_real", "energy_fake")),
    "torchgan_energy_g": Check(lambda: g(losses.energy_based(2.0), "energy_real", "energy_fake")),
    # the others: means
    "mimicry_minimax_d": Check(lambda: mean_d(NS)),
    "mimicry_hinge_d": Check(lambda: mean_d(HINGE)),
    "mimicry_hinge_g": Check(lambda: mean_g(HINGE)),
    "mimicry_wasserstein_d": Check(lambda: mean_d(WASSERSTEIN)),
    "mimicry_ns_gradient": Check(vanished, ns_gradient, "1e-8 inside its logarithm: gradient times s / (s + 1e-8)"),
    "stylegan2_hinge_d": Check(lambda: d_of(HINGE, jnp.negative), lambda: mean_d(HINGE), FLIPPED),
    "stylegan2_hinge_g": Check(lambda: -mean_g(HINGE), lambda: mean_g(HINGE), FLIPPED),
    "lightweight_hinge_d": Check(lambda: d_of(HINGE, jnp.negative), lambda: mean_d(HINGE), FLIPPED),
    "lightweight_hinge_g": Check(lambda: -mean_g(HINGE), lambda: mean_g(HINGE), FLIPPED),
    "gigagan_hinge_d": Check(lambda: d_of(HINGE, jnp.negative), lambda: mean_d(HINGE), FLIPPED),
    "magvit2_hinge_d": Check(lambda: mean_d(HINGE)),
    "speechbrain_hinge_g": Check(
        lambda: jnp.mean(HINGE.discriminator(given("fake"), jnp.full(8, -1.0))), lambda: mean_g(HINGE),
        "max(0, 1 - f), the real half of the discriminator's loss, in place of -f"),
    "speechbrain_mse_d": Check(lambda: 2 * mean_d(LS), lambda: mean_d(LS), TWICE),
    "wavegan_mse_d": Check(lambda: 2 * mean_d(LS), lambda: mean_d(LS), TWICE),
    "wavegan_hinge_d": Check(lambda: mean_d(HINGE)),
    "taming_hinge_d": Check(lambda: 0.5 * mean_d(HINGE), lambda: mean_d(HINGE), HALF),
    "taming_vanilla_d": Check(lambda: 0.5 * mean_d(NS), lambda: mean_d(NS), HALF),
    "basicsr_vanilla_d": Check(lambda: mean_d(NS)),
    "basicsr_vanilla_g": Check(lambda: mean_g(NS)),
    "basicsr_lsgan_d": Check(lambda: 2 * mean_d(LS), lambda: mean_d(LS), TWICE),
    "basicsr_lsgan_g": Check(lambda: 2 * mean_g(LS), lambda: mean_g(LS), TWICE),
    "basicsr_wgan_d": Check(lambda: mean_d(WASSERSTEIN)),
    "basicsr_wgan_g": Check(lambda: mean_g(WASSERSTEIN)),
    "basicsr_wgan_softplus_d": Check(lambda: mean_d(NS)),
    "basicsr_wgan_softplus_g": Check(lambda: mean_g(NS)),
    "basicsr_hinge_d": Check(lambda: mean_d(HINGE)),
    "basicsr_hinge_g": Check(lambda: mean_g(HINGE)),
    "monai_hinge_d": Check(lambda: d_of(HINGE, jnp.tanh), lambda: mean_d(HINGE), "tanh of the logits first"),
    "monai_least_squares_d": Check(
        lambda: 2 * d_of(LS, lambda x: jax.nn.leaky_relu(x, 0.05)), lambda: mean_d(LS),
        "leaky ReLU of the logits first, slope 0.05; and no factor one half"),
    "monai_bce_d": Check(lambda: mean_d(NS)),
    "vegans_lsgan_d": Check(lambda: mean_d(LS)),
    "vegans_lsgan_g": Check(lambda: 2 * mean_g(LS), lambda: mean_g(LS), TWICE),
    "vegans_ebgan_d": Check(
        mean_energies,
        lambda: jnp.mean(losses.energy_based(6.0).discriminator((given("real") / 2) ** 2, given("fake") ** 2)),
        "half, and the margin is applied to the batch's mean energy", rtol=1e-6),
    # TF-GAN: means in float32
    "tfgan_minimax_d": Check(lambda: mean_d(losses.minimax), rtol=TF),
    "tfgan_minimax_g": Check(
        lambda: mean_g(losses.minimax) - jax.nn.softplus(-1.0), lambda: mean_g(losses.minimax),
        "minus a constant, the loss of reals with logit 1", rtol=TF),
    "tfgan_modified_d": Check(lambda: mean_d(NS), rtol=TF),
    "tfgan_modified_g": Check(lambda: mean_g(NS), rtol=TF),
    "tfgan_least_squares_d": Check(lambda: mean_d(LS), rtol=TF),
    "tfgan_least_squares_g": Check(lambda: mean_g(LS), rtol=TF),
    "tfgan_wasserstein_d": Check(lambda: mean_d(WASSERSTEIN), rtol=TF),
    "tfgan_wasserstein_g": Check(lambda: mean_g(WASSERSTEIN), rtol=TF),
    "tfgan_smoothed_d": Check(
        lambda: mean_d(losses.minimax) + 0.125 * jnp.mean(given("real")), lambda: mean_d(losses.minimax),
        "label_smoothing=0.25, the default, makes the real label 0.875", rtol=TF),
    "tfgan_hinge_d": Check(lambda: mean_d(HINGE), rtol=TF),
    "tfgan_relativistic_d": Check(lambda: mean_d(RA), rtol=TF),
    "tfgan_relativistic_g": Check(lambda: mean_g(RA), rtol=TF),
    "tfgan_relativistic_map_d": Check(
        lambda: flat(RA, "discriminator"), lambda: mean_d(RA, "real_map", "fake_map"),
        "of a patch map it takes one mean over all places", rtol=TF),
    "tfgan_relativistic_map_g": Check(
        lambda: flat(RA, "generator"), lambda: mean_g(RA, "real_map", "fake_map"),
        "of a patch map it takes one mean over all places", rtol=TF),
    "tfgan_acgan_d": Check(lambda: jnp.mean(classes() + classes("fake_class_logits")), rtol=TF),
    "tfgan_acgan_g": Check(lambda: jnp.mean(classes("fake_class_logits")), rtol=TF),
    "tfgan_cycle": Check(lambda: jnp.mean(losses.cycle_consistency(given("images"), given("fakes"))), rtol=TF),
    "tfgan_gp": Check(lambda: gradient_penalty(lambda alpha: alpha), rtol=TF),
    "tfgan_gp_target": Check(
        lambda: gradient_penalty(lambda alpha: alpha, target=2.0) / 4,
        lambda: gradient_penalty(lambda alpha: alpha, target=2.0), "(norm / target - 1)^2", rtol=TF),
    "tfgan_gp_one_sided": Check(lambda: gradient_penalty(lambda alpha: alpha, one_sided=True), rtol=TF),
    "tfgan_mutual_information": Check(
        lambda: 0.5 * jnp.mean(classes() + gaussian()), lambda: jnp.mean(classes() + gaussian()),
        "the mean over the codes, not the sum", rtol=TF),
    "tfgan_adaptive": Check(adaptive, rtol=TF),
    # penalties
    "basicsr_r1": Check(r1),
    "mmgen_r1_HWC": Check(r1),
    "mmgen_r1_pixel": Check(lambda: r1() / 9, r1, "the mean over pixels"),
    "stylegan2_r1": Check(lambda: 10 * r1(), r1, "times 10"),
    "gigagan_r1": Check(lambda: 10 * r1(), r1, "times 10"),
    "magvit2_r1": Check(r1),
    "mmgen_gp_HWC": Check(gradient_penalty, lambda: gradient_penalty(lambda alpha: alpha), "alpha is the reals' share"),
    "mmgen_gp_pixel": Check(pixel_penalty, gradient_penalty, "one norm per pixel, over the channels"),
    "basicsr_gp": Check(pixel_penalty, gradient_penalty, "one norm per pixel, over the channels"),
    "mimicry_gp": Check(three_channel_penalty),
    "torchgan_gp": Check(whole_batch_penalty, gradient_penalty, "one norm for the whole batch"),
    "torchgan_dragan": Check(
        lambda: dragan(0.5 * math.sqrt(6 / 5)), lambda: dragan(0.5), "the standard deviation with n - 1; batch of one"),
    "basicsr_path": Check(path_figures),
    "stylegan2_path": Check(lambda: jnp.sqrt(path_length(jnp.zeros(()), 0.0)[0])),
    "vq_orthogonal": Check(
        lambda: regularizers.orthogonal(given("kernel") / jnp.linalg.norm(given("kernel"), axis=0)) / 16,
        lambda: regularizers.orthogonal(given("kernel")), "columns of length one, and divided by their number squared"),
    "torch_orthogonal": Check(
        lambda: 1 + regularizers.orthogonal(jnp.asarray(ENTRIES["torch_orthogonal"]["output"]), off_diagonal=False),
        lambda: 1 + regularizers.orthogonal(given("kernel"), off_diagonal=False),
        "the penalty of the kernel that it made orthogonal is 0", expected=lambda _: 1.0),
    "sklearn_consistency": Check(lambda: regularizers.consistency(given("features_real"), given("features_fake"))),
    # auxiliary terms
    "torch_cross_entropy": Check(
        lambda: losses.discrete_mutual_information(given("class_logits"), given("label"))),
    "torchgan_acgan": Check(lambda: jnp.mean(classes())),
    "torch_adc": Check(adc, expected=lambda output: [*output, np.subtract(*output)]),
    "sklearn_hinge": Check(lambda: losses.multi_hinge(given("class_logits"), given("label"))),
    "torchmetrics_hinge": Check(
        lambda: jnp.mean(losses.multi_hinge(jax.nn.softmax(given("class_logits")), given("label"))),
        lambda: jnp.mean(losses.multi_hinge(given("class_logits"), given("label"))), "softmax of logits first"),
    "torch_multi_margin": Check(
        lambda: two_class_hinges() / 5, lambda: losses.multi_hinge(given("class_logits"), given("label")),
        "Weston and Watkins: the sum over the other classes; divided by the number of classes"),
    "torch_gaussian": Check(gaussian, expected=lambda output: np.sum(output, -1)),
    "torchgan_mutual_information": Check(
        lambda: 0.5 * (jnp.mean(classes()) + jnp.mean(gaussian()) / 3), lambda: jnp.mean(classes() + gaussian()),
        "the mean over the codes, and over the dimensions of the continuous one"),
    "vegans_gaussian": Check(
        lambda: jnp.mean(gaussian()) - 1.5 * math.log(2 * math.pi), lambda: jnp.mean(gaussian()), "no constant"),
    "metric_nca": Check(
        lambda: contrastive(0.5), lambda: contrastive(1.0),
        "of squared distances of unit vectors, 2 - 2 cos, so scale 1 is temperature 1/2"),
    "torch_topk": Check(lambda: jnp.mean(losses.top_k(given("fake"), 3) * g(WASSERSTEIN))),
    "taming_adaptive": Check(
        lambda: 0.8 * adaptive(epsilon=1e-4), adaptive, "epsilon 1e-4, and times the weight it is given"),
    # distances
    "dcor_energy_u": Check(energy),
    "dcor_energy_v": Check(
        lambda: energy(unbiased=False), energy, "biased; ours has the root of 1e-12 on the diagonal",
        rtol=2e-6),
    "geomloss_energy": Check(
        lambda: energy(unbiased=False) / 2, energy, "biased, and half; it has the root of 1e-8 on the diagonal",
        rtol=1e-4),
    "geomloss_gaussian": Check(
        lambda: mmd(kernel=losses.gaussian_kernel([2.0]), unbiased=False) / 2,
        lambda: mmd(kernel=losses.gaussian_kernel([2.0])), "biased, and half"),
    "torchmetrics_mmd": Check(mmd),
    "piq_mmd_biased": Check(lambda: mmd(unbiased=False)),
    # f-divergences: f and f' of the packages at density ratios u
    "tfp_kl_forward": Check(lambda: f_gan("kl", lambda u: 1 + jnp.log(u)), expected=fenchel),
    "tfp_kl_reverse": Check(lambda: f_gan("reverse_kl", jnp.log), expected=fenchel),
    "tfp_pearson": Check(lambda: f_gan("pearson", lambda u: 2 * (u - 1)), expected=fenchel),
    "tfp_squared_hellinger": Check(lambda: f_gan("squared_hellinger", lambda u: jnp.log(u) / 2), expected=fenchel),
    "tfp_jensen_shannon": Check(lambda: f_gan("jensen_shannon", jnp.log), expected=fenchel),
    "tfp_gan": Check(lambda: f_gan("gan", jnp.log), expected=fenchel),
    # reconstruction
    "torch_l1_loss": Check(lambda: pixels(losses.l1)),
    "torch_mse_loss": Check(lambda: pixels(losses.l2)),
    "kornia_charbonnier": Check(
        lambda: pixels(losses.charbonnier, epsilon=1.0) - 1, lambda: pixels(losses.charbonnier, epsilon=1.0),
        "epsilon 1, and minus 1"),
    "basicsr_charbonnier": Check(
        lambda: pixels(losses.charbonnier, epsilon=0.5), lambda: pixels(losses.charbonnier, epsilon=0.25),
        "epsilon, not its square, under the root"),
    "wavegan_features": Check(lambda: jnp.mean(layers(losses.feature_matching))),
    "speechbrain_features": Check(lambda: jnp.mean(layers(losses.feature_matching))),
    "torchgan_features": Check(
        lambda: losses.mean_feature_matching(given("layer_1"), given("target_1")) / 36,
        lambda: losses.mean_feature_matching(given("layer_1"), given("target_1")),
        "the mean over features; and it was given the batch's means, which it does not take itself"),
    "lpips_lpips": Check(lambda: lpips([given("weight_1"), given("weight_2")])),
    "lpips_baseline": Check(lambda: lpips([jnp.ones(4), jnp.ones(6)]), lambda: lpips(None), "the sum over channels"),
    "piq_content": Check(
        lambda: losses.perceptual(given("layer_1"), given("target_1"), weights=jnp.ones(4)),
        lambda: losses.perceptual(given("layer_1"), given("target_1")), "the sum over channels"),
    # augmentation
    "pywt_sym2": Check(lambda: pipeline.SYM2),
    "pywt_sym6": Check(lambda: SYM6),
    "pywt_bands": Check(bands),
    "scipy_hue": Check(hue),
    "lightweight_color": Check(color),
    "lightweight_translation": Check(lambda: translation(-1), lambda: translation(1), "its shift is where it looks"),
    "lightweight_cutout": Check(cutout),
}
# fmt: on


def difference(ours: Any, expected: Any) -> float:
    """Returns the largest difference, relative to the largest expected number."""
    ours, expected = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
    assert ours.shape == expected.shape
    return float(np.max(np.abs(ours - expected)) / np.max(np.abs(expected)))


@pytest.mark.parametrize("name", CHECKS)
def test_agreement(name):
    check = CHECKS[name]
    expected = check.expected(ENTRIES[name]["output"])
    with jax.enable_x64(True):
        assert difference(check.ours(), expected) < check.rtol
        if check.plain is not None:
            assert check.note
            assert difference(check.plain(), expected) > 1e-3


def test_every_entry_is_compared():
    assert set(CHECKS) == set(ENTRIES)
    assert len({entry["package"] for entry in ENTRIES.values()}) >= 20
