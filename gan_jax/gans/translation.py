"""Parts that the games of image translation share: the batch, label maps as inputs, `translate`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from gan_jax.core import GANState
from gan_jax.types import Batch, InvalidInputError, Network, PRNGKey


def check_pair(game: str) -> Callable[[Batch], None]:
    """Creates the check that a batch has `'a'` and `'b'`, of the same height and width, and nothing else."""

    def check(batch: Batch) -> None:
        shapes = {name: jnp.shape(value) for name, value in batch.items()}
        if set(shapes) != {"a", "b"} or len(shapes["b"]) != 4 or shapes["a"][:3] != shapes["b"][:3]:
            raise InvalidInputError(
                f"batch={shapes}: {game} takes the images 'a' and 'b', [b, h, w, c] of one height and width, and "
                "nothing else; see `data.paired_folder`, `unpaired_folder`, `made_pairs` and `renamed`"
            )

    return check


def one_hot_input(network: Network, classes: int | None, position: int = 0) -> Network:
    """Returns a network that takes a map of classes as one of its inputs, and sees one channel per class.

    Args:
      network: the network.
      classes: number of classes; None returns the network as it is.
      position: position of the map among the network's inputs. The map is `[b, h, w]` or `[b, h, w, 1]`, of integers.

    Returns:
      The network. It sees NaN where a value is no class: compiled programs cannot raise, and zeros would be translated
      as if nothing were wrong.

    Raises:
      InvalidInputError: for a number of classes below 2; when the network is used, for a map that is not of integers.
    """
    if classes is None:
        return network
    if classes < 2:
        raise InvalidInputError(f"classes={classes}: expected at least 2, or None for images")

    def encoded(inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        labels = inputs[position]
        if not jnp.issubdtype(labels.dtype, jnp.integer) or labels.ndim not in (3, 4) or labels.shape[3:] > (1,):
            raise InvalidInputError(
                f"classes={classes}: expected a map of classes [b, h, w] or [b, h, w, 1] of integers, got "
                f"{labels.dtype} {labels.shape}; store maps as int32, since uint8 arrays are images to a source"
            )
        flat = labels.reshape(labels.shape[:3])
        known = (flat >= 0) & (flat < classes)
        found = jnp.where(known[..., None], jax.nn.one_hot(flat, classes, dtype=jnp.float32), jnp.nan)
        return (*inputs[:position], found, *inputs[position + 1 :])

    def init(key: PRNGKey, *inputs: Array) -> tuple[PyTree, PyTree]:
        return network.init(key, *encoded(inputs))

    def apply(params: PyTree, model_state: PyTree, *inputs: Array, **options: Any) -> tuple[PyTree, PyTree]:
        return network.apply(params, model_state, *encoded(inputs), **options)

    return Network(init, apply)


def translate(sample: Callable[..., Array]) -> Callable[[GANState, PRNGKey, Array], Array]:
    """Creates the function `translate` of a game, `(state, key, inputs) -> outputs`, from its `sample`."""

    def function(state: GANState, key: PRNGKey, inputs: Array) -> Array:
        return sample(state, key, inputs.shape[0], inputs=inputs)

    return function
