"""Runs one part in this process; `python -m benchmarks.accelerator` starts it."""

import faulthandler
import importlib
import signal
import sys
import traceback

from benchmarks.accelerator import plan
from benchmarks.accelerator.context import Context, SkippedError, missing
from benchmarks.accelerator.supervise import die_with_parent


def main() -> int:
    """Runs the part, and records how it ended. Returns the exit code: 1 for a failure."""
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    die_with_parent()
    context = Context.parse(sys.argv[1])
    try:
        importlib.import_module(f"benchmarks.accelerator.{context.part}").run(context)
    except ModuleNotFoundError as error:
        if not missing(error):
            raise
        traceback.print_exc()
        context.record("ended", status=plan.SKIPPED, skipped=f"needs the package {missing(error)}")
        return 0
    except SkippedError as reason:
        context.record("ended", status=plan.SKIPPED, skipped=str(reason))
        return 0
    if context.failed:
        context.record("ended", status=plan.FAILED, error=f"failed: {', '.join(context.failed)}")
        return 1
    if context.left_out:
        context.record("ended", status=plan.PARTIAL, left_out=", ".join(context.left_out))
        return 0
    context.record("ended", status=plan.DONE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
