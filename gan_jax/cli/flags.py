"""Flag parsing and exit codes of the commands. Bad input ends in one clear message and exit code 2."""

import pathlib
import re
import sys
import traceback
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from gan_jax.cli import help as pages
from gan_jax.distributed import hosts
from gan_jax.runs import Config, find, load_module, merged_config
from gan_jax.runs.workdir import SAVED, SWEEP_SAVED, has_begun, read_record
from gan_jax.runtime.workdir import EXPERIMENT_FILE
from gan_jax.types import InvalidInputError

DONE, BAD_INPUT, DIVERGED, LOST, STOPPED = 0, hosts.BAD_INPUT, 3, hosts.LOST, 75
_DEFAULT = "digits"
_chosen: dict[str, Any] = {}  # path and module of the experiment file of this process


def run(command: Any, *, config: bool) -> None:
    """Parses the flags and runs a command; the exit code is what its `main` returns.

    Args:
      command: the command's module; its docstring is the text of `--help`, and its `main()` runs it.
      config: whether the command takes `--config`, and `--config.KEY=VALUE` for each key of the experiment file.
    """

    def parse(argv: list[str]) -> list[str]:
        try:
            if config:
                argv = _take_config(argv)
            wanted = pages.asked(argv)
            if wanted and config:  # the page shows the config's values; other flags may be missing
                flags.FLAGS([argv[0], *(word for word in argv if re.match(r"--?(no)?config\.", word))])
            rest = [] if wanted else flags.FLAGS(argv)
        except InvalidInputError as error:
            fail(str(error))
        except flags.Error as error:
            fail(f"{error}\nPass --help to see the flags.")
        except Exception as error:  # anything that an experiment file or ml_collections may raise
            reason = str(error).replace("\\n", " ").replace("\\'", "'").strip("'\"")
            fail(f"--config: {type(error).__name__}: {reason}")
        if wanted:
            pages.show(pages.whole(command) if wanted == "helpfull" else pages.page(command, _chosen))
            sys.exit(DONE)
        if len(rest) > 1:
            fail(f"unexpected arguments {rest[1:]}: flags are written --name=value")
        return rest

    def guarded(argv: list[str]) -> int | None:
        if not flags.FLAGS["verbosity"].present:
            # JAX, TFDS and Orbax log much, and log errors that they also raise; --verbosity=0 shows it.
            logging.set_verbosity(logging.FATAL)
        try:
            return command.main()
        except InvalidInputError as error:
            fail(str(error))
        except Exception as error:
            if hosts.client() is None:
                raise
            # An ordinary exit of one process would wait in a barrier for the others: tell them and leave at once.
            traceback.print_exc()
            message, code = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}", hosts.exit_code(error)
            lost = f"another process of the run is missing, or has failed ({message})"
            hosts.leave(code, lost if code == LOST else message)

    app.run(guarded, flags_parser=parse)


def _take_config(argv: list[str]) -> list[str]:
    """Defines a flag `--config.KEY` for each key of the experiment file; returns the arguments without `--config`."""
    # Which flags exist depends on the experiment file, so --config is read before absl parses anything.
    name, rest = _taken("config", argv)
    kept = None if name is not None else _kept(rest)
    path = find(_DEFAULT if name is None else name) if kept is None else kept / EXPERIMENT_FILE
    module = load_module(path)
    values = {} if kept is None else read_record(kept)["config"]
    where = f"the config kept in {kept}" if kept is not None else f"--config={name or _DEFAULT}"
    _chosen.update(name=where, path=path, module=module, config=merged_config(module, values))
    config_flags.DEFINE_config_dict("config", _chosen["config"], sys_argv=rest)
    return rest


def _taken(flag: str, argv: list[str]) -> tuple[str | None, list[str]]:
    """Returns the last value of a flag, written with `=` or after a space, None without; and the other arguments."""
    value, rest, words = None, argv[:1], iter(argv[1:])
    for word in words:
        if found := re.fullmatch(rf"--?{flag}(=(?P<value>.*))?", word, re.DOTALL):
            value = next(words, "") if found["value"] is None else found["value"]
        else:
            rest.append(word)
    return value, rest


def _kept(argv: list[str]) -> pathlib.Path | None:
    """Returns `--workdir` if it holds a run or sweep to continue, with its copy of the experiment file; else None."""
    named = _taken("workdir", argv)[0]
    workdir = pathlib.Path(named) if named else None
    if workdir is None or not (workdir / EXPERIMENT_FILE).is_file():
        return None
    return workdir if has_begun(workdir, (*SAVED, *SWEEP_SAVED)) else None


def experiment_file() -> tuple[pathlib.Path, Any, Config]:
    """Returns the path of the experiment file, its loaded module, and the config with the overrides from flags."""
    return _chosen["path"], _chosen["module"], flags.FLAGS.config


def fail(message: str) -> NoReturn:
    """Ends this process with an error message for the user, and the other processes of the run too."""
    if hosts.client() is not None:
        hosts.leave(BAD_INPUT, message)
    print(f"error: {message}", file=sys.stderr)
    sys.exit(BAD_INPUT)
