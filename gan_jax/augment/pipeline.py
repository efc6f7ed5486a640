"""The other half of ADA's pipeline (colour, filters and corruption), and the whole pipeline."""

import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from gan_jax.augment.diffaug import Augment, Images, Probability, chosen, cutout, exact_einsum, widen
from gan_jax.augment.geometry import BLIT, GEOMETRY, Operations, check_operations, move, reflect, share
from gan_jax.types import InvalidInputError

COLOR = ("brightness", "contrast", "luma_flip", "hue_rotation", "saturation")
FILTER = ("band_1", "band_2", "band_3", "band_4")
CORRUPTION = ("noise", "cutout")

# The symlet-2 scaling filter, and the power in the four bands that natural images, with 1 / f, are expected to have.
SYM2 = np.array([-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025])
_BAND_POWER = np.array([10.0, 1.0, 1.0, 1.0]) / 13.0


def transform_color(key: Key[Array, ""], images: Images, p: Probability, *, operations: Operations = COLOR) -> Images:
    """Changes brightness, contrast, luma, hue and saturation, by one affine map of each example's colours.

    In this order: brightness adds N(0, 0.2^2). contrast multiplies by 2^N(0, 0.5^2). luma_flip reflects at the plane of
    luma 0, with probability one half. hue_rotation turns about the grey axis v by a uniform angle. saturation
    multiplies the component orthogonal to v by 2^N(0, 1).

    Args:
      key: random key.
      images: `[b, h, w, c]` in [-1, 1], with one channel (grey) or three (red, green, blue).
      p: probability of each operation.
      operations: some of 'brightness', 'contrast', 'luma_flip', 'hue_rotation' and 'saturation'.

    Returns:
      Images of the same shape and dtype. An example for which no operation takes place is returned bit for bit.

    Raises:
      InvalidInputError: for an unknown operation, or images of another number of channels.

    References:
      Karras et al., "Training Generative Adversarial Networks with Limited Data", arXiv:2006.06676, 2020, appendix B.
      A grey image gets the mean of what three equal channels would get, as in the authors' code.

    Example:
      >>> grey = jnp.zeros((1, 2, 2, 3))
      >>> turned = transform_color(jax.random.key(0), grey, 1.0, operations=["hue_rotation", "saturation"])
      >>> print(bool(jnp.allclose(turned, grey)))
      True
    """
    check_operations(operations, COLOR)
    n, channels = images.shape[0], images.shape[-1]
    if channels not in (1, 3):
        raise InvalidInputError(
            f"images of {channels} channels: colour operations need 1 (grey) or 3 (red, green, blue)"
        )
    # every operation takes its keys, also one that is left out, so that the draws of the others stay the same
    keys = iter(jax.random.split(key, 10))
    active = jnp.zeros(n, bool)

    def draw(name: str, values: Float[Array, " n"], neutral: float) -> Float[Array, "n 1 1"]:
        nonlocal active
        take = chosen(next(keys), share(operations, name, p), n) if name in operations else jnp.zeros(n, bool)
        active = active | take
        return jnp.where(take, values, neutral)[:, None, None]

    brightness = draw("brightness", 0.2 * jax.random.normal(next(keys), (n,)), 0.0)
    contrast = draw("contrast", jnp.exp2(0.5 * jax.random.normal(next(keys), (n,))), 1.0)
    flip = draw("luma_flip", jax.random.bernoulli(next(keys), 0.5, (n,)).astype(jnp.float32), 0.0)
    hue = draw("hue_rotation", jax.random.uniform(next(keys), (n,), minval=-math.pi, maxval=math.pi), 0.0)
    saturation = draw("saturation", jnp.exp2(jax.random.normal(next(keys), (n,))), 1.0)
    axis = jnp.full(3, 1 / math.sqrt(3.0))
    along, identity = jnp.outer(axis, axis), jnp.eye(3)
    cross = jnp.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3.0)
    mirror = identity - 2.0 * flip * along
    turn = along + jnp.cos(hue) * (identity - along) + jnp.sin(hue) * cross  # Rodrigues' formula
    saturate = along + saturation * (identity - along)
    linear = exact_einsum("nij,njk,nkl->nil", saturate, turn, mirror)
    matrix, offset = linear * contrast, jnp.sum(linear, -1, keepdims=True) * contrast * brightness
    if channels == 1:
        matrix, offset = (jnp.mean(jnp.sum(x, -1), -1)[:, None, None] for x in (matrix, offset))
    x = widen(images)
    changed = exact_einsum("bij,bhwj->bhwi", matrix, x) + offset[:, None, None, :, 0]
    return jnp.where(active[:, None, None, None], changed.astype(images.dtype), images)


def filter_bands(key: Key[Array, ""], images: Images, p: Probability, *, operations: Operations = FILTER) -> Images:
    """Amplifies or weakens four octaves of spatial frequency.

    For each band that is drawn, its amplitude is multiplied by 2^N(0, 1). Then all four bands are divided by
    sqrt(sum power_i t_i^2), where t_i is the factor of band i (1 for the other bands) and the powers are in the ratio
    10 : 1 : 1 : 1, as expected of images. This keeps the expected total power. The bands, from low to high, meet at an
    eighth, a quarter and a half of the Nyquist frequency.

    Args:
      key: random key.
      images: `[b, h, w, c]`.
      p: probability of each band.
      operations: some of 'band_1' (lowest) to 'band_4' (highest).

    Returns:
      Images of the same shape and dtype. An example for which no operation takes place is returned bit for bit.

    Raises:
      InvalidInputError: for an unknown operation.

    References:
      Karras et al., arXiv:2006.06676, 2020, appendix B: zero-phase filters made from the symlet-2 wavelet, applied to
      rows and to columns.

    Example:
      >>> print(filter_bands(jax.random.key(0), jnp.ones((2, 8, 8, 1)), 1.0).shape)
      (2, 8, 8, 1)
    """
    check_operations(operations, FILTER)
    n, h, w, _ = images.shape
    which, amount = jax.random.split(key)
    chances = [jnp.asarray(share(operations, name, p) if name in operations else 0.0) for name in FILTER]
    take = jax.random.uniform(which, (n * len(FILTER),)).reshape(n, len(FILTER)) < jnp.stack(chances)
    active = jnp.any(take, axis=-1)
    factors = jnp.where(take, jnp.exp2(jax.random.normal(amount, take.shape)), 1.0)
    # for each band k: its factor alone, and the division of all bands by the root of the power that results from it
    power = 1.0 + jnp.asarray(_BAND_POWER, factors.dtype) * (factors**2 - 1.0)
    gain = factors / jnp.sqrt(jnp.prod(power, axis=-1, keepdims=True))
    rows, columns = (exact_einsum("bk,kij->bij", gain, jnp.asarray(_bands(size), gain.dtype)) for size in (h, w))
    changed = exact_einsum("bxi,bijc->bxjc", rows, widen(images))
    changed = exact_einsum("byj,bxjc->bxyc", columns, changed)
    return jnp.where(active[:, None, None, None], changed.astype(images.dtype), images)


def band_filters() -> list[Float[np.ndarray, " taps"]]:
    """Returns the four zero-phase filters of `filter_bands`, from low to high; their sum is the identity.

    L = h h~ / 2 is the half-band low-pass filter made from the symlet-2 filter h and its mirror image h~; H is 1 - L.
    From high to low the filters are H(z), L(z) H(z^2), L(z) L(z^2) H(z^4) and L(z) L(z^2) L(z^4). All have odd length
    and are centred.

    Returns:
      Four arrays of 43, 43, 19 and 7 taps.

    Example:
      >>> print([len(taps) for taps in band_filters()])
      [43, 43, 19, 7]
    """
    low = np.convolve(SYM2, SYM2[::-1]) / 2
    high = -low
    high[len(low) // 2] += 1
    filters, passed = [], np.ones(1)
    for octave in range(3):
        spread = np.zeros((len(low), 2**octave))
        stretched = []
        for taps in (low, high):
            spread[:, 0] = taps
            stretched.append(spread.ravel()[: (len(low) - 1) * 2**octave + 1].copy())
        filters.append(np.convolve(passed, stretched[1]))
        passed = np.convolve(passed, stretched[0])
    return [passed, *filters[::-1]]


def _bands(size: int) -> Float[np.ndarray, "4 size size"]:
    """Returns the filters as matrices that act on a row of pixels, with reflection beyond its ends."""
    matrices = np.zeros((4, size, size), np.float32)
    for matrix, taps in zip(matrices, band_filters(), strict=True):
        for place in range(size):
            for offset, tap in enumerate(taps):
                matrix[place, reflect(place + offset - len(taps) // 2, size)] += tap
    return matrices


def corrupt(key: Key[Array, ""], images: Images, p: Probability, *, operations: Operations = CORRUPTION) -> Images:
    """Adds noise, and cuts out a rectangle.

    noise: N(0, s^2) for every pixel and channel, with s ~ |N(0, 0.1^2)| for each example. cutout: a rectangle of half
    the height and width set to 0, see `cutout`.

    Args:
      key: random key.
      images: `[b, h, w, c]` in [-1, 1].
      p: probability of each operation.
      operations: some of 'noise' and 'cutout'.

    Returns:
      Images of the same shape and dtype. An example for which no operation takes place is returned bit for bit.

    Raises:
      InvalidInputError: for an unknown operation.

    References:
      Karras et al., arXiv:2006.06676, 2020, appendix B.

    Example:
      >>> noisy = corrupt(jax.random.key(0), jnp.zeros((1, 2, 2, 1)), 1.0, operations=["noise"])
      >>> print(bool(jnp.all(noisy != 0)))
      True
    """
    check_operations(operations, CORRUPTION)
    which, level_key, noise_key, cut_key = jax.random.split(key, 4)
    n = images.shape[0]
    if "noise" in operations:
        level = 0.1 * jnp.abs(jax.random.normal(level_key, (n, 1, 1, 1)))
        noise = (level * jax.random.normal(noise_key, images.shape)).astype(images.dtype)
        images = jnp.where(chosen(which, share(operations, "noise", p), n)[:, None, None, None], images + noise, images)
    return cutout(cut_key, images, share(operations, "cutout", p)) if "cutout" in operations else images


STAGES = ((transform_color, COLOR), (filter_bands, FILTER), (corrupt, CORRUPTION))
OPERATIONS = BLIT + GEOMETRY + COLOR + FILTER + CORRUPTION


def ada_pipeline(operations: Operations = BLIT + GEOMETRY + COLOR) -> Augment:
    """Combines the operations of adaptive discriminator augmentation, in the paper's order, each with probability p.

    Blits and geometry resample an image once, together: moving it by whole pixels crops nothing that scaling it down
    would show.

    Args:
      operations: some of the 18 in `OPERATIONS`. The default (blits, geometry and colour, "bgc") is what the paper
        found best throughout; filters and corruption help with very little data, and leak into samples sooner. A dict
        gives each operation a factor, by which p is multiplied.

    Returns:
      `(key, images, p) -> images`, for both reals and fakes. p may be traced, so that the controller can change it
      without recompiling.

    Raises:
      InvalidInputError: for an unknown operation, or none.

    References:
      Karras et al., "Training Generative Adversarial Networks with Limited Data", arXiv:2006.06676, 2020. Each band
      of the filter counts as one of the 18 operations.

    Example:
      >>> augment = ada_pipeline(["x_flip", "rotation", "hue_rotation"])
      >>> print(augment(jax.random.key(0), jnp.zeros((2, 16, 16, 3)), 0.5).shape)
      (2, 16, 16, 3)
    """
    if not operations:
        raise InvalidInputError("operations=(): expected at least one; pass no pipeline to train without augmentation")
    check_operations(operations, OPERATIONS)

    def among(known: Sequence[str]) -> Operations:
        found = [name for name in known if name in operations]
        return {name: operations[name] for name in found} if isinstance(operations, Mapping) else found

    def augment(key: Key[Array, ""], images: Images, p: Probability) -> Images:
        blit_key, geometry_key, *keys = jax.random.split(key, 2 + len(STAGES))
        blits, moves = (k if among(known) else None for k, known in ((blit_key, BLIT), (geometry_key, GEOMETRY)))
        images = move(blits, moves, images, p, among(BLIT + GEOMETRY))
        for (stage, known), stage_key in zip(STAGES, keys, strict=True):
            if among(known):
                images = stage(stage_key, images, p, operations=among(known))
        return images

    return augment
