"""Translates a folder of pictures by a trained run, such as one of pix2pix.

  gan-jax translate --workdir=runs/mine --inputs=photos --out=translated

Every picture below --inputs is translated at its own size and written below
--out, under its name and in PNG. Where the memory of the device does not
suffice, or with --tile, it is translated in overlapping tiles, whose seams are
blended. Pictures that are in --out already are kept, so that the same command
continues what was interrupted; --overwrite translates them again. A picture
that cannot be translated is named and skipped, and the exit code is then 2.

--direction=BtoA translates back, for games that can, as CycleGAN does.
--grid=FILE draws sources and outputs side by side, and beside them those of
--targets that have the same names.

This runs the experiment file in the workdir: use only workdirs of people whose
code you would run.
"""

import dataclasses
import glob
import pathlib
import time
from collections.abc import Callable

import jax
import numpy as np
from absl import flags
from PIL import Image

from gan_jax.cli import flags as commands
from gan_jax.cli import kinds
from gan_jax.data import folder
from gan_jax.data.decode import Decoder, class_map, open_picture
from gan_jax.host import check_writable, from_uint8, to_uint8
from gan_jax.runs import Exported, load
from gan_jax.runs.pictures import PICTURES, rows, save, write
from gan_jax.runtime import Translator, duration
from gan_jax.types import InvalidInputError

_WORKDIR = kinds.path("workdir", None, "directory of the run, or its URL: gs:// or s3://", required=True, bucket=True)
_INPUTS = kinds.path("inputs", None, "directory of the pictures; those in its sub-folders too", required=True)
_OUT = kinds.path("out", None, "directory for the translations", required=True)
_STEP = kinds.step("step", None, "step of the checkpoint, or best; the newest by default", "best")
_DIRECTION = flags.DEFINE_enum("direction", "AtoB", ["AtoB", "BtoA"], "BtoA translates back, if the game can")
_TILE = flags.DEFINE_integer(
    "tile", 0, "height and width of tiles in pixels; 0 for whole pictures, if they fit into memory", lower_bound=0
)
_OVERLAP = flags.DEFINE_integer(
    "overlap", None, "pixels that tiles have in common; a quarter of a tile by default", lower_bound=0
)
_SEED = flags.DEFINE_integer("seed", 0, "seed of dropout and other noise", lower_bound=0, upper_bound=2**63 - 1)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "replace files that exist")
_GRID = kinds.path("grid", None, "picture file for sources and outputs side by side")
_TARGETS = kinds.path("targets", None, "directory of desired outputs, of the names of the inputs, for --grid")

_MOST_CLASSES = 2**16  # of maps for games that do not name their number of classes
_SHOWN = 8  # rows of the grid
_EVERY = 5.0  # seconds between lines of progress


@dataclasses.dataclass(frozen=True)
class _Job:
    """One picture: where it is, and where its translation goes."""

    name: str
    source: pathlib.Path
    out: pathlib.Path


def jobs(inputs: pathlib.Path, out: pathlib.Path) -> list[_Job]:
    """Returns the pictures below a directory; refuses those whose translations would have one name."""
    files, _ = folder.files_below(inputs)
    made: dict[pathlib.Path, _Job] = {}
    for file in files:
        name = file.relative_to(inputs)
        place = out / name.with_suffix(".png")
        if place in made:
            raise InvalidInputError(
                f"'{made[place].name}' and '{name}' would both become '{place}': rename one of them, or use two folders"
            )
        made[place] = _Job(str(name), file, place)
    return list(made.values())


def check() -> tuple[pathlib.Path, pathlib.Path]:
    """Returns the directories of the pictures and of the translations; refuses what would fail in the end."""
    inputs, out = pathlib.Path(_INPUTS.value), pathlib.Path(_OUT.value)
    if not inputs.is_dir():
        raise InvalidInputError(f"--inputs={inputs} is no directory: expected one that holds the pictures")
    if out.resolve() == inputs.resolve() or inputs.resolve() in out.resolve().parents:
        raise InvalidInputError(
            f"--out={out} is in --inputs={inputs}: expected another place, so that no input is lost"
        )
    if _OVERLAP.value is not None and _TILE.value and _OVERLAP.value > _TILE.value // 2:
        raise InvalidInputError(f"--overlap={_OVERLAP.value}: expected at most half of --tile={_TILE.value}")
    if _TARGETS.value is not None and (_GRID.value is None or not pathlib.Path(_TARGETS.value).is_dir()):
        raise InvalidInputError(f"--targets={_TARGETS.value}: expected a directory, and --grid=FILE, which shows them")
    check_writable(out, f"--out={out}")
    if _GRID.value is not None:
        check_grid(pathlib.Path(_GRID.value))
    return inputs, out


def check_grid(grid: pathlib.Path) -> None:
    """Refuses a place for the grid that it could not be written to."""
    if grid.suffix.lower() not in PICTURES:
        raise InvalidInputError(f"--grid={grid}: expected a name that ends in {', '.join(PICTURES)}")
    if grid.is_dir() or (grid.exists() and not _OVERWRITE.value):
        raise InvalidInputError(f"--grid={grid} exists: choose another name, or pass --overwrite")
    check_writable(grid.parent, f"--grid={grid}")


class _Progress:
    """Lines about the progress, every few seconds."""

    def __init__(self, total: int) -> None:
        self._total, self._began = total, time.monotonic()
        self._shown = self._began

    def __call__(self, done: int, name: str, tile: int, tiles: int) -> None:
        """Tells that `done` pictures and some tiles of the next one are done, if it is time to."""
        now, part = time.monotonic(), done + tile / tiles
        if now - self._shown < _EVERY or not part:
            return
        self._shown = now
        eta = (now - self._began) / part * (self._total - part)
        where = f", tile {tile:,} of {tiles:,} of {name}" if 0 < tile < tiles else ""
        print(f"{done:,} of {self._total:,} pictures{where}, ETA {duration(eta)}", flush=True)


def pixels(file: pathlib.Path, channels: int) -> np.ndarray:
    """Reads a picture as uint8, `[h, w, channels]`."""
    with open_picture(file, str(file)) as picture:
        return Decoder(channels).pixels(picture, str(file))


def source(file: pathlib.Path, translator: Translator) -> np.ndarray:
    """Reads a picture as the network takes it: in [-1, 1], or as a map of classes `[h, w, 1]`."""
    if np.issubdtype(translator.dtype, np.floating):
        return from_uint8(pixels(file, translator.channels))
    with open_picture(file, str(file)) as picture:
        return class_map(picture, str(file), translator.classes or _MOST_CLASSES)[..., None]


def visible(file: pathlib.Path, translator: Translator) -> np.ndarray:
    """Reads a picture for the grid: classes in the colours of their palette, or, without one, in shades of grey."""
    if np.issubdtype(translator.dtype, np.floating):
        return pixels(file, translator.channels)
    with open_picture(file, str(file)) as picture:
        if picture.mode == "P":
            return Decoder(3).pixels(picture, str(file))
        classes = class_map(picture, str(file), translator.classes or _MOST_CLASSES)[..., None]
    return (classes * 255 // max(1, classes.max())).astype(np.uint8)


def translated(job: _Job, translator: Translator, tell: Callable[[int, int], None]) -> str:
    """Translates a picture and writes it; returns what went wrong with the picture, or an empty text.

    Raises:
      InvalidInputError: if the translation cannot be written, as that of the next picture could not either.
    """
    try:
        made = to_uint8(translator(source(job.source, translator), tell))
    except InvalidInputError as error:
        return str(error)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return f"{job.source} does not fit into memory: pass --tile, or a smaller one"
    try:
        job.out.parent.mkdir(parents=True, exist_ok=True)
        save(Image.fromarray(made[..., 0] if made.shape[-1] == 1 else made), job.out)
    except OSError as error:
        raise InvalidInputError(f"{job.out} cannot be written ({error}); then the same command continues") from error
    return ""


def draw(done: list[_Job], translator: Translator) -> None:
    """Writes the grid: rows of source, output and, where it is known, target."""
    shown, grid = [], pathlib.Path(_GRID.value)
    for job in done[:_SHOWN]:
        row = [visible(job.source, translator), pixels(job.out, 3)]
        if _TARGETS.value is not None:
            place = pathlib.Path(_TARGETS.value, job.name)
            found = sorted(place.parent.glob(f"{glob.escape(place.stem)}.*"))
            row += [pixels(file, 3) for file in found[:1]]
        shown.append(row)
    if shown:
        write(grid, np.zeros(0), lambda: rows(shown), f"--grid={grid}")
        print(f"{len(shown)} of them in {grid}")


def main() -> int:
    """Runs the command."""
    inputs, out = check()
    found, step = jobs(inputs, out), _STEP.value
    waiting = [job for job in found if _OVERWRITE.value or not job.out.exists()]
    kept = len(found) - len(waiting)
    run = load(_WORKDIR.value, step if step in (None, "best") else int(step))
    if isinstance(run, Exported):
        raise InvalidInputError(
            f"--workdir={_WORKDIR.value}: an exported model translates images of its own size alone, by "
            "gan_jax.load(folder).call('translate', images): give the workdir of its run"
        )
    translator = run.translator(
        direction=_DIRECTION.value, tile=_TILE.value, overlap=_OVERLAP.value, seed=_SEED.value, log=print
    )
    if kept:
        print(f"{kept:,} of {len(found):,} pictures are in {out} already, and kept (--overwrite replaces them)")
    progress, failed = _Progress(len(waiting)), 0
    for index, job in enumerate(waiting):
        progress(index, job.name, 0, 1)
        fault = translated(job, translator, lambda tile, tiles: progress(index, job.name, tile, tiles))  # noqa: B023
        failed += bool(fault)
        if fault:
            print(f"skipped {job.name}: {fault}", flush=True)
    print(f"{len(waiting) - failed:,} pictures translated by step {run.step:,}, in {out}")
    if _GRID.value is not None:
        draw([job for job in found if job.out.exists()], translator)
    if failed:
        raise InvalidInputError(f"{failed:,} of {len(waiting):,} pictures were skipped; see above")
    return commands.DONE
