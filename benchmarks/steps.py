"""Time of a train step compared with the same networks and update in PyTorch, in alternating turns.

A step is one iteration of the game: all critic updates, the generator's update, and a share of the lazy updates. In JAX
it is part of the compiled scan that training runs, with the data on the device. In PyTorch it is the loop that users
write, in eager mode, in the channels-last memory format, and compiled. The GAN of the first Keras tutorial is also
compared with its loop in Keras. If there is a GPU, JAX and PyTorch run on it. Needs the extra `bench`.

The floor is a lower bound of the time: the operations of our program, as counted by XLA, divided by the machine's rate
of matrix products. The direct floor is the same for the operations that PyTorch counts, with all convolutions computed
directly; Winograd's algorithm needs fewer.

python -m benchmarks.steps                       times all cases; appends to results/steps.jsonl, prints a table
python -m benchmarks.steps --only=dcgan,ring     times some cases
python -m benchmarks.steps --dtype=bfloat16      uses mixed precision in both frameworks
python -m benchmarks.steps --tf32                uses TF32 for float32 products, on a GPU that supports it
"""

from collections.abc import Sequence
from typing import Any

import jax
import torch
from absl import app, flags

from benchmarks.measure import in_turn, milliseconds, rates, ratio, record, table
from benchmarks.step_cases import CASES, WIDE, Case, ours
from benchmarks.torch_steps import direct_operations, theirs

_ONLY = flags.DEFINE_list("only", [], "names of the cases to time; all by default")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "number of turns of each contender", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 1.5, "minimum length of a turn in seconds", lower_bound=0.0)
_DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16"], "dtype of the networks' activations and products"
)
_TF32 = flags.DEFINE_bool(
    "tf32", False, "use TF32 (factors rounded to 10 bits) for float32 products on GPUs, in both frameworks"
)


def measure(name: str, case: Case, ceiling: dict[str, float]) -> list[Any]:
    """Times one case, records the result, and returns its row of the table."""
    run, flops = ours(case, _DTYPE.value)
    contenders = {"gan_jax": run}
    for mode in case.modes:
        if mode == "keras":
            from benchmarks import keras_tutorial  # noqa: PLC0415 - imports TensorFlow, which only this case needs

            contenders[mode] = keras_tutorial.loop(WIDE, case.shape, case.latents, case.batch)
        else:
            contenders[mode] = theirs(name, mode, _DTYPE.value)
    direct = direct_operations(name, contenders["eager"])
    taken = in_turn(contenders, rounds=_ROUNDS.value, seconds=_SECONDS.value)
    taken["gan_jax"] = [x / case.length for x in taken["gan_jax"]]
    if case.r1:
        taken |= {mode: [x / case.r1[1] for x in taken[mode]] for mode in case.modes}
    times = milliseconds(taken)
    fastest = min({*case.modes} - {"keras"}, key=lambda mode: times[mode]["median"])
    floor = flops / ceiling["matmul_gflops"] / 1e6
    utilisation = floor / times["gan_jax"]["median"]
    ratios = {mode: ratio(taken, mode, "gan_jax") for mode in case.modes}
    line = {"case": name, "milliseconds": times, "fastest": fastest, "ratios": ratios, "gflop": flops / 1e9}
    line |= {"direct_gflop": direct / 1e9, "direct_floor_ms": direct / ceiling["matmul_gflops"] / 1e6}
    more = {"floor_ms": floor, "utilisation": utilisation, "rates": ceiling, "dtype": _DTYPE.value, "tf32": _TF32.value}
    record("steps", line | more, torch=torch.__version__)
    others = ", ".join(f"{mode} {times[mode]['median']:.3g} ({value:.2f})" for mode, value in ratios.items())
    return [name, times["gan_jax"]["median"], others, floor, line["direct_floor_ms"], f"{utilisation:.0%}"]


def main(argv: Sequence[str]) -> None:
    """Runs the benchmark."""
    del argv
    unknown = set(_ONLY.value) - set(CASES)
    if unknown:
        raise SystemExit(f"--only={','.join(sorted(unknown))}: expected some of {', '.join(CASES)}")
    precision = "tensorfloat32" if _TF32.value else "highest"
    if jax.default_backend() == "gpu":
        jax.config.update("jax_default_matmul_precision", precision if _DTYPE.value == "float32" else "default")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = _TF32.value
    ceiling = rates(dtype=_DTYPE.value)
    print(", ".join(f"{name} {value:.0f}" for name, value in ceiling.items()), flush=True)
    rows: list[list[Any]] = [
        ["case", "gan_jax, ms", "others, ms (times as long)", "floor, ms", "direct, ms", "of the matmul rate"]
    ]
    for name in _ONLY.value or CASES:
        rows.append(measure(name, CASES[name], ceiling))
        print(" ".join(f"{x:.3g}" if isinstance(x, float) else str(x) for x in rows[-1]), flush=True)
    print(table(rows))


if __name__ == "__main__":
    app.run(main)
