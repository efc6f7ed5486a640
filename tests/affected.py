"""The quick tests of what has changed: `python -m tests.affected [--base=REV] [FILE ...] [-- PYTEST_ARGUMENTS]`.

Runs the tests that import a changed module or start its command, unless they are slow, and the doctests of what has
changed. `FILE ...` are taken as changed instead of what git finds different from REV (HEAD by default: what is not
committed yet). What is further away in the graph of imports, and what takes long, is left to the whole suite.
"""

import argparse
import pathlib
import subprocess
import sys

import grimp

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("gan_jax", "experiments", "benchmarks", "tests")
COMMANDS = ("train", "sample", "evaluate", "sweep")  # of `tests.processes`, which names them by words
COMMANDS_HOMES = ("gan_jax.cli", "gan_jax.runs")  # packages that only commands use: their tests are those of commands
PAGES = {"tests/test_docs.py", "tests/test_readme.py"}
ALWAYS = {"tests/test_architecture.py"}
EVERYTHING = {"pyproject.toml", "tests/__init__.py", "tests/conftest.py", "tests/preload.py"}


def module_of(file: str) -> str:
    """`gan_jax/losses/__init__.py` -> `gan_jax.losses`."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def near(graph: grimp.ImportGraph, changed: str) -> set[str]:
    """The test modules that import a module, or what its own package hands on of it, or start its command."""
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
    """Who imports whom, with the commands that tests start."""
    sys.path.insert(0, str(ROOT))
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    for command in COMMANDS:
        graph.add_import(importer="tests.processes", imported=f"gan_jax.cli.{command}")
        graph.add_import(importer="tests.processes", imported=f"experiments.{command}")
        graph.add_import(importer=f"gan_jax.cli.{command}", imported="gan_jax.cli.flags")
    return graph


def affected(files: list[str], graph: grimp.ImportGraph) -> set[str]:
    """The files of tests, and of doctests, that changed files call for."""
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
        elif file.startswith("tests/"):  # golden files, and what else lies beside tests
            chosen |= {str(path.relative_to(ROOT)) for path in (ROOT / file).parent.glob("test_*.py")}
    return {file for file in chosen if (ROOT / file).exists()}


def missing(files: list[str]) -> list[str]:
    """Those that are not there."""
    return [file for file in files if not (ROOT / file).exists()]


def changed_since(base: str) -> list[str]:
    """Lists the files that differ from a commit, and untracked ones."""
    commands = (["diff", "--name-only", base], ["ls-files", "--others", "--exclude-standard"])
    found = [subprocess.run(["git", *x], cwd=ROOT, check=True, capture_output=True, text=True).stdout for x in commands]
    return "".join(found).splitlines()


def main() -> int:
    """See the module."""
    arguments = sys.argv[1:]
    split = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE", help="files to take as changed")
    parser.add_argument("--base", default="HEAD", metavar="REV", help="the commit to compare with")
    options = parser.parse_args(arguments[:split])
    if absent := missing(options.files):
        parser.error(f"no such file in {ROOT}: {', '.join(absent)}")
    files, graph = options.files or changed_since(options.base), build_graph()
    # Tests before doctests, whose import of a file alone would put a module where its package has a function.
    tests = sorted(affected(files, graph), key=lambda file: (file.startswith("gan_jax/"), file))
    print(f"{len(files)} files changed, {len(tests)} files of tests:", *tests, sep="\n  ", flush=True)
    if alone := [file for file in files if affected([file], graph) == ALWAYS]:
        print("no tests are near, but those of the house rules:", *alone, sep="\n  ", flush=True)
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadgroup", "-m", "not slow and not storm"]
    return subprocess.run([*command, *tests, *arguments[split + 1 :]], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
