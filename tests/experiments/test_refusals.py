"""What cannot work is refused before the work: arrays beyond the memory, unknown metrics, places that are read-only."""

import shutil

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gan_jax import data, runs, runtime, sweep
from gan_jax.runs import pictures
from gan_jax.runtime import memory
from gan_jax.sweep import space as spaces
from gan_jax.types import InvalidInputError
from tests.experiments.test_flags import SMALL, refused
from tests.processes import run

IMAGES = np.zeros((4, 8, 8, 1), np.uint8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("refusals") / "run"
    run("train", f"--workdir={workdir}", *SMALL, "--config.checkpoint_every=20")
    return workdir


def start(**values):
    experiment, mesh = runs.build("digits", **values), runtime.make_mesh(jax.devices()[:1])
    with jax.set_mesh(mesh):
        runtime.build_start(experiment, experiment.open_source().spec, mesh)


@pytest.mark.parametrize("values", [{"batch_size": 10**9}, {"width": 10**11}, {"latents": 10**20}])
def test_arrays_that_do_not_fit_into_memory(values):
    with pytest.raises(InvalidInputError, match=r"batch_size=\d+ and networks of [\d,]+ parameters.*GiB.*lower"):
        start(**values)


def test_memory_is_that_of_the_machine_or_the_container(tmp_path, monkeypatch):
    device = jax.devices()[0]
    whole = memory.available(device)
    assert 2**28 < whole < 2**50
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_CGROUP", limit)
    for text, share in (("max\n", None), (f"{2**20}\n", 2**20 // len(jax.local_devices()))):
        limit.write_text(text)
        assert memory.available(device) in ([share] if share else [whole, memory.available(device)])
    memory.check({"x": 2**9}, device, "it", "less")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 10**23}, "steps=100000000000000000000000: expected at least 1, and at most 2147483647"),
        ({"sample_count": 10**9}, "sample_count=1000000000: expected at least 1, and at most 65536"),
        ({"learning_rate": float("inf")}, "learning_rate=inf: expected a finite number"),
        ({"r1_gamma": 1e300}, "r1_gamma=1e[+]300: expected a finite number"),
        ({"metrics": ","}, "metric '': expected one of"),
        ({"metrics": "fcd2k,,"}, "metric '': expected one of"),
        ({"metrics": "fcd999999999k"}, "at most 9999k samples"),
    ],
)
def test_numbers_out_of_range(values, message):
    with pytest.raises(InvalidInputError, match=message):
        runs.build("digits", **values)


def test_a_default_that_is_not_finite_allows_others(tmp_path):
    """A limit that is infinite by default, in one's own experiment file."""
    config = runs.run_config(batch_size=1, steps=1, limit=float("inf"), rate=1.0)
    assert runs.with_values(config, {"limit": float("inf")}).limit == float("inf")
    with pytest.raises(InvalidInputError, match="rate=nan"):
        runs.with_values(config, {"rate": float("nan")})


@pytest.mark.parametrize(
    "text",
    [
        ";;;", "", "a=1;a=2", "a=int(1.5,2)", "a=logg(1,2)", "a=uniform (0,1", "a=1,,2", "=1,2", "a b=1", "a=log(0,1)",
        "a=uniform(1)", "a=uniform(0,inf)", "a=int(1,99999999999999999999)", "a=",
    ],
)  # fmt: skip
def test_spaces_that_are_refused(text):
    with pytest.raises(InvalidInputError, match=r"space .*expected KEY=VALUE,VALUE or KEY=uniform"):
        spaces.parse(text)


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.from_regex("[a-z]{1,5}", fullmatch=True),
        st.one_of(
            st.lists(st.one_of(st.integers(), st.sampled_from(["x", "true", 0.5])), min_size=1, max_size=4),
            st.tuples(st.sampled_from(["log", "uniform"]), st.floats(1e-3, 1.0), st.floats(1.5, 1e3)),
            st.tuples(st.just("int"), st.integers(-9, 0), st.integers(1, 9)),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_spaces_that_are_right_have_their_points(wanted):
    text = ";".join(
        f"{key}={x[0]}({x[1]},{x[2]})" if isinstance(x, tuple) else f"{key}={','.join(map(str, x))}"
        for key, x in wanted.items()
    )
    space = spaces.parse(text)
    assert list(space) == list(wanted)
    for point in (*spaces.grid(space, 2), *spaces.random(space, 3)):
        for key, x in wanted.items():
            assert x[1] <= point[key] <= x[2] if isinstance(x, tuple) else str(point[key]).lower() in map(str, x)


def test_so_many_trials_are_refused_at_once():
    space = {"a": spaces.Uniform(0.0, 1.0), "b": spaces.Uniform(0.0, 1.0)}
    for listed in (
        lambda: spaces.grid(space, 10_000),
        lambda: spaces.random(space, 10**9),
        lambda: spaces.qmc(space, 10**9),
    ):
        with pytest.raises(InvalidInputError, match="expected at most 100,000"):
            listed()


FILES = {
    "def get_config(): return {'steps': 1}\ndef build(config): pass": "get_config of .* returns dict: expected",
    "from gan_jax import runs\ndef get_config(): return runs.run_config(batch_size=1, steps=1)\ndef build(config): 3": (
        "build of .* returns nothing: expected `return runtime.Experiment"
    ),
    "get_config = 3\ndef build(config): pass": "has no function get_config: an experiment file has",
    "def get_config(config): pass\ndef build(config): pass": r"get_config of .* has other arguments \(missing",
    "from gan_jax import runs\ndef get_config(): return runs.run_config(batch_size=1, steps=1)\ndef build(): 3": (
        r"build of .* has other arguments \(too many positional.*build\(config\)"
    ),
}


@pytest.mark.parametrize("text", FILES)
def test_experiment_files_that_return_something_else(text, tmp_path):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(InvalidInputError, match=FILES[text]):
        runs.build(str(tmp_path / "mine.py"))


@pytest.mark.parametrize("space", [None, [], {}, {"width": (1, 2)}, "width"])
def test_sweeps_that_return_something_else(space):
    with pytest.raises(InvalidInputError, match=r"sweep\(\) returns .*expected keys of the config"):
        spaces.checked(space)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("x", IMAGES), "x: arrays is ndarray: expected arrays by name, such as {'real': images}"),
        (("x", {"real": list(IMAGES)}), "x: 'real' is list: expected a name, and an array"),
        (("x", {"real": np.float32(3)}), "x: 'real' is float32: expected a name, and an array"),
        (("x", {"real": IMAGES, "label": np.arange(4)}), "there are labels, and num_classes=None: .*num_classes=4"),
        (("x", {"real": IMAGES}, 4), "num_classes=4 without labels"),
    ],
)
def test_arrays_that_are_no_data(arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        data.Arrays(*arguments)


@pytest.mark.xdist_group("refusals")
def test_samples_that_could_not_be_written(trained, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "directory.png").mkdir()
    for out in (tmp_path / "file" / "x.png", tmp_path / "directory.png", "x.xbm", "x", "/proc/x.npy"):
        assert f"--out={out}" in refused("sample", f"--workdir={trained}", f"--out={out}")
    assert "--num=999999999: expected at most 65,536" in refused("sample", f"--workdir={trained}", "--num=999999999")
    out = f"--out={tmp_path / 'x.npy'}"
    assert "no function 'clip_latents'" in refused("sample", f"--workdir={trained}", "--motion_seed=1", out)
    assert "leave out --interpolate" in refused("sample", f"--workdir={trained}", "--frames=3", "--interpolate=8", out)
    many = refused("sample", f"--workdir={trained}", "--num=999999999", f"--out={tmp_path / 'x.npy'}")
    assert "999,999,999 samples: this needs at least" in many and not (tmp_path / "x.npy").exists()
    run("sample", f"--workdir={trained}", "--num=4", f"--out={tmp_path / 'y.PNG'}")
    assert (tmp_path / "y.PNG").stat().st_size > 40 and not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("ending", [*pictures.PICTURES, ".PNG", ".npy"])
def test_samples_are_written_in_every_format_or_refused(ending, tmp_path):
    out = tmp_path / f"y{ending}"
    samples = np.zeros((4, 8, 8, 1), np.float32)
    pictures.write(out, samples, lambda: runtime.image_grid(samples, 2), "--out=y")
    assert out.stat().st_size > 40 and not list(tmp_path.glob("*.tmp"))
    if ending == ".webp":
        with pytest.raises(InvalidInputError, match=r"^--out=y cannot be written .*: .png holds"):
            pictures.write(out, samples, lambda: Image.new("L", (2**15, 1)), "--out=y")


@pytest.mark.xdist_group("refusals")
def test_evaluations_that_can_not_be(trained, tmp_path):
    """Before a classifier is trained: its cache would tell."""
    copy = shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "file").touch()
    flags = (f"--workdir={copy}", f"--cache={tmp_path / 'cache'}", "--metrics=fcd1k")
    for more, message in {
        "--choose=mh:inf": "--choose: choice 'mh:inf': expected",
        "--truncation=-1": "truncation=-1.0: expected a positive threshold",
        "--metrics=": "--metrics is empty",
        f"--cache={tmp_path / 'file'}": f"--cache={tmp_path / 'file'}: files cannot be created",
        "--metrics=fcd99999k": "at most 9999k",
        "--step=²": "flag --step=²: expected a number",
    }.items():
        assert message in refused("evaluate", *flags, more), more
    assert "--neighbours: none of the --metrics" in refused("evaluate", *flags, "--metrics=psnr", "--neighbours=2")
    assert not list((tmp_path / "cache").rglob("*.npz"))


def test_an_unknown_best_metric_before_a_classifier_is_trained(tmp_path):
    options = {"steps": 4, "report_every": 2, "checkpoint_every": 2, "evaluate_every": 2, "metrics": "fcd1k"}
    experiment = runs.build("digits", **options, best_metric="generator/los")
    with pytest.raises(InvalidInputError, match=r"best_metric=.generator/los.: expected one of .*eval/fcd1k"):
        runtime.train(experiment, tmp_path / "run", log=lambda message: None)
    with pytest.raises(InvalidInputError, match=r"best_metric=.generator/los.: expected one of .*eval/fcd1k"):
        members = [sweep.Member(0, {"discriminator/learning_rate": 1e-3})]
        sweep.train_population(experiment, members, tmp_path / "sweep", log=lambda message: None)
    assert not list(tmp_path.rglob("*.npz"))
