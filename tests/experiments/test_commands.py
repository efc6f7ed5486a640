"""The commands from end to end, as a user runs them."""

import functools
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from gan_jax import runs
from gan_jax.runs.experiment_file import describe
from tests.data.test_data import folder
from tests.processes import CONFORMANCE, ROOT, metrics, result, run

SMALL = (
    "--config.steps=40",
    "--config.steps_per_dispatch=10",
    "--config.report_every=20",
    "--config.sample_every=20",
    "--config.checkpoint_every=20",
    "--config.width=8",
)


def size(path):
    with Image.open(path) as picture:
        return picture.size


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The workdir of a short run of the default config, and what it printed."""
    workdir = tmp_path_factory.mktemp("default") / "run"
    return workdir, run("train", f"--workdir={workdir}", *SMALL, fresh=True, quick=True)


@pytest.mark.xdist_group("commands")
def test_training_tells_what_a_person_wants_to_know(trained):
    _, output = trained
    assert "1,797 examples" in output and "(8, 8, 1)" in output and "from -1 to 1" in output and "no labels" in output
    assert output.index("1,797") < output.index("compiling for 1 cpu device") < output.index("compiled in")
    assert re.search(r"generator +[\d,]+\n +input/kernel +\(64, \d+\) +[\d,]+", output)
    assert re.search(r"step 40/40  images 2,560  [\d,]+ images/s  ETA 0:00:00\n  discriminator/loss [\d.]+", output)
    assert "memory per device" in output and "done: step 40" in output
    assert len(output.splitlines()) < 40, "chatter of other libraries"


def test_a_second_start_compiles_nothing_anew(tmp_path):
    """By default, programs are in the user's cache directory, by kind of processor; a flag sets another directory."""
    default = {"JAX_COMPILATION_CACHE_DIR": "", "XDG_CACHE_HOME": str(tmp_path / "home")}

    def kept(name, *flags):
        run("train", f"--config={CONFORMANCE}", f"--workdir={tmp_path / name}", "--config.steps=20", *flags, **default)
        return {path.name for path in tmp_path.rglob("*-cache")}

    first = kept("first")
    [processor] = (tmp_path / "home" / "gan_jax").iterdir()
    assert first and {path.name for path in processor.glob("*-cache")} == first
    assert kept("second") == first
    shutil.rmtree(processor)
    assert kept("none", "--compilation_cache=") == set()
    assert len(kept("elsewhere", f"--compilation_cache={tmp_path / 'there'}")) == len(first)
    (tmp_path / "file").touch()
    refused = run(
        "train", f"--workdir={tmp_path / 'bad'}", f"--compilation_cache={tmp_path / 'file' / 'x'}", code=2, **default
    )
    assert "--compilation_cache=" in refused and "cannot be created" in refused


@pytest.mark.xdist_group("commands")
def test_training_leaves_a_complete_record(trained):
    workdir, _ = trained
    record = json.loads((workdir / "config.json").read_text())
    assert record["config"]["steps"] == 40 and record["config"]["width"] == 8 and record["platform"] == "cpu"
    assert {"jax", "flax", "optax", "orbax-checkpoint", "python", "gan_jax"} <= set(record["versions"])
    assert [line["step"] for line in metrics(workdir)] == [20, 40]
    assert {"discriminator/loss", "generator/loss", "generator/gradient_norm", "images"} <= set(metrics(workdir)[0])
    ending = result(workdir)
    assert (ending["status"], ending["step"], ending["images"]) == ("done", 40, 2560)
    assert re.fullmatch("[0-9a-f]{64}", ending["state_sha256"]) and ending["metrics"]["step"] == 40
    for step in (20, 40):
        assert size(workdir / "samples" / f"step_{step:08d}.png") == (8 * 42 + 2, 8 * 42 + 2)
    assert list((workdir / "tensorboard").iterdir())


@pytest.mark.xdist_group("commands")
def test_the_same_command_again_is_done_and_more_steps_continue(trained, tmp_path):
    workdir, _ = trained
    before = result(workdir)
    assert "done: step 40" in run("train", f"--workdir={workdir}", *SMALL)
    assert result(workdir) == before and len(metrics(workdir)) == 2


@pytest.mark.xdist_group("commands")
def test_the_record_keeps_what_ran_before(trained, tmp_path):
    workdir = shutil.copytree(trained[0], tmp_path / "run")
    run("train", f"--workdir={workdir}", *SMALL[1:], "--config.steps=60", "--config.steps_per_dispatch=5")
    record = json.loads((workdir / "config.json").read_text())
    assert record["config"]["steps"] == 60 and result(workdir)["step"] == 60
    assert [earlier["config"]["steps"] for earlier in record["history"]] == [40]
    (workdir / "experiment.py").unlink()
    assert "the copy of its experiment file, is missing" in refused(f"--workdir={workdir}", *SMALL[1:])


@pytest.mark.xdist_group("commands")
def test_sampling(trained, tmp_path):
    workdir, _ = trained
    out = tmp_path / "new" / "grid.png"
    printed = run("sample", f"--workdir={workdir}", "--num=64", f"--out={out}", "--seed=0", fresh=True)
    assert "64 samples of step 40" in printed
    assert size(out) == (8 * 42 + 2, 8 * 42 + 2)
    arrays = {}
    for name, flags in {
        "a": (), "same": (), "other": ("--seed=1",), "narrow": ("--truncation=0.1",), "path": ("--interpolate=4",)
    }.items():  # fmt: skip
        run("sample", f"--workdir={workdir}", "--num=8", f"--out={tmp_path / name}.npy", *flags)
        arrays[name] = np.load(tmp_path / f"{name}.npy")
    assert arrays["a"].shape == (8, 8, 8, 1)
    np.testing.assert_array_equal(arrays["a"], arrays["same"])
    assert not np.array_equal(arrays["a"], arrays["other"])
    assert arrays["narrow"].std(axis=0).mean() < 0.5 * arrays["a"].std(axis=0).mean()
    steps = np.abs(np.diff(arrays["path"].reshape(2, 4, -1), axis=1)).mean(-1)
    ends = np.abs(arrays["path"].reshape(2, 4, -1)[:, 0] - arrays["path"].reshape(2, 4, -1)[:, -1]).mean(-1)
    assert np.all(steps < ends[:, None]), "the path does not go from one end to the other by small steps"


@pytest.mark.xdist_group("commands")
def test_three_lines_of_python_load_and_sample(trained):
    workdir, _ = trained
    from gan_jax import load

    samples = load(workdir).sample(5)
    assert samples.shape == (5, 8, 8, 1) and np.abs(samples).max() <= 1
    assert load(workdir, step=20).step == 20


def test_dry_run_trains_nothing_and_writes_nothing(tmp_path):
    workdir = tmp_path / "run"
    output = run("train", f"--workdir={workdir}", "--dry_run", *SMALL)
    assert "1,797 examples" in output and "generator" in output and "memory per device" in output
    assert "images/s" not in output and not workdir.exists()


def test_help_explains():
    for command in ("train", "sample", "translate", "evaluate", "sweep"):
        output = run(command, "--help", fresh=command == "train")
        lines = output.splitlines()
        assert f"gan-jax {command} --" in output and "--workdir" in output and len(lines) < 75
        assert max(map(len, lines)) <= 80, max(lines, key=len)
        assert ("learning_rate=0.0005 " in output) == (command in ("train", "sweep"))
    assert "--multihost" in run("train", "--helpfull") and "--multihost" not in output
    assert "steps=7 " in run("train", "--help", "--config.steps=7", "--config=ring")


def test_every_key_of_a_shipped_config_is_described():
    for name, path in runs.shipped().items():
        missing = [key for key, text in describe(runs.load_module(path)).items() if not text]
        assert not missing, (name, missing)


def refused(*flags, command="train", **env):
    output = run(command, *flags, code=2, **env)
    assert "Traceback" not in output and output.count("error:") == 1, output
    return output.split("error:")[1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.step=40"], 'Did you mean "steps"'),
        (["--workdr=x"], "Unknown command line flag 'workdr'"),
        (["--config.steps=many"], "many"),
        (["--config.steps=0"], "steps=0: expected at least 1"),
        (["--config=experiments/configs/nothing.py"], "nothing.py"),
        (["surplus"], "surplus"),
        (["--config.dtype=flot32"], "dtype='flot32': expected one of float32, bfloat16"),
        (["--config.width=0"], "width=0: expected at least 1"),
        (["--config=experiments/configs/dcgan_mnist.py"], "data_dir is missing"),
        (["--config.seed=9223372036854775808"], "seed"),
        (["--config.learning_rate=-1.0"], "learning_rate=-1.0"),
        (["--config.r1_gamma=-0.5"], "gamma=-0.5"),
        (
            ["--config=experiments/configs/dcgan_mnist.py", "--config.data_dir=/nonexistent"],
            "'/nonexistent' does not exist",
        ),
        (["--config=experiments/configs/ring.py", "--config.update_rule=both"], "update_rule='both': expected one of"),
        (["--config=experiments/configs/vanilla_mnist.py", "--config.objective=hinge"], "objective='hinge'"),
    ],
)
def test_bad_flags(tmp_path, flags, message):
    workdir = [] if any("workdr" in flag for flag in flags) else [f"--workdir={tmp_path / 'run'}"]
    assert message in refused(*workdir, *flags)


def test_no_workdir():
    assert "--workdir is missing" in refused(*SMALL)


def test_unknown_tfds_name(tmp_path, tfds_dir):
    other = tmp_path / "mnist.py"
    text = (ROOT / "experiments" / "configs" / "dcgan_mnist.py").read_text()
    other.write_text(text.replace('tfds_images("mnist"', 'tfds_images("mnits"'))
    message = refused(f"--workdir={tmp_path / 'run'}", f"--config={other}", f"--config.data_dir={tfds_dir}")
    assert "no TFDS data set 'mnits'" in message and "'mnist'" in message


def test_folders(tmp_path):
    root = folder(tmp_path / "pets")
    config = (
        f"--workdir={tmp_path / 'run'}",
        "--config=experiments/configs/dcgan_folder.py",
        f"--config.data_dir={root}",
    )
    wrong = refused(*config, "--config.num_classes=3")
    assert "labels of 2 classes, but the game has labels of 3 classes" in wrong
    flat = refused(*config[:2], f"--config.data_dir={root / 'cat'}", "--config.num_classes=2")
    assert "found 0 sub-folders and 3 images outside of them" in flat
    assert "image_size=0" in refused(*config, "--config.image_size=0")
    assert "data_dir is missing" in refused(*config[:2])
    (root / "dog" / "1.png").write_bytes((root / "dog" / "1.png").read_bytes()[:200])
    assert "1.png is corrupt" in refused(*config)


@pytest.mark.parametrize("augment", ["diff", "ada"])
def test_augmentation_of_a_folder(tmp_path, augment):
    flags = (f"--config.data_dir={folder(tmp_path / 'pets')}", f"--config.augment={augment}", "--config.image_size=16")
    size = ("--config.width=4", "--config.batch_size=8", "--config.steps=20", "--config.report_every=10")
    config = "--config=experiments/configs/dcgan_folder.py"
    flags += ("--config.num_classes=2",) if augment == "diff" else ()
    run("train", f"--workdir={tmp_path / 'run'}", config, *flags, *size)
    if augment == "diff":
        check_class_names(tmp_path / "run", tmp_path)
    last = result(tmp_path / "run")["metrics"]
    assert ("discriminator/augment_probability" in last) == (augment == "ada")
    assert "augment='some'" in refused(f"--workdir={tmp_path / 'other'}", config, *flags, "--config.augment=some")


def check_class_names(workdir, home):
    """Checks that the names of the folders name the classes."""
    assert json.loads((workdir / "data.json").read_text())["class_names"] == ["cat", "dog"]
    for label in ("dog", "1"):
        run("sample", f"--workdir={workdir}", "--num=4", f"--label={label}", f"--out={home / f'{label}.npy'}")
    assert (home / "dog.npy").read_bytes() == (home / "1.npy").read_bytes()
    wrong = refused(f"--workdir={workdir}", "--label=bird", command="sample")
    assert "label=bird: expected a number, or one of cat, dog" in wrong


def test_a_batch_that_eight_devices_do_not_divide(tmp_path):
    message = refused(
        f"--workdir={tmp_path / 'run'}",
        *SMALL,
        "--config.batch_size=20",
        devices=8,
    )
    assert "batch_size=20 does not divide over 8 devices" in message


@pytest.mark.xdist_group("commands")
def test_a_workdir_of_another_config(trained, tmp_path):
    workdir, _ = trained
    message = refused(f"--workdir={workdir}", *SMALL, "--config.learning_rate=0.1")
    assert "config.learning_rate: 0.0005 there, 0.1 now" in message
    other = tmp_path / "digits.py"
    text = (ROOT / "experiments" / "configs" / "digits.py").read_text()
    other.write_text(text.replace("gans.dcgan(", "gans.vanilla("))
    assert "the experiment file" in refused(f"--workdir={workdir}", *SMALL, f"--config={other}")
    assert result(workdir)["status"] == "done"


@pytest.mark.xdist_group("commands")
def test_sampling_from_nothing_and_with_wrong_labels(trained, tmp_path):
    workdir, _ = trained
    assert "is" in refused(f"--workdir={tmp_path}", command="sample")
    sample = functools.partial(refused, f"--workdir={workdir}", command="sample")
    assert "label was given, but this game is unconditional" in sample("--label=3")
    assert "truncation=nan" in sample("--truncation=nan")
    assert "--out=grid.psd" in sample("--out=grid.psd")
    assert "no checkpoint of step 7: it has [20, 40]" in refused(f"--workdir={workdir}", "--step=7", command="sample")
    assert "--interpolate=3" in refused(f"--workdir={workdir}", "--interpolate=3", "--num=64", command="sample")


def test_a_diverged_run_keeps_and_names_its_last_good_checkpoint(tmp_path):
    flags = (
        f"--workdir={tmp_path / 'run'}",
        f"--config={CONFORMANCE}",
        "--config.steps=200",
        "--config.poison_from=130",
    )
    output = run("train", *flags, code=3)
    assert "not finite: " in output and "the last good checkpoint, of step 100, is kept" in output
    assert "another workdir" in output
    ending = result(tmp_path / "run")
    assert ending["status"] == "diverged" and ending["checkpoint"] == 100
    assert [line["step"] for line in metrics(tmp_path / "run")] == [20, 40, 60, 80, 100, 120]
