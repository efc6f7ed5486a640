"""Values of flags: each is right, or refused with exit code 2 and a message that names it; before any work is done."""

import functools
import pathlib
import signal

import numpy as np
import pytest

from gan_jax import data, load, runs, runtime
from gan_jax import eval as evals
from gan_jax.host import user_path
from gan_jax.types import InvalidInputError
from tests.experiments.flag_values import EXAMPLES
from tests.processes import CONFORMANCE, ROOT, finish, run, start, start_module, when

SMALL = (f"--config={CONFORMANCE}", "--config.steps=20")


def refused(command, *flags, **env):
    output = run(command, *flags, code=2, **env)
    assert "Traceback" not in output and output.count("error:") == 1, output
    return output.split("error:")[1]


@pytest.mark.xdist_group("flags")
@pytest.mark.parametrize("command", EXAMPLES)
def test_values_from_a_grammar_are_right_or_refused(command):
    code, output = start_module("tests.experiments.flag_values", command).finish()
    assert code == 0, output
    assert sum(EXAMPLES.values()) >= 500


def test_an_error_about_an_argument_of_the_game_names_the_key_of_the_config():
    with pytest.raises(InvalidInputError, match=r"^gamma=-1.0: expected .* \(with config.r1_gamma=-1.0\)$"):
        runs.build("digits", steps=1, r1_gamma=-1.0)
    with pytest.raises(InvalidInputError, match=r"^steps=0: expected [^()]*$"):
        runs.build("digits", steps=0)


def test_paths_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/x", "workdir") == tmp_path / "x" and str(user_path("x", "workdir")) == "x"
    for bad in ("", " ", "a\0b", "~nobody-there/x", "9" * 5000):
        with pytest.raises(InvalidInputError, match="workdir is "):
            user_path(bad, "workdir")
    digits = runs.build("digits", steps=1)
    for use in (load, functools.partial(runtime.train, digits), runs.build):
        with pytest.raises(InvalidInputError, match="is ''"):
            use("")
    (tmp_path / "images").mkdir()
    with pytest.raises(InvalidInputError, match="images"):
        data.image_folder("~/images", image_size=8, labels=False)


@pytest.mark.xdist_group("flags")
def test_a_home_that_starts_a_path(tmp_path):
    """In both forms of a flag; the second command finds the run, and with it its config."""
    run("train", "--workdir=~/x", *SMALL, HOME=str(tmp_path))
    assert (tmp_path / "x" / "result.json").exists() and not (ROOT / "~").exists()
    assert "done: step 20" in run("train", "--workdir", "~/x", HOME=str(tmp_path))
    assert "--workdir=: the value is ''" in refused("train", "--workdir=", *SMALL)
    assert "--init_from=" in refused("train", f"--workdir={tmp_path / 'y'}", "--init_from=", *SMALL)


@pytest.mark.slow
def test_text_in_a_locale_without_umlauts(tmp_path):
    """The experiment file is read again when the run continues; the name of the data is in its summary."""
    text = pathlib.Path(CONFORMANCE).read_text(encoding="utf-8")
    named = text.replace("source=lambda: source", "source=lambda: dataclasses.replace(source, name='Größe')")
    mine, ascii_only = tmp_path / "mine.py", {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    mine.write_text("import dataclasses\n" + named, encoding="utf-8")
    for steps in (50, 100):
        flags = (f"--config={mine}", f"--workdir={tmp_path / 'run'}", f"--config.steps={steps}")
        output = run("train", *flags, **ascii_only)
        assert "Gr\\xf6\\xdfe: " in output and f"done: step {steps}" in output
    assert "continuing from the checkpoint of step 50" in output
    assert "the locale cannot read its letters" in refused("train", "--workdir=ü", *SMALL, **ascii_only)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["jaxlib.version", "optax", "gan_jax.runtime.train"])
def test_an_interrupt_while_importing(module, tmp_path):
    process = start("train", f"--workdir={tmp_path / 'run'}", *SMALL, before=("-X", "importtime"))
    when(process, lambda line: line.split("|")[-1].strip() == module)
    process.send_signal(signal.SIGINT)
    code, output = finish(process)
    assert code == 130 and "interrupted" in output and "Traceback" not in output


def test_a_cache_that_can_not_be_written(tmp_path):
    """A home without the right to write, such as a container's: said, and the run goes on."""
    (tmp_path / "home").touch()
    nowhere = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": "", "JAX_COMPILATION_CACHE_DIR": ""}
    output = run("train", f"--workdir={tmp_path / 'run'}", *SMALL, **nowhere)
    assert "compiled programs are not kept: " in output and "done: step 20" in output
    said, source = [], data.digits(labels=True)
    reference = runtime.Reference(source, tmp_path / "home" / "evaluation", said.append, 1.0)
    extractor = evals.Extractor(lambda params, images: {"features": images.reshape(len(images), -1)}, None, {})
    features = evals.Outputs(np.zeros((3, 2)))
    assert reference.outputs("pixels", extractor, lambda *_: {"pixels": features}) is features
    assert "cannot be written" in said[-1] and "computed again the next time" in said[-1]
