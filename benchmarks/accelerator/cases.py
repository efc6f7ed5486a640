"""What `numerics` compares: functions of arrays, whose values on an accelerator and on a CPU should be the same.

A case has the arrays that it takes, made on the CPU, and a function of them that returns named arrays. The functions
come from the conformance suite, so that a new loss or game is compared as soon as the suite has it.
"""

import functools
import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from benchmarks.accelerator.machine import PRECISIONS
from gan_jax import core, metrics, ops

_FUNCTIONS = importlib.import_module("tests.conformance.functions")
_GAMES = importlib.import_module("tests.conformance.games")
CASES, KEY = _FUNCTIONS.CASES, _FUNCTIONS.KEY
BATCH, GAMES, computed_in = _GAMES.BATCH, _GAMES.GAMES, _GAMES.computed_in
EXACT = "exact/"  # prefix of values that must be equal: the definition's, in float64, whatever the precision
_RATE, _SEED = 1e-3, 3  # as in the conformance suite: every game is stable at this learning rate
_GROUPS = 6  # programs that the functions are compiled in


class Case(NamedTuple):
    """A case.

    Attributes:
      arguments: makes the arrays.
      function: `precision -> function of the arrays`, which returns named arrays. Float32 and TF32 are the same
        function: the context in which it is compiled makes the difference.
      compiled: whether the function is compiled as a whole; metrics of the host are not.
    """

    arguments: Callable[[], tuple[PyTree, ...]]
    function: Callable[[str], Callable[..., Mapping[str, Any]]]
    compiled: bool = True


def cases(tiny: bool) -> dict[str, Case]:
    """Returns all cases by name, in the order in which they run."""
    names = sorted(CASES)
    groups = [names[start::_GROUPS] for start in range(_GROUPS)]
    if tiny:
        return {"ops": _operations(["blur_pool"]), "game vanilla": _game("vanilla"), "functions": _functions(names[:3])}
    found = {"ops": _operations(list(_OPERATIONS))} | {f"game {name}": _game(name) for name in GAMES}
    found["metrics"] = Case(_features, lambda precision: _metrics, compiled=False)
    return found | {f"functions {index} of {_GROUPS}": _functions(group) for index, group in enumerate(groups, 1)}


def _images() -> dict[str, jax.Array]:
    image, square, wide, grouped = jax.random.split(KEY, 4)
    return {
        "image": jax.random.normal(image, (8, 16, 16, 32)),
        "3x3": jax.random.normal(square, (3, 3, 32, 48)) / math.sqrt(9 * 32),
        "4x4": jax.random.normal(wide, (4, 4, 32, 48)) / math.sqrt(16 * 32),
        "grouped": jax.random.normal(grouped, (3, 3, 8, 32)) / math.sqrt(9 * 8),
    }


# Operations of `gan_jax.ops`, with the names of the arrays that they take.
_OPERATIONS: dict[str, tuple[Callable[..., jax.Array], tuple[str, ...]]] = {
    "conv": (functools.partial(ops.conv, padding=1), ("image", "3x3")),
    "conv_transpose": (functools.partial(ops.conv_transpose, padding=1), ("image", "4x4")),
    "conv, stride 2": (functools.partial(ops.conv, stride=2, padding=1), ("image", "4x4")),
    "conv, groups": (functools.partial(ops.conv, padding=1, groups=4), ("image", "grouped")),
    "doubled_conv": (functools.partial(ops.doubled_conv, padding=1), ("image", "3x3")),
    "conv_halved": (functools.partial(ops.conv_halved, padding=1), ("image", "3x3")),
    "blur_pool": (ops.blur_pool, ("image",)),
    "upsample": (ops.upsample, ("image",)),
    "upfirdn": (lambda x: ops.upfirdn(x, (1.0, 2.0, 1.0), up=2, padding=(1, 1)), ("image",)),
}


def _operations(names: Sequence[str]) -> Case:
    """Makes a case of operations with their derivatives, and products of the second derivatives with the arrays."""

    def function(arrays: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        found = {}
        for name in names:
            operation, takes = _OPERATIONS[name]
            taken = tuple(arrays[x] for x in takes)
            slope = jax.grad(lambda x, operation=operation: _sum(jnp.sin(operation(*x).astype(jnp.float32))))
            along = jax.grad(
                lambda x, slope=slope, taken=taken: sum(_sum(g * t) for g, t in zip(slope(x), taken, strict=True))
            )
            found[f"{name}/value"] = operation(*taken)
            for order, derivative in (("gradient", slope(taken)), ("second", along(taken))):
                found |= {f"{name} {order}/{array}": x for array, x in zip(takes, derivative, strict=True)}
        return found

    return Case(lambda: (_images(),), _in_dtype(function))


def _sum(x: jax.Array) -> jax.Array:
    return jnp.sum(x.astype(jnp.float32))


def _in_dtype(function: Callable[..., Mapping[str, Any]]) -> Callable[[str], Callable[..., Mapping[str, Any]]]:
    """Returns a function that converts the float arrays it gets to bfloat16, in that precision."""

    def build(precision: str) -> Callable[..., Mapping[str, Any]]:
        if precision != "bfloat16":
            return function
        return lambda *arguments: function(*jax.tree.map(_narrow, arguments))

    return build


def _narrow(x: Any) -> Any:
    return x.astype(jnp.bfloat16) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _functions(names: Sequence[str]) -> Case:
    """Makes a case of losses, penalties and augmentations, with their gradients by every float array."""

    def arguments() -> tuple[PyTree, ...]:
        return ({name: CASES[name].arguments(KEY) for name in names},)

    def function(arrays: Mapping[str, tuple[jax.Array, ...]]) -> dict[str, jax.Array]:
        found = {}
        for name, values in arrays.items():
            floats = [index for index, x in enumerate(values) if jnp.issubdtype(x.dtype, jnp.floating)]

            def total(*arrays: jax.Array, name: str = name) -> jax.Array:
                return _sum(CASES[name].function(*arrays))

            found[f"{name}/value"] = CASES[name].function(*values)
            for index, slope in zip(floats, jax.grad(total, floats)(*values), strict=True):
                found[f"{name} gradient/{index}"] = slope
        return found

    return Case(arguments, _in_dtype(function))


def _features() -> tuple[PyTree, ...]:
    real, fake = (jax.random.normal(key, (512, 64)) for key in jax.random.split(KEY))
    images = jax.random.uniform(KEY, (2, 8, 32, 32, 3), minval=-1.0)
    return (real, 0.9 * fake + 0.1, images[0], 0.8 * images[0] + 0.2 * images[1])


def _metrics(real: jax.Array, fake: jax.Array, output: jax.Array, target: jax.Array) -> dict[str, Any]:
    """Computes the metrics that run on devices; those with the prefix are exact in any precision."""
    points = np.asarray(real), np.asarray(fake)
    found = {
        f"{EXACT}precision and recall": metrics.precision_recall(*points, k=3),
        f"{EXACT}density and coverage": metrics.density_coverage(*points, k=5),
        "cmmd": metrics.cmmd(*points),
        "sliced_wasserstein": metrics.sliced_wasserstein(*points, projections=64),
        "l1": metrics.l1(output, target), "psnr": metrics.psnr(output, target), "ssim": metrics.ssim(output, target),
    }  # fmt: skip
    return {name: np.asarray(value) for name, value in found.items()}


def _game(name: str) -> Case:
    """Makes a case of one iteration of a game of the conformance suite, with SGD, since Adam magnifies round-off."""
    sgd = optax.inject_hyperparams(optax.sgd)(learning_rate=_RATE)
    build, source = GAMES[name]

    def game(precision: str) -> Any:
        with computed_in("bfloat16" if precision == "bfloat16" else "float32"):
            return build(generator_optimizer=sgd, discriminator_optimizer=sgd)

    def arguments() -> tuple[PyTree, ...]:
        made = game("float32")
        feed = source.feed(_SEED, core.batches_per_iteration(made), BATCH, range(BATCH))
        batches = feed.fetch(feed.data, next(feed.stream(0, 1))[0], jnp.int32(0))
        state = jax.jit(made.init)(jax.random.key(_SEED), jax.tree.map(lambda x: x[0], batches))
        return {player: (x.params, x.model_state) for player, x in state.players.items()}, batches

    def function(precision: str) -> Callable[..., Mapping[str, Any]]:
        made = game(precision)
        step = core.make_step(made)

        def run(players: Mapping[str, Any], batches: Any) -> dict[str, jax.Array]:
            state = made.init(jax.random.key(_SEED), jax.tree.map(lambda x: x[0], batches))
            own = {
                player: x.replace(params=players[player][0], model_state=players[player][1])
                for player, x in state.players.items()
            }
            after, accumulator = step(state.replace(players=own), batches)
            found = {f"{key}/mean": total / jnp.maximum(count, 1) for key, (total, count) in accumulator.items()}
            for player, (params, _) in players.items():
                moved = jax.tree.map(lambda new, old: (new - old) / _RATE, after.players[player].params, params)
                found |= {
                    f"{player}/{jax.tree_util.keystr(path)}": x
                    for path, x in jax.tree_util.tree_leaves_with_path(moved)
                }
            return found

        return run

    return Case(arguments, function)


def precision_context(precision: str) -> Any:
    """Returns the context in which a function of a precision is compiled."""
    return jax.default_matmul_precision(PRECISIONS[precision])
