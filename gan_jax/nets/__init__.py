"""Generators and discriminators in Flax, and adapters that turn other Linen and NNX modules into a `Network`."""

import importlib
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gan_jax.nets.adapter import from_linen, from_nnx
    from gan_jax.nets.autoencoder import DCGANEncoder, MLPEncoder
    from gan_jax.nets.classifier import Classifier, classifier_maps
    from gan_jax.nets.dcgan import DCGANDiscriminator, DCGANGenerator
    from gan_jax.nets.mlp import MLPDiscriminator, MLPGenerator
    from gan_jax.nets.mocogan import (
        FramesDiscriminator,
        MoCoGANCritic,
        MoCoGANDiscriminator,
        MoCoGANGenerator,
        MotionGRU,
        split_latents,
    )
    from gan_jax.nets.patchgan import MultiScaleDiscriminator, PatchDiscriminator, PixelDiscriminator
    from gan_jax.nets.quantize import (
        FiniteScalarQuantizer,
        GaussianBottleneck,
        LookupFreeQuantizer,
        VectorQuantizer,
    )
    from gan_jax.nets.r3gan import R3GAN_PRESETS, R3GANDiscriminator, R3GANGenerator
    from gan_jax.nets.remat import microbatched, rematerialized
    from gan_jax.nets.resnet import ResNetDiscriminator, ResNetGenerator
    from gan_jax.nets.spade import SPADE, SPADEBlock, SPADEGenerator
    from gan_jax.nets.stylegan2 import StyleGAN2Discriminator, StyleGAN2Generator
    from gan_jax.nets.tokenizer import TOKENIZER_LAST_LAYER, Tokenizer, TokenizerDecoder, TokenizerEncoder
    from gan_jax.nets.tokenizer_critics import BlurPatchDiscriminator, feature_heads
    from gan_jax.nets.translation import CUT_FEATURES, PatchProjector, TranslationResNet, UNet, cut_init

_WHERE = {  # the module of each name; imported on first use, so that `import gan_jax.nets` alone does not need Flax
    "BlurPatchDiscriminator": "tokenizer_critics",
    "CUT_FEATURES": "translation",
    "Classifier": "classifier",
    "DCGANDiscriminator": "dcgan",
    "DCGANEncoder": "autoencoder",
    "DCGANGenerator": "dcgan",
    "FiniteScalarQuantizer": "quantize",
    "GaussianBottleneck": "quantize",
    "LookupFreeQuantizer": "quantize",
    "MLPDiscriminator": "mlp",
    "MLPEncoder": "autoencoder",
    "MLPGenerator": "mlp",
    "MultiScaleDiscriminator": "patchgan",
    "PatchDiscriminator": "patchgan",
    "PatchProjector": "translation",
    "PixelDiscriminator": "patchgan",
    "FramesDiscriminator": "mocogan",
    "MoCoGANCritic": "mocogan",
    "MoCoGANDiscriminator": "mocogan",
    "MoCoGANGenerator": "mocogan",
    "MotionGRU": "mocogan",
    "split_latents": "mocogan",
    "R3GANDiscriminator": "r3gan",
    "R3GANGenerator": "r3gan",
    "R3GAN_PRESETS": "r3gan",
    "ResNetDiscriminator": "resnet",
    "ResNetGenerator": "resnet",
    "SPADE": "spade",
    "SPADEBlock": "spade",
    "SPADEGenerator": "spade",
    "StyleGAN2Discriminator": "stylegan2",
    "StyleGAN2Generator": "stylegan2",
    "TOKENIZER_LAST_LAYER": "tokenizer",
    "Tokenizer": "tokenizer",
    "TokenizerDecoder": "tokenizer",
    "TokenizerEncoder": "tokenizer",
    "VectorQuantizer": "quantize",
    "feature_heads": "tokenizer_critics",
    "TranslationResNet": "translation",
    "UNet": "translation",
    "classifier_maps": "classifier",
    "cut_init": "translation",
    "from_linen": "adapter",
    "from_nnx": "adapter",
    "microbatched": "remat",
    "rematerialized": "remat",
}

__all__ = [
    "CUT_FEATURES",
    "R3GAN_PRESETS",
    "SPADE",
    "TOKENIZER_LAST_LAYER",
    "BlurPatchDiscriminator",
    "Classifier",
    "DCGANDiscriminator",
    "DCGANEncoder",
    "DCGANGenerator",
    "FiniteScalarQuantizer",
    "FramesDiscriminator",
    "GaussianBottleneck",
    "LookupFreeQuantizer",
    "MLPDiscriminator",
    "MLPEncoder",
    "MLPGenerator",
    "MoCoGANCritic",
    "MoCoGANDiscriminator",
    "MoCoGANGenerator",
    "MotionGRU",
    "MultiScaleDiscriminator",
    "PatchDiscriminator",
    "PatchProjector",
    "PixelDiscriminator",
    "R3GANDiscriminator",
    "R3GANGenerator",
    "ResNetDiscriminator",
    "ResNetGenerator",
    "SPADEBlock",
    "SPADEGenerator",
    "StyleGAN2Discriminator",
    "StyleGAN2Generator",
    "Tokenizer",
    "TokenizerDecoder",
    "TokenizerEncoder",
    "TranslationResNet",
    "UNet",
    "VectorQuantizer",
    "classifier_maps",
    "cut_init",
    "feature_heads",
    "from_linen",
    "from_nnx",
    "microbatched",
    "rematerialized",
    "split_latents",
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
