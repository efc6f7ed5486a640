"""Convolutions and resampling of images, in the form that each platform runs well; needs jax and jaxtyping alone."""

from gan_jax.ops.convolution import (
    blur_pool,
    conv,
    conv_halved,
    conv_transpose,
    doubled_conv,
    upfirdn,
    upsample,
)

__all__ = ["blur_pool", "conv", "conv_halved", "conv_transpose", "doubled_conv", "upfirdn", "upsample"]
