"""The image encoder of CLIP, the feature network of CMMD."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax import nn
from jaxtyping import Array, PyTree, UInt8

from gan_jax.feature_networks import resize, vit
from gan_jax.feature_networks.network import FeatureNetwork, standardized, three_channels
from gan_jax.feature_networks.weights import WeightsFile

_SIZE, _PATCH, _WIDTH, _LAYERS, _HEADS, _DIM, _EPSILON = 336, 14, 1024, 24, 16, 768, 1e-5
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_NAMES = {
    "norm1": "ln_1", "qkv": "attn.in_proj", "proj": "attn.out_proj", "norm2": "ln_2", "fc1": "mlp.c_fc",
    "fc2": "mlp.c_proj",
}  # fmt: skip
_SHA256 = "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"


def clip() -> FeatureNetwork:
    """Returns the image encoder of CLIP ViT-L/14 at 336 pixels, as CMMD uses it: projected and normalised to length 1.

    Preprocessing: the largest central square of an image is resized to 336x336 with Pillow's bicubic filter for 8-bit
    images, and standardised with CLIP's mean and standard deviation.

    Returns:
      The network; `apply` gives `'features'`, `[b, 768]`, of norm 1.

    References:
      Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", arXiv:2103.00020, 2021;
      Jayasumana et al., "Rethinking FID: Towards a Better Evaluation Metric for Image Generation", arXiv:2401.09603,
      2024. CMMD's code preprocesses image files as above; arrays passed directly to its network are resized with the
      same filter without rounding.
    """
    blocks = _block_shapes("visual.transformer.resblocks.", _WIDTH, _LAYERS)
    tower = {
        "visual.class_embedding": (_WIDTH,),
        "visual.positional_embedding": (1 + (_SIZE // _PATCH) ** 2, _WIDTH),
        "visual.proj": (_WIDTH, _DIM),
        "visual.conv1.weight": (_WIDTH, 3, _PATCH, _PATCH),
        **{f"visual.{norm}.{part}": (_WIDTH,) for norm in ("ln_pre", "ln_post") for part in ("weight", "bias")},
    }
    file = WeightsFile(
        name="ViT-L-14-336px.pt",
        size=934_088_680,
        sha256=_SHA256,
        url=f"https://openaipublic.azureedge.net/clip/models/{_SHA256}/ViT-L-14-336px.pt",
        used={**tower, **blocks},
        unused=_text_tower(),
    )
    return FeatureNetwork("clip_vitl14_336", 1, file, _SIZE, "center crop, bicubic_uint8", _DIM, _prepare, _apply)


def _apply(params: PyTree, images: UInt8[Array, "b h w c"]) -> dict[str, Array]:
    x = standardized(resize.bicubic_uint8(_center_square(three_channels(images)), _SIZE), _MEAN, _STD)
    x = vit.embed_patches(x, params["patch.kernel"])
    token = jnp.broadcast_to(params["class_token"], (x.shape[0], 1, _WIDTH))
    x = jnp.concatenate([token, x], axis=1) + params["positions"]
    x = vit.layer_norm(x, params["norm_before.scale"], params["norm_before.bias"], _EPSILON)
    x = vit.blocks(params["blocks"], x, heads=_HEADS, activation=lambda h: h * nn.sigmoid(1.702 * h), epsilon=_EPSILON)
    x = vit.layer_norm(x[:, 0], params["norm_after.scale"], params["norm_after.bias"], _EPSILON)
    x = vit.dense(x, params["projection"])
    return {"features": x / jnp.linalg.norm(x, axis=-1, keepdims=True)}


def _center_square(images: UInt8[Array, "b h w c"]) -> UInt8[Array, "b s s c"]:
    height, width = images.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return images[:, top : top + side, left : left + side]


def _prepare(weights: Mapping[str, np.ndarray]) -> PyTree:
    return {
        "patch.kernel": vit.patch_kernel(weights["visual.conv1.weight"]),
        "class_token": weights["visual.class_embedding"][None],
        "positions": weights["visual.positional_embedding"],
        "norm_before.scale": weights["visual.ln_pre.weight"],
        "norm_before.bias": weights["visual.ln_pre.bias"],
        "blocks": vit.stack_blocks(weights, _NAMES, "visual.transformer.resblocks.", _LAYERS),
        "norm_after.scale": weights["visual.ln_post.weight"],
        "norm_after.bias": weights["visual.ln_post.bias"],
        "projection": weights["visual.proj"],
    }


def _block_shapes(prefix: str, width: int, layers: int) -> dict[str, tuple[int, ...]]:
    block: dict[str, tuple[int, ...]] = {
        "attn.in_proj_weight": (3 * width, width),
        "attn.in_proj_bias": (3 * width,),
        "attn.out_proj.weight": (width, width),
        "mlp.c_fc.weight": (4 * width, width),
        "mlp.c_fc.bias": (4 * width,),
        "mlp.c_proj.weight": (width, 4 * width),
    }
    block |= {f"{layer}.bias": (width,) for layer in ("attn.out_proj", "mlp.c_proj", "ln_1", "ln_2")}
    block |= {f"{layer}.weight": (width,) for layer in ("ln_1", "ln_2")}
    return {f"{prefix}{i}.{name}": shape for i in range(layers) for name, shape in block.items()}


def _text_tower() -> list[str]:
    """Returns the names of the unused tensors: those of the text encoder, and three constants of the network."""
    names = ["positional_embedding", "text_projection", "logit_scale", "token_embedding.weight"]
    names += ["ln_final.weight", "ln_final.bias", "input_resolution", "context_length", "vocab_size"]
    return [*names, *_block_shapes("transformer.resblocks.", 768, 12)]
