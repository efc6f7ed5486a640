"""Exported models: the folder, its use without gan_jax, and folders that mean harm."""

import dataclasses
import hashlib
import http.server
import json
import re
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as exporting
from PIL import Image

import gan_jax
from gan_jax import core, data, gans, nets, runs, runtime
from gan_jax.runs import programs
from gan_jax.types import InvalidInputError, Prior
from tests.processes import ROOT, run, start_module

SMALL = {"width": 4, "latents": 64, "steps": 2, "steps_per_dispatch": 2, "report_every": 2, "sample_every": 0}


def quiet(message):
    pass


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    home = tmp_path_factory.mktemp("export") / "digits"
    runtime.train(runs.build("digits", **SMALL, checkpoint_every=2, sample_count=16), home, log=quiet)
    return home


@pytest.fixture(scope="module")
def exported(workdir):
    """The folder of the run's model, to be left as it is."""
    folder = workdir.parent / "digits_model"
    line = {"step": 2, "images": 128, "metrics": {"fcd2k": 12.5}, "state_sha256": digest(workdir)}
    about = {"samples": 2000, "reference": "digits", "network": {"name": "classifier", "weights_sha256": "ab12"}}
    protocol = {"metrics": {"fcd2k": about}, "seed": 0, "weights": "ema", "truncation": None}
    others = [line | {"state_sha256": "another"}, line | {"protocol": protocol | {"weights": "raw"}}]
    lines = [{"protocol": protocol} | x for x in (line, *others)]
    (workdir / "eval.jsonl").write_text("".join(f"{json.dumps(x)}\n" for x in lines))
    runs.export(workdir, folder, license="cc0-1.0", log=quiet)
    return folder


def digest(workdir):
    return runtime.state_sha256(gan_jax.load(workdir).state)


@pytest.fixture
def folder(exported, tmp_path):
    """A copy of the folder, to be damaged."""
    return shutil.copytree(exported, tmp_path / "model")


def change(folder, **values):
    """Writes other values into the record, with the hashes of the files that are there."""
    record = json.loads((folder / "config.json").read_text()) | values
    record["files"] |= {x.name: hashlib.sha256(x.read_bytes()).hexdigest() for x in folder.glob("[!cR]*.*")}
    (folder / "config.json").write_text(json.dumps(record))


def test_a_folder_has_what_a_hub_shows(exported, workdir):
    found = sorted(path.name for path in exported.iterdir())
    assert found == ["README.md", "config.json", "generator.stablehlo", "model.safetensors", "samples.png"]
    record, card = json.loads((exported / "config.json").read_text()), (exported / "README.md").read_text()
    assert record["functions"]["sample"]["shapes"] == {"z": "float32[b, 64]"}
    assert len(record["metrics"]) == 1 and "| fcd2k | 12.5 | 2000 | digits | classifier ab12 |" in card
    header = card.split("---\n")[1]
    assert 'license: "cc0-1.0"' in header and "library_name: gan_jax" in header
    assert "## What it must not be used for" in card and "![Samples](samples.png)" in card
    with Image.open(exported / "samples.png") as picture:
        assert picture.size == (4 * 42 + 2,) * 2 and picture.convert("L").getextrema()[1] > 100  # 16 samples
    safetensors = pytest.importorskip("safetensors")
    with safetensors.safe_open(exported / "model.safetensors", "np") as file:
        told, weights = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    assert told["state_sha256"] == digest(workdir) and json.loads(told["config"])["width"] == 4
    assert told["license"] == "cc0-1.0"
    state = gan_jax.load(workdir).state
    inside = {f"ema.generator.{key}" for key in runtime.arrays.flatten(state.ema["generator"])}
    assert set(weights) == inside and (weights["ema.generator.params.output.bias"] == _bias(state)).all()


def _bias(state):
    return np.asarray(state.ema["generator"]["params"]["output"]["bias"])


@pytest.mark.parametrize("n", [1, 7, 64])
def test_samples_are_those_of_the_workdir_to_the_bit(exported, workdir, n):
    made, trained = gan_jax.load(exported), gan_jax.load(workdir)
    assert made.step == trained.step == 2 and made.functions == ("sample",)
    np.testing.assert_array_equal(made.sample(n, seed=3), trained.sample(n, seed=3))
    # Drawn inside a larger program, truncated latents are rounded in another way.
    np.testing.assert_allclose(made.sample(n, truncation=0.5), trained.sample(n, truncation=0.5), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(made.interpolated(n, n), trained.interpolated(n, n))


@pytest.mark.slow
def test_the_cards_lines_run_without_gan_jax(exported, workdir, tmp_path):
    (program,) = re.findall(r"```python\n(.*?)```", (exported / "README.md").read_text(), re.DOTALL)
    assert len([line for line in program.splitlines() if line and not line.startswith(("import", "from"))]) <= 4
    script = tmp_path / "use.py"
    script.write_text(
        f"import os, sys\nos.chdir({str(exported)!r})\nsys.modules['gan_jax'] = None\n{program}\n"
        "import numpy\nassert not [name for name in sys.modules if name.startswith(('gan_jax.', 'flax'))]\n"
        f"numpy.save({str(tmp_path / 'images.npy')!r}, images)\n"
    )
    code, printed = start_module("tests.program", str(script), fresh=True, quick=True).finish()
    assert code == 0, printed
    np.testing.assert_array_equal(np.load(tmp_path / "images.npy"), gan_jax.load(workdir).sample(16))


@pytest.mark.slow
def test_the_commands(workdir, tmp_path):
    folder, quick = tmp_path / "model", {"quick": True}
    printed = run("export", f"--workdir={workdir}", f"--out={folder}", "--license=mit", **quick)
    assert "generator.stablehlo: z; differs from the game by 0" in printed
    for home, name in ((folder, "a.npy"), (workdir, "b.npy")):
        run("sample", f"--workdir={home}", "--num=4", "--seed=5", f"--out={tmp_path / name}", **quick)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"))
    assert "code of workdirs is not run here" in run("sample", f"--workdir={workdir}", "--norun_code", code=2)
    (folder / "notes.txt").write_text("mine")
    run("export", f"--workdir={workdir}", f"--out={folder}", "--platforms=cpu", **quick)
    assert (folder / "notes.txt").exists() and gan_jax.load(folder).record["license"] == "unknown"
    assert "has other files" in run("export", f"--workdir={workdir}", f"--out={tmp_path}", code=2)
    assert "expected some of cpu" in run("export", f"--workdir={workdir}", f"--out={folder}", "--platforms=npu", code=2)


def test_the_page(exported, monkeypatch):
    monkeypatch.chdir(exported.parent)
    plain, library = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(), re.DOTALL)
    first, second = {}, {}
    exec(compile(plain, "export.md", "exec"), first)
    exec(compile(library, "export.md", "exec"), second)
    assert "gan_jax" not in plain.replace("`gan-jax", "") and first["images"].shape == (16, 8, 8, 1)
    np.testing.assert_array_equal(first["images"], second["model"].sample(16))


def test_wrong_arguments(exported, workdir, tmp_path):
    made = gan_jax.load(exported)
    for call, said in (
        (lambda: made.sample(2, label=1), "unconditional"),
        (lambda: made.sample(2, inputs=jnp.zeros((2, 9))), "float32.2, 9."),
        (lambda: made.call("translate", jnp.zeros(2)), "no function 'translate'"),
        (lambda: made.call("sample", jnp.zeros((2, 8)), label=jnp.zeros(2, int)), "takes z, not label"),
        (lambda: gan_jax.load(exported, 1000), "of step 2"),
        (lambda: gan_jax.load(workdir, run_code=False), "is not run here"),
        (lambda: runs.Exported(workdir), "no exported model"),
        (lambda: runs.export(workdir, tmp_path / "x", functions=["logits"], log=quiet), "functions=logits"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            call()


# Folders that mean harm.


def test_code_in_a_folder_is_not_run(folder):
    for name in ("experiment.py", "experiment.pickle", "__init__.py", "conftest.py", "modeling.py"):
        (folder / name).write_text("raise SystemExit('this has run')")
    change(folder, auto_map={"AutoModel": "modeling.Model"}, config={"__reduce__": "os.system"})
    assert gan_jax.load(folder).sample(2).shape == (2, 8, 8, 1)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"format": "gan_jax exported model, version 9"}, "this version of gan_jax reads"),
        ({"format": 7}, "has the format '7'"),
        ({"step": "x"}, "expected int"),
        ({"functions": {"sample": {"file": "../secret", "inputs": ["z"]}}}, "names no file"),
        ({"functions": {"sample": {"file": "/etc/passwd", "inputs": ["z"]}}, "files": {"/etc/passwd": ""}}, "names no"),
        ({"functions": {"sample": {"file": "model.safetensors", "inputs": ["z"]}}}, "no exported program"),
        ({"functions": {"sample": {"file": "generator.stablehlo", "inputs": ["z", "code"]}}}, "code is missing"),
        ({"prior": {"kind": "__import__", "dim": 8}}, "expected normal or uniform"),
        ({"prior": {"kind": "normal", "dim": -1}}, "dim=-1"),
    ],
)
def test_a_record_that_means_harm(folder, values, said):
    change(folder, **values)
    with pytest.raises(InvalidInputError, match=said):
        gan_jax.load(folder).sample(2)


def _calls_outward(path):
    """A program that calls a function of its process."""
    shape = jax.ShapeDtypeStruct((2, 8), jnp.float32)
    function = jax.jit(lambda z: jax.ffi.ffi_call("xla_ffi_python_cpu_callback", shape)(z))
    checks = [exporting.DisabledSafetyCheck.custom_call("xla_ffi_python_cpu_callback")]
    path.write_bytes(exporting.export(function, disabled_checks=checks)(shape).serialize())


def test_programs_that_mean_harm(folder):
    path, random = folder / "generator.stablehlo", np.random.default_rng(0)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(InvalidInputError, match="damaged or was changed"):
        gan_jax.load(folder).sample(2)
    # With hashes that fit, as its author would write them.
    for content in (whole[:-1000], whole[:50], b"", random.bytes(4096), b"import os\nos.system('x')\n"):
        path.write_bytes(content)
        change(folder)
        with pytest.raises(InvalidInputError, match="cannot be read"):
            gan_jax.load(folder).sample(2)
    _calls_outward(path)
    change(folder)
    with pytest.raises(InvalidInputError, match="is refused: it has call of xla_ffi"):
        gan_jax.load(folder).sample(2)
    path.unlink()
    with pytest.raises(InvalidInputError, match="cannot be read"):
        gan_jax.load(folder).sample(2)


def test_weights_that_mean_harm(folder):
    path = folder / "model.safetensors"
    assert gan_jax.load(folder).arrays["ema.generator.params.output.bias"].shape == (1,)
    for content in (b"", (2**60).to_bytes(8, "little"), path.read_bytes()[:100], b"\x80\x04cos\nsystem\n"):
        path.write_bytes(content)
        change(folder)
        with pytest.raises(InvalidInputError, match="cannot be read"):
            _ = gan_jax.load(folder).arrays


# Other games.


def trained(game, source, **options):
    """A game at its start, as if it were trained."""
    batch = {name: jnp.zeros((4, *x.shape), x.dtype) for name, x in source.spec.items()}
    experiment = runtime.Experiment(
        game=game, source=lambda: source, preview=runtime.image_grid, seed=0, batch_size=4, steps=1, **options
    )
    return runtime.Trained(experiment, game.init(jax.random.key(0), batch), 0, runtime.make_mesh(jax.devices()[:1]))


def programs_of(subject, **options):
    described = programs.describe(subject, programs.exportable(subject), **options)
    return described, {name: programs.program(subject, x, name) for name, x in described.items()}


@pytest.mark.slow
def test_encoders_and_decoders_and_a_prior_of_ones_own():
    prior = Prior(lambda key, n, truncation=None: jnp.abs(jax.random.normal(key, (n, 4))), core.normal(4).interpolate)
    game = gans.dcgan(nets.from_linen(nets.DCGANGenerator(8, 1, 4)), nets.from_linen(nets.DCGANDiscriminator(4)), prior)

    def encode(state, key, images):
        codes = images.reshape(images.shape[0], 16, 4) + state.hparams["shift"]
        return {"codes": jnp.argmax(codes, -1), "continuous": codes}

    def decode(state, key, codes):
        noise = 0.0 * jax.random.normal(key, codes["continuous"].shape)
        return codes["continuous"].reshape(-1, 8, 8, 1) + noise.reshape(-1, 8, 8, 1)

    def compare(state, key, images, other):
        return images - other

    functions = {**game.functions, "encode": encode, "decode": decode, "compare": compare}
    game = game._replace(functions=functions)
    source = data.digits(labels=False)
    subject = trained(game, source, conditions=lambda: data.renamed(source, inputs="real"))
    hparams = subject.state.hparams | {"shift": jnp.float32(0.5)}
    subject = dataclasses.replace(subject, state=subject.state.replace(hparams=hparams))
    described, made = programs_of(subject)
    assert list(made) == ["sample", "encode", "decode", "latents"]  # not `compare`, of two arrays, nor `logits`
    assert made["encode"].inputs == ("inputs",) and list(made["encode"].arrays) == ["hparams.shift"]
    assert made["decode"].inputs == ("codes", "key") and not made["decode"].arrays
    images = jnp.linspace(-1, 1, 3 * 64).reshape(3, 8, 8, 1)
    codes = made["encode"].exported.call(images)
    np.testing.assert_allclose(codes["continuous"], images.reshape(3, 16, 4) + 0.5)
    words = jax.random.key_data(jax.random.key(1))
    np.testing.assert_allclose(made["decode"].exported.call(codes, words), images + 0.5)
    drawn = made["latents"].exported.call(words, jnp.arange(5))
    np.testing.assert_array_equal(drawn, prior.sample(jax.random.key(1), 5))
    assert described["sample"].inputs["z"].shape[1:] == (4,)


def test_what_cannot_be_exported_says_so():
    game = gans.dcgan(
        nets.from_linen(nets.DCGANGenerator(8, 1, 4)), nets.from_linen(nets.DCGANDiscriminator(4)), core.normal(4)
    )

    def sized(state, key, x):
        return x if x.shape[0] > 5 else 2 * x

    def calling(state, key, x):
        return jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    game = game._replace(functions={"sized": sized, "calling": calling})
    source = data.digits(labels=False)
    subject = trained(game, source, sample_every=0, conditions=lambda: data.renamed(source, inputs="real"))
    described = programs.describe(subject, ["sized", "calling"])
    with pytest.raises(InvalidInputError, match="--batch=64"):
        programs.program(subject, described["sized"], "sized")
    with pytest.raises(InvalidInputError, match="calling cannot be exported"):
        programs.program(subject, described["calling"], "calling")
    fixed = programs.describe(subject, ["sized"], batch=6)["sized"]
    assert programs.program(subject, fixed, "sized", ("cpu",)).exported.call(jnp.ones((6, 8, 8, 1))).sum() == 6 * 64


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub's protocol as the client asks for; nothing of it is checked against the real one."""

    asked: list[tuple[str, bytes]] = []
    login = "hf_right"

    def log_message(self, *words):
        pass

    def answer(self, value, code=200):
        content = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        right = self.headers.get("authorization") == f"Bearer {self.login}"
        self.answer({"name": "me", "type": "user"} if right else {"error": "Invalid token"}, 200 if right else 401)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.asked.append((self.path, body))
        if "preupload" in self.path:
            files = [
                {"path": x["path"], "uploadMode": "regular", "shouldIgnore": False} for x in json.loads(body)["files"]
            ]
            self.answer({"files": files})
        elif "commit" in self.path:
            self.answer({"commitUrl": "http://localhost/me/model/commit/1", "commitOid": "1", "success": True})
        else:
            self.answer({"url": "http://localhost/me/model", "name": "me/model"})


@pytest.mark.slow
def test_an_upload_sends_the_files_of_the_model_alone(exported, tmp_path):
    pytest.importorskip("huggingface_hub")
    folder = shutil.copytree(exported, tmp_path / "model")
    (folder / "private.txt").write_text("mine")
    with http.server.ThreadingHTTPServer(("localhost", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        script = tmp_path / "push.py"
        script.write_text(
            "import sys\nfrom gan_jax.runs.hub import check_login, push\n"
            f"check_login('me/model')\nprint(push(__import__('pathlib').Path({str(folder)!r}), 'me/model'))\n"
        )
        where = {"HF_ENDPOINT": f"http://localhost:{server.server_port}", "HF_HUB_DISABLE_TELEMETRY": "1"}
        for token, said in (("hf_wrong", "takes no upload"), ("hf_right", "me/model")):
            options = {"fresh": True, "HF_TOKEN": token, **where}
            code, printed = start_module("tests.program", str(script), **options).finish()
            assert (code == 0) == (token == "hf_right") and said in printed, printed
        server.shutdown()
    sent = [body for path, body in Hub.asked if "commit" in path]
    assert len(sent) == 1
    paths = {json.loads(line)["value"].get("path") for line in sent[0].splitlines()} - {None}
    assert paths == {"README.md", "config.json", "generator.stablehlo", "model.safetensors", "samples.png"}
    (created,) = [json.loads(body) for path, body in Hub.asked if "create" in path]
    assert created == {"name": "model", "organization": "me", "visibility": "private"}
