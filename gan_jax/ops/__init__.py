"""Convolution and resampling of images, and bottlenecks of tokenizers; needs only jax and jaxtyping."""

from gan_jax.ops.codebook import CodebookState, count_codes, init_codebook, kmeans, perplexity, update_codebook
from gan_jax.ops.convolution import (
    blur_pool,
    conv,
    conv_halved,
    conv_transpose,
    doubled_conv,
    pad,
    upfirdn,
    upsample,
)
from gan_jax.ops.quantize import (
    Bottleneck,
    finite_scalar_codes,
    finite_scalar_quantize,
    gaussian_bottleneck,
    lookup_free_codes,
    lookup_free_quantize,
    straight_through,
    unit_length,
    vector_quantize,
)
from gan_jax.ops.video import conv_clip

__all__ = [
    "Bottleneck",
    "CodebookState",
    "blur_pool",
    "conv",
    "conv_clip",
    "conv_halved",
    "conv_transpose",
    "count_codes",
    "doubled_conv",
    "finite_scalar_codes",
    "finite_scalar_quantize",
    "gaussian_bottleneck",
    "init_codebook",
    "kmeans",
    "lookup_free_codes",
    "lookup_free_quantize",
    "pad",
    "perplexity",
    "straight_through",
    "unit_length",
    "update_codebook",
    "upfirdn",
    "upsample",
    "vector_quantize",
]
