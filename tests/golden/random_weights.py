"""Weights and images that follow a rule: the same numbers for every framework, made with NumPy alone.

Every tensor is a function of its name and shape. The numbers come from the raw bits of PCG64, whose stream NumPy
guarantees, so they will not change with a new version.
"""

import hashlib
import math

import numpy as np

_ROOT_3 = math.sqrt(3.0)


def uniform(name, shape):
    """Returns uniformly distributed float32 numbers of mean 0 and variance 1."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    count = math.prod(shape)
    bits = np.random.PCG64(seed).random_raw((count + 1) // 2).view(np.int32)[:count]
    return (bits.astype(np.float32) * np.float32(_ROOT_3 / 2**31)).reshape(shape)


def tensor(name, shape):
    """Returns a parameter of a network, scaled such that activations stay of order one."""
    values = uniform(name, shape)
    leaf = name.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if leaf == "running_var":
        return 1.0 + 0.3 * values
    if leaf == "gamma":  # the scale of a residual branch
        return 0.5 + 0.2 * values
    if len(shape) == 1 and leaf == "weight":  # the scale of a normalisation
        return 1.0 + 0.2 * values
    if "embed" in leaf or "token" in leaf or len(shape) == 0:
        return 0.5 * values
    if len(shape) == 1:
        return 0.1 * values
    inputs = shape[0] if leaf in ("proj", "text_projection") else math.prod(shape[1:])
    gain = 2.0 if ".conv." in name else 1.0  # before a ReLU
    return values * np.float32(math.sqrt(gain / inputs))


def tensors(shapes):
    return {name: np.asarray(tensor(name, tuple(shape))) for name, shape in shapes.items()}


def images(name, count, height, width):
    """Returns uint8 images `[count, height, width, 3]`, each with noise, a gradient, and an edge."""
    noise = uniform(f"{name} noise", (count, height, width, 3))
    slopes = uniform(f"{name} slopes", (count, 2, 3))
    y, x = np.linspace(-1, 1, height)[:, None, None], np.linspace(-1, 1, width)[:, None]
    smooth = slopes[:, None, None, 0] * y + slopes[:, None, None, 1] * x
    edge = np.sign(x + 0.5 * y - 0.2 * slopes[:, None, None, 0])
    values = 127.5 + 40.0 * smooth + 30.0 * noise + 40.0 * edge
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
