"""Decoding image files: the formats that may be opened, and what becomes of each of Pillow's modes."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, ImageColor, ImageOps

from gan_jax.types import InvalidInputError

# Pillow decodes these itself. Others start a program (PostScript: Ghostscript), or are only recognised.
_SIGNED = (
    "AVIF", "BMP", "DDS", "GIF", "ICNS", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "PSD", "QOI", "SGI", "SUN", "TIFF",
    "WEBP",
)  # fmt: skip
_UNSIGNED = ("DIB", "PCX", "TGA")  # nearly any bytes may pass for these: they are tried for files of their ending alone
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
_WHITE_IS_ZERO, _SIGNED_INTEGERS = 0, 2  # values of the last two


@functools.cache
def endings() -> dict[str, str]:
    """Returns the formats that are read, by the file endings that Pillow knows for them."""
    known = Image.registered_extensions() | {".mpo": "JPEG"}
    return {ending: name for ending, name in known.items() if name in (*_SIGNED, *_UNSIGNED) and name in Image.OPEN}


@contextlib.contextmanager
def reading(name: str, fault: str) -> Iterator[None]:
    """Turns what decoders raise, exceptions of many types, into errors with the name of the image and its fault."""
    try:
        yield
    except InvalidInputError:
        raise
    except Exception as error:
        raise InvalidInputError(f"{name} {fault} ({error}): fix or remove it") from error


def open_picture(file: pathlib.Path | IO[bytes], name: str) -> Image.Image:
    """Opens an image, whose header alone is read until its pixels are needed.

    Args:
      file: path of the image, or its bytes.
      name: name of the image in the error.

    Returns:
      The image.

    Raises:
      InvalidInputError: if it has none of the formats that are read. Files of PostScript are not, whatever their
        ending: Pillow would start Ghostscript.
    """
    own = endings().get(pathlib.Path(name).suffix.lower(), "PNG")
    formats = [known for known in dict.fromkeys([own, *_SIGNED]) if known in Image.OPEN]
    with reading(name, "is not an image that can be opened"):
        return Image.open(file, formats=formats)


class Depth(NamedTuple):
    """How an image with more than 8 bits a value becomes one of 8.

    Attributes:
      low: value that becomes black.
      high: value that becomes white; below `low` for images that store white as zero.
    """

    low: float
    high: float


def is_deep(picture: Image.Image) -> bool:
    """Whether an image has grey values of more than 8 bits. Pillow itself brings colours of 16 bits down to 8."""
    return picture.mode in ("I", "F") or picture.mode.startswith("I;16")


def stored_depth(picture: Image.Image) -> Depth | None:
    """Returns the range of a deep image's type: up to 65,535 for 16 bits; None for floats and 32 bits, without one."""
    tags = getattr(picture, "tag_v2", {})
    known = picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in ("PNG", "PPM"))
    highest = 2.0 ** tags.get(_BITS, (16,))[0] - 1.0
    ends = Depth(highest, 0.0) if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else Depth(0.0, highest)
    return ends if known else None


@dataclasses.dataclass(frozen=True)
class Decoder:
    """Turns images of any mode into uint8 arrays of one number of channels.

    Orientation is that of Exif; of several frames the first is used. Palettes, CMYK, YCbCr, HSV and LAB become RGB,
    transparency is blended, and grey values of more than 8 bits are scaled.

    Attributes:
      channels: 1 for grey, 3 for colour.
      background: colour that shows through where images are transparent, a name or `#rrggbb`.
      value_range: values of images with more than 8 bits that become black and white; values beyond it become black
        or white too. None: the range of the type, and images whose type has none are refused.
    """

    channels: int
    background: str = "white"
    value_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise InvalidInputError(f"channels={self.channels}: expected 1 (grey) or 3 (colour)")
        try:
            ImageColor.getcolor(self.background, "RGB")
        except (AttributeError, TypeError, ValueError) as error:
            raise InvalidInputError(
                f"background={self.background!r}: expected the name of a colour, such as 'white', or '#rrggbb'"
            ) from error
        ends = self.value_range
        given = np.asarray(ends)
        numbers = np.issubdtype(given.dtype, np.number) and given.shape == (2,)
        if ends is not None and not (numbers and np.isfinite(given).all() and given[0] != given[1]):
            raise InvalidInputError(f"value_range={ends}: expected two different numbers, those of black and of white")

    def pixels(self, picture: Image.Image, name: str) -> np.ndarray:
        """Returns the pixels of an opened image.

        Args:
          picture: the image.
          name: name of the image in errors.

        Returns:
          `[h, w, channels]`, uint8.

        Raises:
          InvalidInputError: if the image is corrupt, or if its values have no known range.
        """
        with reading(name, "is corrupt"):
            ends, upright = self._depth(picture, name), ImageOps.exif_transpose(picture)
            flat = self._blended(upright if ends is None else _scaled(upright, ends))
            image = np.asarray(flat.convert("L") if self.channels == 1 else flat)
        return image.reshape(*image.shape[:2], self.channels)

    def _depth(self, picture: Image.Image, name: str) -> Depth | None:
        if picture.mode == "L" and _SIGNED_INTEGERS in getattr(picture, "tag_v2", {}).get(_SAMPLE_FORMAT, ()):
            raise InvalidInputError(f"{name} has signed values of 8 bits: convert it to unsigned ones")
        if not is_deep(picture):
            return None
        ends = self.value_range or stored_depth(picture)
        if ends is None:
            low, high = np.asarray(picture).min(), np.asarray(picture).max()
            raise InvalidInputError(f"{name} has {_no_range(picture.mode, low, high)}")
        return Depth(*ends)

    def _blended(self, picture: Image.Image) -> Image.Image:
        """Returns the image in RGB, blended with the background where it is transparent."""
        if not picture.has_transparency_data:
            return picture.convert("RGB")
        clear = picture.convert("LA" if picture.mode == "La" else "RGBA").convert("RGBA")
        ground = Image.new("RGB", clear.size, self.background).convert("RGBA")
        return Image.alpha_composite(ground, clear).convert("RGB")


def _no_range(mode: str, low: float, high: float) -> str:
    return (
        f"values from {low:g} to {high:g} (mode {mode} of Pillow), and no file says which are black and white: say so, "
        f"for all images, by value_range=({low:g}, {high:g}) or the like"
    )


_LEAST_SHARE = 0.25  # of the range that 16 bits have: values of 14 bits or fewer are not meant to have it


def check_depths(files: Sequence[pathlib.Path]) -> None:
    """Checks that some deep images can be scaled by the range of their type.

    Raises:
      InvalidInputError: if one has a type without a range, or if the values of all of them end far below it, as those
        of 12 bits in files of 16 do: these would be black.
    """
    found = []
    for file in files:
        with open_picture(file, str(file)) as picture, reading(str(file), "is corrupt"):
            values = np.asarray(picture)
            found.append((stored_depth(picture), picture.mode, float(values.min()), float(values.max())))
    low, high = min(least for *_, least, _ in found), max(most for *_, most in found)
    unknown = [mode for ends, mode, *_ in found if ends is None]
    if unknown:
        raise InvalidInputError(f"{files[0].parent}: images have {_no_range(unknown[0], low, high)}")
    if max(most / max(ends) for ends, _, _, most in found if ends) < _LEAST_SHARE:
        bits = max(1, int(high).bit_length())
        raise InvalidInputError(
            f"{files[0].parent}: images of 16 bits have values up to {high:g}, and would be nearly black: if these are "
            f"{bits} bits, set value_range=(0, {2**bits - 1}); if they are that dark, value_range=(0, 65535)"
        )


def _scaled(picture: Image.Image, ends: Depth) -> Image.Image:
    """Returns a deep image in 8 bits; equal shares of its range become each of the 256 values."""
    values = np.asarray(picture).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it has values that are not finite")
    grey = Image.fromarray(np.clip((values - ends.low) / (ends.high - ends.low) * 256.0, 0, 255).astype(np.uint8))
    if "transparency" in picture.info:  # one of the values
        grey.putalpha(Image.fromarray(np.where(values == picture.info["transparency"], 0, 255).astype(np.uint8)))
    return grey
