"""Hashes of every config's state after 50 iterations, to show whether a change of the library changes any number.

Hashes depend on the kind of processor and the version of JAX, so both versions of the library must run on the same
machine: run this file once with the library of each commit. Networks are narrow where a step would take seconds. With
--half_way a run stops after 25 iterations. Run it again with the same --workdir and the other library, without
--half_way, to check that the other library continues its checkpoint.

git worktree add BEFORE COMMIT
PYTHONPATH=BEFORE python benchmarks/golden_states.py --data_dir=DIR --record=COMMIT     runs the library of COMMIT
PYTHONPATH=. python benchmarks/golden_states.py --data_dir=DIR --record=HEAD            runs the current library
python -m benchmarks.golden_states --table                                              prints the recorded hashes
"""

import json
import pathlib
import tempfile
from typing import Any

import jax
from absl import app, flags
from PIL import Image

import gan_jax
from gan_jax import data, runtime
from gan_jax.runs import load_module
from gan_jax.runtime.environment import versions

_DATA = flags.DEFINE_string("data_dir", "", "directory in which TFDS prepared mnist and cifar10_jpeg")
_RECORD = flags.DEFINE_string(
    "record", "", "name of the library's commit in the results; if empty, hashes are only printed"
)
_WORKDIR = flags.DEFINE_string("workdir", "", "directory of the runs; a temporary one by default")
_HALF = flags.DEFINE_bool("half_way", False, "stop after 25 iterations")
_ONLY = flags.DEFINE_list("only", None, "names of configs; all by default")
_TABLE = flags.DEFINE_bool("table", False, "run nothing: print the recorded hashes")
STEPS = 50
NARROW: dict[str, dict[str, Any]] = {
    "cgan_mnist": {"width": 8},
    "dcgan_folder": {"width": 8, "image_size": 16, "augment": "diff"},
    "dcgan_mnist": {"width": 8},
    "digits": {},
    "ring": {},
    "sngan_cifar10": {"generator_width": 8, "discriminator_width": 8},
    "stacked_mnist": {"width": 8},
    "stylegan2_cifar10": {
        "fmap_base": 256, "fmap_max": 16, "latents": 16, "style_size": 16, "batch_size": 32,
        "path_length_weight": 2.0, "style_mixing": 0.9,
    },
    "vanilla_mnist": {},
    "wgan_gp_mnist": {"width": 8},
}  # fmt: skip


def images(home: pathlib.Path) -> str:
    """Fills a folder with images, and returns its path."""
    home.mkdir(exist_ok=True)
    for index, digit in enumerate(data.digits(labels=False).arrays["real"][:200, ..., 0]):
        Image.fromarray(((digit + 1) * 127.5).round().astype("uint8")).save(home / f"{index}.png")
    return str(home)


def main(argv: list[str]) -> None:
    """Runs the configs, or prints the recorded hashes."""
    del argv
    results = pathlib.Path(__file__).parent / "results" / "golden_states.jsonl"
    if _TABLE.value:
        lines = [json.loads(line) for line in results.read_text().splitlines()]
        commits = list(dict.fromkeys(line["library"] for line in lines))
        found = {(line["config"], line["library"]): line["state_sha256"][:12] for line in lines}
        for name in NARROW:
            print(name, *(found.get((name, commit), "-") for commit in commits), sep="  ")
        return
    home = pathlib.Path(_WORKDIR.value or tempfile.mkdtemp())
    home.mkdir(parents=True, exist_ok=True)
    library = pathlib.Path(gan_jax.__file__).parents[1]
    print(f"the library in {library}", flush=True)
    for name in _ONLY.value or NARROW:
        module = load_module(library / "experiments" / "configs" / f"{name}.py")
        config = module.get_config()
        config.update(NARROW[name] | {"steps": 25 if _HALF.value else STEPS, "steps_per_dispatch": 5})
        config.update({"report_every": 25, "checkpoint_every": 25, "sample_every": 0})
        if "data_dir" in config:
            config.data_dir = images(home / "pictures") if name == "dcgan_folder" else _DATA.value
        workdir = home / name
        workdir.mkdir(exist_ok=True)
        ended = runtime.train(module.build(config), workdir, log=lambda message: None)
        print(f"{name:20} {ended.state_sha256}", flush=True)
        if _RECORD.value:
            facts = {"config": name, "library": _RECORD.value, "steps": ended.step, "state_sha256": ended.state_sha256}
            losses = {key: value for key, value in ended.metrics.items() if key.endswith("/loss")}
            with results.open("a") as file:
                file.write(json.dumps(facts | {"losses": losses, "versions": versions()}) + "\n")
        jax.clear_caches()


if __name__ == "__main__":
    app.run(main)
