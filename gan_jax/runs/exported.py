"""Folders of exported models: `load_exported("digits_model").sample(64)`. Nothing in such a folder is run as code."""

import functools
import hashlib
import importlib
import pathlib
import re
from collections.abc import Callable
from typing import Any, NotRequired, TypedDict

import jax
import numpy as np
from jax import export as exporting
from jaxtyping import PyTree
from PIL import Image

from gan_jax.buckets import StorageError
from gan_jax.core import priors
from gan_jax.host import read_json, user_path
from gan_jax.runs.programs import (
    CODES,
    INPUTS,
    KEY,
    LABEL,
    LATENTS_OF_PRIOR,
    SAMPLE,
    TRUNCATION,
    Z,
    check_operations,
)  # fmt: skip
from gan_jax.runtime import Film, clip_grid, image_grid, scatter
from gan_jax.runtime.trained import class_number
from gan_jax.types import InvalidInputError, Prior

FORMAT = "gan_jax exported model, version 1"
RECORD, WEIGHTS, CARD, PICTURE = "config.json", "model.safetensors", "README.md", "samples.png"
_NAME = re.compile(r"[\w-]+(\.[\w-]+)*", re.ASCII)  # of a file in the folder itself
_REMEDY = "get the folder again, or export it again"


class _Function(TypedDict):
    file: str
    inputs: list[str]


class _Prior(TypedDict):
    kind: str
    dim: int


class Record(TypedDict):
    """The content of `config.json`, of which more is for people."""

    format: str
    functions: dict[str, _Function]
    files: dict[str, str]
    prior: _Prior | None
    num_classes: int | None
    class_names: list[str]
    step: int
    state_sha256: str
    config: dict[str, Any]
    license: str
    metrics: NotRequired[list[dict[str, Any]]]
    differences: NotRequired[dict[str, float]]


def is_exported(folder: pathlib.Path) -> bool:
    """Whether a folder has the record of an exported model; a workdir has another one."""
    path = folder / RECORD
    return path.is_file() and "format" in read_json(path, dict[str, Any], remedy=_REMEDY)


class Exported:
    """An exported model, whose functions are compiled programs with their weights inside.

    Attributes:
      folder: folder of the model.
      record: content of its `config.json`.
      step: iterations that the model was trained for.
      class_names: names of the labels; empty if they have none.
      num_classes: number of classes of a conditional model; None if unconditional.
      functions: names of the functions.
    """

    def __init__(self, folder: str | pathlib.Path) -> None:
        """Reads the record of a folder; programs are read when they are first called.

        Nothing in the folder is run as code, whatever it contains: programs with other operations than computations are
        refused.

        Args:
          folder: folder that `gan-jax export` wrote.

        Raises:
          InvalidInputError: if the folder is not that of an exported model, or its record is damaged.
        """
        self.folder = user_path(folder, "folder", bucket=True)
        if not is_exported(self.folder):
            raise InvalidInputError(f"{self.folder} has no exported model: expected a folder of gan-jax export")
        form = read_json(self.folder / RECORD, dict[str, Any], remedy=_REMEDY)["format"]
        if form != FORMAT:
            raise InvalidInputError(
                f"{self.folder / RECORD} has the format {str(form)[:80]!r}, and this version of gan_jax reads "
                f"{FORMAT!r}: export the model again, or take the version that wrote it"
            )
        self.record: Record = read_json(self.folder / RECORD, Record, remedy=_REMEDY)
        self.step, self.class_names = self.record["step"], tuple(self.record["class_names"])
        self.num_classes = self.record["num_classes"]
        self.functions = tuple(name for name in self.record["functions"] if name != LATENTS_OF_PRIOR)

    def __repr__(self) -> str:
        """Shows the folder and the functions."""
        return f"Exported({str(self.folder)!r}, step={self.step}, functions={self.functions})"

    @functools.cached_property
    def prior(self) -> Prior | None:
        """The prior of the latents; None if the model maps data, or has a prior of its own (see `latents`)."""
        about = self.record["prior"]
        if about is None:
            return None
        if about["kind"] not in priors.KINDS:
            raise InvalidInputError(f"prior {about['kind'][:80]!r}: expected {' or '.join(priors.KINDS)}; {_REMEDY}")
        return priors.KINDS[about["kind"]](about["dim"])

    def content(self, name: str) -> bytes:
        """Reads a file of the folder, and checks that it is the one that was exported.

        Raises:
          InvalidInputError: if it is missing, or has another sha256 than the record says.
        """
        wanted = self.record["files"].get(name)
        if wanted is None or not _NAME.fullmatch(name):
            raise InvalidInputError(f"{self.folder / RECORD} names no file {name[:80]!r} in its folder: {_REMEDY}")
        path = self.folder / name
        try:
            if not path.is_file():  # opening a pipe would wait
                raise FileNotFoundError(f"no such file: {path}")
            content = path.read_bytes()
        except StorageError:
            raise
        except OSError as error:
            raise InvalidInputError(f"{path} cannot be read ({error}): {_REMEDY}") from error
        if (found := hashlib.sha256(content).hexdigest()) != wanted:
            raise InvalidInputError(
                f"{path} has {len(content):,} bytes and sha256 {found}, where {RECORD} says {wanted[:80]}: it is "
                f"damaged or was changed; {_REMEDY}"
            )
        return content

    @functools.cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The weights, by their names in a checkpoint: what the exported functions use of the trained state."""
        content = self.content(WEIGHTS)
        numpy = needed("safetensors.numpy")
        try:
            return numpy.load(content)
        except Exception as error:  # safetensors raises an exception of its own, and others for strange dtypes
            raise InvalidInputError(f"{self.folder / WEIGHTS} cannot be read ({error}): {_REMEDY}") from error

    def program(self, name: str) -> exporting.Exported:
        """Returns an exported function, after a check that it only computes.

        Raises:
          InvalidInputError: for a function that the folder does not have, or whose file is damaged, is made for other
            platforms or a newer JAX, or does anything but compute.
        """
        if name not in self.record["functions"]:
            raise InvalidInputError(f"{self.folder} has no function {name!r}: it has {', '.join(self.functions)}")
        return self._program(self.record["functions"][name]["file"])

    @functools.cache  # noqa: B019 - the programs live as long as the model
    def _program(self, file: str) -> exporting.Exported:
        content = self.content(file)
        needed("flatbuffers")
        try:
            exported = exporting.deserialize(bytearray(content))
            check_operations(exported, str(self.folder / file))
        except InvalidInputError:
            raise
        except Exception as error:  # flatbuffers, JAX and MLIR raise many types on bytes that they do not understand
            raise InvalidInputError(
                f"{self.folder / file} cannot be read ({type(error).__name__}: {str(error)[:200]}): it is no exported "
                f"program, or needs a newer jax than {jax.__version__}"
            ) from error
        return exported

    @functools.cache  # noqa: B019 - likewise
    def _compiled(self, name: str) -> Callable[..., PyTree]:
        return jax.jit(self.program(name).call)

    def call(self, name: str, x: PyTree, **options: Any) -> PyTree:
        """Calls a function.

        Args:
          name: name of the function, such as `translate`.
          x: latents, images or codes, `[b, ...]`.
          **options: `label`, `truncation` and `key` (of `jax.random.key_data`), if the function takes them.

        Returns:
          The outputs, on the device.

        Raises:
          InvalidInputError: for missing or unknown options, or another shape or dtype than the function takes.
        """
        call = self._compiled(name)
        names = self.record["functions"][name]["inputs"]
        given = {next((n for n in names if n in (Z, INPUTS, CODES)), Z): x} | options
        if missing := [n for n in names if n not in given]:
            raise InvalidInputError(f"{name}: {', '.join(missing)} is missing: it takes {', '.join(names)}")
        if unknown := [n for n in given if n not in names]:
            raise InvalidInputError(f"{name} takes {', '.join(names)}, not {', '.join(unknown)}: leave it out")
        try:
            return call(*(given[n] for n in names))
        except (ValueError, TypeError) as error:
            shapes = jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", given)
            raise InvalidInputError(f"{name} of {shapes}: {error}") from error

    def latents(self, n: int, *, seed: int = 0, truncation: float | None = None) -> jax.Array:
        """Draws latents: those of `Trained.sample` with the same seed.

        Raises:
          InvalidInputError: for a model that maps data, or a truncation that its prior does not have.
        """
        key = jax.random.split(jax.random.key(seed), 3)[0]
        if self.prior is not None:
            return self.prior.sample(key, n, truncation)
        if LATENTS_OF_PRIOR not in self.record["functions"]:
            raise InvalidInputError("this model has no latents, it maps data: pass inputs=")
        if truncation is not None:
            raise InvalidInputError(f"truncation={truncation}: the prior of this model is exported without truncation")
        return self._compiled(LATENTS_OF_PRIOR)(jax.random.key_data(key), np.arange(n, dtype=np.int32))

    def interpolated(self, num: int, between: int, *, seed: int = 0, truncation: float | None = None) -> jax.Array:
        """Returns `num` latents: rows of `between` each, which lead from one draw of the prior to another."""
        if self.prior is None:
            raise InvalidInputError("interpolation: this model has no prior with a known way between two latents")
        truncation = None if self._truncates else truncation
        ends = self.prior.sample(jax.random.key(seed), 2 * (num // between), truncation)
        return priors.interpolated(self.prior, ends, between)

    @property
    def _truncates(self) -> bool:
        """Whether `sample` itself takes the truncation, and not the prior."""
        return TRUNCATION in self.record["functions"][SAMPLE]["inputs"]

    def sample(
        self,
        n: int = 64,
        *,
        seed: int = 0,
        label: int | np.ndarray | None = None,
        truncation: float | None = None,
        inputs: Any = None,
    ) -> np.ndarray:
        """Draws samples. The arguments are those of `Trained.sample`, and so are the samples, up to rounding.

        Args:
          n: number of samples.
          seed: seed that fixes the latents.
          label: one class for all samples, or an array `[n]`; by default the classes in turn.
          truncation: truncation of the prior, or of the model's own truncation trick.
          inputs: latents, in place of those drawn from the prior; images for a model that maps them.

        Returns:
          Samples `[n, ...]`; images are in [-1, 1].

        Raises:
          InvalidInputError: for a model that makes no samples, or a label or truncation that it does not have.
        """
        if SAMPLE not in self.functions:
            raise InvalidInputError(f"this model has no function 'sample': it has {', '.join(self.functions)}")
        names = self.record["functions"][SAMPLE]["inputs"]
        if self._truncates and truncation is not None and not 0 <= truncation <= 1:
            raise InvalidInputError(f"truncation={truncation}: expected a number from 0 to 1, or None")
        if inputs is None:
            inputs = self.latents(n, seed=seed, truncation=None if self._truncates else truncation)
        options: dict[str, Any] = {}
        if LABEL in names:
            options[LABEL] = self._labels(n, label)
        elif label is not None:
            raise InvalidInputError("label was given, but this model is unconditional: leave it out")
        if self._truncates:
            options[TRUNCATION] = np.float32(1.0 if truncation is None else truncation)
        if KEY in names:
            options[KEY] = jax.random.key_data(jax.random.key(seed))
        return np.asarray(self.call(SAMPLE, inputs, **options))

    def _labels(self, n: int, label: int | np.ndarray | None) -> np.ndarray:
        count = self.num_classes or 0
        labels = np.arange(n) % count if label is None else np.broadcast_to(np.asarray(label), (n,))
        if wrong := sorted({int(x) for x in labels if not 0 <= x < count}):
            raise InvalidInputError(f"label={wrong}: this model has classes 0 to {count - 1}")
        return labels.astype(np.int32)

    def class_number(self, label: str) -> int:
        """Returns the number of a class, given by its name or its number; see `Trained.class_number`."""
        return class_number(self.class_names, label)

    def preview(self, samples: np.ndarray, columns: int) -> Image.Image | Film:
        """Draws samples as a picture: a grid of images or of clips, or a scatter plot of points.

        Raises:
          InvalidInputError: for samples that are none of these.
        """
        if samples.ndim == 5:
            return clip_grid(samples, columns)
        if samples.ndim == 2 and samples.shape[1] == 2:
            return scatter(samples, columns)
        return image_grid(samples, columns)


def needed(module: str) -> Any:
    """Imports a module that exported models need.

    Raises:
      InvalidInputError: if it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InvalidInputError(
            f"exported models need the package {module.partition('.')[0]}: pip install 'gan_jax[export]'"
        ) from error
