"""Pairs of images and two domains without pairs, from folders and from TensorFlow Datasets, as in published data."""

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from gan_jax.data import decode, images
from gan_jax.data.combine import Combined, Transform, Transformed, crop, flip, transformed, unpaired
from gan_jax.data.folder import decoded, files_below, image_folder, listed, looked_at, usual_kinds
from gan_jax.data.sources import Arrays, Records
from gan_jax.data.tfds import tfds_images
from gan_jax.types import InvalidInputError

_DIRECTIONS = {"AtoB": ("A", "B"), "BtoA": ("B", "A")}  # by the argument, what becomes 'a' and what 'b'
_SHOWN = 10  # images without a partner that an error names


def paired_folder(
    path: str,
    split: str = "train",
    *,
    direction: str = "AtoB",
    image_size: int = 256,
    load_size: int | None = None,
    mirror: bool = True,
    classes: int | None = None,
    channels: int = 3,
    background: str = "white",
    value_range: tuple[float, float] | None = None,
    check: bool = True,
    resident_bytes: int = images.RESIDENT_BYTES,
) -> Arrays | Records | Transformed:
    """Reads pairs of images: sources as `'a'` and targets as `'b'`, in one of the two layouts of pix2pix's data.

    Either `path/split` holds files with A and B side by side, A on the left; or `path/A/split` and `path/B/split` hold
    files of equal names, whose endings may differ. All images are resized to a square by bicubic interpolation,
    ignoring their ratio of height to width.

    For training, `load_size` and `mirror` are the random jitter of the paper: images are resized to `load_size`, a
    random square of `image_size` is cut out of both of a pair at the same place, and pairs are mirrored at random. This
    is done in the compiled step. Without `load_size`, as for tests and for `conditions`, there is no jitter.

    Args:
      path: the folder of the data set.
      split: part of the data set, the name of a sub-folder: `train`, `val`, `test` or another one.
      direction: `AtoB` delivers A as `'a'`, the source, and B as `'b'`, the target; `BtoA` the other way round.
      image_size: height and width of the delivered images, in pixels; the paper's is 256.
      load_size: height and width before the random crop; the paper's is 286. None for no jitter.
      mirror: whether the jitter mirrors pairs left to right; not for text or maps of streets.
      classes: number of classes if the sources are segmentation maps, in a folder of their own: files whose values,
        grey or of a palette, are the numbers of classes. `'a'` are then integers `[h, w]`, resized without
        interpolation, for `gans.pix2pix(classes=...)`. None for images.
      channels: 1 for grey, 3 for colour.
      background: colour that shows through where images are transparent, a name or `#rrggbb`.
      value_range: see `image_folder`.
      check: see `image_folder`.
      resident_bytes: a data set of at most this many decoded bytes is held on the device; a larger one is streamed.

    Returns:
      The source, of `'a'` and `'b'`.

    Raises:
      InvalidInputError: if neither layout or both are there, images have no partner, files side by side have an odd
        width, or images cannot be read.

    References:
      Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", arXiv:1611.07004, 2017, section
      6.2. The authors' code makes one file of two folders first; here both layouts are read.
    """
    size, source = _loaded(image_size, load_size), _sides(direction)[0]
    beside, first, second = _layout(images.directory(path, "the folder of pairs"), split)
    if classes is not None and (beside or classes < 2):
        raise InvalidInputError(
            f"classes={classes} with pairs {'side by side' if beside else 'in two folders'}: expected 2 or more, and "
            f"the maps of classes in a folder of their own, {source}/{split}"
        )
    decoder = decode.Decoder(channels, background, value_range)
    name = f"pairs {pathlib.Path(path).absolute().name} ({split}, {_named(direction)})"
    (files, passed), (partners, more) = files_below(first), files_below(second)
    if not beside:
        files, partners = _matched(first, files, second, partners)
    reader = _Pairs(files, files if beside else partners, beside, direction, size, decoder, classes)
    headers = looked_at(files if beside else [*files, *partners], decoder, reader.kinds, name)
    kinds, passed = headers.kinds(), passed if beside else passed + more
    unequal = 0 if beside else sum(a.size != b.size for a, b in zip(headers, headers[len(files) :], strict=False))
    kinds += collections.Counter({"whose partner has another size": unequal})
    notes = [listed(what, found) for what, found in (("passed over", passed), ("images", kinds)) if found]
    pairs = images.hold_or_stream(name, reader, None, resident_bytes, notes=notes, check=check)
    return pairs if load_size is None else transformed(pairs, *_jitter(image_size, mirror))


def unpaired_folder(
    path: str,
    split: str = "train",
    *,
    direction: str = "AtoB",
    image_size: int = 256,
    load_size: int | None = None,
    mirror: bool = True,
    channels: int = 3,
    background: str = "white",
    value_range: tuple[float, float] | None = None,
    check: bool = True,
    resident_bytes: int = images.RESIDENT_BYTES,
) -> Combined:
    """Reads two domains without pairs, `'a'` and `'b'`, in the layout of CycleGAN's data: `trainA`, `trainB`, ...

    Each domain is shuffled and jittered independently of the other, and the larger one defines an epoch. Resizing and
    jitter are those of `paired_folder`. The domains are in `.sources`: `unpaired_folder(DIR, "test").sources["a"]`
    delivers the images of `testA` as `'real'`, for `conditions` and `reference`.

    Args:
      path: the folder of the data set, with sub-folders `{split}A` and `{split}B`.
      split: part of the data set, `train` or `test`.
      direction: `AtoB` delivers A as `'a'`; `BtoA` delivers B as `'a'`.
      image_size: height and width of the delivered images, in pixels; the paper's is 256.
      load_size: height and width before the random crop; the paper's is 286. None for no jitter.
      mirror: whether the jitter mirrors images left to right.
      channels: 1 for grey, 3 for colour.
      background: colour that shows through where images are transparent, a name or `#rrggbb`.
      value_range: see `image_folder`.
      check: see `image_folder`.
      resident_bytes: a domain of at most this many decoded bytes is held on the device; a larger one is streamed.

    Returns:
      The combined source, of `'a'` and `'b'`.

    Raises:
      InvalidInputError: if a folder is missing, or images cannot be read.

    References:
      Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", arXiv:1703.10593,
      2017. The authors' code draws b uniformly for each a; here b has an order of its own, reshuffled every epoch.
    """
    size = _loaded(image_size, load_size)
    root = images.directory(path, "the folder of both domains")
    missing = [f"{split}{letter}" for letter in "AB" if not (root / f"{split}{letter}").is_dir()]
    if missing:
        raise InvalidInputError(
            f"data_dir={path!r} has no folder {' and no '.join(missing)}: expected {split}A and {split}B, with the "
            f"images of one domain each; it has {_folders(root)}"
        )

    def domain(letter: str) -> Arrays | Records | Transformed:
        source = image_folder(
            str(root / f"{split}{letter}"), image_size=size, labels=False, channels=channels, fit="stretch",
            background=background, value_range=value_range, check=check, resident_bytes=resident_bytes,
        )  # fmt: skip
        return source if load_size is None else transformed(source, *_jitter(image_size, mirror))

    first, second = _sides(direction)
    return unpaired(a=domain(first), b=domain(second))


def unpaired_tfds(
    name: str,
    split: str = "train",
    *,
    data_dir: str,
    direction: str = "AtoB",
    image_size: int = 256,
    load_size: int | None = None,
    mirror: bool = True,
    resident_bytes: int = images.RESIDENT_BYTES,
) -> Combined:
    """Reads two domains of a TFDS data set with the splits `trainA`, `trainB`, `testA`, `testB`: `cycle_gan/*`.

    Args:
      name: name of the data set, such as `cycle_gan/horse2zebra`, prepared as array_record; see `tfds_images`.
      split: part of the data set, `train` or `test`.
      data_dir: directory in which TFDS prepared the data set.
      direction: `AtoB` delivers A as `'a'`; `BtoA` delivers B as `'a'`.
      image_size: height and width of the delivered images, in pixels.
      load_size: height and width before the random crop; None for no jitter. See `unpaired_folder`.
      mirror: whether the jitter mirrors images left to right.
      resident_bytes: a domain of at most this many decoded bytes is held on the device; a larger one is streamed.

    Returns:
      The combined source, of `'a'` and `'b'`.

    Raises:
      InvalidInputError: as for `tfds_images`.
    """
    size = _loaded(image_size, load_size)

    def domain(letter: str) -> Arrays | Records | Transformed:
        source = tfds_images(
            name, data_dir=data_dir, labels=False, split=f"{split}{letter}", image_size=size, channels=3,
            fit="stretch", resident_bytes=resident_bytes,
        )  # fmt: skip
        return source if load_size is None else transformed(source, *_jitter(image_size, mirror))

    first, second = _sides(direction)
    return unpaired(a=domain(first), b=domain(second))


def _jitter(image_size: int, mirror: bool) -> list[Transform]:
    return [crop(image_size), *([flip()] if mirror else [])]


def _loaded(image_size: int, load_size: int | None) -> int:
    """Returns the size that images are resized to when they are read."""
    images.check_size(image_size)
    if load_size is not None and load_size < image_size:
        raise InvalidInputError(
            f"load_size={load_size} is below image_size={image_size}: expected the size before the crop, such as "
            f"{image_size + image_size // 8}, or None for no jitter"
        )
    return image_size if load_size is None else load_size


def _sides(direction: str) -> tuple[str, str]:
    if direction not in _DIRECTIONS:
        raise InvalidInputError(f"direction={direction!r}: expected {' or '.join(_DIRECTIONS)}")
    return _DIRECTIONS[direction]


def _named(direction: str) -> str:
    return " to ".join(_sides(direction))


def _folders(root: pathlib.Path) -> str:
    found = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    return ", ".join(found[:_SHOWN]) or "no sub-folder"


def _layout(root: pathlib.Path, split: str) -> tuple[bool, pathlib.Path, pathlib.Path]:
    """Finds out how pairs are stored; returns whether side by side, and the folders of A and B."""
    if not split or pathlib.Path(split).name != split:
        raise InvalidInputError(f"split={split!r}: expected the name of a sub-folder, such as 'train'")
    together, apart = root / split, (root / "A" / split, root / "B" / split)
    lone = [folder for folder in apart if folder.is_dir()]
    if together.is_dir() and lone:
        raise InvalidInputError(
            f"data_dir='{root}' has pairs in {split} and in {lone[0].relative_to(root)}: remove or rename one of them"
        )
    if len(lone) == 1:
        missing = next(folder for folder in apart if folder not in lone)
        raise InvalidInputError(f"'{lone[0]}' has no counterpart: expected the partners of its images in '{missing}'")
    if not together.is_dir() and not lone:
        raise InvalidInputError(
            f"data_dir='{root}' has no pairs of {split!r}: expected {split}/, with A and B side by side in each file, "
            f"or A/{split}/ and B/{split}/, with files of equal names; it has {_folders(root)}"
        )
    return (True, together, together) if together.is_dir() else (False, *apart)


def _matched(
    first: pathlib.Path, files: Sequence[pathlib.Path], second: pathlib.Path, partners: Sequence[pathlib.Path]
) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """Pairs the files of two folders by their paths without endings; raises if one has no partner or several."""
    sides = []
    for folder, found in ((first, files), (second, partners)):
        names: dict[str, pathlib.Path] = {}
        for file in found:
            name = str(file.relative_to(folder).with_suffix(""))
            if name in names:
                raise InvalidInputError(f"'{names[name]}' and '{file}' have one name: keep one of them, to be paired")
            names[name] = file
        sides.append(names)
    a, b = sides
    alone = [f"'{a[name]}' has no partner '{second / name}.*'" for name in a.keys() - b.keys()]
    alone += [f"'{b[name]}' has no partner '{first / name}.*'" for name in b.keys() - a.keys()]
    if alone:
        more = [f"and {len(alone) - _SHOWN:,} more"] if len(alone) > _SHOWN else []
        raise InvalidInputError("\n".join([*sorted(alone)[:_SHOWN], *more]) + "\nadd the partners, or remove these")
    return [a[name] for name in sorted(a)], [b[name] for name in sorted(a)]


@dataclasses.dataclass(frozen=True)
class _Pairs:
    """Reads pairs from files: the halves of each, or two files."""

    files: list[pathlib.Path]
    partners: list[pathlib.Path]
    beside: bool
    direction: str
    size: int
    decoder: decode.Decoder
    classes: int | None

    def __len__(self) -> int:
        return len(self.files)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        return decoded([functools.partial(self._example, int(index)) for index in indices], "pairs")

    def _example(self, index: int) -> dict[str, np.ndarray]:
        source, target = _sides(self.direction)
        if self.beside:
            whole = self._pixels(self.files[index])
            half = whole.shape[1] // 2
            both = {"A": whole[:, :half], "B": whole[:, half:]}
            return {"a": self._resized(both[source]), "b": self._resized(both[target])}
        places = {"A": self.files[index], "B": self.partners[index]}
        mapped = self._resized(self._pixels(places[source])) if self.classes is None else self._map(places[source])
        return {"a": mapped, "b": self._resized(self._pixels(places[target]))}

    def _resized(self, image: np.ndarray) -> np.ndarray:
        return images.resize(image, self.size, "stretch")

    def _pixels(self, file: pathlib.Path) -> np.ndarray:
        with decode.open_picture(file, str(file)) as picture:
            return self.decoder.pixels(picture, str(file))

    def _map(self, file: pathlib.Path) -> np.ndarray:
        assert self.classes is not None
        with decode.open_picture(file, str(file)) as picture:
            values = decode.class_map(picture, str(file), self.classes)
        return np.asarray(Image.fromarray(values).resize((self.size, self.size), Image.Resampling.NEAREST))

    def kinds(self, picture: Image.Image) -> dict[str, bool]:
        """Returns the kinds that a file may be counted under in the summary, each with whether it is of that kind."""
        if self.beside and picture.width % 2:
            raise InvalidInputError(
                f"{getattr(picture, 'filename', 'a file')} is {picture.width} pixels wide: expected two images of one "
                "width side by side"
            )
        width = picture.width // 2 if self.beside else picture.width
        return usual_kinds(picture, self.decoder) | {
            "not square, stretched to a square": width != picture.height,
            f"smaller than {self.size} pixels, enlarged": min(width, picture.height) < self.size,
        }
