"""Decoding image files: the formats that may be opened, and what becomes of each of Pillow's modes."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image, ImageColor, ImageOps

from gan_jax.types import InvalidInputError

# Pillow decodes these itself. Others start a program (PostScript: Ghostscript), or are only recognised.
_SIGNED = (
    "AVIF", "BMP", "DDS", "GIF", "ICNS", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "PSD", "QOI", "SGI", "SUN", "TIFF",
    "WEBP",
)  # fmt: skip
_UNSIGNED = ("DIB", "PCX", "TGA")  # nearly any bytes may pass for these: they are tried for files of their ending alone
_BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLE_FORMAT = 258, 262, 274, 339  # tags of TIFF
_WHITE_IS_ZERO, _UNSIGNED_INTEGERS, _SIGNED_INTEGERS = 0, 1, 2  # values of the last two


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
    """Whether an image has values of more than 8 bits."""
    return _is_deep_grey(picture) or _is_deep_colour(picture)


def _is_deep_grey(picture: Image.Image) -> bool:
    return picture.mode in ("I", "F") or picture.mode.startswith("I;16")


def _is_deep_colour(picture: Image.Image) -> bool:
    """Whether an image has colours, or grey and alpha, of 16 bits in its file; Pillow reads the upper 8 of them."""
    tiles = getattr(picture, "tile", [])
    return not _is_deep_grey(picture) and any(";16" in word for tile in tiles for word in _words(tile[3]))


def _words(arguments: Any) -> list[str]:
    return [x for x in (arguments if isinstance(arguments, tuple) else (arguments,)) if isinstance(x, str)]


def _names_its_range(picture: Image.Image) -> bool:
    """Whether the format names the largest value, and Pillow has scaled the values by it."""
    return picture.format == "PPM"


def _values(picture: Image.Image) -> np.ndarray:
    """Returns the values of a grey image; Pillow reads those of unsigned 32 bits as signed ones."""
    tags, values = getattr(picture, "tag_v2", {}), np.asarray(picture)
    wide = picture.mode == "I" and tags.get(_BITS) == (32,)
    return values.view(np.uint32) if wide and _UNSIGNED_INTEGERS in tags.get(_SAMPLE_FORMAT, (1,)) else values


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
            ends = self._depth(picture, name)
            shallow = picture if ends is None else _scaled(picture, ends)
            flat = self._blended(ImageOps.exif_transpose(shallow))
            image = np.asarray(flat.convert("L") if self.channels == 1 else flat)
        return image.reshape(*image.shape[:2], self.channels)

    def _depth(self, picture: Image.Image, name: str) -> Depth | None:
        if picture.mode == "L" and _SIGNED_INTEGERS in getattr(picture, "tag_v2", {}).get(_SAMPLE_FORMAT, ()):
            raise InvalidInputError(f"{name} has signed values of 8 bits: convert it to unsigned ones")
        if _is_deep_colour(picture) and self.value_range:
            raise InvalidInputError(
                f"{name} has colours of 16 bits, of which Pillow reads the upper 8, so that value_range cannot choose "
                "among them: leave value_range out, or convert the images to 8 bits"
            )
        if not _is_deep_grey(picture):
            return None
        ends = stored_depth(picture) if _names_its_range(picture) else self.value_range or stored_depth(picture)
        if ends is None:
            values = _values(picture)
            raise InvalidInputError(f"{name} has {_no_range(picture.mode, values.min(), values.max())}")
        return Depth(*ends)

    def _blended(self, picture: Image.Image) -> Image.Image:
        """Returns the image in RGB, blended with the background where it is transparent."""
        if not picture.has_transparency_data:
            return picture.convert("RGB")
        hidden = picture.info.get("transparency")
        if isinstance(hidden, tuple) and max(hidden) > 255:  # a colour of 16 bits, of which Pillow reads the upper 8
            picture = picture.copy()
            picture.info["transparency"] = tuple(value >> 8 for value in hidden)
        clear = picture.convert("LA" if picture.mode == "La" else "RGBA").convert("RGBA")
        ground = Image.new("RGB", clear.size, self.background).convert("RGBA")
        return Image.alpha_composite(ground, clear).convert("RGB")


def class_map(picture: Image.Image, name: str, classes: int) -> np.ndarray:
    """Returns the classes of the pixels of a segmentation map, which are stored as values: grey, or of a palette.

    Args:
      picture: the opened map.
      name: name of the image in errors.
      classes: number of classes.

    Returns:
      `[h, w]`, int32.

    Raises:
      InvalidInputError: if the map is corrupt, has colours, or has values that are no class.
    """
    if picture.mode not in ("1", "L", "P", "I") and not picture.mode.startswith("I;16"):
        raise InvalidInputError(
            f"{name} has mode {picture.mode}: expected a map of classes, one value a pixel: grey, or with a palette; "
            "give each colour the number of its class first"
        )
    with reading(name, "is corrupt"):
        values = np.asarray(picture).astype(np.int32)
    if values.min() < 0 or values.max() >= classes:
        raise InvalidInputError(
            f"{name} has values from {values.min()} to {values.max()}: expected classes from 0 to {classes - 1}; give "
            "pixels to be ignored one of these numbers, or raise the number of classes"
        )
    return values


def _no_range(mode: str, low: float, high: float) -> str:
    example = f"({low:g}, {high:g}) or the like" if low < high else "(BLACK, WHITE)"
    return (
        f"values from {low:g} to {high:g} (mode {mode} of Pillow), and no file says which are black and white: say so, "
        f"for all images, by value_range={example}"
    )


_NOT_FINITE = "it has values that are not finite"
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
            colour = _is_deep_colour(picture)
            values = np.asarray(picture) if colour else _values(picture)
            if not np.isfinite(values).all():
                raise ValueError(_NOT_FINITE)
            ends = Depth(0.0, 255.0) if colour else stored_depth(picture)
            found.append((ends, picture.mode, float(values.min()), float(values.max())))
    low, high = min(least for *_, least, _ in found), max(most for *_, most in found)
    unknown = [mode for ends, mode, *_ in found if ends is None]
    if unknown:
        raise InvalidInputError(f"{files[0].parent}: images have {_no_range(unknown[0], low, high)}")
    if max(most / max(ends) for ends, _, _, most in found if ends) < _LEAST_SHARE:
        if all(mode[0] not in "IF" for _, mode, *_ in found):
            raise InvalidInputError(
                f"{files[0].parent}: images with colours of 16 bits use less than a quarter of their range, and would "
                "be nearly black: convert them to 8 bits, scaled as you mean it"
            )
        bits, inverted = max(1, int(high).bit_length()), any(ends.low > ends.high for ends, *_ in found if ends)
        few, all_of_them = (f"({top}, 0)" if inverted else f"(0, {top})" for top in (2**bits - 1, 65535))
        raise InvalidInputError(
            f"{files[0].parent}: images of 16 bits have values up to {high:g}, and would be nearly "
            f"{'white' if inverted else 'black'}: if these are {bits} bits, set value_range={few}; if all 16 bits are "
            f"meant, value_range={all_of_them}"
        )


def _scaled(picture: Image.Image, ends: Depth) -> Image.Image:
    """Returns a deep grey image in 8 bits; equal shares of its range become each of the 256 values."""
    values = _values(picture).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(_NOT_FINITE)
    grey = Image.fromarray(np.clip((values - ends.low) / (ends.high - ends.low) * 256.0, 0, 255).astype(np.uint8))
    if "transparency" in picture.info:  # one of the values
        grey.putalpha(Image.fromarray(np.where(values == picture.info["transparency"], 0, 255).astype(np.uint8)))
    if orientation := picture.getexif().get(_ORIENTATION):
        grey.getexif()[_ORIENTATION] = orientation
    return grey
