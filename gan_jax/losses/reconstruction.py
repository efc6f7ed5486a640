"""Reconstruction terms: distances between an image and what it should be, in pixels or in features.

`l1`, `l2` and `charbonnier` are element-wise and unreduced; the rest return one value per example. The terms on
features take the features, lists or other trees of arrays, so that any network can make them.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gan_jax.types import InvalidInputError, check_same_shape

Values = Float[Array, "*shape"]


def l1(prediction: Values, target: Values) -> Values:
    """The absolute difference |prediction - target|, element-wise.

    Args:
      prediction: of any shape.
      target: of the same shape.

    Returns:
      Of the same shape, in [0, inf).

    References:
      Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks" (pix2pix), arXiv:1611.07004,
      2016, which multiplies its mean by 100.

    Example:
      >>> print(l1(jnp.array([1.0, -2.0]), jnp.zeros(2)))
      [1. 2.]
    """
    check_same_shape(prediction=prediction, target=target)
    return jnp.abs(prediction - target)


def l2(prediction: Values, target: Values) -> Values:
    """The squared difference (prediction - target)^2, element-wise, without a factor one half.

    Args:
      prediction: of any shape.
      target: of the same shape.

    Returns:
      Of the same shape, in [0, inf).

    References:
      Pathak et al., "Context Encoders: Feature Learning by Inpainting", arXiv:1604.07379, 2016. `optax.losses.l2_loss`
      has the factor one half.

    Example:
      >>> print(l2(jnp.array([1.0, -2.0]), jnp.zeros(2)))
      [1. 4.]
    """
    check_same_shape(prediction=prediction, target=target)
    return (prediction - target) ** 2


def charbonnier(prediction: Values, target: Values, *, epsilon: float = 1e-3) -> Values:
    """The Charbonnier loss sqrt((prediction - target)^2 + epsilon^2), a smooth l1, element-wise.

    Args:
      prediction: of any shape.
      target: of the same shape.
      epsilon: where it turns from quadratic to linear; also its minimum.

    Returns:
      Of the same shape, in [epsilon, inf).

    References:
      Charbonnier et al., "Two deterministic half-quadratic regularization algorithms for computed imaging", ICIP 1994;
      Lai et al., "Deep Laplacian Pyramid Networks", arXiv:1704.03915, 2017 (epsilon 1e-3). Some codebases put epsilon,
      not its square, under the root.

    Example:
      >>> print(charbonnier(jnp.array([3.0]), jnp.zeros(1), epsilon=4.0))
      [5.]
    """
    difference = _widen(l1(prediction, target))
    return jnp.sqrt(difference**2 + epsilon**2).astype(prediction.dtype)


def cycle_consistency(x: Values, cycled: Values) -> Values:
    """The cycle-consistency loss |cycled - x|, where `cycled` is x translated there and back, element-wise.

    Args:
      x: images, of any shape.
      cycled: F(G(x)), of the same shape.

    Returns:
      Of the same shape, in [0, inf). CycleGAN multiplies its mean by 10.

    References:
      Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", arXiv:1703.10593,
      2017, equation 2.

    Example:
      >>> print(cycle_consistency(jnp.array([1.0]), jnp.array([0.25])))
      [0.75]
    """
    return l1(cycled, x)


def identity_mapping(x: Values, mapped: Values) -> Values:
    """The identity loss |mapped - x|, where `mapped` is an image given to the generator into its own domain.

    Args:
      x: images of the target domain, of any shape.
      mapped: G(x), of the same shape.

    Returns:
      Of the same shape, in [0, inf). CycleGAN multiplies its mean by half the weight of the cycle, 5.

    References:
      Taigman, Polyak and Wolf, "Unsupervised Cross-Domain Image Generation", arXiv:1611.02200, 2016; Zhu et al.,
      arXiv:1703.10593, 2017, section 5.2.

    Example:
      >>> print(identity_mapping(jnp.array([1.0]), jnp.array([0.25])))
      [0.75]
    """
    return l1(mapped, x)


def _widen(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _per_example(x: Array) -> Float[Array, " b"]:
    """The mean over all axes but the first."""
    return jnp.mean(x.reshape(x.shape[0], -1), axis=1)


def _paired(first: PyTree, second: PyTree) -> list[tuple[Array, Array]]:
    """The leaves of two trees side by side, float32 or wider; refuses trees that differ in number or shapes."""
    shapes = [[x.shape for x in jax.tree.leaves(tree)] for tree in (first, second)]
    if shapes[0] != shapes[1] or not shapes[0]:
        raise InvalidInputError(f"features differ, or there are none: shapes {shapes[0]} and {shapes[1]}")
    return [(_widen(a), _widen(b)) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)]


def feature_matching(real_features: PyTree, fake_features: PyTree) -> Float[Array, " b"]:
    """Paired feature matching: the mean absolute difference of the critic's features, averaged over its layers.

    (1 / L) sum_l mean |D_l(x) - D_l(G(s))|, the means over all axes but the batch's. For generators with a target
    (translation, vocoders, codecs), where fake i should equal real i. Without one, use `mean_feature_matching`.

    Args:
      real_features: tree of `[b, ...]`; no gradient flows into them.
      fake_features: tree of the same shapes.

    Returns:
      `[b]`, non-negative, float32 or wider.

    Raises:
      InvalidInputError: if the trees differ, or have no leaf.

    References:
      Larsen et al., arXiv:1512.09300, 2015; Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation
      with Conditional GANs" (pix2pixHD), arXiv:1711.11585, 2017 (weight 10); Kong et al., "HiFi-GAN",
      arXiv:2010.05646, 2020 (weight 2). HiFi-GAN's code sums over layers and lets the gradient into the reals.

    Example:
      >>> print(feature_matching([jnp.ones((1, 2)), jnp.ones((1, 3))], [jnp.zeros((1, 2)), jnp.zeros((1, 3))]))
      [1.]
    """
    layers = [
        _per_example(l1(fake, jax.lax.stop_gradient(real))) for real, fake in _paired(real_features, fake_features)
    ]
    return functools.reduce(jnp.add, layers) / len(layers)


def mean_feature_matching(real_features: PyTree, fake_features: PyTree) -> Float[Array, ""]:
    """Feature matching of means: ||E D_l(x) - E D_l(G(z))||^2, summed over features and layers.

    Args:
      real_features: tree of `[b, ...]`; no gradient flows into them.
      fake_features: tree with leaves of the same shapes but for the batch.

    Returns:
      A non-negative scalar: the means over the batch come before the norm, so there is no value per example. It is
      float32 or wider.

    Raises:
      InvalidInputError: if the trees differ in more than the batch, or have no leaf.

    References:
      Salimans et al., "Improved Techniques for Training GANs", arXiv:1606.03498, 2016, section 3.1. The authors' code
      takes the absolute difference and its mean over features; torchgan does not take the means over the batch first.

    Example:
      >>> print(mean_feature_matching(jnp.array([[0.0], [2.0]]), jnp.array([[1.0], [5.0]])))
      4.0
    """
    means = [[jnp.mean(_widen(x), axis=0) for x in jax.tree.leaves(tree)] for tree in (real_features, fake_features)]
    layers = [jnp.sum((jax.lax.stop_gradient(real) - fake) ** 2) for real, fake in _paired(*means)]
    return functools.reduce(jnp.add, layers)


def perceptual(
    features: PyTree, target_features: PyTree, *, weights: PyTree | None = None, normalize: bool = False
) -> Float[Array, " b"]:
    """The perceptual loss: a squared distance in the feature maps of a fixed network.

    sum_l mean over places of sum_c w_lc (a_lc - b_lc)^2, where with `normalize` every feature vector a_l, b_l is first
    divided by its length over channels (plus 1e-10). With `normalize` and its learned weights it is LPIPS. Without
    weights w_lc = 1 / C_l, which makes each layer's term the mean square.

    Args:
      features: tree of `[b, ..., c]`.
      target_features: tree of the same shapes.
      weights: tree of `[c]`, one for each layer; None for the mean over channels.
      normalize: whether to compare directions of feature vectors only.

    Returns:
      `[b]`, non-negative for non-negative weights, float32 or wider.

    Raises:
      InvalidInputError: if the trees differ.

    References:
      Johnson, Alahi and Fei-Fei, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution",
      arXiv:1603.08155, 2016; Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric"
      (LPIPS), arXiv:1801.03924, 2018. Public code differs in the layers, in the absolute in place of the squared
      difference (SRGAN's and pix2pixHD's descendants), in where the 1e-10 stands, and, without weights, in the sum over
      channels in place of the mean (lpips' baseline, piq).

    Example:
      >>> print(perceptual(jnp.array([[3.0, 4.0]]), jnp.zeros((1, 2))))
      [12.5]
    """
    pairs = _paired(features, target_features)
    per_layer = [None] * len(pairs) if weights is None else jax.tree.leaves(weights)
    if len(per_layer) != len(pairs):
        raise InvalidInputError(f"weights for {len(per_layer)} layers, but features of {len(pairs)}")

    def unit(x: Array) -> Array:
        squared = jnp.sum(x**2, axis=-1, keepdims=True)
        nonzero = jnp.where(squared > 0, squared, 1.0)  # the square root has no derivative at 0
        return x / (jnp.where(squared > 0, jnp.sqrt(nonzero), 0.0) + jnp.asarray(1e-10, x.dtype))

    def layer(a: Array, b: Array, weight: Array | None) -> Float[Array, " b"]:
        squared = l2(unit(a), unit(b)) if normalize else l2(a, b)
        return _per_example(jnp.mean(squared, -1) if weight is None else jnp.sum(weight * squared, -1))

    return functools.reduce(jnp.add, [layer(*pair, weight) for pair, weight in zip(pairs, per_layer, strict=True)])
