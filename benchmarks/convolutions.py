"""Time of convolutions and their gradients in the shapes that GANs use, compared with those of JAX.

Each operation runs in float32, in a loop of many iterations inside one program, as in a train step. The operations of
`gan_jax.ops.primitives` are compared with `lax.conv_general_dilated` and the gradients that JAX derives from it, and
the gradient of `gan_jax.ops.conv_transpose` with that of `lax.conv_transpose`.

python -m benchmarks.convolutions              appends to results/convolutions.jsonl, prints a table; about 10 minutes
python -m benchmarks.convolutions --headline   measures only the gradient of transposed convolutions
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import app, flags
from jax import lax

from benchmarks.measure import in_turn, milliseconds, rates, ratio, record, table
from gan_jax import ops
from gan_jax.ops import lowerings, primitives
from gan_jax.ops.geometry import ConvGeometry

_HEADLINE = flags.DEFINE_bool("headline", False, "measure only the gradient of transposed convolutions")
_LAYOUT = ("NHWC", "HWIO", "NHWC")
Array = jax.Array
Form = Callable[..., Any]


class Shape(NamedTuple):
    """The shape of a convolution: images of `size` x `size` pixels, from `inputs` to `outputs` channels."""

    batch: int
    size: int
    inputs: int
    outputs: int
    kernel: int
    stride: int
    padding: int

    @property
    def geometry(self) -> ConvGeometry:
        return ConvGeometry(self.stride, self.padding, (self.size,) * 2, (self.kernel,) * 2)

    @property
    def flops(self) -> float:
        height, width = self.geometry.result
        return 2.0 * self.batch * height * width * self.kernel**2 * self.inputs * self.outputs


SHAPES = [
    Shape(64, 8, 1, 64, 4, 2, 1), Shape(64, 4, 64, 128, 4, 2, 1),  # DCGAN: digits, MNIST, CIFAR-10
    Shape(64, 28, 1, 32, 4, 2, 1), Shape(64, 14, 32, 64, 4, 2, 1),
    Shape(64, 32, 3, 64, 4, 2, 1), Shape(64, 16, 64, 128, 4, 2, 1), Shape(64, 8, 128, 256, 4, 2, 1),
    Shape(64, 32, 3, 128, 3, 1, 1), Shape(64, 32, 128, 128, 3, 1, 1), Shape(64, 16, 256, 256, 3, 1, 1),  # ResNets
    Shape(64, 8, 256, 256, 3, 1, 1), Shape(64, 4, 256, 256, 3, 1, 1), Shape(64, 32, 128, 3, 3, 1, 1),
    Shape(64, 16, 128, 256, 1, 1, 0), Shape(64, 16, 32, 32, 5, 1, 2), Shape(64, 17, 64, 128, 3, 2, 0),
]  # fmt: skip
TRANSPOSED = [(64, 4, 256, 128), (64, 8, 128, 64), (64, 16, 64, 3)]  # batch, size, inputs, outputs: 4x4, stride 2


def looped(op: Form, operands: Sequence[Array]) -> Callable[[int], None]:
    """Compiles a program that runs `op` a given number of times, and returns `count -> None`, which runs it.

    The operands of each run depend on the result of the previous one: XLA cannot hoist the operation out of the loop.
    """
    out = jax.eval_shape(op, *operands)

    def body(_: Any, carried: tuple[Sequence[Array], Any]) -> tuple[Sequence[Array], Any]:
        arrays, out = carried
        seed = sum(leaf[(0,) * leaf.ndim] for leaf in jax.tree.leaves(out)) * 1e-3
        arrays = [x.at[(0,) * x.ndim].set(seed.astype(x.dtype)) for x in arrays]
        return arrays, op(*arrays)

    @jax.jit
    def loop(arrays: Sequence[Array], count: Array) -> Any:
        empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), out)
        return lax.fori_loop(0, count, body, (arrays, empty))[1]

    program = loop.lower(list(operands), jnp.int32(1)).compile()
    return lambda count: jax.block_until_ready(program(list(operands), jnp.int32(count)))


def normal(seed: int, *shape: int) -> Array:
    """Draws a normally distributed array."""
    return jax.random.normal(jax.random.key(seed), shape)


_LONG = 3.0  # seconds; a form that takes longer is timed only once


def compare(forms: Mapping[str, tuple[Form, Sequence[Array]]]) -> dict[str, list[float]]:
    """Returns the seconds per application of each form, measured in turns of about a quarter of a second.

    Forms that take more than `_LONG` seconds are timed only once.
    """
    runs, counts, long = {}, {}, {}
    for name, (form, operands) in forms.items():
        run = looped(form, operands)
        began = time.perf_counter()
        run(1)
        once = time.perf_counter() - began
        if once > _LONG:
            long[name] = [once]
            continue
        began = time.perf_counter()
        run(2)
        counts[name] = max(1, min(1000, int(0.25 / ((time.perf_counter() - began) / 2))))
        runs[name] = functools.partial(run, counts[name])
    taken = in_turn(runs, rounds=5, seconds=0.0)
    return {name: [x / counts[name] for x in times] for name, times in taken.items()} | long


def maps_of(shape: Shape) -> dict[str, dict[str, tuple[Form, Sequence[Array]]]]:
    """Returns the forms to compare for the forward map and both gradients.

    `ours` is the library's form on this platform, `lax` is what JAX derives from `lax.conv_general_dilated`, and
    `two members` is the library's form for two members of a population at once.
    """
    geometry = shape.geometry
    x = normal(0, 1, shape.batch, shape.size, shape.size, shape.inputs)
    k = normal(1, 1, shape.kernel, shape.kernel, shape.inputs, shape.outputs)
    y = normal(2, 1, shape.batch, *geometry.result, shape.outputs)

    def bound(op: Form) -> Form:
        return lambda *operands: op(*operands, geometry)

    return {
        name: {
            "ours": (bound(getattr(primitives, name)), operands),
            "lax": (bound(getattr(lowerings, f"{name}_xla")), operands),
            "two members": (bound(getattr(primitives, name)), [jnp.concatenate([a, a]) for a in operands]),
        }
        for name, operands in (("forward", (x, k)), ("input_gradient", (y, k)), ("kernel_gradient", (x, y)))
    }


def gradient(op: Form) -> Form:
    """Returns a function that computes the gradients of `op` with respect to both operands."""
    return lambda x, k, cotangent: jax.vjp(op, x, k)[1](cotangent)


def headline(matmul_gflops: float) -> None:
    """Times the gradient of 4x4 transposed convolutions of stride 2, both in a loop (as in a train step) and alone."""
    rows: list[list[Any]] = [["gradient of a transposed convolution", "ours, ms", "lax, ms", "ratio", "floor, ms"]]
    ours = functools.partial(ops.conv_transpose, stride=2, padding=1)
    theirs = functools.partial(lax.conv_transpose, strides=(2, 2), padding=((2, 2),) * 2, dimension_numbers=_LAYOUT)
    for batch, size, inputs, outputs in TRANSPOSED:
        operands = (
            normal(0, batch, size, size, inputs),
            normal(1, 4, 4, inputs, outputs),
            normal(2, batch, 2 * size, 2 * size, outputs),
        )
        floor = 2 * 2.0 * batch * size**2 * 16 * inputs * outputs / matmul_gflops / 1e6
        forms: dict[str, tuple[Form, Sequence[Array]]] = {
            "ours": (gradient(ours), operands),
            "lax": (gradient(theirs), operands),
        }
        alone = {name: functools.partial(_alone, jax.jit(form), operands) for name, (form, operands) in forms.items()}
        for where, taken in (("in a loop", compare(forms)), ("alone", in_turn(alone, seconds=0.2))):
            times, faster = milliseconds(taken), ratio(taken, "lax", "ours")
            shown = f"[{batch},{size},{size},{inputs}] to {outputs}, {where}"
            line = {"what": "gradient of conv_transpose", "shape": shown, "ratio": faster, "floor_ms": floor}
            record("convolutions", line | {"milliseconds": times, "matmul_gflops": matmul_gflops})
            rows.append([shown, times["ours"]["median"], times["lax"]["median"], faster, floor])
    print(table(rows), flush=True)


def _alone(program: Form, operands: Sequence[Array]) -> None:
    jax.block_until_ready(program(*operands))


def main(argv: Sequence[str]) -> None:
    """Runs the benchmark."""
    del argv
    matmul_gflops = rates()["matmul_gflops"]
    print(f"matrix products of 2048 squared: {matmul_gflops:.0f} GFLOP/s")
    headline(matmul_gflops)
    if _HEADLINE.value:
        return
    rows: list[list[Any]] = [["shape", "map", "ours, ms", "lax, ms", "two members, ms each", "GFLOP/s", "floor, ms"]]
    for shape in SHAPES:
        for name, contenders in maps_of(shape).items():
            taken = compare(contenders)
            times = milliseconds(taken)
            floor = shape.flops / matmul_gflops / 1e6
            line = {"what": name, "shape": shape._asdict(), "milliseconds": times, "floor_ms": floor}
            record("convolutions", line | {"matmul_gflops": matmul_gflops})
            ours = times["ours"]["median"]
            two = times["two members"]["median"] / 2
            rate = shape.flops / ours / 1e6
            rows.append([str(tuple(shape)), name, ours, times["lax"]["median"], two, rate, floor])
            print(" ".join(str(x) if isinstance(x, str) else f"{x:.3g}" for x in rows[-1]), flush=True)
    print(table(rows))


if __name__ == "__main__":
    app.run(main)
