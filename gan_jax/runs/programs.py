"""Functions of a trained game as exported programs, which contain the weights and need JAX alone."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as exporting
from jax.extend import mlir as artifacts
from jax.extend.mlir import ir
from jax.interpreters import mlir, partial_eval
from jaxtyping import PyTree

from gan_jax.core import GANState, priors
from gan_jax.runtime import Trained, frozen
from gan_jax.runtime.arrays import flatten, rebuild
from gan_jax.runtime.conditions import INPUTS, LABEL, TARGET
from gan_jax.types import InvalidInputError

PLATFORMS = ("cpu", "cuda", "tpu")
SAMPLE, ENCODE, DECODE, LATENTS_OF_PRIOR = "sample", "encode", "decode", "latents"
Z, CODES, TRUNCATION, KEY, LIKE = "z", "codes", "truncation", "key", "like"  # inputs, with INPUTS and LABEL
_OF_TARGET = ("translate_back",)  # functions that map images of the other domain
_MOST = 2**31 - 2**20  # bytes of weights in a program, whose file has 32-bit offsets
_DIALECTS = ("builtin", "func", "stablehlo", "chlo", "shape")
_OUTWARD = ("stablehlo.infeed", "stablehlo.outfeed", "stablehlo.send", "stablehlo.recv")
_CALLED = ("shape_assertion", "cu_threefry2x32_ffi", "hip_threefry2x32_ffi")  # checks of shapes, random numbers of GPUs
_CALLED_FAMILY = "stablehlo.dynamic_"  # operations whose shape depends on the size of the batch


class Function(NamedTuple):
    """A function of a game, described for its export.

    Attributes:
      call: `(state, *inputs) -> outputs`.
      inputs: shapes of the inputs, by name and in order.
    """

    call: Callable[..., PyTree]
    inputs: Mapping[str, PyTree]


class Program(NamedTuple):
    """An exported function.

    Attributes:
      exported: program with the arrays of the state that it uses.
      inputs: names of its inputs, in order.
      arrays: the arrays of the state that it contains, by their names in a checkpoint.
    """

    exported: exporting.Exported
    inputs: tuple[str, ...]
    arrays: dict[str, np.ndarray]


def exportable(trained: Trained) -> list[str]:
    """Returns the names of the functions of a game that can be exported.

    These are `sample`, and all with the arguments `(state, key, x)` or `(state, key, x, label)`.
    """
    known = trained.experiment.game.functions
    return [name for name, function in known.items() if name == SAMPLE or _maps(function)]


def _maps(function: Callable[..., PyTree]) -> bool:
    names = [name for name, x in inspect.signature(function).parameters.items() if x.kind != x.KEYWORD_ONLY]
    return names[1:2] == [KEY] and len(names) > 2 and names[3:] in ([], [LABEL])


def describe(
    trained: Trained, names: Sequence[str], *, batch: int | None = None, log: Callable[[str], None] = print
) -> dict[str, Function]:
    """Describes functions of a game for their export: how they are called, and what their inputs are.

    `sample` takes latents, or the inputs that the game maps; `decode` takes what `encode` returns, or latents if the
    game has no `encode`; every other function takes the inputs of the experiment's `conditions`.

    Args:
      trained: trained game.
      names: names of the functions.
      batch: size of the batch; None for any.
      log: receives a message if an input has to be left out.

    Returns:
      The functions by name. With `sample` comes `latents`, if its prior is not one of `core.priors`.

    Raises:
      InvalidInputError: for a function that the game does not have, or that cannot be exported.
    """
    game, known = trained.experiment.game, exportable(trained)
    if wrong := [name for name in names if name not in known]:
        raise InvalidInputError(
            f"functions={','.join(wrong)}: expected names among {', '.join(known)}, the functions of this game that "
            "take a key and arrays"
        )
    b = exporting.symbolic_shape("b")[0] if batch is None else batch
    words = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
    found = dict[str, Function]()
    for name in names:
        options: dict[str, PyTree] = {} if game.num_classes is None else {LABEL: jax.ShapeDtypeStruct((b,), np.int32)}
        if name == SAMPLE:
            found[name] = _sampling(trained, b, options, words, log)
            continue
        function = game.functions[name]
        if LABEL not in inspect.signature(function).parameters:
            options = {}
        first = {CODES if name == DECODE else INPUTS: _mapped(trained, name, b)}
        found[name] = _named(functools.partial(_map, function), first | options | {KEY: words})
    if SAMPLE in names and game.prior is not None and game.prior.kind not in priors.KINDS:
        draw = functools.partial(_draw, game.prior.sample)
        found[LATENTS_OF_PRIOR] = _named(draw, {KEY: words, LIKE: jax.ShapeDtypeStruct((b,), np.int32)})
    return found


def _sampling(trained: Trained, b: Any, options: dict[str, PyTree], words: Any, log: Callable[[str], None]) -> Function:
    """Describes `sample`; leaves the truncation out of a game that looks at its value while it is traced."""
    game = trained.experiment.game
    call = functools.partial(_sample, game.sample)
    if game.prior is None:
        return _named(call, {INPUTS: _mapped(trained, SAMPLE, b)} | options | {KEY: words})
    inputs = {Z: _latents(trained, b)} | options
    with_truncation = _named(call, inputs | {TRUNCATION: jax.ShapeDtypeStruct((), np.float32), KEY: words})
    try:
        jax.eval_shape(with_truncation.call, _abstract(trained), *with_truncation.inputs.values())
    except jax.errors.ConcretizationTypeError:
        log("sample is exported without truncation: this game compares its value in Python, where it must be a number")
        return _named(call, inputs | {KEY: words})
    return with_truncation


def _named(call: Callable[[GANState, Mapping[str, PyTree]], PyTree], inputs: Mapping[str, PyTree]) -> Function:
    names = tuple(inputs)
    return Function(lambda state, *values: call(state, dict(zip(names, values, strict=True))), inputs)


def _sample(function: Callable[..., PyTree], state: GANState, given: Mapping[str, PyTree]) -> PyTree:
    x = given[Z] if Z in given else given[INPUTS]
    options = {name: given[name] for name in (LABEL, TRUNCATION) if name in given}
    count = jax.tree.leaves(x)[0].shape[0]
    return function(state, jax.random.wrap_key_data(given[KEY]), count, inputs=x, **options)


def _map(function: Callable[..., PyTree], state: GANState, given: Mapping[str, PyTree]) -> PyTree:
    x = given[CODES] if CODES in given else given[INPUTS]
    options = {LABEL: given[LABEL]} if LABEL in given else {}
    return function(state, jax.random.wrap_key_data(given[KEY]), x, **options)


def _draw(sample: Callable[..., PyTree], state: GANState, given: Mapping[str, PyTree]) -> PyTree:
    del state
    return sample(jax.random.wrap_key_data(given[KEY]), given[LIKE].shape[0])


def _batched(tree: PyTree, b: Any) -> PyTree:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((b, *x.shape[1:]), x.dtype), tree)


def _latents(trained: Trained, b: Any) -> PyTree:
    prior = trained.experiment.game.prior
    if prior is None:
        raise InvalidInputError(f"functions={DECODE}: this game has neither a prior nor the function {ENCODE!r}")
    return _batched(jax.eval_shape(lambda: prior.sample(jax.random.key(0), 1)), b)


def _mapped(trained: Trained, name: str, b: Any) -> PyTree:
    """Returns the shapes of what a function maps."""
    functions = trained.experiment.game.functions
    if name == DECODE and ENCODE not in functions:
        return _latents(trained, b)
    example = trained.experiment.examples.read(0, 1)
    if name != DECODE:
        return _batched(example[mapped_part(name, example)], b)
    key = jax.random.key(0)
    with _telling(ENCODE):
        return jax.eval_shape(
            lambda state, x: functions[ENCODE](state, key, x), _abstract(trained), _batched(example[INPUTS], b)
        )


def mapped_part(name: str, examples: Mapping[str, Any]) -> str:
    """Returns which part of the examples a function maps: the inputs, or the targets if it translates back."""
    return TARGET if name in _OF_TARGET and TARGET in examples else INPUTS


def _abstract(trained: Trained) -> GANState:
    """Returns the state, with the shapes of all frozen networks, for tracing."""
    return trained.state.replace(frozen=trained.experiment.frozen_networks.shapes())


def program(trained: Trained, function: Function, name: str, platforms: Sequence[str] = PLATFORMS) -> Program:
    """Exports a function of a game, with the arrays of the state that it uses inside.

    Inputs that the function does not use, such as the key of a generator without noise, are left out.

    Args:
      trained: trained game.
      function: description of the function, from `describe`.
      name: name of the function, for messages.
      platforms: platforms that the program can be compiled for.

    Returns:
      The program.

    Raises:
      InvalidInputError: if the function cannot be exported for every size of the batch, uses operations that are not
        portable, or has too many weights for a program.
    """
    names, shapes = tuple(function.inputs), tuple(function.inputs.values())
    state = trained.state.replace(frozen=_frozen(trained, function))
    arrays = {key: np.asarray(x) for key, x in flatten(state).items()}

    def run(arrays: Mapping[str, Any], *inputs: PyTree) -> PyTree:
        return function.call(rebuild(state, dict(arrays)), *inputs)

    with _telling(name):
        traced = jax.make_jaxpr(run)(_shapes(arrays), *shapes).jaxpr
    _, used = partial_eval.dce_jaxpr(traced, [True] * len(traced.outvars))
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path((arrays, *shapes))]
    kept = [path for path, is_used in zip(paths, used, strict=True) if is_used]
    inside = {path[1].key for path in kept if path[0].idx == 0}
    taken = sorted({path[0].idx - 1 for path in kept} - {-1})
    sized = [index for index, shape in enumerate(shapes) if _has_batch(shape)]
    if sized and not set(sized) & set(taken):  # an input whose values are not used may still say how large the batch is
        taken = sorted([*taken, sized[0]])
    weights = {key: x for key, x in arrays.items() if key in inside}
    if (size := sum(x.nbytes for x in weights.values())) > _MOST:
        raise InvalidInputError(f"{name} has {size:,} bytes of weights, and an exported program at most {_MOST:,}")
    rest = {key: np.broadcast_to(np.zeros((), x.dtype), x.shape) for key, x in arrays.items() if key not in inside}

    def whole(*inputs: PyTree) -> PyTree:
        # Without the barrier XLA computes with the weights while it compiles, and rounds in another way than the game.
        held = jax.lax.optimization_barrier(weights)
        unused = [jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), shape) for shape in shapes]
        given = dict(enumerate(unused)) | dict(zip(taken, inputs, strict=True))
        return run({**rest, **held}, *given.values())

    with _telling(name):
        made = exporting.export(jax.jit(whole), platforms=tuple(platforms))(*(shapes[index] for index in taken))
    check_operations(made, name)
    return Program(made, tuple(names[index] for index in taken), weights)


def _frozen(trained: Trained, function: Function) -> dict[str, PyTree]:
    """Returns the frozen networks that a function uses; the others are not read."""
    networks, inputs = trained.experiment.frozen_networks, function.inputs.values()

    def shapes(asked: Mapping[str, PyTree]) -> PyTree:
        return jax.eval_shape(lambda *x: function.call(trained.state.replace(frozen=asked), *x), *inputs)

    return {name: networks[name].params for name in (frozen.used(networks, shapes) if networks else ())}


def _has_batch(tree: PyTree) -> bool:
    return any(exporting.is_symbolic_dim(size) for x in jax.tree.leaves(tree) for size in x.shape)


def _shapes(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


@contextlib.contextmanager
def _telling(name: str) -> Iterator[None]:
    """Turns what JAX raises about a function that cannot be exported into an error for the user."""
    try:
        yield
    except InvalidInputError:
        raise
    except Exception as error:  # each primitive reports a symbolic size in a way of its own
        reason = next(filter(None, str(error).splitlines()), "")
        raise InvalidInputError(
            f"{name} cannot be exported ({type(error).__name__}: {reason}): if this is because the batch has no "
            "size yet, write x.shape[0] for len(x), or export it for one size, with batch=64 (--batch=64)"
        ) from error


def check_operations(exported: exporting.Exported, name: str) -> None:
    """Checks that a program computes, and does nothing else: it calls no function of its host, and talks to nobody.

    Args:
      exported: the program.
      name: its name, for the message.

    Raises:
      InvalidInputError: for an operation that is none of StableHLO's, or a call of anything but what JAX itself needs
        for shapes and random numbers.
    """
    refused = set[str]()

    def visit(operation: Any) -> Any:
        kind = operation.name
        if kind == "stablehlo.custom_call":
            target = ir.StringAttr(operation.attributes["call_target_name"]).value
            if target not in _CALLED and not target.startswith(_CALLED_FAMILY):
                refused.add(f"call of {target}")
        elif kind.partition(".")[0] not in _DIALECTS or kind in _OUTWARD:
            refused.add(kind)
        return ir.WalkResult.ADVANCE

    with mlir.make_ir_context():
        module = artifacts.deserialize_portable_artifact(exported.mlir_module_serialized)
        module.operation.walk(visit)
    if refused:
        raise InvalidInputError(
            f"{name} is refused: it has {', '.join(sorted(refused))[:200]}, where an exported program only computes"
        )
