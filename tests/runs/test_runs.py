"""Runs on disk: the workdir of a notebook's run, an old workdir, and experiment files."""

import dataclasses
import json
import pathlib
import shutil
import threading

import jax
import numpy as np
import pytest

import gan_jax
from gan_jax import runs, runtime
from gan_jax.runs.experiment_file import describe, same_experiment
from gan_jax.types import InvalidInputError
from tests.processes import ROOT, run, start_module
from tests.runs.notebook import experiment

OLD = pathlib.Path(__file__).with_name("old")  # a workdir of the last commit before `gan_jax.runs`


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """The workdir of a process that trained an experiment from no file, and what it printed."""
    workdir = tmp_path_factory.mktemp("notebook") / "run"
    return workdir, start_module("tests.runs.notebook", str(workdir), "4").finish()[1]


@pytest.mark.xdist_group("notebook")
def test_a_notebook_trains_samples_loads_and_the_commands_take_its_workdir(notebook, tmp_path):
    workdir, printed = shutil.copytree(notebook[0], tmp_path / "run"), notebook[1]
    assert "done: step 4, 32 images" in printed and "cannot be kept" not in printed and "step 4/4" in printed
    samples = np.load(workdir / "samples.npy")
    trained = gan_jax.load(workdir)
    assert trained.step == 4 and samples.shape == (16, 2)
    np.testing.assert_allclose(trained.sample(16, seed=3), samples, rtol=1e-5, atol=1e-6)
    printed = start_module("tests.runs.notebook", str(workdir), "6").finish()[1]
    assert "continuing from the checkpoint of step 4" in printed and "not by its hyperparameters or code" in printed
    assert json.loads((workdir / "config.json").read_text())["config"]["steps"] == 6
    assert "trained" not in json.loads((workdir / "result.json").read_text())
    run("sample", f"--workdir={workdir}", "--num=16", "--seed=3", f"--out={tmp_path / 'a.npy'}")
    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), np.load(workdir / "samples.npy"), rtol=1e-5, atol=1e-6)
    assert "continue it from Python" in run("train", f"--workdir={workdir}", "--config=ring", code=2)
    run("evaluate", f"--workdir={workdir}", "--metrics=mixture2k")
    assert json.loads((workdir / "eval.jsonl").read_text())["step"] == 6


@pytest.mark.xdist_group("notebook")
def test_a_refused_continuation_leaves_the_stored_experiment_as_it_is(notebook, tmp_path):
    workdir = shutil.copytree(notebook[0], tmp_path / "run")
    before = (workdir / "experiment.pickle").read_bytes(), (workdir / "config.json").read_bytes()
    with pytest.raises(InvalidInputError, match="is of another game"):
        runtime.train(experiment(steps=6, width=16), workdir, log=lambda message: None)
    assert before == ((workdir / "experiment.pickle").read_bytes(), (workdir / "config.json").read_bytes())


@pytest.mark.xdist_group("notebook")
def test_an_experiment_of_another_python_is_refused(notebook, tmp_path):
    workdir = shutil.copytree(notebook[0], tmp_path / "run")
    record = json.loads((workdir / "config.json").read_text())
    record["versions"]["python"] = "3.99.1"
    (workdir / "config.json").write_text(json.dumps(record))
    with pytest.raises(InvalidInputError, match=r"is of Python 3.99.1, and this is 3"):
        gan_jax.load(workdir)


@pytest.mark.xdist_group("notebook")
def test_what_a_cell_shows_is_short(notebook):
    trained = gan_jax.load(notebook[0])
    assert len(repr(trained)) < 300 and "step=4" in repr(trained) and "steps=4" in repr(trained.experiment)
    result = runtime.Result("done", 4, 32, "", {}, 4, None, 0, trained)
    assert len(repr(result)) < 300


@pytest.mark.xdist_group("notebook")
def test_a_damaged_experiment_is_told(notebook, tmp_path):
    workdir = shutil.copytree(notebook[0], tmp_path / "run")
    (workdir / "experiment.pickle").write_bytes(b"nothing")
    with pytest.raises(InvalidInputError, match=r"experiment.pickle cannot be read .*expected the versions"):
        gan_jax.load(workdir)


def test_an_experiment_that_cannot_be_kept_trains_and_says_so(tmp_path):
    said, pictures = [], (x for x in range(3))
    made = experiment(steps=4, preview=lambda samples, columns: next(pictures))
    result = runtime.train(made, str(tmp_path / "run"), log=said.append)
    assert [message for message in said if "cannot be kept in" in message and "experiment file" in message]
    assert result.trained.mesh.size == len(jax.devices()) and result.trained.step == 4
    assert result.sample(5).shape == (5, 2)
    with pytest.raises(InvalidInputError, match=r"config.json cannot be read"):
        gan_jax.load(tmp_path / "run")


@pytest.mark.xdist_group("notebook")
def test_a_module_that_a_stored_experiment_needs_is_named(notebook, tmp_path):
    workdir = shutil.copytree(notebook[0], tmp_path / "run")
    (workdir / "experiment.pickle").write_bytes(b"cmy_networks\nGenerator\n.")  # a reference, as of a local module
    with pytest.raises(InvalidInputError, match=r"needs the module 'my_networks'.*PYTHONPATH"):
        gan_jax.load(workdir)


def small(**values):
    return runs.build(
        "ring", steps=2, report_every=1, sample_every=0, checkpoint_every=2, width=8, batch_size=8, **values
    )


def test_an_experiment_of_a_file_leaves_the_workdir_of_the_command(tmp_path):
    """The file and the config are kept, and continuations are checked against them."""
    said = []
    made = dataclasses.replace(small(learning_rate=0.01), steps=4)
    in_a_thread = threading.Thread(target=runtime.train, args=(made, tmp_path), kwargs={"log": said.append})
    in_a_thread.start()
    in_a_thread.join()
    assert said[-1].startswith("done: step 4, 32 images")
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["config_file"] == "ring.py" and record["config"]["steps"] == 4
    assert (tmp_path / "experiment.py").read_text() == runs.find("ring").read_text()
    assert not (tmp_path / "experiment.pickle").exists()
    with pytest.raises(InvalidInputError, match=r"config.learning_rate: 0.01 there, 0.02 now"):
        runtime.train(small(learning_rate=0.02), tmp_path, log=said.append)
    assert runtime.train(dataclasses.replace(made, steps=6), tmp_path, log=said.append).step == 6
    assert (
        "continuing from the checkpoint of step 4" in said
        and json.loads((tmp_path / "config.json").read_text())["history"]
    )
    other = dataclasses.replace(made, steps=8, preview=runtime.scatter, sample_count=3, source=lambda: made.source())
    runtime.train(other, tmp_path, log=said.append)
    assert any("not by its hyperparameters or code" in line and "experiment.py is kept" in line for line in said)


def test_an_experiment_that_has_another_source_than_its_file_is_stored_itself(tmp_path):
    made = dataclasses.replace(small(), source=lambda: gan_jax.data.ring())
    (tmp_path / "experiment.py").write_text("of a run that has saved nothing")
    runtime.train(made, tmp_path, log=lambda message: None)
    assert not (tmp_path / "experiment.py").exists()


def test_only_experiments_can_be_trained(tmp_path):
    with pytest.raises(
        InvalidInputError, match=r"expected an Experiment, such as runs.build\('digits'\), not 'digits'"
    ):
        runtime.train("digits", tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import numpy as np\nnp.foo", "line 2: AttributeError: module 'numpy' has no attribute 'foo'"),
        ("def get_config(:", "line 1: SyntaxError"),
    ],
)
def test_an_error_in_an_experiment_file_names_the_line(tmp_path, text, expected):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(InvalidInputError, match=f"mine.py, {expected}"):
        runs.load_module(tmp_path / "mine.py")


def test_a_workdir_is_for_one_process_at_a_time(tmp_path):
    assert runtime.workdir.lock(tmp_path) and not runtime.workdir.lock(tmp_path)
    try:
        assert "in use by another run" in run(
            "train", f"--workdir={tmp_path}", "--config=ring", "--config.steps=1", code=2
        )
    finally:
        runtime.workdir.release(tmp_path)
    assert runtime.workdir.lock(tmp_path)
    runtime.workdir.release(tmp_path)


def test_a_diverged_run_has_nothing_to_sample():
    ended = runtime.Result("diverged", 4, 32, "", {}, None, None, 0)
    with pytest.raises(InvalidInputError, match="the run has diverged"):
        ended.sample(4)


def test_a_workdir_from_before_is_sampled_and_continued_by_its_name_alone(tmp_path):
    """Its experiment file imports `experiments.settings`, and its config lacks what was added since."""
    workdir = shutil.copytree(OLD, tmp_path / "run")
    assert "from experiments.settings import" in (workdir / "experiment.py").read_text()
    assert gan_jax.load(workdir).sample(4).shape == (4, 2)
    assert "continuing from the checkpoint of step 20" in run("train", "--workdir", str(workdir), "--config.steps=30")
    named = shutil.copytree(OLD, tmp_path / "named")
    output = run("train", f"--workdir={named}", "--config=ring", "--config.steps=30", *overrides(named))
    assert "continuing from the checkpoint of step 20" in output
    assert run_hash(workdir) == run_hash(named)


def overrides(workdir):
    kept = json.loads((workdir / "config.json").read_text())["config"]
    defaults = runs.load_module(runs.find("ring")).get_config()
    return [f"--config.{key}={value}" for key, value in kept.items() if defaults[key] != value and key != "steps"]


def run_hash(workdir):
    return json.loads((workdir / "result.json").read_text())["state_sha256"]


def test_experiment_files_are_the_same_if_they_do_the_same():
    text = (ROOT / "experiments" / "configs" / "ring.py").read_text()
    assert same_experiment(text, text.replace("from gan_jax.runs import", "from experiments.settings import"))
    assert same_experiment(text, f"{text}\n# a comment\n") and same_experiment(
        text, text.replace('"""', '"""More. ', 1)
    )
    old = text.replace("from gan_jax.runs import", "from experiments import settings\nfrom gan_jax.runs import")
    assert same_experiment(old, old.replace("from experiments import settings", "from gan_jax.runs import settings"))
    assert not same_experiment(text, text.replace("gamma=0.02", "gamma=0.03"))
    assert not same_experiment(text, text.replace("import core", "import losses as core"))


def test_shipped_configs_go_by_name_and_others_by_path(tmp_path):
    assert runs.find("digits") == ROOT / "experiments" / "configs" / "digits.py"
    with pytest.raises(InvalidInputError, match=r"config 'digit': expected a file, or one of the shipped.*, digits"):
        runs.find("digit")
    path = tmp_path / "mine.py"
    path.write_text("def get_config():\n    return {}\n")
    assert runs.find(str(path)) == path
    with pytest.raises(InvalidInputError, match="has no function build"):
        runs.load_module(path)


def test_an_experiment_is_built_by_name_with_other_values():
    assert runs.build("ring", steps=100, learning_rate=1).steps == 100
    with pytest.raises(InvalidInputError, match=r"step=100: the config has no such key; it has .*steps"):
        runs.build("ring", step=100)
    with pytest.raises(InvalidInputError, match=r"steps='many' does not fit the config"):
        runs.build("ring", steps="many")


def test_lists_in_a_config_are_whole_numbers():
    assert runs.whole_numbers(runs.run_config(batch_size=1, steps=1, widths="32, 64"), "widths") == (32, 64)
    for wrong in ("a", "32,", "1.5"):
        with pytest.raises(InvalidInputError, match=f"widths='{wrong}': expected whole numbers with commas"):
            runs.build("fsq_cifar10", widths=wrong)


def test_keys_are_described_by_comments_and_by_the_fields_of_an_experiment():
    known = describe(runs.load_module(runs.find("digits")))
    assert known["r1_gamma"] == "weight of R1, the penalty at reals" and known["steps"] == "iterations of the whole run"
    assert list(known)[-1] == "max_rollbacks" and "sgd" not in known
