"""Bottlenecks of tokenizers as Linen modules: the functions of `gan_jax.ops`, with the codebooks that they need.

All have one interface. `channels` is the number of channels that the encoder must deliver; `num_codes` is the number of
codes, None for a Gaussian; `module(z, train=...)` returns an `ops.Bottleneck`; `lookup(ids)` returns the codes of ids.
The quantisers compute in float32 or wider, whatever the dtype of z.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gan_jax import ops
from gan_jax.nets import layers
from gan_jax.types import InvalidInputError


class VectorQuantizer(nn.Module):
    """Vector quantiser (`ops.vector_quantize`) whose codes are learned by gradients, or are running means.

    By gradients, the codes are parameters, and the loss term `codebook` moves them. With a `decay`, the codes are model
    state, which every training pass updates (`ops.update_codebook`); there is no term `codebook`.

    With `kmeans`, the first training pass makes the cluster centres of its own encoder outputs the codes. Where codes
    are parameters, a network cannot set them: the centres are model state, and the parameters, which start at 0, are
    the difference from them.

    Attributes:
      num_codes: number of codes.
      channels: number of channels of the codes; 8 to 32 with `normalize`.
      normalize: whether codes are chosen by angle, and have length 1.
      decay: decay of the running means; None for codes that gradients move.
      threshold: count of positions per batch below which a running code is dead, and restarts at a random encoder
        output; 0 restarts none.
      kmeans: iterations of k-means in the first training pass; 0 starts at random codes.
      temperature: temperature of the entropy term; None for no such term.
    """

    num_codes: int
    channels: int
    normalize: bool = False
    decay: float | None = None
    threshold: float = 1.0
    kmeans: int = 10
    temperature: float | None = None

    def setup(self) -> None:
        layers.check_settings(jnp.float32, num_codes=self.num_codes, channels=self.channels)
        if self.decay is not None and not 0 <= self.decay < 1:
            raise InvalidInputError(
                f"decay={self.decay}: expected 0 to below 1, or None for codes learned by gradients"
            )
        shape = (self.num_codes, self.channels)
        # Normalised codes need directions of their own; others start near 0, as in taming-transformers.
        init = nn.initializers.normal(1.0) if self.normalize else _uniform(1.0 / self.num_codes)
        if self.kmeans:
            self.started = self.variable("codebook", "started", lambda: jnp.zeros((), jnp.int32))
        if self.decay is not None:
            self.running = self.variable(
                "codebook", "running", lambda: ops.init_codebook(init(self.make_rng("params"), shape))._asdict()
            )
            return
        self.codes = self.param("codes", nn.initializers.zeros if self.kmeans else init, shape, jnp.float32)
        if self.kmeans:
            self.centres = self.variable("codebook", "centres", lambda: init(self.make_rng("params"), shape))

    def _codes(self) -> Float[Array, "k d"]:
        """Returns the codes, before their division by their lengths."""
        if self.decay is not None:
            return self.running.value["codes"]
        return self.codes + self.centres.value if self.kmeans else self.codes

    def __call__(self, z: Float[Array, "*b d"], *, train: bool) -> ops.Bottleneck:
        updating = train and not self.is_initializing()
        if updating and self.kmeans:
            self._start(z)
        found = ops.vector_quantize(z, self._codes(), normalize=self.normalize, temperature=self.temperature)
        if self.decay is None:
            return found
        if updating:
            state = ops.CodebookState(**self.running.value)
            seen = ops.unit_length(z.astype(jnp.float32)) if self.normalize else z
            assert found.ids is not None
            new, _ = ops.update_codebook(
                state, seen, found.ids, self.make_rng("noise"), decay=self.decay, threshold=self.threshold
            )
            self.running.value = new._asdict()
        return found._replace(losses={name: x for name, x in found.losses.items() if name != "codebook"})

    def _start(self, z: Array) -> None:
        """Makes the cluster centres of z the codes, in the first training pass alone."""
        seen = ops.unit_length(z.astype(jnp.float32)) if self.normalize else z
        key, held = self.make_rng("noise"), self.running if self.decay is not None else self.centres

        def begin(old: dict[str, Array] | Array) -> dict[str, Array] | Array:
            centres = ops.kmeans(seen, self.num_codes, key, iterations=self.kmeans)
            return centres if self.decay is None else ops.init_codebook(centres)._asdict()

        held.value = jax.lax.cond(self.started.value == 0, begin, lambda old: old, held.value)
        self.started.value = jnp.ones((), jnp.int32)

    def lookup(self, ids: Int[Array, "*b"]) -> Float[Array, "*b d"]:
        """Returns the codes of ids."""
        codes = self._codes()
        return (ops.unit_length(codes) if self.normalize else codes)[ids]


def _uniform(limit: float) -> layers.Initializer:
    def init(key: Array, shape: tuple[int, ...], dtype: layers.DType = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init


class FiniteScalarQuantizer(nn.Module):
    """Finite scalar quantiser (`ops.finite_scalar_quantize`); it has no parameters and no loss.

    Attributes:
      levels: number of values of each channel, 3 or more.
    """

    levels: tuple[int, ...]

    @property
    def channels(self) -> int:
        """Number of channels that the encoder must deliver."""
        return len(self.levels)

    @property
    def num_codes(self) -> int:
        """Number of codes."""
        return math.prod(self.levels)

    def __call__(self, z: Float[Array, "*b d"], *, train: bool) -> ops.Bottleneck:
        del train
        return ops.finite_scalar_quantize(z, self.levels)

    def lookup(self, ids: Int[Array, "*b"]) -> Float[Array, "*b d"]:
        """Returns the codes of ids."""
        return ops.finite_scalar_codes(ids, self.levels)


class LookupFreeQuantizer(nn.Module):
    """Lookup-free quantiser (`ops.lookup_free_quantize`), behind a group norm without scale and shift.

    Attributes:
      bits: number of channels; there are 2^bits codes.
      temperature: temperature of the entropy term; None for no such term.
      group: number of bits whose joint distribution the entropy term computes.
    """

    bits: int
    temperature: float | None = 0.01
    group: int = 9

    @property
    def channels(self) -> int:
        """Number of channels that the encoder must deliver."""
        return self.bits

    @property
    def num_codes(self) -> int:
        """Number of codes."""
        return 1 << self.bits

    @nn.compact
    def __call__(self, z: Float[Array, "b *rest d"], *, train: bool) -> ops.Bottleneck:
        del train
        normed = nn.GroupNorm(num_groups=1, use_scale=False, use_bias=False, dtype=jnp.float32)(z)
        return ops.lookup_free_quantize(normed, temperature=self.temperature, group=self.group)

    def lookup(self, ids: Int[Array, "*b"]) -> Float[Array, "*b d"]:
        """Returns the codes of ids."""
        return ops.lookup_free_codes(ids, self.bits)


class GaussianBottleneck(nn.Module):
    """Gaussian bottleneck (`ops.gaussian_bottleneck`): codes are drawn in training, and are the means at evaluation.

    Attributes:
      features: number of channels of the codes; the encoder delivers twice as many.
    """

    features: int
    num_codes: None = None

    @property
    def channels(self) -> int:
        """Number of channels that the encoder must deliver."""
        return 2 * self.features

    def __call__(self, z: Float[Array, "b *rest d"], *, train: bool) -> ops.Bottleneck:
        if not train:
            return ops.gaussian_bottleneck(z)
        return ops.gaussian_bottleneck(z, jax.random.normal(self.make_rng("noise"), (*z.shape[:-1], self.features)))

    def lookup(self, ids: Int[Array, "*b"]) -> Float[Array, "*b d"]:
        """Raises InvalidInputError: a Gaussian has no ids."""
        raise InvalidInputError(
            "this tokenizer has a Gaussian bottleneck, whose codes have no ids: decode codes instead"
        )
