"""Downloads the weights of feature networks, which fid and other metrics need.

  gan-jax fetch fid

Names, with the file, its size, and the metrics that need it:
  fid             Inception, 96 MB: fid, kid, inception_score, prdc
  dinov2          DINOv2 ViT-L/14, 1.2 GB: fd_dinov2, kd_dinov2, prdc_dinov2
  dinov2_vitb14   DINOv2 ViT-B/14, 346 MB
  clip            CLIP ViT-L/14 at 336 pixels, 934 MB: cmmd

Each file comes from the address at which its authors publish it, is checked
against the sha256 that gan_jax knows, and is put into $GAN_JAX_WEIGHTS, or
~/.cache/gan_jax/weights, where gan-jax evaluate finds it. A download that
breaks off is continued by the next call. Nothing is downloaded but what you
name here; no other command connects to these addresses.
"""

import sys
import time

from gan_jax.cli import flags as commands
from gan_jax.cli import kinds
from gan_jax.feature_networks.fetch import NETWORKS, fetch
from gan_jax.runtime.progress import duration, moves
from gan_jax.types import InvalidInputError

TAKES_NAMES = True

_DIRECTORY = kinds.path("directory", None, "directory for the files; default: $GAN_JAX_WEIGHTS, or in ~/.cache")
_EVERY = 10.0  # seconds between lines of the log


class _Progress:
    """Prints the progress of a download: in one line that changes, or in a file as lines."""

    def __init__(self) -> None:
        self._shown = 0.0

    def __call__(self, done: int, size: int, seconds: float) -> None:
        now, whole = time.monotonic(), done == size
        if not whole and now - self._shown < (0.5 if moves() else _EVERY):
            return
        self._shown = now
        text = f"{done / 1e6:,.0f} of {size / 1e6:,.0f} MB  ETA {duration(seconds)}"
        sys.stdout.write(f"\r{text:<60}" + ("\n" if whole else "") if moves() else f"{text}\n")
        sys.stdout.flush()


def main(*names: str) -> int:
    """Runs the command."""
    unknown = [name for name in names if name not in NETWORKS]
    if unknown or not names:
        raise InvalidInputError(
            f"names={','.join(unknown)}: expected one or more of {', '.join(NETWORKS)}, such as gan-jax fetch fid"
        )
    for name in names:
        print(f"{name}: {fetch(name, _DIRECTORY.value, progress=_Progress())} is there, with the right sha256")
    return commands.DONE
