"""Experiment files: finding them by name or path, loading them, comparing them, and describing their keys."""

import ast
import functools
import importlib.machinery
import importlib.util
import inspect
import io
import pathlib
import re
import tokenize
import traceback
from collections.abc import Callable
from typing import Any

from gan_jax import buckets
from gan_jax.buckets import BucketPath
from gan_jax.host import user_path
from gan_jax.runs.settings import MEMORY_HELP, Config
from gan_jax.runtime import Experiment, settings
from gan_jax.types import InvalidInputError

_HERE = pathlib.Path(__file__).parents[1]
_SHIPPED = (_HERE / "configs", _HERE.parent / "experiments" / "configs")  # in a wheel, and in a clone
_OF_ANNOTATIONS = ("ml_collections", "Config")  # names that files import for annotations only
_MOVED = {
    "from experiments.settings import": "from gan_jax.runs import",
    "from experiments import settings": "from gan_jax.runs import settings",
}


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a file, with the imports of the first release renamed: they name a module that has moved since."""

    def source_to_code(self, data: Any, path: Any, **options: Any) -> Any:  # type: ignore[override]
        return super().source_to_code(_with_new_imports(importlib.util.decode_source(data)), path, **options)


def _with_new_imports(text: str) -> str:
    for old, new in _MOVED.items():
        text = text.replace(old, new)
    return text


def load_module(path: str | pathlib.Path) -> Any:
    """Loads an experiment file as a module.

    Args:
      path: path of the experiment file.

    Returns:
      The module, with `get_config()` and `build(config)`.

    Raises:
      InvalidInputError: if the file does not exist, lacks one of these two functions, or, once they are called, if one
        returns something else than a config or an `Experiment`.
    """
    if isinstance(path, BucketPath):  # Python reads modules, and `inspect` their source, from a disk
        with buckets.telling(f"config file {str(path)!r}"):
            path = buckets.local_copy(path) if path.is_file() else path
    path = pathlib.Path(path)
    if not path.is_file():
        raise InvalidInputError(
            f"config file {str(path)!r} does not exist; the names of shipped configs are {', '.join(shipped())}"
        )
    name = f"experiment_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_Loader(name, str(path)))
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the file is the user's, and may raise anything
        raise InvalidInputError(f"{place(path, error)}: {type(error).__name__}: {error}") from error
    for name, kind, made in (("get_config", Config, "run_config"), ("build", Experiment, "runtime.Experiment")):
        if not callable(getattr(module, name, None)):
            raise InvalidInputError(
                f"{path} has no function {name}: an experiment file has get_config() and build(config)"
            )
        setattr(module, name, _returning(kind, f"{made}(...)", getattr(module, name), path))
    module.build = _naming_keys(module.build, module.get_config)
    return module


def place(path: pathlib.Path, error: Exception) -> str:
    """Returns the path of an experiment file and the line where executing it failed."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [str(frame.lineno) for frame in frames if frame.filename == str(path)]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def _returning(kind: type, made: str, function: Callable[..., Any], path: pathlib.Path) -> Callable[..., Any]:
    """Wraps a function of an experiment file with a check of the type that it returns."""

    @functools.wraps(function)
    def checked(*arguments: Any) -> Any:
        try:
            inspect.signature(function).bind(*arguments)
        except TypeError as error:
            raise InvalidInputError(
                f"{function.__name__} of {path} has other arguments ({error}): an experiment file has get_config() and "
                "build(config)"
            ) from error
        found = function(*arguments)
        if not isinstance(found, kind):
            raise InvalidInputError(
                f"{function.__name__} of {path} returns {'nothing' if found is None else type(found).__name__}: "
                f"expected `return {made}`"
            )
        return found

    return checked


def _naming_keys(
    build: Callable[[Config], Experiment], get_config: Callable[[], Config]
) -> Callable[[Config], Experiment]:
    """Wraps `build`: an error that names an argument of the game, such as `gamma`, also names the config's key."""

    @functools.wraps(build)
    def named(config: Config) -> Experiment:
        try:
            return build(config)
        except InvalidInputError as error:
            text, usual = str(error), get_config()
            changed = {key: value for key, value in config.items() if usual.get(key, object) != value}
            if not changed or any(key in text for key in changed):
                raise
            same = [key for key, value in changed.items() if re.search(rf"={re.escape(str(value))}(?![\w.])", text)]
            keys = ", ".join(f"config.{key}={changed[key]}" for key in same or changed)
            raise InvalidInputError(f"{text} (with {keys})") from error

    return named


def shipped() -> dict[str, pathlib.Path]:
    """Returns the paths of the experiment files that come with the package, by name."""
    home = next((directory for directory in _SHIPPED if directory.is_dir()), None)
    files = [] if home is None else sorted(home.glob("[a-z]*.py"))
    return {path.stem: path for path in files}


def find(name: str) -> pathlib.Path:
    """Resolves the value of `--config`: the name of a shipped experiment file, or the path of any file.

    Raises:
      InvalidInputError: if there is no such file.
    """
    known = shipped()
    if name in known:
        return known[name]
    path = user_path(name, "--config", bucket=True)
    if not path.is_file():
        raise InvalidInputError(f"config {name!r}: expected a file, or one of the shipped configs: {', '.join(known)}")
    return path


def same_experiment(one: str, other: str) -> bool:
    """Whether two experiment files do the same.

    Comments, docstrings, annotations, formatting and the order of imports make no difference.

    Args:
      one: text of the first file.
      other: text of the second file.

    Returns:
      Whether the files are equal in everything else.
    """
    return one == other or _meaning(one) == _meaning(other)


def _meaning(text: str) -> list[str]:
    """Dumps the statements of a file, without what does not change its behaviour; the imports come first, sorted."""
    tree = ast.parse(_with_new_imports(text))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    imports, rest = list[str](), list[str]()
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", "")
            imports += [f"{module} {ast.dump(name)}" for name in node.names if name.name not in _OF_ANNOTATIONS]
        else:
            rest.append(ast.dump(node))
    return sorted(imports) + rest


def describe(module: Any) -> dict[str, str]:
    """Returns a one-line description of each key of a config, the experiment's own keys first.

    Keys that are fields of `Experiment` are described by its docstring, others by the comment behind them in
    `get_config`.

    Args:
      module: experiment file, from `load_module`.

    Returns:
      Descriptions by key; an empty string for a key without one.
    """
    known = _comments(inspect.getsource(module.get_config)) | MEMORY_HELP | _fields()
    own = [name for name in module.get_config() if name not in settings()]
    return {name: known.get(name, "") for name in [*own, *settings()]}


def _fields() -> dict[str, str]:
    """Extracts the first clause about each attribute from the docstring of `Experiment`."""
    attributes = (inspect.getdoc(Experiment) or "").partition("Attributes:")[2]
    entries = re.findall(r"^  (\w+): (.*(?:\n {4}.*)*)", attributes, re.MULTILINE)
    return {name: re.split(r"[;:.] |[.]$", " ".join(text.split()))[0] for name, text in entries}


def _comments(source: str) -> dict[str, str]:
    """Extracts the comments at the end of lines with a keyword argument, by keyword."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    keywords = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.keyword) and node.arg]
    return {str(node.arg): comments[node.lineno] for node in keywords if node.lineno in comments}
