"""Flag parsing and exit codes of the commands. Bad input ends in one clear message and exit code 2."""

import difflib
import functools
import pathlib
import re
import sys
import traceback
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from gan_jax.cli import help as pages
from gan_jax.distributed import hosts
from gan_jax.host import user_path
from gan_jax.runs import Config, find, load_module, merged_config
from gan_jax.runs.experiment_file import place
from gan_jax.runs.settings import check_finite
from gan_jax.runs.workdir import SAVED, SWEEP_SAVED, has_begun, read_record
from gan_jax.runtime.workdir import EXPERIMENT_FILE
from gan_jax.types import InvalidInputError

DONE, BAD_INPUT, DIVERGED, LOST, STOPPED = 0, hosts.BAD_INPUT, 3, hosts.LOST, 75
UNREAD = 141  # as of a program that the signal SIGPIPE has ended
_DEFAULT = "digits"
_chosen: dict[str, Any] = {}  # path and module of the experiment file of this process


def run(command: Any, *, config: bool) -> None:
    """Parses the flags and runs a command; the exit code is what its `main` returns.

    Args:
      command: the command's module; its docstring is the text of `--help`, and its `main()` runs it. With `TAKES_NAMES`
        it receives the arguments that are no flags.
      config: whether the command takes `--config`, and `--config.KEY=VALUE` for each key of the experiment file.
    """

    def guarded(argv: list[str]) -> int | None:
        if not flags.FLAGS["verbosity"].present:
            # JAX, TFDS and Orbax log much, and log errors that they also raise; --verbosity=0 shows it.
            logging.set_verbosity(logging.FATAL)
        try:
            return command.main(*argv[1:])
        except InvalidInputError as error:
            fail(str(error))
        except BrokenPipeError:
            pages.unread()
            return UNREAD
        except Exception as error:
            if hosts.client() is None:
                raise
            # An ordinary exit of one process would wait in a barrier for the others: tell them and leave at once.
            traceback.print_exc()
            message, code = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}", hosts.exit_code(error)
            lost = f"another process of the run is missing, or has failed ({message})"
            hosts.leave(code, lost if code == LOST else message)

    app.run(guarded, flags_parser=functools.partial(parse, command, config=config))


_PLAIN = {
    r"flags? --\w+=None: Flag --(\w+) must have a value other than None\.?": r"--\1 is missing",
    r"invalid literal for int\(\) with base 10: .*": "expected an integer in digits, such as 1000",
    r"could not convert string to float: .*": "expected a number, such as 0.001",
}


def _plain(text: str) -> str:
    """Rewords what absl, ml_collections and Python say about values of flags."""
    for theirs, ours in _PLAIN.items():
        text = re.sub(theirs, ours, text)
    return text


def parse(command: Any, argv: list[str], *, config: bool) -> list[str]:
    """Parses the flags of a command; shows its help page if they ask for it, and ends the process if one is wrong."""
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
        fail(f"{_plain(str(error))}\nPass --help to see the flags.")
    except Exception as error:  # anything that an experiment file or ml_collections may raise
        fail(f"{place(_chosen['path'], error) if _chosen else '--config'}: {type(error).__name__}: {_reason(error)}")
    if wanted:
        pages.show(pages.whole(command) if wanted == "helpfull" else pages.page(command, _chosen))
        sys.exit(DONE)
    if len(rest) > 1 and not getattr(command, "TAKES_NAMES", False):
        fail(f"unexpected arguments {rest[1:]}: flags are written --name=value")
    return rest


def _take_config(argv: list[str]) -> list[str]:
    """Defines a flag `--config.KEY` for each key of the experiment file; returns the arguments without `--config`."""
    # Which flags exist depends on the experiment file, so --config is read before absl parses anything.
    name, rest = _taken("config", argv)
    workdir, _ = _taken("workdir", rest)
    kept = _kept(user_path(workdir, "--workdir", bucket=True)) if name is None and workdir is not None else None
    path = find(_DEFAULT if name is None else name) if kept is None else kept / EXPERIMENT_FILE
    module = load_module(path)
    values = {} if kept is None else read_record(kept)["config"]
    where = f"the config kept in {kept}" if kept is not None else f"--config={name or _DEFAULT}"
    _chosen.update(name=where, path=path, module=module)
    _chosen.update(config=merged_config(module, values))  # runs the file's get_config, which may fail
    _check_keys(rest, _chosen["config"])
    config_flags.DEFINE_config_dict("config", _chosen["config"], sys_argv=rest)
    return rest


def _check_keys(argv: list[str], config: Config) -> None:
    """Refuses `--config.KEY` for a key that the config does not have."""
    for word in argv[1:]:
        found = re.match(r"--?(?:no)?config\.([^=.\[]*)", word)
        if found and found[1] not in config:
            near = "".join(f' Did you mean "{name}"?' for name in difflib.get_close_matches(found[1], config, 1))
            raise InvalidInputError(
                f"--config.{found[1]}: the config has no such key.{near} It has {', '.join(config)}"
            )


def _taken(flag: str, argv: list[str]) -> tuple[str | None, list[str]]:
    """Returns the last value of a flag, written with `=` or after a space, None without; and the other arguments."""
    value, rest, words = None, argv[:1], iter(argv[1:])
    for word in words:
        name, equals, given = word.partition("=")
        if name in (f"-{flag}", f"--{flag}"):
            value = given if equals else next(words, "")
        else:
            rest.append(word)
    return value, rest


def _kept(workdir: pathlib.Path) -> pathlib.Path | None:
    """Returns a workdir if it holds a run or sweep to continue, with its copy of the experiment file; else None."""
    begun = (workdir / EXPERIMENT_FILE).is_file() and has_begun(workdir, (*SAVED, *SWEEP_SAVED))
    return workdir if begun else None


def experiment_file() -> tuple[pathlib.Path, Any, Config]:
    """Returns the path of the experiment file, its loaded module, and the config with the overrides from flags."""
    for key, default in _chosen["module"].get_config().items():
        check_finite(f"config.{key}", flags.FLAGS.config[key], default)
    return _chosen["path"], _chosen["module"], flags.FLAGS.config


def chosen() -> str:
    """Describes the experiment file for messages, such as `--config=digits`."""
    return str(_chosen["name"])


def _reason(error: Exception) -> str:
    """Returns an error's message, on one line; that of a KeyError would be quoted."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split())


def fail(message: str) -> NoReturn:
    """Ends this process with an error message for the user, and the other processes of the run too."""
    if hosts.client() is not None:
        hosts.leave(BAD_INPUT, message)
    print(f"error: {message}", file=sys.stderr)
    sys.exit(BAD_INPUT)
