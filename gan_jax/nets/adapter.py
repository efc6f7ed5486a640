"""Adapters that turn modules of a framework into a `Network` of two pure functions."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from flax import nnx
from jaxtyping import Array, PyTree

from gan_jax.types import Network, PRNGKey

_STREAMS = ("dropout", "noise")  # the order decides which key a stream gets


def from_linen(module: nn.Module) -> Network:
    """Converts a Linen module to a network.

    Args:
      module: the module, whose `__call__` takes the inputs and `train`. Collections other than `params` become the
        model state. The random streams `dropout` and `noise` get keys if `apply` is given one.

    Returns:
      The network.
    """

    def init(key: PRNGKey, *inputs: Any) -> tuple[PyTree, PyTree]:
        params_key, key = jax.random.split(key)
        variables = dict(module.init({"params": params_key, **_streams(key)}, *inputs, train=True))
        return variables.pop("params", {}), variables

    def apply(
        params: PyTree, model_state: PyTree, *inputs: Any, train: bool, key: PRNGKey | None = None
    ) -> tuple[PyTree, PyTree]:
        mutable = list(model_state) if train else []
        variables = {"params": params, **model_state}
        outputs, changed = module.apply(variables, *inputs, train=train, mutable=mutable, rngs=_streams(key))
        # statistics of float64 activations would come back wider than they went in
        kept = jax.tree.map(_as, {name: model_state[name] for name in changed}, dict(changed))
        return outputs, {**model_state, **kept}

    return Network(init, apply)


def _as(old: Array, new: Array) -> Array:
    return new if new.dtype == old.dtype else new.astype(old.dtype)


def _streams(key: PRNGKey | None) -> dict[str, PRNGKey]:
    """Splits a key into one for each random stream; without a key no stream gets one."""
    return {} if key is None else dict(zip(_STREAMS, jax.random.split(key, len(_STREAMS)), strict=True))


def from_nnx(make: Callable[[nnx.Rngs], nnx.Module]) -> Network:
    """Converts an NNX module to a network.

    Args:
      make: function `rngs -> module`. The module's `nnx.Param`s become the parameters, all other variables the model
        state. `train` decides between the module's own `.train()` and `.eval()`. Every random stream of the module gets
        a key if `apply` is given one.

    Returns:
      The network. Its `init` needs no example inputs and ignores any that it is given.
    """
    # evaluated abstractly, for the structure alone: no parameters are allocated
    graph, *templates = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))), nnx.Param, ...)

    def pure(module: nnx.Module) -> tuple[PyTree, PyTree]:
        _, *states = nnx.split(module, nnx.Param, ...)
        params, model_state = (nnx.to_pure_dict(state) for state in states)
        return params, model_state

    def init(key: PRNGKey, *inputs: Any) -> tuple[PyTree, PyTree]:
        del inputs
        return pure(make(nnx.Rngs(key)))

    def apply(
        params: PyTree, model_state: PyTree, *inputs: Any, train: bool, key: PRNGKey | None = None
    ) -> tuple[PyTree, PyTree]:
        filled = [
            jax.tree.unflatten(jax.tree.structure(template), jax.tree.leaves(values))
            for template, values in zip(templates, (params, model_state), strict=True)
        ]
        module = nnx.merge(graph, *filled)
        module.train() if train else module.eval()
        if key is not None:
            # sorted, so that a stream's key depends on the names alone and not on the order in the graph
            tags = sorted({node.key.tag for _, node in nnx.iter_graph(module) if isinstance(node, nnx.RngStream)})
            keys: dict[str, Any] = {tag: jax.random.fold_in(key, index) for index, tag in enumerate(tags)}
            nnx.reseed(module, **keys)
        outputs = module(*inputs)
        return outputs, pure(module)[1] if train else model_state

    return Network(init, apply)
