"""How the commands read their flags and end: bad input is one clear message and exit code 2."""

import pathlib
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from gan_jax.runtime import hosts
from gan_jax.types import InvalidInputError

DONE, BAD_INPUT, DIVERGED, LOST, STOPPED = 0, hosts.BAD_INPUT, 3, hosts.LOST, 75


def run(main: Callable[[Sequence[str]], int | None], *, config: bool = False) -> None:
    """Runs a command's `main`; its return value is the exit code.

    Args:
      main: gets the arguments left after the flags, of which there must be none.
      config: whether the command has `--config`, with `--config.key=value` for each key of the experiment file.
    """

    def parse(argv: Sequence[str]) -> Sequence[str]:
        try:
            if config:  # here, since ml_collections reads the overrides in sys.argv while the flag is defined
                sys.argv[1:] = sorted(sys.argv[1:], key=lambda flag: not flag.startswith("--config="))
                argv = sys.argv  # with --config=FILE before its overrides, wherever it was typed
                default = pathlib.Path(__file__).parent / "configs" / "digits.py"
                help_text = "experiment file; override its keys by --config.key=value"
                config_flags.DEFINE_config_file("config", str(default), help_text)
            rest = flags.FLAGS(argv)
        except flags.Error as error:
            fail(f"{error}\nPass --helpfull to see help on flags.")
        except Exception as error:  # what an experiment file or ml_collections raises while --config is parsed
            reason = str(error).replace("\\n", " ").replace("\\'", "'").strip("'\"")
            fail(f"--config: {type(error).__name__}: {reason}")
        if len(rest) > 1:
            fail(f"unexpected arguments {rest[1:]}: flags are written --name=value")
        return rest

    def guarded(argv: Sequence[str]) -> int | None:
        if not flags.FLAGS["verbosity"].present:
            # JAX, TFDS and Orbax narrate, also what they raise; --verbosity=0 lets them.
            logging.set_verbosity(logging.FATAL)
        try:
            return main(argv)
        except InvalidInputError as error:
            fail(str(error))
        except Exception as error:
            if hosts.client() is None:
                raise
            traceback.print_exc()
            message, code = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}", hosts.exit_code(error)
            lost = f"another process of the run is missing, or has failed ({message})"
            hosts.leave(code, lost if code == LOST else message)

    app.run(guarded, flags_parser=parse)


def fail(message: str) -> NoReturn:
    """Ends the process with a message for the person who started it; the other processes of the run end too."""
    if hosts.client() is not None:
        hosts.leave(BAD_INPUT, message)
    print(f"error: {message}", file=sys.stderr)
    sys.exit(BAD_INPUT)


def config_path() -> pathlib.Path:
    """The experiment file that `--config` names."""
    return pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"]))
