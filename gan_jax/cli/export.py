"""Exports a trained run to a folder that others use without this library.

  gan-jax export --workdir=runs/digits --out=digits_model

The folder has the generator as a program with its averaged weights inside
(generator.stablehlo, for CPUs, NVIDIA GPUs and TPUs, with batches of any size),
the same weights as model.safetensors, config.json, samples.png, and README.md,
a model card with the metrics of eval.jsonl and five lines of JAX that run it.
Other functions of the game, such as translate, encode and decode, have programs
of their own. gan-jax sample --workdir=FOLDER and gan_jax.load(FOLDER) take it,
and run no code from it. It needs: pip install 'gan_jax[export]'.

--push_to=NAME/MODEL uploads the folder to the Hugging Face Hub with your login
(hf auth login), to a private repository unless you pass --public. It needs:
pip install 'gan_jax[hub]'. It was not tried against the real hub.

This runs the experiment file in the workdir: use only workdirs of people whose
code you would run.
"""

import re

from absl import flags

from gan_jax.cli import flags as commands
from gan_jax.cli import kinds
from gan_jax.host import user_path
from gan_jax.runs import export
from gan_jax.runs.hub import check_login, push
from gan_jax.runs.programs import PLATFORMS
from gan_jax.types import InvalidInputError

_WORKDIR = kinds.path("workdir", None, "directory of the run, or its URL: gs:// or s3://", required=True, bucket=True)
_OUT = kinds.path("out", None, "folder to write: a new one, or one of an earlier export", required=True)
_STEP = kinds.step("step", None, "step of the checkpoint, or best; the newest by default", "best")
_RAW = flags.DEFINE_bool("raw", False, "export the generator itself instead of its average")
_FUNCTIONS = flags.DEFINE_list("functions", None, "functions of the game; by default all that can be exported")
_BATCH = flags.DEFINE_integer("batch", 0, "size of the batch, for games that need a fixed one; 0 for any", 0, 2**16)
_PLATFORMS = flags.DEFINE_list("platforms", list(PLATFORMS), "platforms that can run the programs")
_LICENSE = flags.DEFINE_string("license", "unknown", "licence of the weights for the card, such as apache-2.0")
_DATA_DIR = kinds.path("data_dir", None, "directory of the run's data, if it is another one now than in training")
_PUSH_TO = kinds.given("push_to", "repository on the Hugging Face Hub, NAME/MODEL, to upload the folder to")
_PUBLIC = flags.DEFINE_bool("public", False, "make a new repository on the hub public")

_KNOWN = ("cpu", "cuda", "rocm", "tpu")


def main() -> int:
    """Runs the command."""
    step, repository = _STEP.value, _PUSH_TO.value
    if unknown := [name for name in _PLATFORMS.value if name not in _KNOWN] or not _PLATFORMS.value:
        raise InvalidInputError(f"--platforms={_PLATFORMS.value}: expected some of {', '.join(_KNOWN)}; not {unknown}")
    if not re.fullmatch(r"[\w.+-]+", _LICENSE.value, re.ASCII):
        raise InvalidInputError(f"--license={_LICENSE.value!r}: expected an identifier, such as apache-2.0 or other")
    if repository is not None:
        check_login(repository)  # before the work, not after it
    exported = export(
        _WORKDIR.value,
        user_path(_OUT.value, "--out"),
        step=step if step in (None, "best") else int(step),
        raw=_RAW.value,
        functions=_FUNCTIONS.value,
        batch=_BATCH.value or None,
        platforms=_PLATFORMS.value,
        license=_LICENSE.value,
        values={} if _DATA_DIR.value is None else {"data_dir": _DATA_DIR.value},
    )
    differences = exported.record["differences"]
    for name, about in exported.record["functions"].items():
        print(f"  {about['file']}: {', '.join(about['inputs'])}; differs from the game by {differences[name]:.2g}")
    print(f"step {exported.step:,} in {exported.folder}")
    if repository is not None:
        print(f"uploaded to {push(exported.folder, repository, public=_PUBLIC.value)}")
    return commands.DONE
