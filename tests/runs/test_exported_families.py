"""Exports of trained runs, called where nothing is installed but jax and what it needs."""

import json
import pathlib
from importlib import metadata

import numpy as np
import pytest

from tests.processes import run, start_module

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("exported families")]
BATCHES = (1, 7, 64)
PACKAGES = ("jax", "jaxlib", "numpy", "ml_dtypes", "opt_einsum", "scipy", "flatbuffers")
FAMILIES = {
    "dcgan": ("digits", {"width": 8, "steps": 100}),
    "stylegan2": (
        "stylegan2_cifar10",
        {"conditional": True, "fmap_base": 512, "fmap_max": 16, "style_size": 16, "latents": 16, "batch_size": 8}
        | {"group_size": 4, "steps": 20},
    ),
    "pix2pix": ("pix2pix_photos", {"width": 4, "steps": 40, "metrics": "", "evaluate_every": 0}),
    "vqgan": (
        "vqgan_cifar10",
        {"dataset": "digits", "channels": 1, "widths": "16,16", "groups": 4, "num_codes": 32, "perceptual": "none"}
        | {"steps": 100, "metrics": "", "evaluate_every": 0},
    ),
    "mocogan": ("mocogan_moving_digits", {"width": 4, "video_width": 4, "steps": 20}),
}
# All that a user of the folder needs, here for each size of the batch.
PROGRAM = """
import json, os, pathlib, re, sys
import jax, numpy as np
from jax import export
assert jax.__file__.startswith({plain!r}), jax.__file__

folder, record = pathlib.Path({folder!r}), json.loads((pathlib.Path({folder!r}) / "config.json").read_text())
programs = {{
    name: export.deserialize(bytearray((folder / about["file"]).read_bytes()))
    for name, about in record["functions"].items()
}}
given, key, made = np.load({given!r}), jax.random.split(jax.random.key(0), 3)[0], {{}}
for n in {batches}:
    values = {{
        "key": jax.random.key_data(jax.random.key(0)), "truncation": np.float32(1),
        "label": np.arange(n, dtype=np.int32) % (record["num_classes"] or 1), "inputs": given["inputs"][:n],
    }}
    if record["prior"]:
        values["z"] = jax.random.normal(key, (n, record["prior"]["dim"]))
    elif "latents" in programs:
        values["z"] = programs["latents"].call(jax.random.key_data(key), np.arange(n, dtype=np.int32))
    for name in [name for name in programs if name != "latents"]:
        out = programs[name].call(*(values[x] for x in record["functions"][name]["inputs"]))
        if name == "encode":
            values["codes"] = out
        for number, leaf in enumerate(jax.tree.leaves(out)):
            made[f"{{name}}.{{n}}.{{number}}"] = np.asarray(leaf)
np.savez({out!r}, **made)
os.chdir(folder)
exec(re.search(r"```python\\n(.*?)```", pathlib.Path("README.md").read_text(), re.DOTALL)[1], shown := {{}})
assert len(shown.get("images", shown.get("codes"))) == 16
loaded = sorted({{name.split(".")[0] for name in sys.modules}} & {{"gan_jax", "flax", "optax", "orbax", "jaxtyping"}})
assert not loaded, loaded
print("devices", jax.devices(), "programs", *programs, "platforms", *record["platforms"])
"""
# The same by the game itself, in a process with the same options of XLA.
GAME = """
import jax, numpy as np
import gan_jax

trained = gan_jax.load({workdir!r})
game, key, made = trained.experiment.game, jax.random.key(0), {{}}
most = max({batches})
inputs = trained.experiment.examples.read(0, most)["inputs"] if trained.experiment.conditions else np.zeros(most)
np.savez({given!r}, inputs=inputs)
for n in {batches}:
    for name in {functions}:
        function = jax.jit(game.functions[name])
        with jax.set_mesh(trained.mesh):
            if name == "sample":
                # Drawn within the program, as by trained.sample(n), latents can be rounded in another way.
                latents = game.prior and game.prior.sample(jax.random.split(key, 3)[0], n)
                out = trained.sample(n, inputs=inputs[:n] if latents is None else latents)
            elif name == "decode":
                codes = jax.jit(game.functions["encode"])(trained.state, key, inputs[:n])
                out = function(trained.state, key, codes)
            else:
                out = function(trained.state, key, inputs[:n])
        for number, leaf in enumerate(jax.tree.leaves(out)):
            made[f"{{name}}.{{n}}.{{number}}"] = np.asarray(leaf)
np.savez({out!r}, **made)
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A folder with jax and what it needs alone, as a fresh environment has them."""
    folder = tmp_path_factory.mktemp("plain")
    for package in PACKAGES:
        files = metadata.files(package) or []
        tops = {path.parts[0] for path in files} - {"..", "__pycache__"}
        for top in tops:
            place = pathlib.Path(metadata.distribution(package).locate_file(top))
            if place.exists() and not (folder / top).exists():
                (folder / top).symlink_to(place)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_a_trained_run_is_the_same_with_jax_alone(family, plain, tmp_path, request):
    config, values = FAMILIES[family]
    if config == "stylegan2_cifar10":
        values = values | {"data_dir": request.getfixturevalue("tfds_dir")}
    values = {"steps_per_dispatch": 10, "report_every": 20, "sample_every": 0, "checkpoint_every": 100} | values
    workdir, folder = tmp_path / "run", tmp_path / "model"
    run("train", f"--config={config}", f"--workdir={workdir}", *(f"--config.{k}={v}" for k, v in values.items()))
    printed = run("export", f"--workdir={workdir}", f"--out={folder}", "--license=cc0-1.0")
    assert "for cpu, cuda, tpu" in printed
    record = json.loads((folder / "config.json").read_text())
    assert record["platforms"] == ["cpu", "cuda", "tpu"]
    place = {"plain": str(plain), "folder": str(folder), "workdir": str(workdir), "given": str(tmp_path / "given.npz")}
    place |= {"batches": BATCHES, "functions": [name for name in record["functions"] if name != "latents"]}
    script, wanted, made = tmp_path / "game.py", tmp_path / "wanted.npz", tmp_path / "made.npz"
    script.write_text(GAME.format(**place, out=str(wanted)))
    code, printed = start_module("tests.program", str(script), fresh=True).finish()
    assert code == 0, printed
    script = tmp_path / "plain.py"
    script.write_text(PROGRAM.format(**place, out=str(made)))
    # Without site-packages (-S): what can be imported is in `plain`.
    options = {"before": ("-S",), "fresh": True, "PYTHONPATH": str(plain)}
    code, printed = start_module("tests.program", str(script), **options).finish()
    assert code == 0, printed
    made, wanted = np.load(made), np.load(wanted)
    assert set(made.files) == set(wanted.files) and len(made.files) >= len(BATCHES)
    differences = {}
    for key in wanted.files:
        assert made[key].shape == wanted[key].shape and np.isfinite(wanted[key]).all()
        differences[key] = float(np.abs(made[key].astype(np.float64) - wanted[key]).max())
    print(family, differences)
    assert max(differences.values()) <= 1e-6
