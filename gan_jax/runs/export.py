"""Export of a trained game to a folder that JAX alone can use: `export("runs/digits", "digits_model")`."""

import contextlib
import dataclasses
import hashlib
import io
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from PIL import Image

from gan_jax.host import check_writable, replacing, user_path, write_json
from gan_jax.runs import card, evaluations, programs
from gan_jax.runs.exported import CARD, FORMAT, PICTURE, RECORD, WEIGHTS, Exported, is_exported, needed
from gan_jax.runs.load import Run
from gan_jax.runs.programs import (
    CODES,
    DECODE,
    ENCODE,
    INPUTS,
    KEY,
    LABEL,
    LATENTS_OF_PRIOR,
    LIKE,
    SAMPLE,
    TRUNCATION,
    Program,
    Z,
)  # fmt: skip
from gan_jax.runs.settings import is_place
from gan_jax.runtime import Film, Trained, environment, state_sha256
from gan_jax.runtime.sampling import begin_outputs, begin_pictures, begin_samples
from gan_jax.runtime.train import read_data
from gan_jax.runtime.workdir import read_record
from gan_jax.types import InvalidInputError

_GENERATOR = "generator.stablehlo"  # file of `sample`; other functions have files of their names
_CHECKED = 8  # examples of the comparison with the game
_TOLERANCE = 1e-4  # of the largest value in it


def export(
    workdir: str | pathlib.Path,
    out: str | pathlib.Path,
    *,
    step: int | str | None = None,
    raw: bool = False,
    functions: Sequence[str] | None = None,
    batch: int | None = None,
    platforms: Sequence[str] = programs.PLATFORMS,
    license: str = "unknown",
    values: Mapping[str, Any] = MappingProxyType({}),
    log: Callable[[str], None] = print,
) -> Exported:
    """Exports a trained game to a folder, which needs neither this library nor the experiment file to be used.

    The folder has each function of the game as a program for `jax.export.deserialize`, with the averaged weights inside
    (`generator.stablehlo` is `sample`); the weights as `model.safetensors`; `config.json`; a model card, `README.md`,
    with the metrics of `eval.jsonl`; and `samples.png`. Each program is compared with the game before it is kept.

    This runs the code in the workdir: export only what you would run. The folder has no code.

    Args:
      workdir: workdir of the run, or its URL in a bucket.
      out: folder to write; a new one, an empty one, or one of an earlier export, which is replaced.
      step: step of the checkpoint, or `'best'`; by default the newest.
      raw: whether to take the generator itself instead of its average.
      functions: names of the functions; by default all that can be exported.
      batch: size of the batch, for games that cannot be exported for all sizes; None for any.
      platforms: platforms that the programs can be compiled for.
      license: licence of the weights, for the model card: an identifier such as `apache-2.0`.
      values: values of the config's keys that replace those of the run, such as `data_dir`.
      log: receives messages.

    Returns:
      The exported model, read from the folder.

    Raises:
      InvalidInputError: if the workdir has no such checkpoint, the game cannot be exported, or the folder has other
        files.
    """
    for module in ("flatbuffers", "safetensors"):
        needed(module)
    folder = user_path(out, "out")
    earlier = _earlier(folder)
    with contextlib.closing(Run(workdir, log=log, values=values)) as run:
        trained = run.restore(step)
        facts: dict[str, Any] = {
            "step": trained.step,
            "images": trained.step * trained.experiment.batch_size,
            "state_sha256": state_sha256(trained.state),
            "weights": "raw" if raw or not trained.state.ema else "ema",
        }
        if raw:
            trained = dataclasses.replace(trained, state=trained.state.replace(ema={}))
        names = list(functions or programs.exportable(trained))
        if not names:
            raise InvalidInputError(f"{run.workdir}: its game has no function that can be exported")
        described = programs.describe(trained, names, batch=batch, log=log)
        made = dict[str, Program]()
        for name, function in described.items():
            log(f"exporting {name} for {', '.join(platforms)}")
            made[name] = programs.program(trained, function, name, platforms)
        record = _record(run, trained, made, facts | {"batch": batch, "license": license})
        record["differences"] = {name: _difference(trained, name, program, batch) for name, program in made.items()}
        _write(folder, record, _files(trained, made, record), earlier)
        exported = Exported(folder)
        if SAMPLE in made and not _same_samples(trained, exported, batch):
            log(
                "seeds differ: this game draws its latents with another key than others, so --seed=0 of the folder and "
                "of the workdir show different samples"
            )
    return exported


def _earlier(folder: pathlib.Path) -> list[str]:
    """Checks that a folder may be written; returns the files of an earlier export, which are replaced."""
    check_writable(folder, f"out={folder}")
    if is_exported(folder):
        return [*Exported(folder).record["files"], RECORD]
    if found := sorted(path.name for path in folder.iterdir()):
        raise InvalidInputError(
            f"out={folder} has other files ({', '.join(found[:3])}): name a new folder, or that of an earlier export"
        )
    return []


def _record(run: Run, trained: Trained, made: Mapping[str, Program], facts: dict[str, Any]) -> dict[str, Any]:
    """Returns the content of `config.json`, without the hashes of the files."""
    stored, prior = read_record(run.workdir), trained.experiment.game.prior
    known = SAMPLE in made and LATENTS_OF_PRIOR not in made
    scores = [line for line in evaluations.read(run.workdir / "eval.jsonl") if _is_of(line, facts)]
    return {
        "format": FORMAT,
        "library_name": "gan_jax",
        **facts,
        "platforms": list(next(iter(made.values())).exported.platforms),
        "functions": {name: _about(name, program) for name, program in made.items()},
        "prior": {"kind": prior.kind, "dim": _latents(trained, 1).shape[-1]} if known and prior is not None else None,
        "num_classes": trained.num_classes,
        "class_names": list(trained.class_names),
        "data": read_data(run.workdir)["summary"],
        "metrics": scores,
        "config_file": stored["config_file"],
        "config": {key: value for key, value in stored["config"].items() if not is_place(key)},
        "versions": environment.versions(),
    }


def _is_of(line: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    """Whether a line of `eval.jsonl` evaluates the exported weights."""
    same = all(line.get(name) == facts[name] for name in ("step", "state_sha256"))
    return same and line["protocol"].get("weights") == facts["weights"]


def _about(name: str, program: Program) -> dict[str, Any]:
    def told(tree: Any) -> Any:
        return jax.tree.map(lambda x: f"{x.dtype}[{', '.join(map(str, x.shape))}]", tree)

    exported = program.exported
    shapes, _ = jax.tree.unflatten(exported.in_tree, exported.in_avals)
    return {
        "file": _GENERATOR if name == SAMPLE else f"{name}.stablehlo",
        "inputs": list(program.inputs),
        "shapes": dict(zip(program.inputs, map(told, shapes), strict=True)),
        "output": told(jax.tree.unflatten(exported.out_tree, exported.out_avals)),
    }


def _files(trained: Trained, made: Mapping[str, Program], record: dict[str, Any]) -> dict[str, bytes]:
    """Returns the content of the files beside `config.json`, by name."""
    files = {record["functions"][name]["file"]: bytes(program.exported.serialize()) for name, program in made.items()}
    arrays = {key: x for program in made.values() for key, x in program.arrays.items()}
    metadata = {key: str(record[key]) for key in ("format", "library_name", "state_sha256", "step", "license")}
    metadata["config"] = json.dumps(record["config"])
    files[WEIGHTS] = needed("safetensors.numpy").save(dict(sorted(arrays.items())), metadata=metadata)
    if (picture := _picture(trained)) is not None:
        content = io.BytesIO()
        picture.save(content, format="PNG")
        files[PICTURE] = content.getvalue()
    return files


def _picture(trained: Trained) -> Image.Image | Film | None:
    """Draws samples; for a game that maps data the first preview, which shows what it maps beside them."""
    experiment = trained.experiment
    with jax.set_mesh(trained.mesh):
        pictures = begin_pictures(experiment, trained.state, jax.random.key(0))
    order = sorted(pictures, key=lambda name: bool(name) == (experiment.game.prior is not None))
    if not order:
        return None
    images, columns = pictures[order[0]]
    return experiment.preview(np.asarray(images), columns)


def _write(folder: pathlib.Path, record: dict[str, Any], files: dict[str, bytes], earlier: Sequence[str]) -> None:
    """Writes a folder; its record comes last, so that a folder that is not complete has none that fits."""
    name = folder.resolve().name
    files[CARD] = card.text(record, name, PICTURE if PICTURE in files else None).encode()
    hashes = {key: hashlib.sha256(content).hexdigest() for key, content in files.items() if key != CARD}
    try:
        for key in earlier:
            (folder / key).unlink(missing_ok=True)
        for key, content in files.items():
            with replacing(folder / key, "wb") as file:
                file.write(content)
        write_json(folder / RECORD, record | {"files": hashes})
    except OSError as error:
        raise InvalidInputError(f"out={folder} cannot be written: {error}") from error


def _latents(trained: Trained, n: int) -> Any:
    prior = trained.experiment.game.prior
    if prior is None:
        raise InvalidInputError("this game has no latents")
    return prior.sample(jax.random.split(jax.random.key(0), 3)[0], n)


def _difference(trained: Trained, name: str, program: Program, batch: int | None) -> float:
    """Compares a program with the game's function, on this machine.

    Returns:
      The largest difference between their outputs, relative to the largest output.

    Raises:
      InvalidInputError: if it is too large.
    """
    experiment, state, key = trained.experiment, trained.state, jax.random.key(0)
    count, words = batch or _CHECKED, jax.random.key_data(key)
    label = np.arange(count, dtype=np.int32) % (trained.num_classes or 1)
    given: dict[str, Any] = {KEY: words, LABEL: label, TRUNCATION: np.float32(1.0), LIKE: label}
    labelled: dict[str, Any] = {LABEL: label} if LABEL in program.inputs else {}
    if name == LATENTS_OF_PRIOR:
        wanted: Any = experiment.game.prior.sample(key, count) if experiment.game.prior is not None else None
    else:
        given |= _inputs(trained, name, count, key)
        x = next(given[kind] for kind in (Z, INPUTS, CODES) if kind in given)
        with jax.set_mesh(trained.mesh):
            if name == SAMPLE:
                wanted = begin_samples(experiment, state, key, count, inputs=x, **labelled)
            else:
                wanted = begin_outputs(experiment, name, state, key, {INPUTS: x, **labelled})
    made = program.exported.call(*(given[kind] for kind in program.inputs))
    pairs = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in _paired(made, wanted)]
    largest = max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-6)) for a, b in pairs)
    if not largest <= _TOLERANCE:
        raise InvalidInputError(
            f"{name}: the exported program differs from the game by {largest:.2g} of the largest value, and must not "
            f"by more than {_TOLERANCE}; is its output a function of its inputs alone?"
        )
    return largest


def _paired(made: Any, wanted: Any) -> Iterator[tuple[Any, Any]]:
    return zip(jax.tree.leaves(made), jax.tree.leaves(wanted), strict=True)


def _inputs(trained: Trained, name: str, count: int, key: jax.Array) -> dict[str, Any]:
    """Returns what a function maps: latents, examples, or codes."""
    game = trained.experiment.game
    if name == SAMPLE and game.prior is not None:
        return {Z: _latents(trained, count)}
    if name == DECODE and ENCODE not in game.functions:
        return {CODES: _latents(trained, count)}
    examples = trained.experiment.examples.read(0, count)
    if name != DECODE:
        return {INPUTS: examples[programs.mapped_part(name, examples)]}
    with jax.set_mesh(trained.mesh):
        return {CODES: begin_outputs(trained.experiment, ENCODE, trained.state, key, {INPUTS: examples[INPUTS]})}


def _same_samples(trained: Trained, exported: Exported, batch: int | None) -> bool:
    """Whether the folder draws the samples of the workdir from a seed."""
    if trained.experiment.game.prior is None:
        return True
    made, wanted = (x.sample(batch or _CHECKED, seed=0) for x in (exported, trained))
    return bool(np.abs(made - wanted).max() <= _TOLERANCE * max(np.abs(wanted).max(), 1e-6))
