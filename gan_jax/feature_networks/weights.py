"""Weight files: finding them, verifying them, and reading their arrays by name.

Nothing is downloaded here (see `fetch`), and no code from a file is executed.
"""

import hashlib
import os
import pathlib
from collections.abc import Collection, Mapping
from typing import BinaryIO, NamedTuple

import numpy as np

from gan_jax.feature_networks.archive import Archive, open_archive
from gan_jax.feature_networks.pickles import RefusedError
from gan_jax.host import user_path
from gan_jax.types import InvalidInputError

VARIABLE = "GAN_JAX_WEIGHTS"
_FLOATS = ("float16", "float32")

Shapes = Mapping[str, tuple[int, ...]]


def default_directory() -> pathlib.Path:
    """Returns the directory of weights: `$GAN_JAX_WEIGHTS`, or `weights` in the user's cache, `~/.cache/gan_jax`."""
    if given := os.environ.get(VARIABLE):
        return user_path(given, f"${VARIABLE}")
    try:
        return user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "$XDG_CACHE_HOME") / "gan_jax" / "weights"
    except InvalidInputError:  # a user without a home, as containers may have
        return pathlib.Path(os.devnull) / "gan_jax" / "weights"


class WeightsFile(NamedTuple):
    """A weight file, as published by the network's authors.

    Attributes:
      name: file name.
      size: size in bytes; it appears in messages only.
      sha256: hash of the content; None accepts any file that has the right tensors, and its hash is recorded.
      url: where to get the file.
      used: name and shape of every tensor that the network needs.
      unused: names of other tensors that the file may have; they are not read.
      other_names: names under which the same content is published elsewhere.
    """

    name: str
    size: int
    sha256: str | None
    url: str
    used: Shapes
    unused: Collection[str] = ()
    other_names: tuple[str, ...] = ()

    def wanted(self) -> str:
        """Describes the expected file, where to get it and where to put it, for error messages."""
        names = " or ".join([self.name, *self.other_names])
        known = f"{self.size:,} bytes, sha256 {self.sha256}"
        content = known if self.sha256 else f"about {self.size:,} bytes, a file of your own choice"
        how = "with `gan-jax fetch` or by hand, " if self.sha256 else ""
        return (
            f"expected {names} ({content}); get it from {self.url}, {how}and put it into {default_directory()}, or "
            f"into a directory that ${VARIABLE} or --feature_weights=DIR names"
        )

    def load(self, directory: str | os.PathLike[str] | None = None) -> tuple[dict[str, np.ndarray], str]:
        """Reads the tensors that the network needs.

        The hash is verified before any of the file is parsed. Half-precision tensors are converted to float32.

        Args:
          directory: directory that holds the file; None for `$GAN_JAX_WEIGHTS`, or `~/.cache/gan_jax/weights`.

        Returns:
          The arrays of `used`, float32, by name; and the file's sha256.

        Raises:
          InvalidInputError: if the directory or the file is missing; if the file has another hash, is damaged, or is
            not a PyTorch file; or if tensors are unknown, missing, not finite, or of another shape or dtype.
        """
        path = self._find(directory)
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                if self.sha256 is not None and digest != self.sha256:
                    raise RefusedError(
                        f"it has {path.stat().st_size:,} bytes and sha256 {digest}: damaged, or another file"
                    )
                return self._read(file), digest
        except RefusedError as error:
            raise InvalidInputError(f"{path} is refused, because {error}; {self.wanted()}") from error
        except OSError as error:
            raise InvalidInputError(f"{path} cannot be read ({error}); {self.wanted()}") from error

    def _find(self, directory: str | os.PathLike[str] | None) -> pathlib.Path:
        root = default_directory() if directory is None else user_path(directory, "the directory of weights")
        for name in (self.name, *self.other_names):
            if (root / name).is_file():
                return root / name
        found = "does not exist" if not root.is_dir() else f"has no {self.name}"
        raise InvalidInputError(f"the directory of weights {str(root)!r} {found}; {self.wanted()}")

    def _read(self, file: BinaryIO) -> dict[str, np.ndarray]:
        archive = open_archive(file)
        self._check(archive)
        arrays = {}
        for name in self.used:
            array = archive.read(archive.tensors[name]).astype(np.float32)
            if not np.isfinite(array).all():
                raise RefusedError(f"tensor {name} has values that are not finite")
            arrays[name] = array
        return arrays

    def _check(self, archive: Archive) -> None:
        unknown = sorted(set(archive.tensors) - set(self.used) - set(self.unused))
        missing = sorted(set(self.used) - set(archive.tensors))
        if unknown or missing:
            told = [
                f"{len(names)} {what} (such as {names[0][:80]})"
                for what, names in (("unknown tensors", unknown), ("missing ones", missing))
                if names
            ]
            raise RefusedError(f"it is of another network, with {' and '.join(told)}")
        for name, shape in self.used.items():
            tensor = archive.tensors[name]
            if tensor.shape != tuple(shape):
                raise RefusedError(f"tensor {name} has shape {tensor.shape[:8]}: expected {tuple(shape)}")
            if tensor.storage.dtype.name not in _FLOATS:
                raise RefusedError(f"tensor {name} is of {tensor.storage.dtype.name}: expected one of {_FLOATS}")
