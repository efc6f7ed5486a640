"""Wrappers of networks that save memory: microbatches, and activations recomputed in the backward pass."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from gan_jax.types import InvalidInputError, Network


def microbatched(network: Network, count: int) -> Network:
    """Returns a network that processes its batch in parts, one after the other: gradient accumulation for any game.

    The gradient by the parameters is summed over the parts. Each part's activations are recomputed when it is
    differentiated, so that memory holds those of one part at a time. Everything outside the network (latents, losses
    over the whole batch, penalties, augmentation) stays the same, and so does the update, up to rounding.

    Inside the network, layers that look at the batch, such as batch norm, see one part. The model state passes from
    part to part, and each part has its own key.

    Example i goes to part i mod `count`, so that every part is spread over all devices that share the batch.

    Args:
      network: any network whose inputs and outputs have the batch as their first axis.
      count: number of parts; must divide the batch on every device. With `train=False` the batch is not divided.

    Returns:
      The network.

    Raises:
      InvalidInputError: for a count below 1; when the network is applied, for a batch that `count` does not divide.

    References:
      Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174, 2016, for recomputing activations.
      This costs about one more forward pass. Accumulating the gradients of separate losses would avoid that cost, but
      would draw other latents, and would split losses that compare examples.
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
        # the batch is sharded over all mesh axes but `trial`, the axis of a population's members
        axes = dict(jax.sharding.get_abstract_mesh().shape)
        devices = math.prod(length for name, length in axes.items() if name != "trial")
        if size % (count * devices):
            raise InvalidInputError(
                f"microbatches={count}: the batch of {size}, on {devices} devices, does not divide evenly; "
                "choose a batch_size that is a multiple of microbatches times devices"
            )

        def part(model_state: PyTree, numbered: tuple[Array, tuple[Array, ...]]) -> tuple[PyTree, PyTree]:
            index, chunk = numbered
            own = None if key is None else jax.random.fold_in(key, index)
            outputs, model_state = network.apply(params, model_state, *chunk, train=True, key=own)
            return model_state, outputs

        def split(x: Array) -> Array:
            # `count` is the inner axis: example i goes to part i mod count, and no example changes its device
            return jnp.moveaxis(x.reshape(size // count, count, *x.shape[1:]), 1, 0)

        def join(x: Array) -> Array:
            return jnp.moveaxis(x, 0, 1).reshape(size, *x.shape[2:])

        # inside a scan the compiler cannot merge the recomputation with the forward pass, so no barrier is needed
        again = jax.checkpoint(part, prevent_cse=False)  # type: ignore[attr-defined]
        model_state, outputs = jax.lax.scan(again, model_state, (jnp.arange(count), tuple(map(split, inputs))))
        return jax.tree.map(join, outputs), model_state

    return Network(network.init, apply)


def rematerialized(network: Network) -> Network:
    """Returns a network that recomputes its activations in the backward pass and does not store them.

    The update is the same. A discriminator's loss applies the network to reals, to fakes and for a penalty: memory then
    holds the activations of one of these passes at a time, and each pass costs one more forward pass. On CPUs XLA
    undoes the recomputation, and nothing is gained.

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
