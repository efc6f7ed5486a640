"""A trained game: an experiment with a trained state to sample from."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, overload

import jax
import numpy as np
from jax.sharding import Mesh
from PIL import Image

from gan_jax.core import GANState, priors
from gan_jax.host import from_uint8
from gan_jax.runtime.experiment import Experiment
from gan_jax.runtime.film import Film
from gan_jax.runtime.sampling import sample_grid
from gan_jax.runtime.translation import Translator
from gan_jax.types import InvalidInputError, Spec


@dataclasses.dataclass(frozen=True)
class Trained:
    """An experiment with a trained state of its game.

    Attributes:
      experiment: experiment that was trained.
      state: trained state.
      step: iterations that the state was trained for.
      mesh: mesh that holds the state.
      class_names: names of the labels in the data; empty if the labels have no names.
      spec: shapes and dtypes of an example of the training data.
    """

    experiment: Experiment
    state: GANState = dataclasses.field(repr=False)
    step: int
    mesh: Mesh = dataclasses.field(repr=False)
    class_names: tuple[str, ...] = ()
    spec: Spec = dataclasses.field(default_factory=dict, repr=False)

    def sample(
        self,
        n: int = 64,
        *,
        seed: int = 0,
        label: int | np.ndarray | None = None,
        truncation: float | None = None,
        inputs: Any = None,
    ) -> np.ndarray:
        """Draws samples from the averaged generator, or from the generator itself if the game keeps no average.

        Args:
          n: number of samples.
          seed: seed that fixes the latents.
          label: one class for all samples, or an array `[n]`; by default the classes in turn.
          truncation: truncation of the game's prior.
          inputs: inputs of the generator, in place of latents drawn from the prior.

        Returns:
          Samples `[n, ...]`; images are in [-1, 1].

        Raises:
          InvalidInputError: for a game that makes no samples, or a label that it does not have.
        """
        key = jax.random.key(seed)
        labels = None if label is None else np.broadcast_to(np.asarray(label, np.int32), (n,))
        with jax.set_mesh(self.mesh):
            return sample_grid(self.experiment, self.state, key, n, label=labels, inputs=inputs, truncation=truncation)

    @property
    def num_classes(self) -> int | None:
        """Number of classes of a conditional game; None if it is unconditional."""
        return self.experiment.game.num_classes

    def preview(self, samples: np.ndarray, columns: int) -> Image.Image | Film:
        """Draws samples as the experiment's picture."""
        return self.experiment.preview(samples, columns)

    def interpolated(self, num: int, between: int, *, seed: int = 0, truncation: float | None = None) -> jax.Array:
        """Returns `num` latents: rows of `between` each, which lead from one draw of the prior to another.

        Raises:
          InvalidInputError: for a game without a prior.
        """
        prior = self.experiment.game.prior
        if prior is None:
            raise InvalidInputError("interpolation: this game has no latents to interpolate between")
        ends = prior.sample(jax.random.key(seed), 2 * (num // between), truncation)
        return priors.interpolated(prior, ends, between)

    def translator(self, **options: Any) -> Translator:
        """Returns what translates single pictures, with the options of `Translator`: direction, tile, overlap, seed."""
        return Translator(self.experiment, self.state, self.mesh, self.spec, **options)

    @overload
    def translate(self, images: np.ndarray, **options: Any) -> np.ndarray: ...

    @overload
    def translate(self, images: Sequence[np.ndarray], **options: Any) -> list[np.ndarray]: ...

    def translate(self, images: np.ndarray | Sequence[np.ndarray], **options: Any) -> np.ndarray | list[np.ndarray]:
        """Translates pictures of any size, each by itself; see `Translator` for padding and tiles.

        Args:
          images: pictures, uint8 or in [-1, 1]: an array `[n, h, w, c]`, or a list of arrays `[h, w, c]` of any sizes.
            Maps of classes are integers with one channel.
          **options: `direction="BtoA"` for the way back of a game that has one, `tile` and `overlap` in pixels, and
            `seed`, as for `Translator`.

        Returns:
          The translations in [-1, 1], an array or a list as `images` are.

        Raises:
          InvalidInputError: for a game that translates no images, pictures with another number of channels, or tiles
            that do not suit the network.
        """
        translator = self.translator(**options)
        convert: Callable[[np.ndarray], np.ndarray] = from_uint8
        if np.issubdtype(translator.dtype, np.integer):  # uint8 are the classes of a map
            convert = np.int32  # type: ignore[assignment]
        made = [translator(convert(x) if x.dtype == np.uint8 else x) for x in map(np.asarray, images)]
        return np.stack(made) if isinstance(images, np.ndarray) and made else made

    def clip_matrix(
        self,
        n: int = 64,
        *,
        content_seed: int = 0,
        motion_seed: int = 0,
        frames: int | None = None,
        truncation: float | None = None,
    ) -> np.ndarray:
        """Draws a matrix of clips, as square as n permits: rows have one content, and columns one motion.

        Args:
          n: number of clips.
          content_seed: seed of the contents; the same one gives the same contents with other motions.
          motion_seed: seed of the motions.
          frames: frames of the clips, which may be more than those trained on; None for as many.
          truncation: truncation of the game's prior.

        Returns:
          Clips `[rows, columns, t, h, w, c]`.

        Raises:
          InvalidInputError: for a game whose latents are not those of a content and a motion, or `frames` below 1.
        """
        latents = self.experiment.game.functions.get("clip_latents")
        if latents is None:
            raise InvalidInputError(
                "this game has no function 'clip_latents': content, motion and frames are those of games of clips, "
                "such as mocogan"
            )
        if frames is not None and frames < 1:
            raise InvalidInputError(f"frames={frames}: expected at least 1")
        rows = next(r for r in range(math.isqrt(n), 0, -1) if n % r == 0)
        keys = jax.random.key(content_seed), jax.random.key(motion_seed)
        z, label = latents(*keys, rows, n // rows, frames, truncation)
        made = self.sample(
            n, seed=content_seed, inputs=np.asarray(z), label=None if label is None else np.asarray(label)
        )
        return made.reshape(rows, n // rows, *made.shape[1:])

    def class_number(self, label: str) -> int:
        """Returns the number of a class, given by its name in the data or, if no class has that name, by its number.

        Raises:
          InvalidInputError: for a text that is neither.
        """
        return class_number(self.class_names, label)


def class_number(class_names: Sequence[str], label: str) -> int:
    """Returns the number of a class, given by its name or, if no class has that name, by its number.

    Args:
      class_names: names of the classes, in order; empty if they have none.
      label: name or number.

    Raises:
      InvalidInputError: for a text that is neither.
    """
    if label in class_names:
        return list(class_names).index(label)
    if label.isdecimal() and len(label) < 10:
        return int(label)
    known = f", or one of {', '.join(class_names)}" if class_names else ": no class has a name"
    raise InvalidInputError(f"label={label}: expected a number{known}")
