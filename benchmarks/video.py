"""What clips look like in closed form: real ones, and those of trained runs, one line for each checkpoint.

python -m benchmarks.video --real --data_dir=DIR   real clips: moving digits, and MoCoGAN's shapes at 64 and 32 pixels
python -m benchmarks.video --workdir=runs/moving   clips of every checkpoint of a run of MoCoGAN
python -m benchmarks.video --table                 prints the table of all results; --write puts it into docs/video.md

Lines go to results/video.jsonl; the table has the mean over the seeds of equal runs, with its 95% interval. The
information is that of the category about the motion of a clip (its axis, or one of three kinds), of 1,000 clips that
share neither content nor motion; of unrelated ones it is below .01 bit.
"""

import json
import pathlib
import re
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

import gan_jax
from benchmarks.measure import put, record, recorded, spread, table
from gan_jax import data, metrics, runtime
from gan_jax.data import Clips
from gan_jax.eval.clips import PIXELS
from gan_jax.host import from_uint8
from gan_jax.runtime.identity import steps_in

_REAL = flags.DEFINE_bool("real", False, "measure real clips")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "directory of the TFDS data sets; empty for moving digits alone")
_WORKDIR = flags.DEFINE_string("workdir", "", "workdir of a run of MoCoGAN")
_WRITE = flags.DEFINE_bool("write", False, "write the newest results into docs/video.md")
_TABLE = flags.DEFINE_bool("table", False, "print the table of the newest results")
_PAGE = pathlib.Path(__file__).parents[1] / "docs" / "video.md"
_CLIPS, _MATRIX = 1000, 576
_ABLATIONS = {"recurrent": "no GRU", "image_critic": "no image critic"}  # by the value that is False
_GOALS = {
    **{"shapes_compact": ">= 0.95", "shapes_color": "<= 0.05", "shapes_vertical": "0.35 to 0.65"},
    **{"shapes_path": "45 to 55", "shapes_closure": "<= 2; real 2.05", "information": ">= 0.9"},
    **{f"disentanglement_{of}": ">= 0.9" for of in ("color", "size", "shape")},
    "disentanglement_path": "<= 0.2",
}


def judged(name: str, source: Clips, samples: np.ndarray, cache: pathlib.Path) -> dict[str, float]:
    """Returns the metrics of clips in [-1, 1] against a reference."""
    wanted = [f"fd_attributes{_CLIPS // 1000}k", f"{name}{_CLIPS // 1000}k"]
    mesh = runtime.make_mesh(jax.devices()[:1])
    found = runtime.Evaluator(wanted, source, mesh, cache, log=lambda message: None)([samples])
    return {key.replace(f"{_CLIPS // 1000}k", ""): value for key, value in found.items()}


def halves(source: Clips) -> tuple[Clips, np.ndarray]:
    """Returns the even videos as a reference, and clips of the odd ones."""
    clips = source.read(np.arange(len(source)))["real"]
    even = data.video_arrays(source.name, clips[::2], clip_frames=clips.shape[1])
    return even, from_uint8(clips[1::2][:_CLIPS])


def real(cache: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Yields the metrics of real clips against other real clips."""
    reference, clips = halves(data.moving_digits(labels=None))
    yield {"of": "real moving digits, 32 px"} | judged("moving_digits", reference, clips, cache)
    for size in (64, 32) if _DATA_DIR.value else ():
        source = data.tfds_videos(
            "mocogan_shapes", data_dir=_DATA_DIR.value, labels=False, clip_frames=16, every=2, split="train[:2000]",
            image_size=size,
        )  # fmt: skip
        reference, clips = halves(source)
        yield {"of": f"real shapes, {size} px"} | judged("shapes", reference, clips, cache)


def of_run(cache: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Yields the metrics of the clips of each checkpoint of a run."""
    config = json.loads((pathlib.Path(_WORKDIR.value) / "config.json").read_text())["config"]
    without = [f", {text}" for key, text in _ABLATIONS.items() if not config.get(key, True)]
    without += [", MoCoGAN's critics"] if config.get("critic", "clips") == "clips" else []
    for step in sorted(steps_in(pathlib.Path(_WORKDIR.value) / "checkpoints")):
        run = gan_jax.load(_WORKDIR.value, step)
        name = "shapes" if run.experiment.opened.spec["real"].shape[-1] == 3 else "moving_digits"
        samples = np.concatenate([run.sample(250, seed=seed) for seed in range(_CLIPS // 250)])
        found = judged(name, run.experiment.opened, samples, cache)
        grid = run.clip_matrix(_MATRIX)
        rows, columns = grid.shape[:2]
        measure = jax.jit(lambda clips: metrics.clip_attributes(clips, pixels=PIXELS))
        parts = [measure(jnp.asarray(row)).rows() for row in grid]
        attributes = metrics.ClipAttributes.of_rows(np.concatenate(parts))
        shares = {"color": attributes.color, "size": attributes.side, "path": attributes.displacement}
        shares |= {"shape": attributes.fill} if name == "shapes" else {}
        found |= {
            f"disentanglement_{key}": metrics.disentanglement(np.asarray(x).reshape(rows, columns, -1))
            for key, x in shares.items()
        }
        found["information"] = information(run, config, name)
        yield {"of": f"{name}{''.join(without)}, {step:,} iterations", "step": step, "seed": config["seed"]} | found


def information(run: runtime.Trained, config: dict[str, Any], name: str) -> float:
    """Returns the information of the category about the motion, in bits, of clips that share nothing."""
    game, prior, kinds, categories = run.experiment.game, run.experiment.game.prior, [], []
    assert prior is not None
    sample = jax.jit(lambda key, z: game.sample(run.state, key, len(z), inputs=z))
    measure = jax.jit(lambda clips: metrics.clip_attributes(clips, pixels=PIXELS))
    for key in jax.random.split(jax.random.key(7), _CLIPS // 250):
        z = prior.sample(key, 250)
        found = measure(sample(key, z))
        kinds.append(metrics.horizontal(found) if name == "shapes" else metrics.motion_kinds(found, PIXELS))
        categories.append(jnp.argmax(z[:, config["content"] : config["content"] + config["categories"]], axis=1))
    return max(0.0, metrics.mutual_information(np.concatenate(categories), np.concatenate(kinds)))


def results() -> str:
    """Returns the newest results of each kind and seed as two tables."""
    newest = {(row["of"], row.get("seed", 0)): row for row in recorded("video")}
    groups: dict[str, list[dict[str, Any]]] = {}
    # Real clips first, then equal runs together, in the order of their checkpoints.
    ordered = sorted(
        newest.values(), key=lambda row: ("step" in row, re.split(r", [\d,]+ it", row["of"])[0], row.get("step"))
    )
    for row in ordered:
        name = row["of"]
        groups.setdefault(name, []).append(row)
    parts = []
    for name in ("moving_digits", "shapes"):
        found = {of: rows for of, rows in groups.items() if any(key.startswith(f"{name}_") for key in rows[0])}
        keys = list(dict.fromkeys(key for rows in found.values() for key, x in rows[0].items() if isinstance(x, float)))
        heads = [key.removeprefix(f"{name}_").replace("_", " ") for key in keys]
        lines = []
        for of, rows in found.items():
            values = (spread([row[key] for row in rows if key in row], ".3g") for key in keys)
            lines.append([of, len(rows) if "step" in rows[0] else "", *values])
        lines += [["goal", "", *(_GOALS.get(key, "") for key in keys)]] if name == "shapes" else []
        parts.append(table([["clips", "seeds", *heads], *lines]))
    return "\n\n".join(part for part in parts if part.count("\n") > 1)


def main(_: Any) -> None:
    """Measures, or prints or writes the tables."""
    if _TABLE.value or _WRITE.value:
        print(results())
        if _WRITE.value:
            put(_PAGE, "benchmarks.video", results())
        return
    with tempfile.TemporaryDirectory() as name:
        for line in real(pathlib.Path(name)) if _REAL.value else of_run(pathlib.Path(name)):
            record("video", line)
            print(line, flush=True)


if __name__ == "__main__":
    app.run(main)
