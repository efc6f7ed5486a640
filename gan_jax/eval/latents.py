"""Ex-post density estimation: a prior that is fitted to the latents of a trained autoencoder, for better samples."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gan_jax.types import InvalidInputError, Prior, PRNGKey


def fit_prior(means: Float[np.ndarray, "n d"], components: int = 1, *, seed: int = 0) -> Prior:
    """Fits a normal distribution, or a mixture of several, to the latents of an autoencoder.

    The latents of the data never fill the prior that a VAE was trained with. Samples from between them are unlike the
    data; samples from the fitted distribution avoid this, without any training: pass them to `sample` as `inputs`.

    Args:
      means: means of the posteriors of the training images, from the function `encode` of the game.
      components: number of components: 1 for one normal distribution, 10 for the paper's mixture. Each has a full
        covariance matrix.
      seed: seed of the mixture's start.

    Returns:
      The prior. It draws no truncated samples; its interpolation is linear.

    Raises:
      InvalidInputError: for fewer latents than components, or latents that are not finite.

    References:
      Ghosh et al., "From Variational to Deterministic Autoencoders", arXiv:1903.12436, 2020, section 4 (ex-post density
      estimation, with mixtures of ten components). The mixture is scikit-learn's, fitted by expectation maximisation.
    """
    means = np.asarray(means, np.float64)
    if means.ndim != 2 or not 1 <= components <= len(means) or not np.isfinite(means).all():
        raise InvalidInputError(
            f"means {means.shape}, components={components}: expected finite latents [n, d], at least as many as "
            "components, and at least 1 component"
        )
    from sklearn.mixture import GaussianMixture  # noqa: PLC0415 - slow to import

    found = GaussianMixture(components, covariance_type="full", random_state=seed).fit(means)
    weights, centers, factors = (
        jnp.asarray(x, jnp.float32)
        for x in (np.log(found.weights_), found.means_, np.linalg.cholesky(found.covariances_))
    )

    def sample(key: PRNGKey, n: int, truncation: float | None = None) -> Array:
        if truncation is not None:
            raise InvalidInputError(f"truncation={truncation}: a fitted prior has none; leave it out")
        choice_key, noise_key = jax.random.split(key)
        chosen = jax.random.categorical(choice_key, weights, shape=(n,))
        noise = jax.random.normal(noise_key, (n, centers.shape[1]))
        return centers[chosen] + jnp.einsum("nij,nj->ni", factors[chosen], noise)

    def interpolate(z0: Array, z1: Array, t: Array) -> Array:
        return (1.0 - t[..., None]) * z0 + t[..., None] * z1

    return Prior(sample, interpolate)
