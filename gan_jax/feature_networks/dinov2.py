"""DINOv2, the feature network of FD-DINOv2, and its levels of tokens for discriminators."""

from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jax import nn
from jaxtyping import Array, Float, PyTree, UInt8

from gan_jax.feature_networks import resize, vit
from gan_jax.feature_networks.network import FeatureNetwork, standardized, three_channels
from gan_jax.feature_networks.weights import WeightsFile
from gan_jax.types import InvalidInputError

_SIZE, _PATCH, _EPSILON = 224, 14, 1e-6
_GRID = _SIZE // _PATCH
_FILE_GRID = 518 // _PATCH  # patches per side that the position embeddings in the files are for
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
_NAMES = {
    "norm1": "norm1", "qkv": "attn.qkv", "proj": "attn.proj", "norm2": "norm2", "fc1": "mlp.fc1", "fc2": "mlp.fc2",
}  # fmt: skip
# Width, number of blocks, number of heads, size of the file, sha256. Meta publishes no hashes: these are the hashes of
# the files that its server has delivered since 2023, as recorded by many projects that use them.
_VARIANTS = {
    "vitb14": (768, 12, 12, 346_378_731, "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73"),
    "vitl14": (1024, 24, 16, 1_217_586_395, "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428"),
}


def dinov2(variant: str = "vitl14") -> FeatureNetwork:
    """Returns DINOv2 without registers, as FD-DINOv2 uses it: the class token after the final layer norm.

    Preprocessing: images are resized to 224x224 with Pillow's bicubic filter for 8-bit images (a rectangle is squeezed
    into a square), and standardised with ImageNet's mean and standard deviation.

    Args:
      variant: size of the network: `vitl14`, used for the published numbers, or `vitb14`.

    Returns:
      The network; `apply` gives `'features'`, `[b, 1024]` or `[b, 768]`.

    Raises:
      InvalidInputError: if the variant is unknown.

    References:
      Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", arXiv:2304.07193, 2023; Stein et al.,
      "Exposing flaws of generative model evaluation metrics and their unfair treatment of diffusion models",
      arXiv:2306.04675, 2023, whose code resizes this way by default.
    """
    if variant not in _VARIANTS:
        raise InvalidInputError(f"variant={variant!r}: expected one of {sorted(_VARIANTS)}")
    width, layers, heads, size, sha256 = _VARIANTS[variant]
    name = f"dinov2_{variant}"
    file = WeightsFile(
        name=f"{name}_pretrain.pth",
        size=size,
        sha256=sha256,
        url=f"https://dl.fbaipublicfiles.com/dinov2/{name}/{name}_pretrain.pth",
        used=_shapes(width, layers),
        unused=["mask_token"],
    )

    def apply(params: PyTree, images: UInt8[Array, "b h w c"]) -> dict[str, Array]:
        x = _tokens(params, standardized(resize.bicubic_uint8(three_channels(images), _SIZE), _MEAN, _STD))
        x = _blocks(params["blocks"], x, heads)
        return {"features": vit.layer_norm(x[:, 0], params["norm.scale"], params["norm.bias"], _EPSILON)}

    def prepare(weights: Mapping[str, np.ndarray]) -> PyTree:
        return _prepare(weights, layers)

    return FeatureNetwork(name, 1, file, _SIZE, "bicubic_uint8", width, prepare, apply)


def _tokens(params: PyTree, images: Float[Array, "b h w 3"]) -> Float[Array, "b n d"]:
    """Embeds standardised images: the class token, then one token for each patch, with their positions."""
    x = vit.embed_patches(images, params["patch.kernel"]) + params["patch.bias"]
    token = jnp.broadcast_to(params["class_token"], (x.shape[0], 1, x.shape[2]))
    return jnp.concatenate([token, x], axis=1) + params["positions"]


def _blocks(params: PyTree, x: Float[Array, "b n d"], heads: int) -> Float[Array, "b n d"]:
    return vit.blocks(params, x, heads=heads, activation=lambda h: nn.gelu(h, approximate=False), epsilon=_EPSILON)


def dinov2_levels(
    variant: str = "vitb14", *, after: Sequence[int] = (2, 5, 8, 11)
) -> Callable[[PyTree, Array], list[Array]]:
    """Creates the function that computes tokens at several depths of DINOv2, for a discriminator with heads on them.

    The levels are the embedded patches, and the outputs of the blocks `after`; the class token is added to all others.
    Images are resized to 224x224 by averaging over areas, and standardised. It is differentiable by the images.

    Args:
      variant: size of the network: `vitb14` or `vitl14`.
      after: indices of the blocks, in rising order.

    Returns:
      `(params, images) -> tokens`, for images in [-1, 1] with one or three channels, and the parameters of
      `dinov2(variant)`: a list of `[b, 256, width]`, one entry for each level. Give it to `gans.tokenizer(features=)`,
      and `nets.feature_heads(len(after) + 1, width)` as the discriminator; the width is 768 or 1024.

    Raises:
      InvalidInputError: if the variant is unknown, or the network has no such blocks.

    References:
      Sauer et al., "StyleGAN-T", arXiv:2301.09515, 2023; Zheng et al., RAE, arXiv:2510.11690, 2025. Both use DINO, of
      2021, with 12 blocks: StyleGAN-T's has patches of 16 pixels, RAE's of 8. RAE sets the bias of the keys to zero,
      which changes no attention.
    """
    if variant not in _VARIANTS:
        raise InvalidInputError(f"variant={variant!r}: expected one of {sorted(_VARIANTS)}")
    _, layers, heads, _, _ = _VARIANTS[variant]
    ends = [index + 1 for index in after]
    if ends != sorted(set(ends)) or not ends or ends[0] < 1 or ends[-1] > layers:
        raise InvalidInputError(f"after={tuple(after)}: expected rising indices of blocks, from 0 to {layers - 1}")

    def levels(params: PyTree, images: Float[Array, "b h w c"]) -> list[Float[Array, "b n d"]]:
        images = jnp.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images
        resized = (resize.area(images, _SIZE) + 1.0) / 2.0
        x = _tokens(params, (resized - jnp.array(_MEAN)) / jnp.array(_STD))
        found, begin = [x], 0
        for end in ends:
            part = {name: value[begin:end] for name, value in params["blocks"].items()}
            x, begin = _blocks(part, x, heads), end
            found.append(x)
        return [x[:, 1:] + x[:, :1] for x in found]

    return levels


def _prepare(weights: Mapping[str, np.ndarray], layers: int) -> PyTree:
    """Converts the weights; each branch's layer scale (`ls1`, `ls2`) is folded into the dense layer before it."""
    blocks = vit.stack_blocks(weights, _NAMES, "blocks.", layers)
    for scale, layer in (("ls1", "proj"), ("ls2", "fc2")):
        gamma = np.stack([weights[f"blocks.{i}.{scale}.gamma"] for i in range(layers)])
        blocks[f"{layer}.kernel"] = blocks[f"{layer}.kernel"] * gamma[:, None, :]
        blocks[f"{layer}.bias"] = blocks[f"{layer}.bias"] * gamma
    return {
        "patch.kernel": vit.patch_kernel(weights["patch_embed.proj.weight"]),
        "patch.bias": weights["patch_embed.proj.bias"],
        "class_token": weights["cls_token"][0],
        "positions": _positions(weights["pos_embed"][0]),
        "blocks": blocks,
        "norm.scale": weights["norm.weight"],
        "norm.bias": weights["norm.bias"],
    }


def _positions(embedding: np.ndarray) -> np.ndarray:
    """Interpolates the position embeddings from the file's 37x37 patches to the 16x16 patches of a 224-pixel image.

    This reproduces the authors' code, which calls PyTorch's bicubic interpolation (a = -3/4, no antialiasing, the
    border repeated) with the scale (16 + 0.1) / 37 in place of 16 / 37, so the last rows and columns contribute less.
    """
    class_token, patches = embedding[:1], embedding[1:].reshape(_FILE_GRID, _FILE_GRID, -1)
    source = (np.arange(_GRID) + 0.5) * (_FILE_GRID / (_GRID + 0.1)) - 0.5
    low = np.floor(source).astype(int)
    weights = np.zeros((_GRID, _FILE_GRID))
    for tap in range(-1, 3):
        place = np.clip(low + tap, 0, _FILE_GRID - 1)
        np.add.at(weights, (np.arange(_GRID), place), resize.cubic(source - low - tap, -0.75))
    patches = np.einsum("ph,qw,hwd->pqd", weights, weights, patches, optimize=True)
    return np.concatenate([class_token, patches.reshape(_GRID**2, -1)]).astype(np.float32)


def _shapes(width: int, layers: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + _FILE_GRID**2, width),
        "patch_embed.proj.weight": (width, 3, _PATCH, _PATCH),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    outputs = {"attn.qkv": 3 * width, "attn.proj": width, "mlp.fc1": 4 * width, "mlp.fc2": width}
    for i in range(layers):
        for norm in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{norm}.{part}": (width,) for part in ("weight", "bias")}
        for layer, out in outputs.items():
            inputs = 4 * width if layer == "mlp.fc2" else width
            shapes |= {f"blocks.{i}.{layer}.weight": (out, inputs), f"blocks.{i}.{layer}.bias": (out,)}
        shapes |= {f"blocks.{i}.{scale}.gamma": (width,) for scale in ("ls1", "ls2")}
    return shapes
