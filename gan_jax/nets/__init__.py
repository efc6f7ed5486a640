"""Generators and discriminators in Flax, and adapters that turn other Linen and NNX modules into a `Network`."""

import importlib
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gan_jax.nets.adapter import from_linen, from_nnx
    from gan_jax.nets.classifier import Classifier
    from gan_jax.nets.dcgan import DCGANDiscriminator, DCGANGenerator
    from gan_jax.nets.mlp import MLPDiscriminator, MLPGenerator
    from gan_jax.nets.quantize import (
        FiniteScalarQuantizer,
        GaussianBottleneck,
        LookupFreeQuantizer,
        VectorQuantizer,
    )
    from gan_jax.nets.r3gan import R3GAN_PRESETS, R3GANDiscriminator, R3GANGenerator
    from gan_jax.nets.remat import microbatched, rematerialized
    from gan_jax.nets.resnet import ResNetDiscriminator, ResNetGenerator
    from gan_jax.nets.stylegan2 import StyleGAN2Discriminator, StyleGAN2Generator
    from gan_jax.nets.tokenizer import TOKENIZER_LAST_LAYER, Tokenizer, TokenizerDecoder, TokenizerEncoder
    from gan_jax.nets.tokenizer_critics import BlurPatchDiscriminator, feature_heads

_WHERE = {  # the module of each name; imported on first use, so that `import gan_jax.nets` alone does not need Flax
    "BlurPatchDiscriminator": "tokenizer_critics",
    "Classifier": "classifier",
    "DCGANDiscriminator": "dcgan",
    "DCGANGenerator": "dcgan",
    "FiniteScalarQuantizer": "quantize",
    "GaussianBottleneck": "quantize",
    "LookupFreeQuantizer": "quantize",
    "MLPDiscriminator": "mlp",
    "MLPGenerator": "mlp",
    "R3GANDiscriminator": "r3gan",
    "R3GANGenerator": "r3gan",
    "R3GAN_PRESETS": "r3gan",
    "ResNetDiscriminator": "resnet",
    "ResNetGenerator": "resnet",
    "StyleGAN2Discriminator": "stylegan2",
    "StyleGAN2Generator": "stylegan2",
    "TOKENIZER_LAST_LAYER": "tokenizer",
    "Tokenizer": "tokenizer",
    "TokenizerDecoder": "tokenizer",
    "TokenizerEncoder": "tokenizer",
    "VectorQuantizer": "quantize",
    "feature_heads": "tokenizer_critics",
    "from_linen": "adapter",
    "from_nnx": "adapter",
    "microbatched": "remat",
    "rematerialized": "remat",
}

__all__ = [
    "R3GAN_PRESETS",
    "TOKENIZER_LAST_LAYER",
    "BlurPatchDiscriminator",
    "Classifier",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "FiniteScalarQuantizer",
    "GaussianBottleneck",
    "LookupFreeQuantizer",
    "MLPDiscriminator",
    "MLPGenerator",
    "R3GANDiscriminator",
    "R3GANGenerator",
    "ResNetDiscriminator",
    "ResNetGenerator",
    "StyleGAN2Discriminator",
    "StyleGAN2Generator",
    "Tokenizer",
    "TokenizerDecoder",
    "TokenizerEncoder",
    "VectorQuantizer",
    "feature_heads",
    "from_linen",
    "from_nnx",
    "microbatched",
    "rematerialized",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f"gan_jax.nets.{_WHERE[name]}"), name)
    if name == "ops":
        warnings.warn("gan_jax.nets.ops is now gan_jax.ops", DeprecationWarning, stacklevel=2)
        return importlib.import_module("gan_jax.ops")
    raise AttributeError(f"module 'gan_jax.nets' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
