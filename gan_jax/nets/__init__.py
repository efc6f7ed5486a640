"""Networks, and the seam through which other frameworks' networks come in."""

from gan_jax.nets.adapter import from_linen, from_nnx
from gan_jax.nets.dcgan import DCGANDiscriminator, DCGANGenerator
from gan_jax.nets.memory import microbatched, rematerialized
from gan_jax.nets.mlp import MLPDiscriminator, MLPGenerator

__all__ = [
    "DCGANDiscriminator",
    "DCGANGenerator",
    "MLPDiscriminator",
    "MLPGenerator",
    "from_linen",
    "from_nnx",
    "microbatched",
    "rematerialized",
]
