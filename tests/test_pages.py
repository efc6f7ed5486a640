"""The pages for users with their own data, experiments and games: their programs run, their tables are complete."""

import ast
import dataclasses
import re
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from gan_jax import core, gans, runs, runtime
from tests.conformance.games import Z, conv, conv_critic
from tests.processes import ROOT, run, start_module


def page(name):
    return (ROOT / "docs" / f"{name}.md").read_text()


def programs(name):
    """Returns the programs of a page, each with the heading above it."""
    found = []
    for part in re.split(r"^## ", page(name), flags=re.MULTILINE):
        heading, _, text = part.partition("\n")
        found += [(heading, program) for program in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The directory of files that the programs read."""
    home, random = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    images = random.integers(0, 256, (6, 32, 32, 3), np.uint8)
    np.save(home / "images.npy", images)
    np.save(home / "labels.npy", np.arange(6) % 2)
    for i, image in enumerate(images):
        for where in (f"photos/{'cat' if i % 2 else 'dog'}", "edges"):
            (home / where).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(home / where / f"{i}.png")
        for part in (
            "facades/A/train",
            "facades/B/train",
            *(f"horses/{x}" for x in ("trainA", "trainB", "testA", "testB")),
        ):
            (home / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(home / part / f"{i}.png")
    with tarfile.open(home / "shard.tar", "w") as shard:
        for path in sorted((home / "edges").iterdir()):
            shard.add(path, path.name)
    (home / "clips").mkdir()
    for i in range(2):
        video = [Image.fromarray(x) for x in random.integers(0, 256, (6, 16, 16, 3), np.uint8)]
        video[0].save(home / "clips" / f"{i}.gif", save_all=True, append_images=video[1:])
    return home


DATA = programs("your_own_data")


@pytest.mark.parametrize("index", range(len(DATA)), ids=[heading for heading, _ in DATA])
def test_data_of_your_own(index, files, monkeypatch):
    heading, program = DATA[index]
    if "import datasets" in program:
        pytest.importorskip("datasets")
    monkeypatch.chdir(files)
    namespace = {"__name__": "program"}
    exec(compile(program, f"your_own_data.md, {heading}", "exec"), namespace)
    source = namespace["source"]
    assert source.name in source.summary() and len(source.fingerprint()) == 64
    feed = source.feed(0, 1, 4, np.arange(4))
    batch = feed.fetch(feed.data, jax.tree.map(lambda x: x[0], next(feed.stream(0, 1))), jnp.int32(0))
    assert {name: x.shape[2:] for name, x in batch.items()} == {name: x.shape for name, x in source.spec.items()}
    for name, values in batch.items():
        assert name == "label" or (np.abs(values) <= 1).all(), name


def test_an_experiment_of_your_own(tmp_path):
    (_, program), (_, notebook) = programs("your_own_experiment")
    (tmp_path / "mine.py").write_text(program)
    flags = ("--config.steps=4", "--config.steps_per_dispatch=2", "--config.report_every=2", "--config.width=8")
    output = run("train", f"--config={tmp_path / 'mine.py'}", f"--workdir={tmp_path / 'run'}", *flags)
    assert "done: step 4" in output
    assert len(notebook.splitlines()) < 15
    few = f'"{tmp_path / "mine.py"}", steps=4, steps_per_dispatch=2, report_every=2, checkpoint_every=4, width=8'
    notebook = notebook.replace('"mine.py", steps=500', few).replace("runs/notebook", str(tmp_path / "notebook"))
    (tmp_path / "notebook.py").write_text(f"{notebook}\nprint(samples.shape, picture.size)\n")
    code, printed = start_module("tests.program", str(tmp_path / "notebook.py")).finish()
    assert code == 0 and "(16, 8, 8, 1)" in printed, printed


@pytest.mark.slow
def test_samples_of_a_fitted_prior(tmp_path, monkeypatch):
    made = runs.build("vae_digits", steps=2, steps_per_dispatch=1, report_every=2, checkpoint_every=2, sample_every=0)
    monkeypatch.chdir(tmp_path)
    runtime.train(made, "runs/vae_digits", log=lambda message: None)
    ((_, program),) = programs("gans_and_vaes")
    namespace = {"__name__": "program"}
    exec(compile(program, "gans_and_vaes.md", "exec"), namespace)
    assert namespace["samples"].shape == (64, 8, 8, 1)


def test_every_field_of_an_experiment_is_told():
    text = page("your_own_experiment")
    rows = dict(re.findall(r"^\| `(\w+)`( \*)? \|", text, re.MULTILINE))
    assert set(rows) == {field.name for field in dataclasses.fields(runtime.Experiment)}
    free = {name for name, about in runtime.settings().items() if about["free"]}
    assert {name for name, star in rows.items() if star} == free


def test_games_of_your_own():
    lsgan, grey, line = (program for _, program in programs("adding_a_gan"))
    namespace = {"__name__": "program"}
    exec(compile(lsgan, "adding_a_gan.md, LSGAN", "exec"), namespace)
    exec(compile(grey, "adding_a_gan.md, a term", "exec"), namespace)
    listed = ast.literal_eval(line.strip().partition(":")[0])
    assert listed == "lsgan"
    small = namespace["lsgan"](conv(), conv_critic(), Z), (8, 8, 8, 1)
    for made, shape in (small, (namespace["game"], (8, 16, 16, 3))):
        real = jnp.zeros(shape)
        state = made.init(jax.random.key(0), {"real": real})
        _, accumulator = core.make_step(made)(state, {"real": real[None]})
        assert all(np.isfinite(value) for value in core.accumulator_means(accumulator).values())


def test_terms_and_examples_that_are_named_exist():
    text = page("adding_a_gan")
    for name in re.findall(r"`(\w+)`", text.partition("have those of the papers:")[2].partition("One of")[0]):
        assert hasattr(gans.terms, name) or hasattr(gans.heads, name), name
    told = dict(re.findall(r"^\| \[(\w+)\.py\]\(examples/\1\.py\) \| (\d+) \|", text, re.MULTILINE))
    files = {path.stem: len(path.read_text().splitlines()) for path in (ROOT / "docs" / "examples").glob("*.py")}
    assert {name: int(count) for name, count in told.items()} == files and max(files.values()) < 80
