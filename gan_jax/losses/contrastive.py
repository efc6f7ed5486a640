"""Contrastive losses: of examples and their labels, for conditional GANs, and of patches, for image translation."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from gan_jax.types import InvalidInputError, check_same_shape

Embeddings = Float[Array, "b d"]


def conditional_contrastive(
    embedding: Embeddings, proxy: Embeddings, label: Integer[Array, " b"], *, temperature: float = 1.0
) -> Float[Array, " b"]:
    """Computes the conditional contrastive loss (2C) of ContraGAN.

    With l_i the embedding of example i, e_i the embedding of its label, both of unit length, and t the temperature:
    -log [(exp(l_i e_i / t) + sum over k != i with y_k = y_i of exp(l_i l_k / t))
    / (exp(l_i e_i / t) + sum over k != i of exp(l_i l_k / t))].
    The discriminator minimises it on reals, the generator on fakes.

    Args:
      embedding: embeddings of the examples, `[b, d]`, from a head of the discriminator; this function scales them to
        unit length.
      proxy: embedding of each example's label, `[b, d]`; scaled to unit length as well.
      label: labels, `[b]`.
      temperature: the temperature t, above 0.

    Returns:
      `[b]`, non-negative, float32 or wider. Every example is compared with the whole batch: inside `jax.shard_map`
      gather the arguments first.

    Raises:
      InvalidInputError: if the shapes differ, or the temperature is not above 0.

    References:
      Kang and Park, "ContraGAN: Contrastive Learning for Conditional Image Generation", arXiv:2006.12681, 2020,
      equation 8. StudioGAN's code can leave the positives out of the numerator.

    Example:
      >>> same = jnp.ones((2, 3))
      >>> print(conditional_contrastive(same, same, jnp.array([0, 1])).round(4))
      [0.6931 0.6931]
    """
    _check(embedding, proxy, label, temperature)
    embedding, proxy = _unit(embedding), _unit(proxy)
    others = ~jnp.eye(embedding.shape[0], dtype=bool)
    to_proxy = jnp.sum(embedding * proxy, axis=-1) / temperature
    similarity = _similarity(embedding) / temperature
    numerator = jnp.logaddexp(to_proxy, _logsumexp(similarity, others & (label[:, None] == label)))
    return jnp.logaddexp(to_proxy, _logsumexp(similarity, others)) - numerator


def data_to_data_cross_entropy(
    embedding: Embeddings,
    proxy: Embeddings,
    label: Integer[Array, " b"],
    *,
    temperature: float = 0.5,
    positive_margin: float = 0.98,
    negative_margin: float = 0.02,
) -> Float[Array, " b"]:
    """Computes the data-to-data cross-entropy loss (D2D-CE) of ReACGAN.

    With f_i the embedding of example i, v_i the embedding of its label, both of unit length, t the temperature, and m_p
    and m_n the margins:
    p_i = min(0, f_i v_i - m_p) / t, n_ij = max(0, f_i f_j - m_n) / t,
    -log [exp(p_i) / (exp(p_i) + sum over j with y_j != y_i of exp(n_ij))].
    The discriminator minimises it on reals, the generator on fakes.

    Args:
      embedding: embeddings of the examples, `[b, d]`, from a head of the discriminator; this function scales them to
        unit length.
      proxy: embedding of each example's label, `[b, d]`; scaled to unit length as well.
      label: labels, `[b]`.
      temperature: the temperature t, above 0.
      positive_margin: the margin m_p. An example and its label that are more similar than this are not pulled closer.
      negative_margin: the margin m_n. Examples of different labels that are less similar than this are not pushed
        apart.

    Returns:
      `[b]`, non-negative, float32 or wider; 0 if the batch has only one label. Inside `jax.shard_map` gather the
      arguments first.

    Raises:
      InvalidInputError: if the shapes differ, or the temperature is not above 0.

    References:
      Kang, Shim, Cho and Park, "Rebooting ACGAN: Auxiliary Classifier GANs with Stable Training", arXiv:2111.01118,
      2021, equation 6. The authors' code ties the margins by m_n = 1 - m_p, as the defaults here do. For stability it
      (StudioGAN) subtracts the largest (f_i f_j - m_n) / t, of any label, from the negatives alone and not from p_i. So
      its value is lower than the equation's where that number is above 0, and its negatives weigh less; here the value
      is the equation's.

    Example:
      >>> same = jnp.ones((2, 3))
      >>> print(data_to_data_cross_entropy(same, same, jnp.array([0, 1])).round(3))
      [2.092 2.092]
    """
    _check(embedding, proxy, label, temperature)
    embedding, proxy = _unit(embedding), _unit(proxy)
    positive = -jax.nn.relu(positive_margin - jnp.sum(embedding * proxy, axis=-1)) / temperature
    negative = jax.nn.relu(_similarity(embedding) - negative_margin) / temperature
    return jnp.logaddexp(positive, _logsumexp(negative, label[:, None] != label)) - positive


def patch_nce(
    query: Float[Array, "b n d"], positive: Float[Array, "b n d"], *, temperature: float = 0.07
) -> Float[Array, "b n"]:
    """Computes the patchwise contrastive loss of CUT: a patch of the output should resemble the patch at its place.

    With q_i and k_i the vectors at place i of the output and of the input, and t the temperature:
    -log [exp(q_i k_i / t) / sum over j of exp(q_i k_j / t)].
    The other places of the same image are the negatives. No gradient flows into `positive`.

    Args:
      query: vectors of the output at n places of each image, of unit length, such as those of `nets.PatchProjector`.
      positive: vectors of the input at the same places.
      temperature: the temperature t, above 0.

    Returns:
      `[b, n]`, non-negative, float32 or wider. For negatives from all images of the batch, as in SinCUT, pass
      `[1, b n, d]`; inside `jax.shard_map` gather the arguments first in that case.

    Raises:
      InvalidInputError: if the shapes differ, or the temperature is not above 0.

    References:
      Park et al., "Contrastive Learning for Unpaired Image-to-Image Translation", arXiv:2007.15651, 2020. The authors'
      code replaces the diagonal of the negatives by -10, and has the positive as an additional class: the same up to
      exp(-10 / t).

    Example:
      >>> same = jnp.ones((1, 4, 3)) / 3**0.5
      >>> print(patch_nce(same, same).round(4))
      [[1.3863 1.3863 1.3863 1.3863]]
    """
    check_same_shape(query=query, positive=positive)
    if not temperature > 0:
        raise InvalidInputError(f"temperature={temperature}: expected a number above 0")
    dtype = jnp.promote_types(query.dtype, jnp.float32)
    query, positive = query.astype(dtype), jax.lax.stop_gradient(positive).astype(dtype)
    similarity = jnp.einsum("bid,bjd->bij", query, positive, precision=jax.lax.Precision.HIGHEST) / temperature
    return jax.nn.logsumexp(similarity, axis=-1) - jnp.einsum("bii->bi", similarity)


def _check(embedding: Embeddings, proxy: Embeddings, label: Integer[Array, " b"], temperature: float) -> None:
    check_same_shape(embedding=embedding, proxy=proxy)
    if label.shape != embedding.shape[:1]:
        raise InvalidInputError(f"label has the shape {label.shape}: expected {embedding.shape[:1]}, one per example")
    if not temperature > 0:
        raise InvalidInputError(f"temperature={temperature}: expected a number above 0")


def _similarity(embedding: Embeddings) -> Float[Array, "b b"]:
    return jnp.matmul(embedding, embedding.T, precision=jax.lax.Precision.HIGHEST)


def _unit(x: Embeddings) -> Embeddings:
    """Returns the vectors scaled to unit length, in float32 or wider; the floor keeps gradients finite for zeros."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    squared = jnp.sum(x**2, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squared, jnp.asarray(1e-24, x.dtype)))


def _logsumexp(x: Float[Array, "b b"], where: Bool[Array, "b b"]) -> Float[Array, " b"]:
    """Returns the log-sum-exp of each row over the pairs in `where`.

    A row without pairs gives a value so low that it vanishes beside any similarity.
    """
    lowest = jnp.finfo(x.dtype).min / 2  # not -inf: its derivative would be NaN
    return jnp.where(jnp.any(where, -1), jax.nn.logsumexp(jnp.where(where, x, lowest), axis=-1), lowest)
