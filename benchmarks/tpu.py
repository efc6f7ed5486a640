"""Every config and game, compiled by the TPU compiler for slices of TPUs that need not be there.

It needs the extra `tpu` and no TPU. A case is a config or game, a slice, a batch size and flags that save memory. Its
programs are compiled, and a line with their costs on each chip is appended to results/tpu.jsonl. Cases that have a line
for the same program and compiler are passed over, so that a run continues where one was interrupted. Cheap cases come
first, and those of the default dtype and a growing batch before others that take as long. The time of a step is a model
(`gan_jax.runtime.forecast`), not a measurement.

python -m benchmarks.tpu --data_dir=DIR             compiles what has no line yet: many hours in all on two cores
python -m benchmarks.tpu --data_dir=DIR --minutes=60 --only=digits,ring
python -m benchmarks.tpu --commands --data_dir=DIR  records what `gan-jax train --dry_run --topology` prints
python -m benchmarks.tpu --list                     compiles nothing: prints the cases
python -m benchmarks.tpu --table                    compiles nothing: prints the tables
python -m benchmarks.tpu --write                    compiles nothing: writes them and the picture into docs/tpu.md
"""

import dataclasses
import hashlib
import importlib
import importlib.metadata
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import app, flags
from PIL import Image

from benchmarks import tpu_report, tpu_scaling
from benchmarks.measure import RESULTS, put, record, recorded
from gan_jax import eval as evals
from gan_jax import runs, runtime
from gan_jax.data import Source
from gan_jax.distributed import topology
from gan_jax.runtime import ahead
from gan_jax.runtime.forecast import Forecast
from gan_jax.sweep import Member
from gan_jax.sweep import ahead as populations

_DATA = flags.DEFINE_string("data_dir", "", "directory in which TFDS prepared mnist and cifar10_jpeg")
_ONLY = flags.DEFINE_list("only", [], "names of configs and games; all by default")
_KINDS = flags.DEFINE_list("kinds", [], "kinds of cases: see `Case`; all by default")
_MINUTES = flags.DEFINE_float("minutes", float("inf"), "begin no case after this time")
_COMMANDS = flags.DEFINE_bool("commands", False, "record what the commands on docs/tpu.md print, and no more")
_LIST = flags.DEFINE_bool("list", False, "compile nothing: print the cases")
_TABLE = flags.DEFINE_bool("table", False, "compile nothing: print the tables of the recorded results")
_WRITE = flags.DEFINE_bool("write", False, "compile nothing: write the tables and the picture into docs/tpu.md")

GAMES = importlib.import_module("tests.conformance.games").GAMES
SLICES = ("v5e:2x4", "v5e:16x16", "v6e:16x16", "v5p:8x8x8")
_STRONG = ("v5e:4x4", "v5e:4x8", "v5e:8x8", "v5e:8x16", "v5e:16x16")
_BASE = 8  # chips among which a config's own batch is divided where the batch grows with the chips
_PER_CHIP = 2  # examples on a chip, of games with small networks
# Seconds that the compilation of a config takes, roughly, on an idle machine of two cores: cheap ones come first.
_SECONDS = {
    "ring": 3, "vanilla_mnist": 3, "digits": 4, "vae_digits": 4, "cgan_mnist": 5, "r3gan_digits": 8, "vae_mnist": 8,
    "dcgan_mnist": 10, "wgan_gp_mnist": 12, "vaegan_mnist": 15, "dcgan_folder": 20, "stacked_mnist": 30,
    "r3gan_stacked_mnist": 90, "sngan_cifar10": 120, "r3gan_cifar10": 300, "r3gan_folder": 400,
    "stylegan2_cifar10": 700,
}  # fmt: skip
_UNKNOWN = 60  # seconds of other configs
CONFIGS = sorted(runs.shipped(), key=lambda name: _SECONDS.get(name, _UNKNOWN))
_SLICE = "gan-jax train --dry_run --topology=v5e:16x16 --config.batch_size=2048"
_SHOWN = (
    f"{_SLICE} --config=digits",
    f"{_SLICE} --config=wgan_gp_mnist --config.data_dir=DIR",
    f"{_SLICE} --config=stacked_mnist --config.data_dir=DIR",
    "gan-jax train --dry_run --topology=v5e:2x4 --config=digits --config.width=4096",
    "gan-jax train --dry_run --topology=v5e:2x4 --config=digits --config.width=4096 --config.fsdp=8",
    "gan-jax sweep --dry_run --topology=v5e:16x16 --config=digits --points=random --num_trials=256",
    "gan-jax train --dry_run --topology=v5e:3x3",
    "gan-jax train --dry_run --topology=v5e:16x16 --config.batch_size=1000",
)
_PARAMETERS = re.compile(r" *\S+ +(\([\d, ]*\) +)?[\d,]+$")  # a line of the table of parameters
_FSDP = {"r3gan_cifar10": 8, "stylegan2_cifar10": 8}
_SPLIT = SLICES[:2]  # where players are split
_REVISION = 1  # raise it when what `costs`, `hlo` and `forecast` find in a program changes: all are compiled again
_LATER = {"fsdp": 2, "bfloat16": 3, "strong": 8}  # these kinds of cases wait as if they took so many times as long
_MEMBERS = {"ring": 256, "digits": 256}
# Folders with data of each layout; other configs of folders read `images`.
_FOLDERS = {"pix2pix_folder": "pairs", "cyclegan_folder": "domains", "cut_folder": "domains", "videos_folder": "videos"}


@dataclasses.dataclass(frozen=True)
class Case:
    """What is compiled.

    Attributes:
      kind: table that shows it. `every`: everything, with a batch that grows with the chips; `strong`: a config's own
        batch; `bfloat16`: networks in that type; `fsdp`: players split over chips; `memory`: too large for a chip, and
        with flags that make it fit; `population`: members; `inception`.
      name: config, or `game` and a name of the conformance suite.
      topology: name of the slice.
      batch_size: examples on all chips; of a population, those of a member.
      options: values of the config.
    """

    kind: str
    name: str
    topology: str
    batch_size: int
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def seconds(self) -> float:
        """Rough duration."""
        if self.kind == "inception":
            return 600.0
        return 4.0 if self.name.startswith("game ") else float(_SECONDS.get(self.name, _UNKNOWN))

    def __str__(self) -> str:
        options = "".join(f" {key}={value}" for key, value in self.options)
        return f"{self.kind:10} {self.name:20} {self.topology:10} batch {self.batch_size}{options}"


def cases() -> list[Case]:
    """Returns all cases, cheap ones first, and each config on its first slice before it is on others."""

    def rank(case: Case) -> float:
        return case.seconds * _LATER.get(case.kind, 1) * (1 if case.topology == SLICES[0] else 16)

    return sorted(_cases(), key=rank)


def _cases() -> Iterator[Case]:
    for target in map(topology.parse, SLICES):
        yield from (Case("every", f"game {name}", target.name, _PER_CHIP * target.size) for name in GAMES)
        yield Case("inception", "inception", target.name, 64)
        for name in CONFIGS:
            own = max(_BASE, runs.load_module(runs.find(name)).get_config().batch_size)  # every chip needs an example
            yield Case("every", name, target.name, own * target.size // _BASE)
            if target.name == SLICES[0] and "dtype" in runs.load_module(runs.find(name)).get_config():
                yield Case("bfloat16", name, target.name, own, (("dtype", "bfloat16"),))
            if name in _FSDP and target.name in _SPLIT:
                yield Case("fsdp", name, target.name, own * target.size // _BASE, (("fsdp", _FSDP[name]),))
            if name in _MEMBERS and target.name == "v5e:16x16":
                yield Case("population", name, target.name, own)
    for remedy in ((), (("fsdp", 8),)):
        yield Case("memory", "digits", SLICES[0], 64, (("width", 4096), *remedy))
    for target in map(topology.parse, _STRONG):
        for name in CONFIGS:
            own = runs.load_module(runs.find(name)).get_config().batch_size
            if own % target.size == 0:
                yield Case("strong", name, target.name, own)


def build(case: Case, folder: str) -> runtime.Experiment:
    """Builds the experiment of a case; configs of a folder get one of those that `_write_folders` wrote."""
    if case.name.startswith("game "):
        make, source = GAMES[case.name.removeprefix("game ")]
        return runtime.Experiment(
            game=make(), source=lambda: source, preview=runtime.image_grid, batch_size=case.batch_size, steps=100,
            seed=0, sample_every=0, steps_per_dispatch=10, report_every=10, checkpoint_every=100,
        )  # fmt: skip
    config = runs.load_module(runs.find(case.name)).get_config()
    values: dict[str, Any] = {"batch_size": case.batch_size, **dict(case.options)}
    if "data_dir" in config:
        own = os.path.join(folder, _FOLDERS.get(case.name, "images"))
        values["data_dir"] = own if case.name.endswith("folder") else _DATA.value
    return runs.build(case.name, **values)


def lowered(
    case: Case, folder: str, sources: dict[str, Source]
) -> Iterator[tuple[ahead.Lowered, runtime.Experiment | None]]:
    """Yields the programs of a case before compilation, each with its experiment; keeps the opened source by name."""
    target = topology.parse(case.topology)
    if case.kind == "inception":
        network = evals.inception()
        extractor = evals.Extractor(network.apply, network.shapes(), {})
        yield ahead.feature_pass(case.name, extractor, (32, 32, 3), ahead.slice_mesh(target)), None
        return
    experiment = build(case, folder)
    if case.name not in sources:
        sources[case.name] = experiment.open_source()
    source = sources[case.name]
    if case.kind == "population":
        members = [Member(seed) for seed in range(_MEMBERS[case.name])]
        yield populations.lower(experiment, source, members, topology.devices(target)), experiment
        return
    mesh = ahead.slice_mesh(target, fsdp=experiment.fsdp)
    for one in ahead.programs(experiment, source, mesh, lambda message: None):
        if one.name == "training" or case.kind == "every":
            yield one, experiment


def code() -> str:
    """Returns a hash of the library and the versions of JAX and the compiler: the programs are the same if it is."""
    digest = hashlib.sha256()
    root = RESULTS.parents[1]
    for path in sorted([*root.glob("gan_jax/**/*.py"), *root.glob("experiments/**/*.py")]):
        if path.parent.name not in ("cli", "runs"):
            digest.update(path.read_bytes())
    digest.update(f"{jax.__version__} {importlib.metadata.version('libtpu')}".encode())
    return digest.hexdigest()


def run(case: Case, folder: str, sources: dict[str, Source], done: Mapping[Any, dict[str, Any]], of_code: str) -> None:
    """Compiles the programs of a case, and records those that are new."""
    for one, experiment in lowered(case, folder, sources):
        key = (dataclasses.astuple(case), one.name)
        # The program as text, and the compiler that makes the rest of it.
        text = f"{importlib.metadata.version('libtpu')} {case.topology}\n{one.lowered.as_text()}"
        program = hashlib.sha256(text.encode()).hexdigest()
        before = done.get(_frozen(key))
        if before is not None and before["program"] == program and before.get("revision", 1) == _REVISION:
            record("tpu", {**_line(before), "code": of_code})
            print(f"  {one.name}: as before", flush=True)
            continue
        busy, began = os.getloadavg()[0], time.process_time()
        found = ahead.compiled(one, topology.parse(case.topology), experiment)
        spent = round(time.process_time() - began, 1)
        print(f"  {one.name}: compiled in {found.compile_seconds:.1f} s, {spent} s of processors", flush=True)
        if case.kind == "population":
            assert not found.exchanges, f"members exchange data: {found.exchanges}"
        line = {"case": dataclasses.asdict(case), "program": program, "code": of_code, "images": one.images}
        line["revision"] = _REVISION
        line |= {"load": round(max(busy, os.getloadavg()[0]), 1), "processor_seconds": spent}
        record("tpu", line | {"costs": costs(found)})


def costs(found: Forecast) -> dict[str, Any]:
    """Returns the costs of a program as JSON."""
    exchanges = [[*one, times] for one, times in found.exchanges.items()]
    return {field.name: getattr(found, field.name) for field in dataclasses.fields(found)} | {"exchanges": exchanges}


def _line(before: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("case", "program", "images", "load", "processor_seconds", "costs", "revision")
    return {x: before[x] for x in kept if x in before}


def _frozen(key: Any) -> Any:
    return tuple(map(_frozen, key)) if isinstance(key, list | tuple) else key


def latest() -> dict[Any, dict[str, Any]]:
    """Returns the newest line of each program of each case."""
    lines = [line for line in recorded("tpu") if "case" in line]
    return {(_frozen(list(line["case"].values())), line["costs"]["program"]): line for line in lines}


def shown() -> list[dict[str, Any]]:
    """Returns the newest lines of the cases that still exist, by config and slice."""
    names = [*CONFIGS, *(f"game {name}" for name in GAMES)]
    chips = [topology.parse(name).chip for name in SLICES]

    def place(line: Mapping[str, Any]) -> tuple[int, int, int]:
        name, target = line["case"]["name"], topology.parse(line["case"]["topology"])
        return names.index(name) if name in names else len(names), chips.index(target.chip), target.size

    known = {_frozen(dataclasses.astuple(case)) for case in _cases()}
    return sorted((line for key, line in latest().items() if key[0] in known), key=place)


def missing(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Describes the cases without a line: those of each kind in one text."""
    done, left = {_frozen(list(line["case"].values())) for line in lines}, dict[str, dict[str, list[str]]]()
    for case in _cases():
        if _frozen(dataclasses.astuple(case)) not in done:
            left.setdefault(case.kind, {}).setdefault(case.name, []).append(case.topology)
    names = {
        kind: "; ".join(f"{x} on {', '.join(where)}" for x, where in found.items()) for kind, found in left.items()
    }
    return [f"{kind}: {text}" for kind, text in names.items()]


def main(argv: Sequence[str]) -> None:
    """Compiles, or prints or writes the results."""
    del argv
    wanted = [
        case
        for case in cases()
        if (not _ONLY.value or case.name in _ONLY.value) and (not _KINDS.value or case.kind in _KINDS.value)
    ]
    if _COMMANDS.value:
        record("tpu", {"printed": {command: printed(command) for command in _SHOWN}})
    elif _LIST.value:
        print("\n".join(map(str, wanted)))
    elif _TABLE.value or _WRITE.value:
        lines, commands = shown(), [line["printed"] for line in recorded("tpu") if "printed" in line]
        text = tpu_report.tables(lines, commands[-1] if commands else {}, missing(lines))
        print(text)
        if _WRITE.value:
            tpu_scaling.draw(lines, RESULTS.parents[1] / "docs" / "images" / "tpu_scaling.png")
            put(RESULTS.parents[1] / "docs" / "tpu.md", "benchmarks.tpu", text)
    else:
        compile_all(wanted)


def printed(command: str) -> str:
    """Runs a command, and returns what it prints, without the table of parameters and the progress of reading data.

    Of a command that is refused, the message and the exit code come last.
    """
    words = [word.replace("DIR", _DATA.value) for word in command.split()[1:]]
    done = subprocess.run([sys.executable, "-m", "gan_jax", *words], capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if not _PARAMETERS.match(line)]
    if done.returncode:
        message = done.stderr[done.stderr.rindex("error: ") :]
        lines += [*message.strip().splitlines(), f"exit code {done.returncode}"]
    return "\n".join(lines)


def compile_all(wanted: Sequence[Case]) -> None:
    """Compiles the cases that have no line of this code."""
    done, of_code, began, spent = latest(), code(), time.monotonic(), 0.0
    sources = dict[str, Source]()
    current = {key[0] for key, line in done.items() if line["code"] == of_code}
    left = [case for case in wanted if _frozen(dataclasses.astuple(case)) not in current]
    print(f"{len(wanted)} cases, {len(left)} without a line of this code", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        _write_folders(pathlib.Path(folder))
        for index, case in enumerate(left):
            if time.monotonic() - began > 60 * _MINUTES.value:
                break
            rate = (time.monotonic() - began) / spent if spent else 1.0
            eta = runtime.duration(rate * sum(x.seconds for x in left[index:]))
            print(f"{index + 1}/{len(left)} {case}, ETA {eta}", flush=True)
            run(case, folder, sources, done, of_code)
            spent += case.seconds
            jax.clear_caches()


def _write_folders(folder: pathlib.Path) -> None:
    """Writes noise in each of the layouts that configs read: programs depend on the data's shapes alone."""

    def picture(side: int, width: int, seed: int) -> Image.Image:
        return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, width, 3), np.uint8))

    parts = {f"domains/{split}{domain}": (256, 256) for split in ("train", "test") for domain in "AB"}
    parts |= {"pairs/train": (256, 512), "pairs/val": (256, 512), "pairs/test": (256, 512), "images": (64, 64)}
    for part, size in parts.items():
        (folder / part).mkdir(parents=True)
        for index in range(64):
            picture(*size, index).save(folder / part / f"{index}.png")
    (folder / "videos").mkdir()
    for index in range(16):
        first, *others = (picture(64, 64, 100 * index + frame) for frame in range(32))
        first.save(folder / "videos" / f"{index}.gif", save_all=True, append_images=others, duration=40)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)
    app.run(main)
