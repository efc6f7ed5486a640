"""Translation of pictures of any size by a trained game: whole where network and memory allow, else by tiles."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from gan_jax.core import GANState
from gan_jax.runtime.conditions import INPUTS
from gan_jax.runtime.experiment import Experiment
from gan_jax.runtime.memory import available
from gan_jax.runtime.sampling import Compiled
from gan_jax.runtime.tiles import Picture, Tell, by_tiles, padded
from gan_jax.types import Game, InvalidInputError, PRNGKey, Spec

DIRECTIONS: Mapping[str, tuple[str, str]] = {"AtoB": ("translate", "a"), "BtoA": ("translate_back", "b")}
_COARSEST = 9  # powers of two that sizes may have to be multiples of
_KEPT = 16  # compiled programs, each for one size of pictures
_LARGEST_TILE, _SMALLEST_TILE = 1024, 64  # where memory does not suffice for the whole picture


class Fit(NamedTuple):
    """The sizes of pictures that a network takes.

    Attributes:
      multiple: number of which the height and width must be multiples; 0 if the network takes `size` alone.
      scale: height and width of outputs, in those of the inputs.
      size: height and width of the images that the network was trained on.
    """

    multiple: int
    scale: int
    size: tuple[int, int]


def translating(game: Game, direction: str = "AtoB") -> str:
    """Returns the name of the function of a game that translates pictures.

    Args:
      game: the game.
      direction: `AtoB`, for `translate`, or `sample` of a game without a prior; or `BtoA`, for `translate_back`.

    Raises:
      InvalidInputError: if the game has no such function.
    """
    if direction not in DIRECTIONS:
        raise InvalidInputError(f"direction={direction!r}: expected {' or '.join(DIRECTIONS)}")
    name, _ = DIRECTIONS[direction]
    if name in game.functions:
        return name
    if direction == "AtoB" and game.prior is None and "sample" in game.functions:
        return "sample"
    known = ", ".join(game.functions)
    if direction == "BtoA":
        raise InvalidInputError(f"direction='BtoA': this game translates in one direction alone: it has {known}")
    raise InvalidInputError(f"this game translates no images: it has {known}, and draws its samples from a prior")


def source_spec(experiment: Experiment, spec: Spec, direction: str = "AtoB") -> jax.ShapeDtypeStruct:
    """Returns shape and dtype of the images that a game translates; maps of classes are integers `[h, w, 1]`.

    Args:
      experiment: experiment that has the game.
      spec: shapes of an example of the training data, in which the sources are `'a'`, and `'b'` of the way back.
      direction: `AtoB` or `BtoA`.

    Raises:
      InvalidInputError: for data that have other names and no `conditions`, or that are no images.
    """
    _, name = DIRECTIONS[direction]
    found = spec[name] if name in spec else experiment.examples.source.spec[INPUTS]
    shape = tuple(found.shape)
    if np.issubdtype(found.dtype, np.integer) and len(shape) == 2:
        shape = (*shape, 1)
    if len(shape) != 3:
        raise InvalidInputError(f"this game translates arrays of shape {shape}: expected images [h, w, c]")
    return jax.ShapeDtypeStruct(shape, found.dtype)


class Translator:
    """Translates pictures of any size by one function of a trained game.

    A picture is padded by reflection to a size that the network takes, translated, and cropped again. If it does not
    fit into the memory of the device, or if tiles are asked for, it is cut into overlapping tiles of one size. Where
    these overlap, the weights of neighbours add up to 1, and change linearly in the middle half of the overlap. So a
    network whose outputs depend on no pixel farther away than a quarter of the overlap gives the same picture with
    tiles as without, up to rounding.

    Each picture and each tile is a batch of its own, since networks with batch norm in training mode would mix
    pictures. A network that normalises by statistics of the image sees those of a tile.

    Attributes:
      channels: channels of the pictures.
      dtype: their dtype: float32, or int32 for maps of classes `[h, w, 1]`.
      classes: number of classes of those maps, if the game names it.
      fit: sizes that the network takes.
    """

    def __init__(
        self,
        experiment: Experiment,
        state: GANState,
        mesh: Mesh,
        spec: Spec,
        *,
        direction: str = "AtoB",
        tile: int = 0,
        overlap: int | None = None,
        seed: int = 0,
        memory: int | None = None,
        log: Callable[[str], None] = lambda message: None,
    ) -> None:
        """Finds out which sizes the network takes; compiles nothing yet.

        Args:
          experiment: experiment whose game was trained.
          state: trained state.
          mesh: devices that hold it.
          spec: shapes of an example of the training data.
          direction: `AtoB` or `BtoA`; see `translating`.
          tile: height and width of tiles; 0 for the whole picture if it fits into memory.
          overlap: pixels that neighbouring tiles have in common, at most half a tile; None for a quarter of a tile.
          seed: seed of what the function draws, such as dropout; all pictures and tiles get the same.
          memory: bytes that may be used for a picture or a tile; None for the memory of the device.
          log: receives a message when memory does not suffice for a picture.

        Raises:
          InvalidInputError: for a game that translates no images, or tiles that do not suit the network.
        """
        function = translating(experiment.game, direction)
        self._experiment, self._state, self._mesh, self._log = experiment, state, mesh, log
        self._key, self._tile, self._overlap, self._memory = jax.random.key(seed), tile, overlap, memory
        self.classes = experiment.game.map_classes
        self._function = _of_one(experiment.game.functions[function], function == "sample")
        self._compiled = Compiled(self._function, meshed=True)
        self._programs: dict[tuple[int, int], Any] = {}
        source = source_spec(experiment, spec, direction)
        (height, width, self.channels), self.dtype = source.shape, np.dtype(source.dtype)
        with jax.set_mesh(mesh):
            self.fit = self._measured((height, width))
        self._check()

    def _measured(self, size: tuple[int, int]) -> Fit:
        """Tries sizes, by shapes alone, until the network takes one, and gives pictures of a multiple of that size."""
        why = ""
        for multiple in [*(2**power for power in range(_COARSEST + 1)), 0]:
            # Odd multiples, so that a network that needs a coarser one does not pass; two, so that no square is needed.
            odd = [extent // max(1, multiple) // 2 * 2 + more for extent, more in zip(size, (1, 3), strict=True)]
            height, width = (multiple * odd[0], multiple * odd[1]) if multiple else size
            try:
                shape = self._output(height, width)
            except Exception as error:  # networks raise errors of many types for sizes that they do not take
                why = f"{type(error).__name__}: {error}"
                continue
            scale = shape[0] // height if len(shape) == 3 else 0
            if scale and shape[:2] == (scale * height, scale * width):
                return Fit(multiple, scale, size)
            why = f"it returns {shape} for {height}x{width}"
        raise InvalidInputError(f"this game's function translates no pictures of any size, not even {size}: {why}")

    def _output(self, height: int, width: int) -> tuple[int, ...]:
        whole = self._state.replace(frozen=self._experiment.frozen_networks.shapes())
        image = jax.ShapeDtypeStruct((height, width, self.channels), self.dtype)
        return jax.eval_shape(self._function, whole, self._key, image).shape

    def _check(self) -> None:
        """Raises `InvalidInputError` for tiles that do not suit the network."""
        tile, overlap, (multiple, _, size) = self._tile, self._overlap, self.fit
        if tile and not multiple and (tile, tile) != size:
            raise InvalidInputError(f"tile={tile}: this network takes {size[0]}x{size[1]} alone: leave tile out")
        if tile < 0 or (multiple and tile % multiple):
            raise InvalidInputError(
                f"tile={tile}: expected a multiple of {multiple}, as this network needs, such as "
                f"{-(-max(tile, 1) // multiple) * multiple}; 0 for the whole picture"
            )
        if overlap is not None and not 0 <= overlap <= (tile or 2 * overlap) // 2:
            raise InvalidInputError(f"overlap={overlap}: expected at least 0, and at most half a tile ({tile // 2})")

    def __call__(self, image: Picture, tell: Tell = lambda done, total: None) -> Picture:
        """Translates one picture.

        Args:
          image: picture of any size, in [-1, 1]; or map of classes.
          tell: is called after each tile, with the number of tiles done and in all.

        Returns:
          The translation, of the same size, or `fit.scale` times as high and wide.

        Raises:
          InvalidInputError: for another number of channels, values that are no class, or if memory suffices for no
            tile.
        """
        if image.ndim != 3 or image.shape[-1] != self.channels or 0 in image.shape:
            raise InvalidInputError(f"a picture of shape {image.shape}: expected [h, w, {self.channels}]")
        if np.issubdtype(image.dtype, np.integer) != np.issubdtype(self.dtype, np.integer):
            raise InvalidInputError(f"a picture of {image.dtype}: this game takes {self.dtype}, from {self._range()}")
        if self.classes is not None and (image.min() < 0 or image.max() >= self.classes):
            raise InvalidInputError(
                f"a map with values from {image.min()} to {image.max()}: this game has classes from 0 to "
                f"{self.classes - 1}; give pixels to be ignored one of these"
            )
        (height, width, _), scale = image.shape, self.fit.scale
        with jax.set_mesh(self._mesh):
            tile = self._tiles(height, width)
            whole, top, left = padded(np.asarray(image, self.dtype), *tile)
            overlap = [min(x // 4 if self._overlap is None else self._overlap, x // 2) for x in tile]
            made = by_tiles(whole, self._program(tile), tile, (overlap[0], overlap[1]), scale, tell)
        return made[scale * top : scale * (top + height), scale * left : scale * (left + width)]

    def _range(self) -> str:
        return "class 0 on" if np.issubdtype(self.dtype, np.integer) else "-1 to 1"

    def _tiles(self, height: int, width: int) -> tuple[int, int]:
        """Returns the size of the tiles for a picture; one tile is the whole picture, padded, if memory suffices."""
        multiple, _, size = self.fit
        if self._tile or not multiple:
            return (self._tile, self._tile) if self._tile else size
        # At least the size of training, below which networks may have nothing left to normalise by.
        tall, wide = (-(-max(a, b) // multiple) * multiple for a, b in zip((height, width), size, strict=True))
        has = available(self._mesh.local_devices[0]) if self._memory is None else self._memory
        if self._needed((tall, wide)) <= has:
            return tall, wide
        least = max(_SMALLEST_TILE, multiple)
        sides = [side for side in (_LARGEST_TILE >> i for i in range(10)) if side >= least and side % multiple == 0]
        for side in sides:
            if self._needed((side, side)) <= has:
                self._log(f"{wide}x{tall} pixels need more than {has / 2**30:,.3g} GiB of memory: tiles of {side}")
                return side, side
        raise InvalidInputError(f"tiles of {least} pixels do not fit into {has / 2**30:,.3g} GiB of memory either")

    def _needed(self, size: tuple[int, int]) -> int:
        """Returns the bytes that a picture of a size and the program for it take on the device, beside the weights."""
        self._program(size)
        found = self._programs[size].memory_analysis()
        image = math.prod(size) * self.channels * self.dtype.itemsize
        return 0 if found is None else found.temp_size_in_bytes + found.output_size_in_bytes + image

    def _program(self, size: tuple[int, int]) -> Callable[[Picture], Array]:
        """Returns the compiled program for a size of pictures."""
        if size not in self._programs:
            image = jax.ShapeDtypeStruct((*size, self.channels), self.dtype)
            lowered = self._compiled.lower(self._experiment, self._state, self._mesh, image)
            if len(self._programs) == _KEPT:
                self._programs.pop(next(iter(self._programs)))
            self._programs[size] = lowered.compile()
        return functools.partial(self._run, self._programs[size])

    def _run(self, program: Any, image: Picture) -> Array:
        return program(*self._compiled.arguments(self._experiment, self._state, self._key, image))


def _of_one(function: Callable[..., PyTree], is_sample: bool) -> Callable[[GANState, PRNGKey, Array], Array]:
    """Returns a game's function as `(state, key, image) -> output`, for a single image."""

    def run(state: GANState, key: PRNGKey, image: Array) -> Array:
        inputs = image[None]
        made = function(state, key, 1, inputs=inputs) if is_sample else function(state, key, inputs)
        return made[0]

    return run
