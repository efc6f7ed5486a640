"""Penalties on the weights of a network."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


def orthogonal(kernels: PyTree, *, off_diagonal: bool = True) -> Float[Array, ""]:
    """Computes orthogonal regularisation, which drives the columns of every kernel towards orthogonality.

    With `off_diagonal` it is the sum over kernels of ||W^T W * (1 - I)||^2_F, which leaves the lengths of the columns
    free; otherwise it is the sum of ||W^T W - I||^2_F. W is the kernel with all axes flattened but the last, the
    outputs.

    Args:
      kernels: tree of kernels, `[..., out]`; leaves with fewer than two axes (biases, scales) are ignored.
      off_diagonal: whether to use the first of these two sums, which leaves the lengths free.

    Returns:
      A non-negative scalar, float32 or wider; there is no batch axis.

    References:
      Brock et al., "Neural Photo Editing with Introspective Adversarial Networks", arXiv:1609.07093, 2016; Brock,
      Donahue and Simonyan, "Large Scale GAN Training for High Fidelity Natural Image Synthesis" (BigGAN),
      arXiv:1809.11096, 2019, equation 3 (weight 1e-4, not on embeddings). The authors' PyTorch code adds 2 W (W^T W *
      (1 - I)) to the gradient, which is half of the derivative of this penalty: its 1e-4 is 5e-5 here.

    Example:
      >>> print(orthogonal({"kernel": jnp.array([[1.0, 1.0], [0.0, 2.0]]), "bias": jnp.ones(2)}))
      2.0
    """

    def penalty(kernel: Array) -> Array:
        kernel = kernel.astype(jnp.promote_types(kernel.dtype, jnp.float32))
        matrix = kernel.reshape(-1, kernel.shape[-1])
        gram = jnp.matmul(matrix.T, matrix, precision=jax.lax.Precision.HIGHEST)
        identity = jnp.eye(gram.shape[0], dtype=gram.dtype)
        return jnp.sum((gram * (1.0 - identity) if off_diagonal else gram - identity) ** 2)

    leaves = [leaf for leaf in jax.tree.leaves(kernels) if leaf.ndim > 1]
    return functools.reduce(jnp.add, map(penalty, leaves), jnp.zeros((), jnp.float32))
