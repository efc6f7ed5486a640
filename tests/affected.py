"""Runs the quick tests near a change: `python -m tests.affected [--base=REV] [FILE ...] [-- PYTEST_ARGUMENTS]`.

These are the tests that import a changed module or start its command, except slow ones, and the doctests of changed
modules. If files are given, they are taken as changed. Otherwise the changed files are those that differ from REV in
git (HEAD by default: what is not committed yet). Tests farther away in the import graph, and slow ones, are left to
the whole suite.
"""

import argparse
import pathlib
import subprocess
import sys

import grimp

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("gan_jax", "experiments", "benchmarks", "tests")
COMMANDS = (
    "train",
    "sample",
    "translate",
    "evaluate",
    "sweep",
)  # `tests.processes` starts them by name, without an import
COMMANDS_HOMES = ("gan_jax.cli", "gan_jax.runs")  # only the commands use these packages, so their tests test them
PAGES = {f"tests/test_{name}.py" for name in ("blocks", "docs", "readme", "site", "tutorials")}
ALWAYS = {"tests/test_architecture.py"}
EVERYTHING = {"pyproject.toml", "tests/__init__.py", "tests/conftest.py", "tests/preload.py"}


def module_of(file: str) -> str:
    """Returns the module of a file: `gan_jax/losses/__init__.py` -> `gan_jax.losses`."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def near(graph: grimp.ImportGraph, changed: str) -> set[str]:
    """Returns the test modules that import a module, directly or through its own package, or start its command."""
    own = ".".join(changed.split(".")[:2])
    homes = COMMANDS_HOMES if own in COMMANDS_HOMES or changed.startswith("experiments.") else (own,)
    passing, new, found = set[str](), {changed}, {changed}
    while new:
        passing |= new
        importers = set[str]().union(*(graph.find_modules_that_directly_import(module) for module in new))
        found |= importers
        inside = {x for x in importers if any(f"{x}.".startswith(f"{home}.") for home in homes)}
        new = (inside | importers & {"tests.processes"}) - passing
    return {module for module in found if module.split(".")[-1].startswith("test_")}


def build_graph() -> grimp.ImportGraph:
    """Builds the import graph, in which `tests.processes` also imports the commands that tests start."""
    sys.path.insert(0, str(ROOT))
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    for command in COMMANDS:
        graph.add_import(importer="tests.processes", imported=f"gan_jax.cli.{command}")
        graph.add_import(importer="tests.processes", imported=f"experiments.{command}")
        graph.add_import(importer=f"gan_jax.cli.{command}", imported="gan_jax.cli.flags")
    return graph


def affected(files: list[str], graph: grimp.ImportGraph) -> set[str]:
    """Returns the files with tests or doctests to run for changed files."""
    chosen = set(ALWAYS)
    for file in files:
        module = module_of(file)
        if file in EVERYTHING:
            chosen |= {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")}
        elif file.endswith(".md") or file == "constraints.txt":
            chosen |= PAGES
        elif module in graph.modules:
            chosen |= {f"{test.replace('.', '/')}.py" for test in near(graph, module)}
            chosen |= {file} if file.startswith("gan_jax/") and not file.startswith("gan_jax/cli/") else set()
        elif file.startswith("tests/"):  # golden files and other files beside tests
            chosen |= {str(path.relative_to(ROOT)) for path in (ROOT / file).parent.glob("test_*.py")}
    return {file for file in chosen if (ROOT / file).exists()}


def missing(files: list[str]) -> list[str]:
    """Returns the files that do not exist."""
    return [file for file in files if not (ROOT / file).exists()]


def changed_since(base: str) -> list[str]:
    """Returns the files that differ from a commit, and the untracked ones."""
    commands = (["diff", "--name-only", base], ["ls-files", "--others", "--exclude-standard"])
    found = [subprocess.run(["git", *x], cwd=ROOT, check=True, capture_output=True, text=True).stdout for x in commands]
    return "".join(found).splitlines()


def main() -> int:
    """Runs pytest on the affected tests; the module's docstring describes the command line."""
    arguments = sys.argv[1:]
    split = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE", help="files to take as changed")
    parser.add_argument("--base", default="HEAD", metavar="REV", help="the commit to compare with")
    options = parser.parse_args(arguments[:split])
    if absent := missing(options.files):
        parser.error(f"no such file in {ROOT}: {', '.join(absent)}")
    files, graph = options.files or changed_since(options.base), build_graph()
    # Tests come before doctests, which import single files: a package's attribute could then be the submodule instead
    # of the function of the same name.
    tests = sorted(affected(files, graph), key=lambda file: (file.startswith("gan_jax/"), file))
    print(f"{len(files)} files changed, {len(tests)} files of tests:", *tests, sep="\n  ", flush=True)
    if alone := [file for file in files if affected([file], graph) == ALWAYS]:
        print("no tests are near, but those of the house rules:", *alone, sep="\n  ", flush=True)
    quick = "not slow and not storm and not long"
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadgroup", "-m", quick]
    return subprocess.run([*command, *tests, *arguments[split + 1 :]], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
