"""Weights for losses and for their gradients at the generator's output: top-k, adaptive weight, balancers, ramps.

Several methods change the gradient of a loss at the output y = G(.) and then send it back through G once.
`output_gradients` computes these gradients; `balance`, `normalize_gradient` or a product with a weight changes them;
and `steer` makes a loss of the result:

    y = generator(params, z)
    values, gradients = output_gradients({"l1": lambda y: jnp.abs(y - x), "gan": lambda y: -critic(y)}, y)
    loss = steer(y, jax.tree.map(lambda a, b: a + weight * b, gradients["l1"], gradients["gan"]))
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, PyTree

from gan_jax.types import InvalidInputError


def top_k(fake_logits: Float[Array, " b"], k: Num[Array, ""] | int | float) -> Float[Array, " b"]:
    """Returns weights for the generator's losses that keep the k fakes with the highest logits.

    The weights are b / k for those fakes and 0 for the others, so the mean of weights times losses is the mean over the
    k fakes. `k` may be traced: annealing it then needs no recompilation. No gradient flows through the weights.

    Args:
      fake_logits: logits of fakes, `[b]`; take the mean of each example's patch logits first.
      k: number of fakes to keep, from 1 to b, rounded down; a traced k is clipped to this range. The paper starts at b,
        multiplies by 0.99 every epoch, and ends at b / 2.

    Returns:
      `[b]`. Among equal logits the first are kept, so that exactly k fakes are kept.

    Raises:
      InvalidInputError: if the logits are not `[b]`, or if k is outside 1 to b and not traced.

    References:
      Sinha et al., "Top-k Training of GANs: Improving GAN Performance by Throwing Away Bad Samples", arXiv:2002.06224,
      2020.

    Example:
      >>> print(top_k(jnp.array([0.0, 3.0, 1.0, 2.0]), 2))
      [0. 2. 0. 2.]
    """
    if fake_logits.ndim != 1:
        raise InvalidInputError(f"fake_logits has the shape {fake_logits.shape}: expected one logit per example, [b]")
    size = fake_logits.shape[0]
    if isinstance(k, int | float) and not 1 <= k <= size:
        raise InvalidInputError(f"k={k}: expected 1 to {size}, the size of the batch")
    # The argsort of an argsort is the rank. Both are stable, so no two fakes share a rank and ties keep their order.
    rank = jnp.argsort(jnp.argsort(jax.lax.stop_gradient(-fake_logits)))
    k = jnp.clip(jnp.floor(k), 1, size)
    scale = jnp.asarray(size / k, fake_logits.dtype)
    return jnp.where(rank < k, scale, jnp.zeros_like(scale))


def adaptive_weight(
    reconstruction_gradient: PyTree, adversarial_gradient: PyTree, *, epsilon: float = 1e-6, maximum: float = 1e4
) -> Float[Array, ""]:
    """Returns VQGAN's weight of the adversarial term, which balances it with the reconstruction loss.

    min(||g_reconstruction|| / (||g_adversarial|| + epsilon), maximum), a constant for differentiation. With this weight
    both gradients are equally long at the decoder's last layer.

    Args:
      reconstruction_gradient: gradient of the reconstruction loss with respect to the last layer's parameters; any
        tree.
      adversarial_gradient: gradient of the generator's adversarial loss with respect to the same parameters.
      epsilon: constant added to the denominator.
      maximum: upper bound of the weight.

    Returns:
      A non-negative scalar in float32 or wider.

    References:
      Esser, Rombach and Ommer, "Taming Transformers for High-Resolution Image Synthesis", arXiv:2012.09841, 2021,
      equation 7 (epsilon 1e-6). The authors' code uses 1e-4 and multiplies the result by 0.8 or another constant.

    Example:
      >>> print(adaptive_weight(jnp.array([3.0, 4.0]), jnp.array([0.0, 2.0]), epsilon=0.5))
      2.0
    """

    def norm(gradient: PyTree) -> Array:
        return jnp.sqrt(sum((jnp.sum(_widen(x) ** 2) for x in jax.tree.leaves(gradient)), start=jnp.float32(0)))

    weight = norm(reconstruction_gradient) / (norm(adversarial_gradient) + epsilon)
    return jax.lax.stop_gradient(jnp.minimum(weight, maximum))


def output_gradients(
    losses: Mapping[str, Callable[[PyTree], Any]], y: PyTree, *, has_aux: bool = False
) -> tuple[dict[str, Any], dict[str, PyTree]]:
    """Computes the value of each loss, and the gradient of its mean, at the output y of a generator.

    g_i = d mean(L_i(y)) / dy. Each loss is differentiated on its own, through the discriminator or the feature network
    that it contains but not through the generator. Everything that is returned is a constant for differentiation: what
    the generator should learn goes through `steer`.

    Args:
      losses: functions of y by name. They may return losses of any shape; their mean is differentiated.
      y: output of the generator, an array or a tree of arrays of a floating-point dtype.
      has_aux: whether the functions return pairs `(losses, anything)`, for logits, metrics or model state.

    Returns:
      The values by name, as the functions returned them, unreduced; and the gradients by name, trees like y.

    Raises:
      InvalidInputError: if there is no loss.

    References:
      Esser, Rombach and Ommer, "Taming Transformers for High-Resolution Image Synthesis" (VQGAN), arXiv:2012.09841,
      2021; Defossez et al., "High Fidelity Neural Audio Compression" (EnCodec), arXiv:2210.13438, 2022, section 3.4.
      Both codebases do this with `autograd.grad`.

    Example:
      >>> values, gradients = output_gradients({"square": lambda y: y**2}, jnp.array([1.0, 3.0]))
      >>> print(values["square"], gradients["square"])
      [1. 9.] [1. 3.]
    """
    if not losses:
        raise InvalidInputError("losses={}: expected at least one function of y, by name")
    y = jax.lax.stop_gradient(y)

    def mean(y: PyTree, loss: Callable[[PyTree], Any]) -> tuple[Array, Any]:
        found = loss(y)
        return jnp.mean(_widen(found[0] if has_aux else found)), found

    pairs = {name: jax.grad(mean, has_aux=True)(y, loss) for name, loss in losses.items()}
    return jax.lax.stop_gradient(
        ({name: value for name, (_, value) in pairs.items()}, {name: gradient for name, (gradient, _) in pairs.items()})
    )


def steer(y: PyTree, gradient: PyTree) -> Float[Array, ""]:
    """Computes a loss whose gradient at y is the given one: sum(y * stop_gradient(g)).

    Its value means nothing: log the values of `output_gradients` instead. The gradients of means over the batch contain
    the factor 1/b already, so the result is added to a loss as it is.

    Args:
      y: output of a generator, an array or a tree of arrays, differentiable by the generator's parameters.
      gradient: wanted gradient at y, a tree of the same shapes. No gradient flows into it.

    Returns:
      A scalar in float32 or wider.

    Raises:
      InvalidInputError: if the trees differ in their leaves' shapes.

    References:
      The same device as score distillation's loss: Poole et al., "DreamFusion", arXiv:2209.14988, 2022; Yin et al.,
      "One-step Diffusion with Distribution Matching Distillation", arXiv:2311.18828, 2023. These write it as half a
      squared distance to stop_gradient(y - g), which has the same gradient.

    Example:
      >>> print(jax.grad(steer)(jnp.array([5.0, 7.0]), jnp.array([1.0, -2.0])))
      [ 1. -2.]
    """
    _check_trees(y=y, gradient=gradient)
    pairs = zip(jax.tree.leaves(y), jax.tree.leaves(jax.lax.stop_gradient(gradient)), strict=True)
    return sum((jnp.sum(_widen(a) * _widen(b)) for a, b in pairs), start=jnp.float32(0))


class BalancerState(NamedTuple):
    """What `balance` remembers.

    Attributes:
      norms: exponentially weighted sum of each loss's gradient norms, by name.
      total: sum of the exponential weights, which corrects the bias towards 0.
    """

    norms: dict[str, Array]
    total: Array


def init_balancer(weights: Mapping[str, float]) -> BalancerState:
    """Returns the state before the first update of a balancer.

    Args:
      weights: weights of the losses; only their names matter here.

    Returns:
      Zeros, in float32.

    Example:
      >>> sorted(init_balancer({"l1": 1.0, "gan": 3.0}).norms)
      ['gan', 'l1']
    """
    return BalancerState({name: jnp.zeros((), jnp.float32) for name in weights}, jnp.zeros((), jnp.float32))


def balance(
    gradients: Mapping[str, PyTree],
    weights: Mapping[str, Any],
    state: BalancerState,
    *,
    decay: float = 0.999,
    epsilon: float = 1e-12,
    total_norm: float = 1.0,
) -> tuple[PyTree, BalancerState]:
    """Combines gradients so that each loss's share of the update is its weight, whatever the scale of the loss.

    g = total_norm * sum_i (w_i / sum_j w_j) g_i / (n_i + epsilon), where n_i is a moving average of the mean over the
    examples of ||g_i||, corrected for its start at 0. In the first update n_i is the current norm.

    Args:
      gradients: gradients at the generator's output by name of the loss, as from `output_gradients`: trees of
        `[b, ...]`.
      weights: non-negative weights by name, numbers or traced scalars.
      state: state from `init_balancer` or the previous call; in a game it is an entry of `state.aux`.
      decay: decay of the moving average per update.
      epsilon: constant added to the norms.
      total_norm: norm of an example's gradient if all gradients point in one direction.

    Returns:
      The combined gradient for `steer`, a constant for differentiation; and the new state.

    Raises:
      InvalidInputError: if the names differ, or the gradients differ in shape, or there are none.

    References:
      Defossez et al., "High Fidelity Neural Audio Compression" (EnCodec), arXiv:2210.13438, 2022, equation 5, and the
      authors' code, whose defaults are these. The norms are per example, so a batch of another size, or its gradient of
      a mean over b examples, changes n_i and g_i alike.

    Example:
      >>> gradients = {"l1": jnp.array([[2.0, 0.0]]), "gan": jnp.array([[0.0, 100.0]])}
      >>> weights = {"l1": 1.0, "gan": 3.0}
      >>> print(balance(gradients, weights, init_balancer(weights))[0])
      [[0.25 0.75]]
    """
    if not gradients or not set(gradients) == set(weights) == set(state.norms):
        raise InvalidInputError(
            f"gradients of {sorted(gradients)}, weights of {sorted(weights)}, state of {sorted(state.norms)}: expected "
            "the same names, and at least one"
        )
    _check_trees(**gradients)
    gradients = jax.lax.stop_gradient(dict(gradients))
    updates = decay * state.total + 1.0
    norms = {name: decay * state.norms[name] + jnp.mean(_norms(gradient)) for name, gradient in gradients.items()}
    total = jnp.asarray(sum(weights.values()))
    total = jnp.where(total > 0, total, 1)  # while all terms are off, the gradient is 0
    shares = {name: total_norm * weights[name] / total / (epsilon + norms[name] / updates) for name in gradients}

    def combine(*leaves: Array) -> Array:
        return sum(shares[name] * _widen(x) for name, x in zip(gradients, leaves, strict=True)).astype(leaves[0].dtype)

    new = BalancerState({name: norm.astype(jnp.float32) for name, norm in norms.items()}, updates)
    return jax.lax.stop_gradient((jax.tree.map(combine, *gradients.values()), new))


def normalize_gradient(
    gradient: PyTree,
    mean_square: Float[Array, ""],
    *,
    decay: float = 0.9,
    epsilon: float = 1e-8,
    scale: float = 1.0,
) -> tuple[PyTree, Float[Array, ""]]:
    """Divides the adversarial gradient at the generator's output by its running size.

    s <- decay s + (1 - decay) n sum(g^2) with n the number of values in g, then scale * g / (sqrt(s) + epsilon). With
    the factor n, the result for the gradient of a mean does not depend on the batch size: values of one size become
    1 / n.

    Args:
      gradient: gradient at the generator's output, an array or a tree of arrays; of the adversarial loss alone.
      mean_square: s, from the previous call; zeros before the first. It is not corrected for its start at 0, so the
        first gradient is scaled up by sqrt(1 / (1 - decay)), 3.2.
      decay: decay of s per update.
      epsilon: constant added to the denominator.
      scale: factor of the result.

    Returns:
      The normalised gradient for `steer`, a constant for differentiation; and the new s.

    References:
      Lin et al., "Adversarial Flow Models", arXiv:2511.22475, 2025, and the authors' code, whose defaults are these. On
      several devices their s is a mean over devices of local sums with the local n; here n and the sum are those of the
      global batch, which gives the gradient of the global mean the same size.

    Example:
      >>> gradient, mean_square = normalize_gradient(jnp.array([2.0, 2.0]), jnp.zeros(()), decay=0.0)
      >>> print(gradient, mean_square)
      [0.5 0.5] 16.0
    """
    gradient = jax.lax.stop_gradient(gradient)
    leaves = jax.tree.leaves(gradient)
    count = sum(math.prod(x.shape) for x in leaves)
    squares = sum((jnp.sum(_widen(x) ** 2) for x in leaves), start=jnp.float32(0))
    new = decay * mean_square + (1.0 - decay) * count * squares
    factor = scale / (jnp.sqrt(new) + epsilon)
    scaled = jax.tree.map(lambda x: (factor * _widen(x)).astype(x.dtype), gradient)
    return jax.lax.stop_gradient((scaled, new.astype(mean_square.dtype)))


def ramp(
    step: Num[Array, "*shape"] | int, start: Num[Array, ""] | float | int = 0, length: Num[Array, ""] | float | int = 0
) -> Float[Array, "*shape"]:
    """Computes the factor of a loss that starts late: 0 until `start`, then linear to 1 over `length`.

    clip((step - start) / length, 0, 1); with a length of 0 a jump from 0 to 1 at `start`. All three may be traced.

    Args:
      step: steps done, or images seen: an array, or a number.
      start: value of `step` up to which the factor is 0.
      length: number of steps over which it grows; 0 for a jump. Not negative.

    Returns:
      Factors in [0, 1] of the shape of `step`, floating point.

    References:
      The jump is `disc_start` of VQGAN: Esser, Rombach and Ommer, arXiv:2012.09841, 2021. The discriminator itself must
      be trained before the generator's term starts, otherwise the generator learns from an untrained one.

    Example:
      >>> print(ramp(jnp.array([5, 10, 15, 30]), start=10, length=10))
      [0.  0.  0.5 1. ]
    """
    step = jnp.asarray(step)
    wide = step.astype(jnp.promote_types(step.dtype, jnp.float32))
    length = jnp.asarray(length)
    smooth = jnp.clip((wide - start) / jnp.where(length > 0, length, 1), 0.0, 1.0)
    factor = jnp.where(length > 0, smooth, (wide >= start).astype(wide.dtype))
    return factor.astype(step.dtype if jnp.issubdtype(step.dtype, jnp.floating) else jnp.float32)


def _widen(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _norms(gradient: PyTree) -> Float[Array, " b"]:
    """Returns the norm of each example's part of a tree of `[b, ...]`."""
    squares = [jnp.sum(_widen(x).reshape(x.shape[0], -1) ** 2, axis=1) for x in jax.tree.leaves(gradient)]
    return jnp.sqrt(sum(squares[1:], start=squares[0]))


def _check_trees(**trees: PyTree) -> None:
    """Refuses trees whose leaves differ in number or shape, which would broadcast silently."""
    shapes = {name: [jnp.shape(x) for x in jax.tree.leaves(tree)] for name, tree in trees.items()}
    if len({tuple(found) for found in shapes.values()}) > 1:
        described = ", ".join(f"{name} {found}" for name, found in shapes.items())
        raise InvalidInputError(f"shapes differ: {described}; expected trees whose leaves have equal shapes")
