"""Learning a codebook without gradients: k-means, running means of the encoder's outputs, and how much of it is used.

The sums over positions are matrix products with one-hot rows: on several devices they cost one all-reduce of the
codebook's size, and no position leaves its device. This module needs only jax and jaxtyping.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from gan_jax.ops.quantize import squared_distances
from gan_jax.types import InvalidInputError, PRNGKey

_HIGHEST = jax.lax.Precision.HIGHEST


class CodebookState(NamedTuple):
    """Codes that are running means. Keep it in the training state.

    Attributes:
      codes: the codes, `[k, d]`.
      counts: running mean of the number of positions of a batch that chose each code, `[k]`.
      sums: running mean of the sum of these positions' vectors, `[k, d]`.
    """

    codes: Float[Array, "k d"]
    counts: Float[Array, " k"]
    sums: Float[Array, "k d"]


def init_codebook(codes: Float[Array, "k d"]) -> CodebookState:
    """Returns the state of a codebook that starts at the given codes, each with a count of 1.

    Args:
      codes: the codes.

    Returns:
      The state.

    Example:
      >>> print(init_codebook(jnp.eye(2)).counts)
      [1. 1.]
    """
    return CodebookState(codes, jnp.ones(codes.shape[0], codes.dtype), codes)


def update_codebook(
    state: CodebookState,
    z: Float[Array, "*b d"],
    ids: Int[Array, "*b"],
    key: PRNGKey,
    *,
    decay: float | Float[Array, ""] = 0.99,
    threshold: float | Float[Array, ""] = 1.0,
) -> tuple[CodebookState, Float[Array, ""]]:
    """Moves each code towards the mean of the vectors that chose it, and restarts dead codes.

    n <- decay n + (1 - decay) (number of positions that chose the code), m <- decay m + (1 - decay) (sum of their
    vectors), code = m / n. A code with n < threshold is dead: it becomes a random vector of this batch, with n =
    threshold.

    Args:
      state: state from `init_codebook` or the previous call.
      z: outputs of the encoder, the same as were quantised (divided by their lengths, if the codes are). No gradient
        flows through them.
      ids: the code that each position chose.
      key: random key of the restarts.
      decay: decay of the running means.
      threshold: count below which a code is dead, in positions per batch; 0 restarts none.

    Returns:
      The new state, and the number of codes that were restarted.

    References:
      van den Oord et al., arXiv:1711.00937, 2017, appendix A.1 (decay 0.99); Dhariwal et al., "Jukebox: A Generative
      Model for Music", arXiv:2005.00341, 2020, section 3.1 (restarts at a count of 1). Jukebox's code does not reset
      the count of a restarted code. With normalised codes nothing bounds |z|, which then grows.

    Example:
      >>> state = init_codebook(jnp.array([[0.0], [1.0]]))
      >>> state, restarted = update_codebook(state, jnp.array([[0.8], [0.8]]), jnp.array([1, 1]), jax.random.key(0))
      >>> print(f"{state.codes[1, 0]:.4f}", restarted)
      0.9960 1.0
    """
    flat, chosen = _flat(z), one_hot(ids.reshape(-1), len(state.codes))
    counts = decay * state.counts + (1.0 - decay) * jnp.sum(chosen, axis=0)
    sums = decay * state.sums + (1.0 - decay) * jnp.matmul(chosen.T, flat, precision=_HIGHEST)
    dead = counts < threshold
    fresh = _random_rows(key, flat, len(state.codes))
    counts = jnp.where(dead, threshold, counts)
    sums = jnp.where(dead[:, None], threshold * fresh, sums)
    # A count of 0 is a code that nothing has chosen for very long, with restarts switched off: it stays where it is.
    codes = jnp.where(counts[:, None] > 0, sums / jnp.maximum(counts, 1e-20)[:, None], state.codes)
    new = CodebookState(codes, counts, sums)
    new = CodebookState(*(x.astype(old.dtype) for x, old in zip(new, state, strict=True)))
    return new, jnp.sum(dead.astype(jnp.float32))


def kmeans(z: Float[Array, "*b d"], count: int, key: PRNGKey, *, iterations: int = 10) -> Float[Array, "k d"]:
    """Finds `count` cluster centres of vectors with Lloyd's algorithm.

    It starts from random vectors. A centre that is nearest to none of the vectors is replaced by a random one in each
    iteration.

    Args:
      z: vectors; no gradient flows through them.
      count: number of centres, k.
      key: random key.
      iterations: number of iterations.

    Returns:
      The centres `[k, d]`.

    Raises:
      InvalidInputError: for fewer than 1 centre or iteration.

    References:
      Lloyd, "Least squares quantization in PCM", IEEE Transactions on Information Theory, 1982. As the start of a
      codebook: Zeghidour et al., "SoundStream", arXiv:2107.03312, 2021.

    Example:
      >>> centres = kmeans(jnp.array([[0.0], [0.2], [5.0], [5.2]]), 2, jax.random.key(0))
      >>> print(jnp.sort(centres.ravel()))
      [0.1 5.1]
    """
    if count < 1 or iterations < 1:
        raise InvalidInputError(f"count={count}, iterations={iterations}: expected at least 1 of each")
    flat = _flat(z)

    def step(index: Array, centres: Array) -> Array:
        chosen = one_hot(jnp.argmin(squared_distances(flat, centres), axis=-1), count)
        sizes = jnp.sum(chosen, axis=0)[:, None]
        means = jnp.matmul(chosen.T, flat, precision=_HIGHEST) / jnp.maximum(sizes, 1.0)
        return jnp.where(sizes > 0, means, _random_rows(jax.random.fold_in(key, index + 1), flat, count))

    return jax.lax.fori_loop(0, iterations, step, _random_rows(jax.random.fold_in(key, 0), flat, count))


def count_codes(ids: Int[Array, "*b"], num_codes: int) -> Float[Array, " k"]:
    """Counts how often each code occurs.

    Args:
      ids: ids from 0 to num_codes - 1.
      num_codes: number of codes, k.

    Returns:
      The counts `[k]`, float32.

    Example:
      >>> print(count_codes(jnp.array([0, 2, 2]), 4))
      [1. 0. 2. 0.]
    """
    return jnp.sum(one_hot(ids.reshape(-1), num_codes), axis=0)


def perplexity(counts: Num[Array, "*b k"]) -> Float[Array, "*b"]:
    """Computes the perplexity of codes, exp(-sum p log p): how many codes, equally often used, would be as diverse.

    Args:
      counts: how often each code occurs. Of one batch, the perplexity is at most the number of its positions: count the
        codes of a whole epoch.

    Returns:
      A number from 1 to k; 1 if there are no counts.

    References:
      van den Oord et al., arXiv:1711.00937, 2017.

    Example:
      >>> print(perplexity(jnp.array([3.0, 3.0, 0.0])))
      2.0
    """
    counts = counts.astype(jnp.promote_types(counts.dtype, jnp.float32))
    p = counts / jnp.maximum(jnp.sum(counts, axis=-1, keepdims=True), 1.0)
    return jnp.exp(-jnp.sum(p * jnp.log(jnp.maximum(p, 1e-20)), axis=-1))


def one_hot(ids: Int[Array, " n"], count: int) -> Float[Array, "n k"]:
    """Returns rows with a 1 at each id."""
    return (ids[:, None] == jnp.arange(count, dtype=ids.dtype)).astype(jnp.float32)


def _random_rows(key: PRNGKey, flat: Float[Array, "n d"], count: int) -> Float[Array, "k d"]:
    """Draws rows, with replacement."""
    return jnp.matmul(
        one_hot(jax.random.randint(key, (count,), 0, flat.shape[0]), flat.shape[0]), flat, precision=_HIGHEST
    )


def _flat(z: Float[Array, "*b d"]) -> Float[Array, "n d"]:
    wide = z.astype(jnp.promote_types(z.dtype, jnp.float32))
    return jax.lax.stop_gradient(wide.reshape(-1, z.shape[-1]))
