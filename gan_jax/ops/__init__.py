"""Convolution and resampling of images, implemented for speed on each platform; needs only jax and jaxtyping."""

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

__all__ = ["blur_pool", "conv", "conv_halved", "conv_transpose", "doubled_conv", "pad", "upfirdn", "upsample"]
