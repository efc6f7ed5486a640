"""Run in a process of its own for each command: parses and checks values of its flags that a grammar makes.

Each example is a command line. It is right, or refused with a message that names the flag, and nothing else: no other
exception, and no example that takes seconds. Commands of one process would define the same flags twice.
"""

import contextlib
import importlib
import io
import os
import pathlib
import string
import sys
import tempfile

from absl import flags
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gan_jax.cli import flags as commands
from gan_jax.types import InvalidInputError

EXAMPLES = {"train": 200, "sweep": 200, "sample": 60, "translate": 60, "evaluate": 60}
USUAL = {"evaluate": {"metrics": "fcd2k"}, "translate": {"inputs": "pictures", "out": "translated"}}
LAUNCHING = ("multihost", "coordinator", "num_processes", "process_id", "connect_timeout", "step_timeout")

numbers = st.one_of(
    st.integers(-3, 300).map(str),
    st.integers(-(10**30), 10**30).map(str),
    st.floats(width=64).map(str),
    st.sampled_from(["1e23", "1e-400", "1e999", "-0", "0x10", "1_000", "²", "٣", "½", "9" * 5000, "1,5", "3.0", "+7"]),
)
words = st.one_of(
    st.sampled_from(["", " ", "None", "true", "none", "newest", "best", "all", "fcd2k", "float32", "tpe", "grid"]),
    st.text(string.printable + "äß²", max_size=8),
)
paths = st.sampled_from(["", " ", "x", "~/x", "~nobody-there/x", "/proc/x", "/dev/null/x", "x.npy", "x.PNG", "a/b.jpg"])
metric = st.tuples(
    st.sampled_from(["", "", "sample:", "reconstruct:", ":", "x:"]),
    st.sampled_from(["fid", "fcd", "kid", "mixture", "prdc", "psnr", "FID", "", "fcd_infinity", "no"]),
    st.one_of(st.just(""), numbers.map(lambda number: f"{number}k")),
).map("".join)
metrics = st.lists(metric, max_size=3).map(",".join)
keys = st.sampled_from(["learning_rate", "r1_gamma", "seed", "dtype", "width", "steps", "batch_size", "nothing", ""])
call = st.tuples(st.sampled_from(["log", "uniform", "int", "LOG", "", "choice"]), st.lists(numbers | words, max_size=3))
space = st.lists(
    st.tuples(keys, st.one_of(call.map(lambda x: f"{x[0]}({','.join(x[1])})"), numbers, metrics, words)).map("=".join),
    max_size=3,
).map(";".join)
choices = st.tuples(st.sampled_from(["top", "reject", "mh", "", "no"]), numbers | words).map(":".join)
ids = st.lists(numbers, max_size=4).map(",".join)
players = st.lists(st.tuples(words, words).map("=".join), max_size=3).map(",".join)
anything = st.one_of(numbers, words, paths, metrics, space, choices, ids, players)
OWN = {
    "metrics": metrics, "config.metrics": metrics, "config.best_metric": metrics.map("eval/{}".format), "space": space,
    "choose": choices, "export": ids, "init_players": players, "workdir": paths, "out": paths, "inputs": paths,
    "targets": paths, "grid": paths,
}  # fmt: skip


def reset():
    """Forgets the last example: its config, and the values of its flags."""
    for name in list(flags.FLAGS):
        if name == "config" or name.startswith("config."):
            delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()


def outcome(command, argv):
    """What the command says of its flags: the message of the error, or an empty string."""
    reset()
    has_config = command.__name__.endswith(("train", "sweep"))
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            commands.parse(command, ["gan-jax", *argv], config=has_config)
        except SystemExit as end:
            assert end.code == commands.BAD_INPUT, end.code
            return said.getvalue()
    try:
        command.check()
        if has_config:
            _, module, config = commands.experiment_file()
            experiment = module.build(config)
            assert experiment.steps == config.steps
    except InvalidInputError as error:
        return str(error)
    return ""


def likely(name, default, values):
    """Values that suit a flag's type, for half of the examples."""
    if values:
        return st.sampled_from(list(values))
    typed = {bool: st.sampled_from(["true", "false"]), int: st.integers(0, 99), float: st.floats(0, 1)}
    return typed.get(type(default), OWN.get(name, words)).map(str)


def main(verb):
    command = importlib.import_module(f"gan_jax.cli.{verb}")
    reset()
    kinds = {name: flags.FLAGS[name] for name in LAUNCHING if name in flags.FLAGS}
    kinds |= {flag.name: flag for flag in flags.FLAGS.flags_by_module_dict()[command.__name__]}
    strategies = {name: likely(name, x.default, getattr(x.parser, "enum_values", ())) for name, x in kinds.items()}
    if verb in ("train", "sweep"):
        config = importlib.import_module("experiments.configs.digits").get_config().to_dict()
        strategies |= {f"config.{key}": likely(f"config.{key}", value, ()) for key, value in config.items()}
        strategies |= {"config": paths, "config.nothing": numbers}

    def value(name):
        return st.tuples(st.just(name), strategies[name] | strategies[name] | OWN.get(name, anything) | anything)

    one = st.sampled_from(sorted(strategies)).flatmap(value)
    seen = {"right": 0, "refused": 0}

    @settings(max_examples=EXAMPLES[verb], deadline=3000, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.lists(one, min_size=1, max_size=3, unique_by=lambda x: x[0]))
    def check(given_flags):
        usual = {"workdir": "run"} | USUAL.get(verb, {})
        argv = [f"--{name}={value}" for name, value in ({**usual, **dict(given_flags)}).items()]
        message = outcome(command, argv)
        seen["refused" if message else "right"] += 1
        named = [name for name, _ in given_flags if name.removeprefix("config.")[:5] in message]
        assert not message or named, f"{argv} is refused without a word of its flags: {message}"
        assert "Traceback" not in message and "Error:" not in message, message

    check()
    print(seen)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        os.environ["HOME"] = home
        os.chdir(pathlib.Path(home))
        pathlib.Path("pictures").mkdir()
        main(sys.argv[1])
