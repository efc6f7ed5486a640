"""A folder of images, with one sub-folder per class where there are labels."""

import collections
import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from gan_jax.data import decode, images
from gan_jax.data.sources import Arrays, Records
from gan_jax.types import InvalidInputError

_OF_SYSTEMS = ("@eaDir", "__MACOSX", "$RECYCLE.BIN", "#recycle", "lost+found")  # thumbnails, copies, deleted files
_LOOKED_AT = 256  # deep images whose values show whether the range of their type is meant


def image_folder(
    path: str,
    *,
    image_size: int | None,
    labels: bool,
    channels: int = 3,
    fit: str = "crop",
    background: str = "white",
    value_range: tuple[float, float] | None = None,
    check: bool = True,
    resident_bytes: int = images.RESIDENT_BYTES,
) -> Arrays | Records:
    """Reads all images below a folder, made square and resized, as `'real'`.

    Links are followed. Hidden files and folders, those that systems make for themselves, and files without the ending
    of an image are passed over. The summary counts what was passed over, and images that were changed: transparent,
    not square, smaller than `image_size`, with several frames, with more than 8 bits.

    Args:
      path: the folder.
      image_size: height and width in pixels; None keeps images as they are, which must then be of one size.
      labels: whether to use the names of the sub-folders as classes 0, 1, ..., delivered as `'label'`. Numbers in names
        are ordered by value: 1, 2, 10.
      channels: 1 for grey, 3 for colour.
      fit: `crop` cuts images to the largest central square; `stretch` resizes them whole, ignoring the ratio of height
        to width, by bicubic interpolation.
      background: colour that shows through where images are transparent, a name or `#rrggbb`.
      value_range: values of grey images with more than 8 bits that become black and white, such as `(0, 4095)` for 12
        bits in files of 16, or `(0.0, 1.0)`; values beyond become black or white too. None: the range of the type.
      check: whether to decode all images of a streamed folder once at the start, to find broken ones before they
        interrupt the training. Images held in memory are all decoded anyway.
      resident_bytes: a data set of at most this many decoded bytes is held on the device; a larger one is streamed.

    Returns:
      The source.

    Raises:
      InvalidInputError: if the folder is missing, cannot be read or has no images; if images cannot be decoded; if
        images with more than 8 bits need `value_range`; or if labels are requested and images lie outside the class
        sub-folders or there are fewer than two of them.
    """
    root = images.directory(path, "the folder of images")
    images.check_size(image_size)
    images.check_fit(fit)
    decoder = decode.Decoder(channels, background, value_range)
    files, passed = files_below(root)
    more = f"; {listed('passed over', passed)}" if passed else ""
    classes = sorted({p.relative_to(root).parts[0] for p in files if p.parent != root}, key=natural)
    if labels:
        stray = [p for p in files if p.parent == root]
        if stray or len(classes) < 2:
            raise InvalidInputError(
                f"labels=True needs every image in one of two or more class sub-folders of {path!r}: found "
                f"{len(classes)} sub-folders and {len(stray)} images outside of them{more}; or "
                "set labels=False"
            )
    numbers = {name: index for index, name in enumerate(classes)}
    targets = [numbers[p.relative_to(root).parts[0]] for p in files] if labels else None
    reader = _Files(files, targets, image_size, decoder, fit)
    headers = looked_at(files, decoder, reader.kinds, f"folder {root.absolute().name}")
    if image_size is None:
        _check_one_size(root, files, headers)
    kinds = headers.kinds()
    notes = [*([listed("passed over", passed)] if passed else []), *([listed("images", kinds)] if kinds else [])]
    names = classes if labels else []
    return images.hold_or_stream(
        f"folder {root.absolute().name}", reader, len(names) if labels else None, resident_bytes, names, notes, check
    )


def natural(name: str) -> tuple[Sequence[str | int], str]:
    """Returns the key of natural order, in which `2` is before `10`."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def listed(what: str, counts: collections.Counter[str]) -> str:
    """Returns a line of the summary: how many of each kind there are."""
    return f"{what}: " + "; ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items()))


def files_below(
    root: pathlib.Path, endings: frozenset[str] = frozenset(decode.endings()), what: str = "image"
) -> tuple[list[pathlib.Path], collections.Counter[str]]:
    """Returns the files with one of the endings, sorted, and the number of others that are passed over by kind.

    Args:
      root: the folder.
      endings: endings of the files, by default those of images.
      what: what the files hold, for the error.

    Raises:
      InvalidInputError: if there is no such file, or a part of the folder cannot be read.
    """
    passed: collections.Counter[str] = collections.Counter()
    try:
        files = sorted(_scanned(root, frozenset([root.resolve()]), endings, passed))
    except OSError as error:
        raise InvalidInputError(f"{error.filename} cannot be read ({error.strerror}): fix or remove it") from error
    if not files:
        more = f"; {listed('passed over', +passed)}" if +passed else ""
        raise InvalidInputError(
            f"{what} folder '{root}' has no {what}: expected files ending in {', '.join(sorted(endings))}" + more
        )
    return files, +passed


def _scanned(
    folder: pathlib.Path, above: frozenset[pathlib.Path], endings: frozenset[str], passed: collections.Counter[str]
) -> Iterator[pathlib.Path]:
    """Yields the images below a folder; `above` are the folders that contain it, without links."""
    with os.scandir(folder) as scanned:
        entries = list(scanned)
    for entry in entries:
        path = pathlib.Path(entry.path)
        if entry.name.startswith(".") or entry.name in _OF_SYSTEMS:
            passed["hidden"] += 1
        elif entry.is_dir():
            real = path.resolve()
            if real in above:
                passed["link(s) to a folder that contains them"] += 1
                continue
            inside = list(_scanned(path, above | {real}, endings, passed))
            passed["folder(s) without an image"] += not inside
            yield from inside
        elif not entry.is_file():  # before the ending: a link to a folder of a class may be one to nothing now
            raise InvalidInputError(f"{path} is no file (a link to nothing, or a pipe): fix or remove it")
        elif path.suffix.lower() not in endings:
            passed[path.suffix.lower() or "without an ending"] += 1
        else:
            yield path


def decoded(examples: Sequence[Callable[[], dict[str, np.ndarray]]], name: str) -> dict[str, np.ndarray]:
    """Decodes and stacks examples; raises one error for all of those that are broken.

    Args:
      examples: functions that each decode one example.
      name: name of the data in the error for examples that differ in shape.
    """
    made, broken = [], []
    for example in examples:
        try:
            made.append(example())
        except InvalidInputError as error:
            broken.append(str(error))
    if broken:
        raise images.BrokenImagesError("\n".join(broken))
    return images.stack(made, name)


def _check_one_size(root: pathlib.Path, files: Sequence[pathlib.Path], headers: "Headers") -> None:
    """Refuses images of several sizes, with how many there are of each."""
    sizes = collections.Counter(header.size for header in headers)
    if len(sizes) > 1:
        (usual, _), *rest = sizes.most_common()
        other = next(file for file, header in zip(files, headers, strict=True) if header.size != usual)
        counts = ", ".join(f"{count:,} of {width} x {height}" for (width, height), count in sizes.most_common(3))
        raise InvalidInputError(
            f"{root} has images of {len(sizes)} sizes ({counts}{', ...' if len(rest) > 2 else ''}; such as {other}): "
            "expected one size, or image_size, to which all of them are brought"
        )


@dataclasses.dataclass(frozen=True)
class _Files:
    files: list[pathlib.Path]
    labels: list[int] | None
    image_size: int | None
    decoder: decode.Decoder
    fit: str

    def __len__(self) -> int:
        return len(self.files)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        return decoded([functools.partial(self._example, int(index)) for index in indices], "image folder")

    def _example(self, index: int) -> dict[str, np.ndarray]:
        file = self.files[index]
        with decode.open_picture(file, str(file)) as picture:
            image = self.decoder.pixels(picture, str(file))
        example = {"real": images.resize(image, self.image_size, self.fit)}
        if self.labels is not None:
            example["label"] = np.asarray(self.labels[index], np.int32)
        return example

    def kinds(self, picture: Image.Image) -> dict[str, bool]:
        """Returns the kinds that an image may be counted under in the summary, each with whether it is of that kind."""
        if self.image_size is None:
            return usual_kinds(picture, self.decoder)
        squared = {"crop": "cropped to the central square", "stretch": "stretched to a square"}[self.fit]
        return usual_kinds(picture, self.decoder) | {
            f"not square, {squared}": picture.width != picture.height,
            f"smaller than {self.image_size} pixels, enlarged": min(picture.size) < self.image_size,
        }


def usual_kinds(picture: Image.Image, decoder: decode.Decoder) -> dict[str, bool]:
    """Returns the kinds of images that any source changes, each with whether an image is of that kind."""
    return {
        f"transparent, blended on {decoder.background}": picture.has_transparency_data,
        "with further frames, of which the first is read": getattr(picture, "is_animated", False),
        "of more than 8 bits, scaled to 8": decode.is_deep(picture),
    }


class _Header(NamedTuple):
    """The kinds that an image is counted under, its size, and whether its values have more than 8 bits."""

    kinds: tuple[str, ...]
    size: tuple[int, int]
    deep: bool


class Headers(list[_Header]):
    """What the headers of all files of a folder say."""

    def kinds(self) -> collections.Counter[str]:
        """Returns the number of images of each kind."""
        return collections.Counter(kind for one in self for kind in one.kinds)


def looked_at(
    files: Sequence[pathlib.Path],
    decoder: decode.Decoder,
    kinds: Callable[[Image.Image], dict[str, bool]],
    name: str,
) -> Headers:
    """Opens all images without decoding them.

    Args:
      files: the images.
      decoder: decoder that will read them.
      kinds: returns, for an opened image, each kind that it may be counted under and whether it is of that kind; it
        may raise `InvalidInputError`.
      name: name of the data, for the progress line.

    Returns:
      The headers, in the order of the files.

    Raises:
      InvalidInputError: if some cannot be opened, or if deep ones have values that their type's range does not fit.
    """

    def header(file: pathlib.Path) -> _Header | str:
        try:
            with decode.open_picture(file, str(file)) as picture, decode.reading(str(file), "is corrupt"):
                counted = tuple(kind for kind, applies in kinds(picture).items() if applies)
                return _Header(counted, picture.size, decode.is_deep(picture))
        except InvalidInputError as error:
            return str(error)

    def headers(indices: np.ndarray) -> list[_Header | str]:
        return [header(files[index]) for index in indices]

    found = [one for many in images.in_threads(headers, len(files), f"opening {name}") for one in many]
    images.refuse_broken([one for one in found if isinstance(one, str)])
    opened = Headers(one for one in found if isinstance(one, _Header))
    deep = [file for file, one in zip(files, opened, strict=True) if one.deep]
    if deep and decoder.value_range is None:
        decode.check_depths(deep[:: -(-len(deep) // _LOOKED_AT)])
    return opened
