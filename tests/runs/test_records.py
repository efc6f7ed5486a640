"""What a run leaves beside its checkpoints: missing, moved, damaged, of other versions, and of data that were moved."""

import functools
import json
import pathlib
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gan_jax
from gan_jax import eval as evals
from gan_jax import runs, runtime
from gan_jax.runs import evaluations
from gan_jax.runtime import finetune, identity, reference
from gan_jax.runtime.evaluation import same_protocol
from gan_jax.runtime.logging import LogLine, keep_until
from gan_jax.runtime.train import data_spec
from gan_jax.runtime.workdir import read_record, release
from gan_jax.sweep import logs, trials
from gan_jax.types import InvalidInputError
from tests.data.test_data import folder
from tests.processes import run
from tests.test_host import JSON

pytestmark = pytest.mark.xdist_group("records")
FILE = pathlib.Path(__file__).with_name("folder_experiment.py")


def train(workdir, said=None, **values):
    """What the command does, in this process."""
    module = runs.load_module(FILE)
    config = runs.with_values(module.get_config(), values)
    try:
        runs.claim(workdir, FILE, config)
        return runtime.train(module.build(config), workdir, log=[].append if said is None else said.append)
    finally:
        release(workdir)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    home = tmp_path_factory.mktemp("records")
    folder(home / "pets")
    train(home / "run", data_dir=str(home / "pets"))
    return home


@pytest.fixture
def home(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "home")


def content(workdir):
    return {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file() and path.name != "lock"}


@pytest.mark.parametrize("name", ["config.json", "data.json", "experiment.py"])
def test_a_run_is_not_continued_without_its_records(name, home):
    (home / "run" / name).unlink()
    before = content(home / "run" / "checkpoints")
    with pytest.raises(InvalidInputError, match=name):
        train(home / "run", steps=6, data_dir=str(home / "pets"))
    assert content(home / "run" / "checkpoints") == before and not (home / "run" / name).exists()


def test_a_run_whose_checkpoints_were_moved_away_keeps_its_log(home):
    workdir = home / "run"
    (workdir / "checkpoints").rename(home / "moved")
    before = content(workdir)
    for steps in (6, 4):
        with pytest.raises(InvalidInputError, match=r"checkpoints of .*run are gone"):
            train(workdir, steps=steps, batch_size=16, data_dir=str(home / "pets"))
    with pytest.raises(InvalidInputError, match="are gone"):
        runtime.train(runs.build(str(FILE), data_dir=str(home / "pets")), workdir, log=[].append)
    assert content(workdir) == before
    (workdir / "run.json").rename(home / "run.json")  # as of version 0.1, whose runs had no such record
    with pytest.raises(InvalidInputError, match="are gone"):
        train(workdir, steps=6, batch_size=16, data_dir=str(home / "pets"))
    (home / "run.json").rename(workdir / "run.json")
    (home / "moved").rename(workdir / "checkpoints")
    assert train(workdir, steps=6, data_dir=str(home / "pets")).step == 6


def test_other_versions_are_told_in_one_line(home, capsys):
    path = home / "run" / "config.json"
    assert "other versions" not in continued(home, capsys)
    record = json.loads(path.read_text())
    record["versions"] |= {"jax": "0.0.1", "numpy": "0.0.2"}
    path.write_text(json.dumps(record))
    [line] = [line for line in continued(home, capsys).splitlines() if "other versions" in line]
    assert "jax 0.0.1 -> " in line and "numpy 0.0.2 -> " in line and "flax" not in line
    assert "other versions" not in continued(home, capsys), "told once"


def continued(home, capsys):
    capsys.readouterr()
    train(home / "run", data_dir=str(home / "pets"))
    return capsys.readouterr().out


def test_data_may_be_moved_but_not_replaced(home):
    workdir, moved = home / "run", home / "cats and dogs"
    train(workdir, data_dir=f"{home / 'pets'}/")
    (home / "pets").rename(moved)
    assert train(workdir, steps=6, data_dir=str(moved)).step == 6
    assert json.loads((workdir / "config.json").read_text())["config"]["data_dir"] == str(moved)
    assert "folder cats and dogs" in json.loads((workdir / "data.json").read_text())["summary"]
    moved.rename(home / "elsewhere")
    output = run("evaluate", f"--workdir={workdir}", "--metrics=mean", f"--data_dir={home / 'elsewhere'}")
    assert "step 6  images 48  mean" in output
    folder(home / "others", count=4)
    with pytest.raises(InvalidInputError, match="the data are not those that"):
        train(workdir, steps=8, data_dir=str(home / "others"))
    with pytest.raises(InvalidInputError, match=r"(?s)the data are not those that.*in which the data of the run are"):
        runs.Run(workdir, values={"data_dir": str(home / "others")}).check_data()


def test_protocols_are_equal_whatever_the_directory_of_the_data():
    one = {"reference": "folder a", "reference_images_sha256": "1", "network": {"data": "folder a", "data_sha256": "2"}}
    other = {"reference": "folder b", "reference_images_sha256": "1", "network": {"data": "b", "data_sha256": "2"}}
    assert same_protocol({"fcd": one}, {"fcd": other})
    assert not same_protocol({"fcd": one}, {"fcd": other | {"reference_images_sha256": "3"}})
    assert not same_protocol({"m": {"reference": "ring"}}, {"m": {"reference": "grid"}}), "sampled: its name is all"


def test_a_config_of_other_kinds_of_values_is_refused(home):
    path = home / "run" / "config.json"
    record = json.loads(path.read_text())
    record["config"]["batch_size"] = "many"
    path.write_text(json.dumps(record))
    with pytest.raises(InvalidInputError, match=r"config.json has batch_size='many'"):
        gan_jax.load(home / "run")


OUTCOME = logs.Outcome(0, "done", 4, 32, 0, {"rate": 0.1}, {"step": 4, "m": 0.5}, 0, "00")
# Each record of a run or a sweep: a right one, and who reads it.
RECORDS = {
    "config.json": (None, lambda path: read_record(path.parent)),
    "data.json": (None, lambda path: data_spec(path.parent)),
    "run.json": (None, lambda path: identity.read(path.parent)),
    "result.json": (None, lambda path: trials.read_result(path.parent)),
    "metrics.jsonl": (None, lambda path: keep_until(path, 2, LogLine, writes=False)),
    "eval.jsonl": ({"step": 2, "images": 16, "metrics": {"m": 0.5}, "protocol": {}}, evaluations.read),
    "init_from.json": (
        {"checkpoints": "a", "step": 2, "sha256": "0"}, lambda path: finetune.read_chosen(path),
    ),
    "slots.json": ([0, 1, -1], lambda path: logs.read_slots(path.parent, 0, 2)),
    "outcome.json": (vars(OUTCOME), lambda path: logs._read_outcome(path)),
}  # fmt: skip


def parts(value, path=()):
    """The path of every value inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, one in inner for found in parts(one, (*path, key)))]


def mutated(value, path, new):
    """A copy with one value replaced; removed where `new` is `...`."""
    if not path:
        return None if new is ... else new
    made, key = (value.copy(), path[0])
    if len(path) == 1 and new is ...:
        del made[key]
    else:
        made[key] = mutated(made[key], path[1:], new)
    return made


@pytest.mark.parametrize("name", RECORDS)
def test_a_damaged_record_is_read_or_refused_by_its_name(name, trained, tmp_path_factory):
    right, read = RECORDS[name]
    text = (trained / "run" / name).read_text() if right is None else json.dumps(right) + "\n"
    home = tmp_path_factory.mktemp("damaged")
    path = home / "population" / "000" / name if name == "slots.json" else home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    read = functools.partial(read, path if name != "slots.json" else home / name)
    path.write_text(text)
    read()

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def check(data):
        if data.draw(st.booleans()):
            low = data.draw(st.integers(0, len(text) - 1))
            path.write_text(text[:low] + data.draw(st.sampled_from(["", "7", '"', "}", "\n"])) + text[low + 1 :])
        else:
            value = json.loads(text.splitlines()[0] if name.endswith(".jsonl") else text)
            where = data.draw(st.sampled_from(parts(value)))
            path.write_text(json.dumps(mutated(value, where, data.draw(JSON | st.just(...)))) + "\n")
        try:
            read()
        except InvalidInputError as error:
            assert str(path) in str(error), error

    check()


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_damaged_cache_of_features_is_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "reference.npz"
    evals.keep(path, {"features": np.eye(3, dtype=np.float32), "images_sha256": np.array("0" * 64)})
    content = bytearray(path.read_bytes())
    where = data.draw(st.integers(0, len(content) - 1))
    content[where : where + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    path.write_bytes(content)
    try:
        assert len(reference._kept(path, 3)[1].features) >= 3
    except InvalidInputError as error:
        assert f"{path} is damaged" in str(error) and "delete it" in str(error)


@pytest.mark.parametrize("name", ["config.json", "data.json", "run.json", "metrics.jsonl", "evaluation.json"])
@pytest.mark.parametrize("harm", [lambda text: text[: len(text) // 2] + "\n", lambda text: "[3]\n"])
def test_a_run_with_a_damaged_record_is_refused_and_left_as_it_is(name, harm, home):
    path = home / "run" / name
    path.write_text(harm(path.read_text()))
    before = content(home / "run" / "checkpoints")
    damaged = path.read_text()
    with pytest.raises(InvalidInputError, match=str(path)):
        train(home / "run", steps=6, data_dir=str(home / "pets"))
    assert path.read_text() == damaged and content(home / "run" / "checkpoints") == before
