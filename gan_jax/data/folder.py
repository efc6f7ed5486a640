"""A folder of images, with one sub-folder per class where there are labels."""

import dataclasses
import pathlib

import numpy as np
from PIL import Image, ImageOps

from gan_jax.data import images
from gan_jax.data.sources import Arrays, Records
from gan_jax.types import InvalidInputError

_ENDINGS = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def image_folder(
    path: str,
    *,
    image_size: int,
    labels: bool,
    channels: int = 3,
    resident_bytes: int = images.RESIDENT_BYTES,
) -> Arrays | Records:
    """Reads all images below a folder, cropped to the largest central square and resized, as `'real'`.

    Args:
      path: the folder; files without the extension of an image are ignored.
      image_size: height and width in pixels.
      labels: whether to use the names of the sub-folders, sorted, as classes 0, 1, ..., delivered as `'label'`.
      channels: 1 for grey, 3 for colour.
      resident_bytes: a data set of at most this many decoded bytes is held on the device; a larger one is streamed.

    Returns:
      The source.

    Raises:
      InvalidInputError: if the folder is missing or has no images, if an image cannot be opened, or if labels are
        requested and images lie outside the class sub-folders or there are fewer than two of them.
    """
    root = images.directory(path, "the folder of images")
    images.check_format(image_size, channels)
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in _ENDINGS and p.is_file())
    if not files:
        raise InvalidInputError(f"image folder {path!r} has no image: expected files ending in {sorted(_ENDINGS)}")
    classes = sorted({p.relative_to(root).parts[0] for p in files if p.parent != root})
    if labels:
        stray = [p for p in files if p.parent == root]
        if stray or len(classes) < 2:
            raise InvalidInputError(
                f"labels=True needs every image in one of two or more class sub-folders of {path!r}: found "
                f"{len(classes)} sub-folders and {len(stray)} images outside of them; or set labels=False"
            )
    for file in files:
        _open(file).close()
    numbers = {name: index for index, name in enumerate(classes)}
    targets = [numbers[p.relative_to(root).parts[0]] for p in files] if labels else None
    reader = _Files(files, targets, image_size, channels)
    names = classes if labels else []
    return images.hold_or_stream(
        f"folder {root.name}", reader, len(names) if labels else None, resident_bytes, class_names=names
    )


def _open(file: pathlib.Path) -> Image.Image:
    try:
        return Image.open(file)
    except Exception as error:  # decoders raise exceptions of many types
        raise InvalidInputError(f"{file} is not an image that can be opened ({error}): fix or remove it") from error


@dataclasses.dataclass(frozen=True)
class _Files:
    files: list[pathlib.Path]
    labels: list[int] | None
    image_size: int
    channels: int

    def __len__(self) -> int:
        return len(self.files)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        return images.stack([self._example(int(index)) for index in indices], "image folder")

    def _example(self, index: int) -> dict[str, np.ndarray]:
        with _open(self.files[index]) as picture:
            try:
                upright = ImageOps.exif_transpose(picture)
                if upright.mode.startswith("I;16"):  # `convert` would clip 16-bit values to 255, not scale them
                    upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
                image = np.asarray(upright.convert("L" if self.channels == 1 else "RGB"))
            except Exception as error:  # decoders raise exceptions of many types
                raise InvalidInputError(f"{self.files[index]} is corrupt ({error}): fix or remove it") from error
        example = {"real": images.resize(image if image.ndim == 3 else image[..., None], self.image_size, None)}
        if self.labels is not None:
            example["label"] = np.asarray(self.labels[index], np.int32)
        return example
