"""Times PyTorch's loops of one case, in a process of its own: it may crash, or hang as it compiles, without harm.

Prints a line of JSON for each mode, as soon as it is timed.
"""

import json
import os
import sys
from typing import Any


def main() -> None:
    """Times the modes."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # this process leaves the accelerator to PyTorch
    import torch  # noqa: PLC0415 - not everywhere; and the variable is read first

    from benchmarks.accelerator.supervise import die_with_parent  # noqa: PLC0415
    from benchmarks.measure import in_turn  # noqa: PLC0415
    from benchmarks.step_cases import CASES  # noqa: PLC0415
    from benchmarks.torch_steps import direct_operations, theirs  # noqa: PLC0415

    die_with_parent()
    asked = json.loads(sys.argv[1])
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = asked["precision"] != "float32"
    cuda, lazy = torch.cuda.is_available(), CASES[asked["name"]].r1
    if asked["gpu"] and not cuda:
        raise SystemExit("this PyTorch does not see the GPU")
    dtype = "bfloat16" if asked["precision"] == "bfloat16" else "float32"
    for mode in asked["modes"]:
        found: dict[str, Any] = {"mode": mode, "torch": torch.__version__}
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        try:
            run = theirs(asked["name"], mode, dtype, asked["batch"])
            if mode == "eager":
                found["direct_gflop"] = direct_operations(asked["name"], run) / 1e9
            rounds, seconds = (1, 0.0) if asked["tiny"] else (5, 0.3)
            taken = in_turn({mode: run}, rounds=rounds, seconds=seconds, warm=not asked["tiny"])[mode]
        except Exception as error:
            found["error"] = f"{type(error).__name__}: {error}"[:300]
        else:
            found["milliseconds"] = [x * 1e3 / (lazy[1] if lazy else 1) for x in taken]
            found["memory"] = torch.cuda.max_memory_allocated() if cuda else None
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
