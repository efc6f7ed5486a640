"""Networks that trade arithmetic for memory: in microbatches, or computed again where they are differentiated."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from gan_jax.types import InvalidInputError, Network


def microbatched(network: Network, count: int) -> Network:
    """A network that takes its batch in parts, one after the other: gradient accumulation, for any game.

    The gradient with respect to the parameters is summed over the parts, and each part's activations are computed again
    when it is differentiated, so that those of one part at a time are held. All that happens outside the network
    (latents, losses over the whole batch, penalties, augmentation) is as without, and so is the update, rounding
    aside. What looks at the batch inside the network, such as batch norm, sees one part.

    Example i goes to part i mod `count`, so that devices that share the batch share every part.

    Args:
      network: any whose inputs and outputs have the batch as their first axis.
      count: of parts; must divide the batch (on every device). Sampling is not divided.

    Returns:
      The network.

    Raises:
      InvalidInputError: for a count below 1, and, where it is used, for a batch that it does not divide.

    References:
      Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174, 2016, for computing again. It
      costs about one more forward pass; accumulating the gradients of separate losses would not, but would draw other
      latents, and divide losses that compare examples.
    """
    if count < 1:
        raise InvalidInputError(f"microbatches={count}: expected at least 1")
    if count == 1:
        return network

    def apply(
        params: PyTree, model_state: PyTree, *inputs: Array, train: bool, key: Array | None = None
    ) -> tuple[PyTree, PyTree]:
        if not train:
            return network.apply(params, model_state, *inputs, train=False, key=key)
        size = inputs[0].shape[0]
        axes = dict(jax.sharding.get_abstract_mesh().shape)
        devices = math.prod(length for name, length in axes.items() if name != "trial")
        if size % (count * devices):
            raise InvalidInputError(
                f"microbatches={count}: the batch of {size}, on {devices} devices, does not divide into so many parts"
            )

        def part(model_state: PyTree, numbered: tuple[Array, tuple[Array, ...]]) -> tuple[PyTree, PyTree]:
            index, chunk = numbered
            own = None if key is None else jax.random.fold_in(key, index)
            outputs, model_state = network.apply(params, model_state, *chunk, train=True, key=own)
            return model_state, outputs

        def split(x: Array) -> Array:
            return jnp.moveaxis(x.reshape(size // count, count, *x.shape[1:]), 1, 0)

        def join(x: Array) -> Array:
            return jnp.moveaxis(x, 0, 1).reshape(size, *x.shape[2:])

        again = jax.checkpoint(part, prevent_cse=False)  # type: ignore[attr-defined]
        model_state, outputs = jax.lax.scan(again, model_state, (jnp.arange(count), tuple(map(split, inputs))))
        return jax.tree.map(join, outputs), model_state

    return Network(network.init, apply)


def rematerialized(network: Network) -> Network:
    """A network whose activations are not kept for its gradient, but computed again; the update is the same.

    A discriminator's loss passes through it for reals, for fakes and for a penalty; the activations of one pass at a
    time are held, at the cost of one more forward pass each. On CPUs XLA undoes this, and nothing is gained.

    References:
      Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174, 2016.
    """

    def apply(
        params: PyTree, model_state: PyTree, *inputs: Array, train: bool, key: Array | None = None
    ) -> tuple[PyTree, PyTree]:
        def call(params: PyTree, model_state: PyTree, key: Array | None, *inputs: Array) -> Any:
            return network.apply(params, model_state, *inputs, train=train, key=key)

        return jax.checkpoint(call)(params, model_state, key, *inputs)  # type: ignore[attr-defined]

    return Network(network.init, apply)
