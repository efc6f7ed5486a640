"""The rules of the code: which package may import which, sizes, and what training never imports."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LIBRARY = ROOT / "gan_jax"
PURE = {"losses", "regularizers", "augment", "metrics"}
BASE = {"jax", "jaxtyping", "numpy", "gan_jax.types", "gan_jax.host", "gan_jax.deprecated"}
# The table of docs/adr/0001. Besides itself and the standard library, a package may import what starts with one of:
PACKAGES = {
    "deprecated": set(),
    "types": {"jax", "jaxtyping", "gan_jax.deprecated"},
    "buckets": {"tensorstore", "gan_jax.types"},
    "host": {"jax", "jaxtyping", "numpy", "gan_jax.buckets", "gan_jax.types"},
    "losses": {"jax", "jaxtyping", "gan_jax.types"},
    "regularizers": {"jax", "jaxtyping", "gan_jax.types"},
    "augment": {"jax", "jaxtyping", "numpy", "gan_jax.types"},
    "ops": {"jax", "jaxtyping", "numpy", "gan_jax.types"},
    "nets": BASE | {"flax", "gan_jax.ops"},
    "distributed": BASE | {"gan_jax.core.sharding"},
    "feature_networks": BASE | {"gan_jax.ops", "gan_jax.nets"},
    "core": BASE | {"optax", "flax.struct", "flax.training.train_state"},
    "gans": BASE | {"optax", "gan_jax.core", *(f"gan_jax.{package}" for package in PURE)},
    "eval": BASE | {"optax", "sklearn", "gan_jax.metrics", "gan_jax.nets", "gan_jax.feature_networks"},
    "metrics": {"jax", "jaxtyping", "numpy", "gan_jax.types"},
    "data": BASE | {"av", "grain", "tensorflow_datasets", "sklearn", "PIL"},
    "runtime": BASE
    | {
        "orbax",
        "tensorboardX",
        "wandb",
        "PIL",
        "cloudpickle",
        "matplotlib",
        "tqdm",
        "gan_jax.buckets",
        "gan_jax.core",
        "gan_jax.data",
        "gan_jax.distributed",
        "gan_jax.eval",
        "gan_jax.metrics",
    },
}
PACKAGES["runs"] = PACKAGES["runtime"] | {"av", "gan_jax.runtime", "gan_jax.nets", "ml_collections", "huggingface_hub"}
PACKAGES["sweep"] = PACKAGES["runtime"] | {"gan_jax.runtime", "gan_jax.runs", "optuna", "scipy"}
PACKAGES["cli"] = PACKAGES["sweep"] | {"gan_jax.sweep", "gan_jax.feature_networks", "absl", "ml_collections"}
PACKAGES["__main__"] = {"gan_jax.cli"}
FILES = sorted(
    path for part in ("gan_jax", "experiments", "benchmarks", "tests") for path in (ROOT / part).rglob("*.py")
)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def within(name, allowed):
    return any(name == prefix or name.startswith(prefix + ".") for prefix in allowed)


def test_every_package_has_a_rule():
    packages = {path.stem for path in LIBRARY.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert packages - {"__init__", "__pycache__", "py"} == set(PACKAGES)


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_packages_import_only_what_they_may(package):
    files = (
        [LIBRARY / f"{package}.py"]
        if (LIBRARY / f"{package}.py").exists()
        else sorted((LIBRARY / package).rglob("*.py"))
    )
    assert files
    for path in files:
        for name in imports(path):
            own = within(name, {f"gan_jax.{package}"}) or name.split(".")[0] in sys.stdlib_module_names
            # `from gan_jax import core` names the package itself
            assert own or within(name, PACKAGES[package]), f"{path.relative_to(ROOT)} imports {name}"


def test_only_nets_uses_linen_only_cli_flags_and_nobody_tensorflow_or_experiments():
    for path in LIBRARY.rglob("*.py"):
        for name in imports(path):
            assert not within(name, {"tensorflow", "experiments", "clu"}), f"{path}: {name}"
            assert not within(name, {"absl"}) or path.parent.name == "cli", f"{path}: {name}"
            configs = path.parent.name == "cli" or path.stem == "settings"
            assert not within(name, {"ml_collections"}) or configs, f"{path}: {name}"
            assert not within(name, {"flax.linen", "flax.nnx"}) or path.parent.name == "nets", f"{path}: {name}"


def test_text_is_read_and_written_as_utf8():
    """Whatever the locale: a workdir is read on other machines. `replacing` names it for what it writes."""
    for path in LIBRARY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
            words = [x.value for x in node.args if isinstance(x, ast.Constant)] if name == "open" else []
            text = name in ("read_text", "write_text") or any(word in ("r", "w", "a", "a+") for word in words)
            named = any(keyword.arg == "encoding" for keyword in getattr(node, "keywords", []))
            assert named or not text, f"{path}:{getattr(node, 'lineno', 0)}: name the encoding"


STARTERS = {
    "affected.py",
    "echo.py",
    "processes.py",
    "test_faults.py",
    "test_architecture.py",
}  # for git, mounts and fresh imports


def test_tests_start_processes_through_one_module_which_ends_them():
    for path in (ROOT / "tests").rglob("*.py"):
        assert path.name in STARTERS or not any(within(name, {"subprocess"}) for name in imports(path)), path


BRANCHING = {
    "runtime",
    "distributed",
    "buckets",
    "runs",
    "sweep",
    "eval",
    "feature_networks",
    "cli",
}  # packages that react to files, signals and other processes


def test_sizes():
    for path in FILES:
        lines = path.read_text().splitlines()
        assert len(lines) <= 500, f"{path}: {len(lines)} lines"
        if LIBRARY in path.parents:
            branches = 9 if path.parent.name in BRANCHING else 5
            for node in ast.parse(path.read_text()).body:
                methods = node.body if isinstance(node, ast.ClassDef) else [node]
                for function in methods:
                    check_size(path, function, branches)
    assert len((LIBRARY / "runtime" / "loop.py").read_text().splitlines()) <= 180


def check_size(path, function, branches):
    """Checks the lines of code and `if`s of a function with the functions inside it, and its own lines alone."""
    inside = [node for node in ast.walk(function) if isinstance(node, ast.FunctionDef)]
    if function not in inside:
        return
    sizes = {}
    for node in inside:
        document = ast.get_docstring(node, clean=False)
        sizes[node] = node.end_lineno - node.lineno + 1 - (document.count("\n") + 1 if document else 0)
    documents = sum((ast.get_docstring(node, clean=False) or "").count("\n") + 1 for node in inside)
    whole = function.end_lineno - function.lineno + 1 - documents
    own = sizes[function] - sum(node.end_lineno - node.lineno + 1 for node in inside if node is not function)
    ifs = sum(isinstance(node, ast.If) for node in ast.walk(function))
    where = f"{path.name}: {function.name}"
    assert whole <= 100 and own <= 60, f"{where} has {whole} lines, {own} of them its own: at most 100 and 60"
    assert ifs <= branches, f"{where} has {ifs} ifs: at most {branches}"


def python(code, *arguments, **env):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
    )


IMPORTS = """
import importlib, sys, jax, jax.numpy, jaxtyping
for module in sys.argv[1:]:
    before = {name.split(".")[0] for name in sys.modules}
    importlib.import_module(module)
    print(*({name.split(".")[0] for name in sys.modules} - before - {"gan_jax", *sys.stdlib_module_names}))
"""


def test_the_pure_packages_cost_jax_alone():
    """So do the operations below the networks. One process imports all in turn, and prints what each one adds."""
    modules = [f"gan_jax.{name}" for name in ("augment", "losses", "metrics", "regularizers", "ops")]
    brought = python(IMPORTS, *modules).stdout.splitlines()
    assert len(brought) == len(modules)
    for module, packages in zip(modules, brought, strict=True):
        assert set(packages.split()) <= {"wadler_lindig"}, f"{module} imports {packages}"  # jaxtyping needs it


@pytest.fixture
def poisoned_tensorflow(tmp_path):
    """A package `tensorflow` that records being imported."""
    package, mark = tmp_path / "site" / "tensorflow", tmp_path / "imported"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        f"import pathlib, traceback\npathlib.Path({str(mark)!r}).write_text(''.join(traceback.format_stack()))\n"
        "raise ImportError('tensorflow must not be imported')\n"
    )
    return str(package.parent), mark


TRAIN = (
    "import runpy, sys; sys.argv = ['train', *{flags!r}]; runpy.run_module('experiments.train', run_name='__main__')"
)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["digits", "mnist"])
def test_training_never_imports_tensorflow(source, tmp_path, poisoned_tensorflow, request):
    path, mark = poisoned_tensorflow
    flags = [f"--workdir={tmp_path / 'run'}", "--config.steps=2", "--config.report_every=2", "--config.width=2"]
    if source == "mnist":
        tfds_dir = request.getfixturevalue("tfds_dir")
        config = tmp_path / "mnist.py"
        text = (ROOT / "experiments" / "configs" / "dcgan_mnist.py").read_text()
        config.write_text(text.replace("labels=False)", "labels=False, split='train[:64]')"))
        flags += [f"--config={config}", f"--config.data_dir={tfds_dir}"]
    done = python(TRAIN.format(flags=flags), PYTHONPATH=path, XLA_FLAGS="")
    assert "done: step 2" in done.stdout, done.stderr
    assert not mark.exists(), mark.read_text()
    # the trap works
    python("import tensorflow", PYTHONPATH=path)
    assert mark.exists()


def test_no_paths_of_a_machine_and_no_unfinished_work():
    unfinished = ["TO" + "DO", "FIX" + "ME", "NotImplemented" + "Error"]
    for path in [*FILES, *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        text = path.read_text()
        assert not [word for word in unfinished if word in text], path


def test_benchmarks_that_tests_import_keep_their_flags_apart():
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES if "benchmarks" in path.parts
    }
    tests = [path for path in FILES if path.is_relative_to(ROOT / "tests")]
    imported = {name for test in tests for name in imports(test) if name in modules}
    assert "benchmarks.search" in imported
    for name in sorted(imported):
        for node in ast.walk(ast.parse(modules[name].read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("flags.DEFINE"):
                given = {keyword.arg for keyword in node.keywords}
                assert "flag_values" in given, f"{name}:{node.lineno}: pass flag_values=own_flags(__name__)"
