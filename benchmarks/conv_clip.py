"""Time of the folded convolution of clips and of XLA's own, forward and with both gradients, in turns.

The shapes are those of MoCoGAN's critic of clips, of width 16 at 32 pixels and of width 64 at 64 pixels.

python -m benchmarks.conv_clip           appends to results/conv_clip.jsonl and prints a table; about 10 minutes
python -m benchmarks.conv_clip --table   prints the table of the newest results; --write puts it into docs/video.md
"""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import app, flags
from jax import lax

from benchmarks.convolutions import compare, normal
from benchmarks.measure import put, record, recorded
from gan_jax import ops

_WRITE = flags.DEFINE_bool("write", False, "write the newest results into docs/video.md")
_TABLE = flags.DEFINE_bool("table", False, "print the table of the newest results")
_PAGE = pathlib.Path(__file__).parents[1] / "docs" / "video.md"


class Shape(NamedTuple):
    """Clips of `size` x `size` pixels; the kernel is 4x4x4 with stride 2 and padding 1 in height and width."""

    batch: int
    frames: int
    size: int
    inputs: int
    outputs: int

    def __str__(self) -> str:
        return f"{self.batch} clips of {self.frames} x {self.size} x {self.size}, {self.inputs} to {self.outputs}"


SHAPES = [
    Shape(16, 16, 32, 3, 16), Shape(16, 13, 16, 16, 32), Shape(16, 10, 8, 32, 64),
    Shape(4, 16, 64, 3, 64), Shape(4, 13, 32, 64, 128),
]  # fmt: skip


def folded(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes the convolution by `ops.conv_clip`."""
    return ops.conv_clip(x, kernel, stride=2, padding=1)


def own(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes the convolution by XLA's own."""
    return lax.conv_general_dilated(
        x, kernel, (1, 2, 2), ((0, 0), (1, 1), (1, 1)), dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )


def with_gradients(form: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function that computes the result and both gradients."""

    def run(x: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> Any:
        y, back = jax.vjp(form, x, kernel)
        return y, *back(cotangent)

    return run


def measure(shape: Shape) -> dict[str, Any]:
    """Returns the seconds of each form, forward and with both gradients."""
    x = normal(0, shape.batch, shape.frames, shape.size, shape.size, shape.inputs)
    kernel = normal(1, 4, 4, 4, shape.inputs, shape.outputs)
    y = jnp.ones(jax.eval_shape(folded, x, kernel).shape)
    forms: Mapping[str, Any] = {"folded": folded, "xla": own}
    found: dict[str, Any] = {"shape": shape._asdict()}
    for part, wrap, operands in (("forward", lambda f: f, [x, kernel]), ("gradients", with_gradients, [x, kernel, y])):
        times = compare({name: (wrap(form), operands) for name, form in forms.items()})
        found[part] = {name: min(seconds) for name, seconds in times.items()}
        found[part]["ratio"] = found[part]["xla"] / found[part]["folded"]
    return found


def table() -> str:
    """Returns the newest results as a table."""
    newest = {str(Shape(**row["shape"])): row for row in recorded("conv_clip")}
    lines = ["| clips, channels | forward, ms | XLA's | with both gradients, ms | XLA's | times as long |"]
    lines.append("|---|---|---|---|---|---|")
    for name, row in newest.items():
        cells = [f"{1e3 * row[part][form]:,.3g}" for part in ("forward", "gradients") for form in ("folded", "xla")]
        lines.append(f"| {name} | {' | '.join(cells)} | {row['gradients']['ratio']:,.0f} |")
    return "\n".join(lines)


def main(_: Any) -> None:
    """Measures, or prints or writes the table."""
    if _TABLE.value or _WRITE.value:
        print(table())
        if _WRITE.value:
            put(_PAGE, "benchmarks.conv_clip", table())
        return
    for shape in SHAPES:
        found = measure(shape)
        record("conv_clip", found)
        print(shape, found, flush=True)


if __name__ == "__main__":
    app.run(main)
