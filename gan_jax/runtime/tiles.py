"""Pictures in pieces: padding by reflection, and overlapping tiles whose outputs are blended."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

Picture = Shaped[np.ndarray, "h w c"]
Tell = Callable[[int, int], None]  # tiles done, tiles in all


class Padded(NamedTuple):
    """A picture with a margin that reflects it, and where it is in there."""

    image: Picture
    top: int
    left: int


def padded(image: Picture, height: int, width: int) -> Padded:
    """Pads a picture by reflection to at least a height and width, by half on either side."""
    missing = [max(0, least - extent) for least, extent in zip((height, width), image.shape[:2], strict=True)]
    before = [margin // 2 for margin in missing]
    sides = [(first, margin - first) for first, margin in zip(before, missing, strict=True)]
    return Padded(np.pad(image, [*sides, (0, 0)], mode="reflect"), before[0], before[1])


def starts(extent: int, tile: int, overlap: int) -> list[int]:
    """Returns where tiles begin along an axis, at regular distances; the last one ends with the axis.

    Args:
      extent: pixels of the axis, at least those of a tile.
      tile: pixels of a tile.
      overlap: least number of pixels that neighbours have in common, below `tile`.

    Example:
      >>> starts(10, 6, 2)
      [0, 4]
      >>> starts(11, 6, 2)
      [0, 4, 5]
    """
    last = extent - tile
    return [*range(0, last, tile - overlap), last]


def weights(begins: list[int], tile: int) -> list[np.ndarray]:
    """Returns the weight of each tile's pixels along an axis: between neighbours, they add up to 1.

    In the first and last quarter of an overlap one tile has all the weight; between them it changes linearly.

    Args:
      begins: where tiles begin.
      tile: pixels of a tile.

    Example:
      >>> [list(map(float, x)) for x in weights([0, 4], 8)]
      [[1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.25, 0.0], [0.0, 0.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]]
    """
    found = [np.ones(tile, np.float32) for _ in begins]
    place = np.arange(tile) + 0.5
    for left, right, here, there in zip(begins, begins[1:], found, found[1:], strict=False):
        shared = tile - (right - left)
        if shared:
            rising = np.clip((place - shared / 4) / (shared / 2), 0.0, 1.0)[:shared].astype(np.float32)
            there[:shared] *= rising
            here[tile - shared :] *= 1.0 - rising
    return found


def by_tiles(
    image: Picture,
    apply: Callable[[Picture], Any],
    tile: tuple[int, int],
    overlap: tuple[int, int],
    scale: int,
    tell: Tell = lambda done, total: None,
) -> Picture:
    """Maps a picture in overlapping tiles, and blends their outputs.

    Args:
      image: picture, at least as large as a tile.
      apply: `tile -> output`, `scale` times as high and wide; the output may be an array that is still being computed.
      tile: height and width of the tiles.
      overlap: least number of pixels that neighbours have in common, along both axes.
      scale: height and width of outputs, in those of the inputs.
      tell: is called after each tile, with the number of tiles done and in all.

    Returns:
      The output of the whole picture.
    """
    begins = [starts(*axis) for axis in zip(image.shape[:2], tile, overlap, strict=True)]
    rows, columns = (
        weights([scale * x for x in begin], scale * size) for begin, size in zip(begins, tile, strict=True)
    )
    total = len(begins[0]) * len(begins[1])
    made: Any = None
    sums = np.zeros((scale * image.shape[0], scale * image.shape[1], 1), np.float32)

    def outputs() -> Iterator[tuple[int, int, Any]]:
        for i, top in enumerate(begins[0]):
            for j, left in enumerate(begins[1]):
                yield i, j, apply(image[top : top + tile[0], left : left + tile[1]])

    for done, (i, j, output) in enumerate(_ahead(outputs()), 1):
        piece = np.asarray(output)
        if made is None:
            made = np.zeros((*sums.shape[:2], piece.shape[-1]), np.float32)
        weight = (rows[i][:, None] * columns[j])[..., None]
        top, left = scale * begins[0][i], scale * begins[1][j]
        here = np.s_[top : top + len(piece), left : left + piece.shape[1]]
        made[here] += weight * piece
        sums[here] += weight
        tell(done, total)
    return made / sums


def _ahead(items: Iterable[Any]) -> Iterator[Any]:
    """Takes each item one before it is yielded, so that devices compute the next one meanwhile."""
    waiting: list[Any] = []
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting
