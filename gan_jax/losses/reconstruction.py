"""Reconstruction losses: distances between an image and its target, in pixels or in features.

`l1`, `l2`, `charbonnier`, `cycle_consistency` and `identity_mapping` are element-wise and unreduced. `feature_matching`
and `perceptual` return one value per example, `mean_feature_matching` returns a scalar. The losses on features take the
features themselves, as lists or other trees of arrays, so that any network can compute them.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gan_jax.types import InvalidInputError, check_same_shape

Values = Float[Array, "*shape"]


def l1(prediction: Values, target: Values) -> Values:
    """Computes the element-wise absolute difference |prediction - target|.

    Args:
      prediction: array of any shape.
      target: array of the same shape.

    Returns:
      Losses of the same shape, in [0, inf).

    References:
      Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks" (pix2pix), arXiv:1611.07004,
      2016. The paper multiplies the mean by 100.

    Example:
      >>> print(l1(jnp.array([1.0, -2.0]), jnp.zeros(2)))
      [1. 2.]
    """
    check_same_shape(prediction=prediction, target=target)
    return jnp.abs(prediction - target)


def l2(prediction: Values, target: Values) -> Values:
    """Computes the element-wise squared difference (prediction - target)^2, without a factor one half.

    Args:
      prediction: array of any shape.
      target: array of the same shape.

    Returns:
      Losses of the same shape, in [0, inf).

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
    """Computes the element-wise Charbonnier loss sqrt((prediction - target)^2 + epsilon^2), a smooth l1.

    Args:
      prediction: array of any shape.
      target: array of the same shape.
      epsilon: difference at which the loss turns from quadratic to linear; also the minimum of the loss.

    Returns:
      Losses of the same shape, in [epsilon, inf).

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
    """Computes the element-wise cycle-consistency loss |cycled - x|, where `cycled` is x translated there and back.

    Args:
      x: images of any shape.
      cycled: translated images F(G(x)), of the same shape.

    Returns:
      Losses of the same shape, in [0, inf). CycleGAN multiplies the mean by 10.

    References:
      Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", arXiv:1703.10593,
      2017, equation 2.

    Example:
      >>> print(cycle_consistency(jnp.array([1.0]), jnp.array([0.25])))
      [0.75]
    """
    return l1(cycled, x)


def identity_mapping(x: Values, mapped: Values) -> Values:
    """Computes the element-wise identity loss |mapped - x|.

    `mapped` is the generator's output for an image x that is already in the generator's target domain.

    Args:
      x: images of the target domain, of any shape.
      mapped: outputs of the generator for these images, G(x), of the same shape.

    Returns:
      Losses of the same shape, in [0, inf). CycleGAN multiplies the mean by 5, half the weight of the cycle.

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
    """Returns the mean over all axes but the first."""
    return jnp.mean(x.reshape(x.shape[0], -1), axis=1)


def _paired(first: PyTree, second: PyTree) -> list[tuple[Array, Array]]:
    """Returns the matching leaves of two trees, in float32 or wider.

    Raises an InvalidInputError if the trees differ in the number or the shapes of their leaves.
    """
    shapes = [[x.shape for x in jax.tree.leaves(tree)] for tree in (first, second)]
    if shapes[0] != shapes[1] or not shapes[0]:
        raise InvalidInputError(
            "features differ, or there are none: expected two trees whose leaves have equal shapes, not "
            f"shapes {shapes[0]} and {shapes[1]}"
        )
    return [(_widen(a), _widen(b)) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)]


def feature_matching(real_features: PyTree, fake_features: PyTree) -> Float[Array, " b"]:
    """Computes paired feature matching: the mean absolute difference of the critic's features.

    (1 / L) sum_l mean |D_l(x) - D_l(G(s))|, an average over the L layers, with means over all axes but the batch's. It
    is for generators with a target (translation, vocoders, codecs), where fake i should equal real i. Without a target,
    use `mean_feature_matching`.

    Args:
      real_features: features of the targets, a tree of `[b, ...]`; no gradient flows into them.
      fake_features: features of the fakes, a tree of the same shapes.

    Returns:
      `[b]`, non-negative, float32 or wider.

    Raises:
      InvalidInputError: if the trees differ, or have no leaf.

    References:
      Larsen et al., arXiv:1512.09300, 2015; Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation
      with Conditional GANs" (pix2pixHD), arXiv:1711.11585, 2017 (weight 10); Kong et al., "HiFi-GAN", arXiv:2010.05646,
      2020 (weight 2). HiFi-GAN's code sums over the layers and lets the gradient flow into the features of the reals.

    Example:
      >>> print(feature_matching([jnp.ones((1, 2)), jnp.ones((1, 3))], [jnp.zeros((1, 2)), jnp.zeros((1, 3))]))
      [1.]
    """
    layers = [
        _per_example(l1(fake, jax.lax.stop_gradient(real))) for real, fake in _paired(real_features, fake_features)
    ]
    return functools.reduce(jnp.add, layers) / len(layers)


def mean_feature_matching(real_features: PyTree, fake_features: PyTree) -> Float[Array, ""]:
    """Computes feature matching of means: ||E D_l(x) - E D_l(G(z))||^2, summed over features and layers.

    Args:
      real_features: features of the reals, a tree of `[b, ...]`; no gradient flows into them.
      fake_features: features of the fakes, a tree with leaves of the same shapes except for the batch.

    Returns:
      A non-negative scalar, float32 or wider. The means over the batch are taken before the norm, so there is no value
      per example.

    Raises:
      InvalidInputError: if the trees differ in more than the batch, or have no leaf.

    References:
      Salimans et al., "Improved Techniques for Training GANs", arXiv:1606.03498, 2016, section 3.1. The authors' code
      takes the absolute difference and its mean over the features. torchgan does not take the means over the batch
      first.

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
    """Computes the perceptual loss: a squared distance between feature maps of a fixed network.

    sum_l mean over positions of sum_c w_lc (a_lc - b_lc)^2. With `normalize` every feature vector a_l, b_l is first
    divided by its length over channels (plus 1e-10). With `normalize` and the learned weights of LPIPS, the loss is
    LPIPS. Without weights w_lc = 1 / C_l, which makes each layer's term the mean square.

    Args:
      features: features of the images, a tree of `[b, ..., c]`.
      target_features: features of the targets, a tree of the same shapes.
      weights: weights of the channels, a tree of `[c]` with one leaf per layer; None for the mean over channels.
      normalize: whether to compare only the directions of feature vectors.

    Returns:
      `[b]`, float32 or wider; non-negative if the weights are.

    Raises:
      InvalidInputError: if the trees differ.

    References:
      Johnson, Alahi and Fei-Fei, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution",
      arXiv:1603.08155, 2016; Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric"
      (LPIPS), arXiv:1801.03924, 2018. Public code differs in the layers; in the use of the absolute instead of the
      squared difference (descendants of SRGAN and pix2pixHD); in the place of the 1e-10; and, without weights, in
      summing over the channels instead of averaging (lpips' baseline, piq).

    Example:
      >>> print(perceptual(jnp.array([[3.0, 4.0]]), jnp.zeros((1, 2))))
      [12.5]
    """
    pairs = _paired(features, target_features)
    per_layer = [None] * len(pairs) if weights is None else jax.tree.leaves(weights)
    if len(per_layer) != len(pairs):
        raise InvalidInputError(f"weights for {len(per_layer)} layers: expected one array per layer, {len(pairs)}")

    def unit(x: Array) -> Array:
        squared = jnp.sum(x**2, axis=-1, keepdims=True)
        nonzero = jnp.where(squared > 0, squared, 1.0)  # sqrt at 0 would give a NaN gradient, even inside a where
        return x / (jnp.where(squared > 0, jnp.sqrt(nonzero), 0.0) + jnp.asarray(1e-10, x.dtype))

    def layer(a: Array, b: Array, weight: Array | None) -> Float[Array, " b"]:
        squared = l2(unit(a), unit(b)) if normalize else l2(a, b)
        return _per_example(jnp.mean(squared, -1) if weight is None else jnp.sum(weight * squared, -1))

    return functools.reduce(jnp.add, [layer(*pair, weight) for pair, weight in zip(pairs, per_layer, strict=True)])
