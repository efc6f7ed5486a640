"""Bottlenecks of tokenizers: vector, finite scalar and lookup-free quantisation, and a Gaussian; pure functions.

Each takes the encoder's outputs z, `[..., d]`, and returns a `Bottleneck`: codes for the decoder, their ids, and loss
terms, neither weighted nor reduced. The gradient passes from the codes to z as if nothing had been rounded. Everything
is computed in float32: entropies of half-precision numbers are NaN. This module needs only jax and jaxtyping.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gan_jax.types import InvalidInputError

_HIGHEST = jax.lax.Precision.HIGHEST  # TF32 or bfloat16 products would choose other codes
_MOST_BITS = 31  # of an id, which is an int32


class Bottleneck(NamedTuple):
    """What a bottleneck makes of the encoder's outputs.

    Attributes:
      codes: codes for the decoder, of the shape of z (half as many channels for a Gaussian).
      ids: int32, the code at each position; None for a Gaussian.
      losses: loss terms by name, unweighted, one value for each position or example.
    """

    codes: Array
    ids: Array | None
    losses: dict[str, Array]

    def loss(self, **weights: float | Array) -> Array:
        """Returns the sum of the means of the loss terms, times the weights given for them.

        Raises:
          InvalidInputError: if the weights are not for exactly the terms that there are.
        """
        if set(weights) != set(self.losses):
            raise InvalidInputError(
                f"weights for {', '.join(weights) or 'nothing'}: this bottleneck has the loss terms "
                f"{', '.join(self.losses) or '(none)'}; give each of them a weight"
            )
        return sum((weights[name] * jnp.mean(x) for name, x in self.losses.items()), start=jnp.zeros(()))


def straight_through(z: Float[Array, "*b"], q: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Returns q, with the gradient of z: q + (z - sg(z)).

    Args:
      z: values before rounding.
      q: values after rounding, of the same shape; no gradient flows into them.

    Returns:
      An array of the same shape that equals q exactly. The usual z + sg(q - z) equals q only up to round-off, so that a
      decoder in bfloat16 would see other codes in training than those of the ids.

    References:
      Bengio, Leonard and Courville, "Estimating or Propagating Gradients Through Stochastic Neurons for Conditional
      Computation", arXiv:1308.3432, 2013.

    Example:
      >>> print(jax.grad(lambda z: straight_through(z, jnp.round(z)) ** 2)(jnp.array(1.8)))
      4.0
    """
    return jax.lax.stop_gradient(q) + (z - jax.lax.stop_gradient(z))


def vector_quantize(
    z: Float[Array, "*b d"],
    codebook: Float[Array, "k d"],
    *,
    normalize: bool = False,
    temperature: float | None = None,
    diversity: float = 1.0,
) -> Bottleneck:
    """Replaces each vector by its nearest code.

    q = c_i, i = argmin_k |z - c_k|^2. The loss terms are means over the d channels: `commitment` |z - sg(q)|^2, which
    moves the encoder, and `codebook` |sg(z) - q|^2, which moves the codes. With a temperature T there is a third,
    `entropy`: H(p) - diversity H(E p), with p = softmax(-|z - c_k|^2 / T) and the mean E over all positions. It wants
    each p to be sure, and all codes to be used.

    Args:
      z: outputs of the encoder.
      codebook: the k codes.
      normalize: whether to divide z and the codes by their lengths first (cosine distance). The returned codes then
        have length 1. Use few dimensions, 8 to 32.
      temperature: T; None for no entropy term.
      diversity: weight of H(E p) in the entropy term.

    Returns:
      Codes of the shape of z, ids of its shape without the last axis, and the terms `codebook` and `commitment`, and
      `entropy` if there is a temperature; one value for each position. The usual weights are 1 for `codebook` and 0.25
      for `commitment`. With codes that are running means (`update_codebook`), give `codebook` the weight 0.

    Raises:
      InvalidInputError: if z and the codes differ in their number of channels.

    References:
      van den Oord, Vinyals and Kavukcuoglu, "Neural Discrete Representation Learning", arXiv:1711.00937, 2017; Yu et
      al., "Vector-quantized Image Modeling with Improved VQGAN", arXiv:2110.04627, 2021 (normalised codes); Chang et
      al., "MaskGIT", arXiv:2202.04200, 2022, in whose code the entropy term has weight 0.1 and T = 0.01. The code of
      taming-transformers has the factor 0.25 on `codebook` by default (`legacy`), and on `commitment` otherwise.

    Example:
      >>> found = vector_quantize(jnp.array([[0.9, 0.0]]), jnp.array([[0.0, 0.0], [1.0, 0.0]]))
      >>> print(found.codes, found.ids, found.losses["commitment"])
      [[1. 0.]] [1] [0.005]
    """
    if z.shape[-1] != codebook.shape[-1]:
        raise InvalidInputError(f"z {z.shape} and codebook {codebook.shape}: expected the same number of channels")
    wide, codes = _wide(z), _wide(codebook)
    if normalize:
        wide, codes = unit_length(wide), unit_length(codes)
    distances = squared_distances(wide, codes)
    ids = jnp.argmin(distances, axis=-1).astype(jnp.int32)
    q = codes[ids]
    losses = {
        "codebook": jnp.mean((jax.lax.stop_gradient(wide) - q) ** 2, axis=-1),
        "commitment": jnp.mean((wide - jax.lax.stop_gradient(q)) ** 2, axis=-1),
    }
    if temperature is not None:
        logits = jax.nn.log_softmax(-distances / temperature)
        p = jnp.exp(logits)
        mean = jnp.mean(p.reshape(-1, p.shape[-1]), axis=0)
        losses["entropy"] = -jnp.sum(p * logits, axis=-1) - diversity * entropy(mean)
    return Bottleneck(straight_through(wide, q).astype(z.dtype), ids, losses)


def squared_distances(z: Float[Array, "*b d"], codes: Float[Array, "k d"]) -> Float[Array, "*b k"]:
    """Computes the squared distance of each vector from each code, |z|^2 - 2 z c + |c|^2."""
    product = jnp.matmul(z, codes.T, precision=_HIGHEST)
    return jnp.sum(z**2, axis=-1, keepdims=True) - 2.0 * product + jnp.sum(codes**2, axis=-1)


def unit_length(x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Divides each vector by its length, at least 1e-6, so that a zero vector stays zero with a finite gradient."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x**2, axis=-1, keepdims=True), 1e-12))


def entropy(p: Float[Array, " k"]) -> Float[Array, ""]:
    """Computes the entropy in nats, -sum p log p, with a finite gradient where p is 0."""
    return -jnp.sum(p * jnp.log(jnp.maximum(p, 1e-20)))


def finite_scalar_quantize(z: Float[Array, "*b d"], levels: Sequence[int]) -> Bottleneck:
    """Rounds channel i to one of `levels[i]` values; the codebook is their product, and nothing is learned.

    With L levels, h = (L - 1) (1 - 1e-3) / 2 and o = 1/2 for even L, else 0: q = round(tanh(z + s) h - o) / floor(L/2),
    s = atanh(o / h). The shift s makes 0 the image of 0. Even numbers of levels are asymmetric: 8 levels are -1, -3/4,
    ..., 3/4.

    Args:
      z: outputs of the encoder, one channel for each entry of `levels`.
      levels: number of values of each channel, at least 3; `(8, 5, 5, 5)` for 1,000 codes, `(7, 5, 5, 5, 5)` for 4,375,
        `(8, 8, 8, 6, 5)` for 15,360.

    Returns:
      Codes in [-1, 1] of the shape of z, ids, and no loss terms. The first channel is the least significant digit of an
      id.

    Raises:
      InvalidInputError: for a level below 3, another number of channels, or more than 2^31 codes.

    References:
      Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple", arXiv:2309.15505, 2023. The authors' code and
      its copies have s = tan(o / h), which maps 0 to a value near 0 only; the rounded codes of z = 0 are the same. With
      2 levels o > h, and no shift does it.

    Example:
      >>> found = finite_scalar_quantize(jnp.array([[0.0, 9.0], [-9.0, -9.0]]), (8, 5))
      >>> print(found.codes, found.ids)
      [[ 0.  1.]
       [-1. -1.]] [36  0]
    """
    half, offset = _finite_scalar(z.shape[-1], levels)
    wide = _wide(z)
    bounded = jnp.tanh(wide + jnp.arctanh(offset / half)) * half - offset
    rounded, scale = jnp.round(bounded), _halves(levels)
    digits = (rounded + scale).astype(jnp.int32)
    ids = jnp.sum(digits * _bases(levels), axis=-1).astype(jnp.int32)
    return Bottleneck((straight_through(bounded, rounded) / scale).astype(z.dtype), ids, {})


def finite_scalar_codes(ids: Int[Array, "*b"], levels: Sequence[int]) -> Float[Array, "*b d"]:
    """Returns the codes of ids, as `finite_scalar_quantize` makes them.

    Args:
      ids: ids from 0 to the product of the levels minus 1.
      levels: number of values of each channel.

    Returns:
      Codes `[..., d]`, float32.

    References:
      Mentzer et al., arXiv:2309.15505, 2023.

    Example:
      >>> print(finite_scalar_codes(jnp.array([36, 0]), (8, 5)))
      [[ 0.  1.]
       [-1. -1.]]
    """
    _finite_scalar(len(levels), levels)
    digits = ids[..., None] // _bases(levels) % jnp.array(levels, jnp.int32)
    scale = _halves(levels)
    return (digits - scale) / scale


def _finite_scalar(channels: int, levels: Sequence[int]) -> tuple[Array, Array]:
    """Checks the levels; returns h and o for each channel."""
    if channels != len(levels) or not levels or min(levels) < 3:
        raise InvalidInputError(
            f"levels={tuple(levels)} for {channels} channels: expected at least 3 levels for each channel (with 2, use "
            "lookup_free_quantize)"
        )
    count = 1
    for level in levels:
        count *= int(level)
    if count > 2**_MOST_BITS:
        raise InvalidInputError(f"levels={tuple(levels)}: {count} codes; expected at most 2^31, whose ids are int32")
    each = jnp.array(levels, jnp.float32)
    return (each - 1.0) * (1.0 - 1e-3) / 2.0, jnp.where(each % 2 == 0, 0.5, 0.0)


def _halves(levels: Sequence[int]) -> Float[Array, " d"]:
    return jnp.array([level // 2 for level in levels], jnp.float32)


def _bases(levels: Sequence[int]) -> Int[Array, " d"]:
    """Returns the values of the digits of an id, from the first channel on."""
    values = [1]
    for level in levels[:-1]:
        values.append(values[-1] * int(level))
    return jnp.array(values, jnp.int32)


def lookup_free_quantize(
    z: Float[Array, "*b d"], *, temperature: float | None = 0.01, group: int = 9, diversity: float = 1.0
) -> Bottleneck:
    """Replaces each channel by its sign; the codebook is all 2^d vectors of signs, and nothing is learned.

    q = 1 where z > 0, else -1. The term `commitment` is |z - sg(q)|^2, a mean over channels. The term `entropy` is that
    of `vector_quantize` for p = softmax(2 z c / T): H(p) - diversity H(E p). Given z, the d bits are independent, so
    H(p) is the sum of their entropies. H(E p) is taken over groups of bits and added up, an upper bound that is exact
    for one group: 2^18 probabilities for each position would not fit.

    Args:
      z: outputs of the encoder, `[..., bits]`.
      temperature: T; None for no entropy term.
      group: number of bits whose joint distribution is computed; the last group may have fewer.
      diversity: weight of H(E p) in the entropy term.

    Returns:
      Codes -1 or 1 of the shape of z, ids sum_i 2^i [z_i > 0], and the terms `commitment`, with usual weight 0.25, and
      `entropy`, with usual weight 0.1; one value for each position.

    Raises:
      InvalidInputError: for more than 31 bits, or a group of less than 1 or more than 16 bits.

    References:
      Yu et al., "Language Model Beats Diffusion: Tokenizer is Key to Visual Generation" (MAGVIT-v2), arXiv:2310.05737,
      2023; Luo et al., "Open-MAGVIT2", arXiv:2409.04410, 2024. Normalise z before (group norm without scale and shift):
      according to MAGVIT-v2's author it matters.

    Example:
      >>> found = lookup_free_quantize(jnp.array([[0.5, -2.0, 0.0]]))
      >>> print(found.codes, found.ids)
      [[ 1. -1. -1.]] [1]
    """
    bits = z.shape[-1]
    if not 1 <= bits <= _MOST_BITS or not 1 <= group <= 16:
        raise InvalidInputError(f"{bits} bits in groups of {group}: expected 1 to {_MOST_BITS} bits, and groups to 16")
    wide = _wide(z)
    positive = wide > 0
    q = jnp.where(positive, 1.0, -1.0)
    ids = jnp.sum(positive.astype(jnp.int32) << jnp.arange(bits), axis=-1).astype(jnp.int32)
    losses = {"commitment": jnp.mean((wide - jax.lax.stop_gradient(q)) ** 2, axis=-1)}
    if temperature is not None:
        logits = 4.0 * wide / temperature  # of a bit: the difference of 2 z c / T between c = 1 and c = -1
        small = jnp.exp(-jnp.abs(logits))
        single = jnp.sum(jnp.log1p(small) + jnp.abs(logits) * small / (1.0 + small), axis=-1)
        p = jax.nn.sigmoid(logits.reshape(-1, bits))
        joint = [entropy(_joint(p[:, low : low + group])) for low in range(0, bits, group)]
        losses["entropy"] = single - diversity * sum(joint[1:], start=joint[0])
    return Bottleneck(straight_through(wide, q).astype(z.dtype), ids, losses)


def _joint(p: Float[Array, "n bits"]) -> Float[Array, " codes"]:
    """Returns the mean over positions of the probabilities of all values of independent bits."""
    half = p.shape[1] // 2

    def outcomes(p: Array) -> Array:
        found = jnp.ones((p.shape[0], 1), p.dtype)
        for i in range(p.shape[1]):
            bit = p[:, i : i + 1]
            found = jnp.concatenate([found * (1.0 - bit), found * bit], axis=1)
        return found

    # One product over positions; no array has both all positions and all codes.
    together = jnp.matmul(outcomes(p[:, :half]).T, outcomes(p[:, half:]), precision=_HIGHEST)
    return together.ravel() / p.shape[0]


def lookup_free_codes(ids: Int[Array, "*b"], bits: int) -> Float[Array, "*b d"]:
    """Returns the codes of ids, as `lookup_free_quantize` makes them.

    Args:
      ids: ids from 0 to 2^bits - 1.
      bits: number of channels.

    Returns:
      Codes -1 or 1, `[..., bits]`, float32.

    References:
      Yu et al., arXiv:2310.05737, 2023.

    Example:
      >>> print(lookup_free_codes(jnp.array([1, 6]), 3))
      [[ 1. -1. -1.]
       [-1.  1.  1.]]
    """
    return jnp.where(ids[..., None] >> jnp.arange(bits) & 1, 1.0, -1.0)


def gaussian_bottleneck(
    moments: Float[Array, "b *rest twice"], noise: Float[Array, "b *rest d"] | None = None
) -> Bottleneck:
    """Draws codes from a Gaussian: mean + exp(log variance / 2) noise; the bottleneck of latent diffusion's VAEs.

    Args:
      moments: means, then log variances, along the last axis. The log variances are clipped to [-30, 20].
      noise: standard normal noise; None for the means.

    Returns:
      Codes with half as many channels as `moments`; no ids; and the term `kl`, `[b]`: the KL divergence from the
      standard normal distribution, 1/2 (mean^2 + variance - 1 - log variance), summed over all axes but the first.

    Raises:
      InvalidInputError: for an odd number of channels.

    References:
      Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", arXiv:2112.10752, 2022, whose
      weight is 1e-6 for this sum, beside errors of pixels that are summed over an image too. Beside their mean over an
      image of h x w x c numbers, as in `gans.tokenizer`, the same weight is 1e-6 / (h w c).

    Example:
      >>> found = gaussian_bottleneck(jnp.array([[2.0, 0.0]]))
      >>> print(found.codes, found.losses["kl"])
      [[2.]] [2.]
    """
    if moments.shape[-1] % 2:
        raise InvalidInputError(
            f"moments {moments.shape}: expected an even number of channels, means and log variances"
        )
    mean, log_variance = jnp.split(_wide(moments), 2, axis=-1)
    log_variance = jnp.clip(log_variance, -30.0, 20.0)
    codes = mean if noise is None else mean + jnp.exp(0.5 * log_variance) * noise
    kl = 0.5 * (mean**2 + jnp.exp(log_variance) - 1.0 - log_variance)
    return Bottleneck(codes.astype(moments.dtype), None, {"kl": jnp.sum(kl.reshape(kl.shape[0], -1), axis=1)})


def _wide(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
