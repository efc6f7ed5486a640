"""Paths in a bucket, which the rest of the library uses as it uses paths on a disk that all processes share."""

import atexit
import fnmatch
import io
import itertools
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from typing import IO, Any

from gan_jax.buckets import tails
from gan_jax.buckets.lease import Lease, holding
from gan_jax.buckets.objects import SCHEMES, Bucket, absent, bucket

_RANDOM = re.compile(r"[0-9a-f]{32}")  # names of Orbax's large objects, which no two processes give


class BucketPath(pathlib.PurePosixPath):
    """A path such as `gs://bucket/run`, with the methods of `pathlib.Path` that make sense for objects.

    A directory exists as long as an object is below it. Every write replaces an object as a whole, under the lease of
    the workdir if this process holds it; it is in the bucket when the method returns.

    Raises:
      StorageError: from every method, if the bucket cannot be used.
    """

    def __str__(self) -> str:
        return super().__str__().replace(":/", "://", 1)

    def __fspath__(self) -> str:
        return str(self)

    @property
    def at(self) -> Bucket:
        """The bucket."""
        return bucket(self.parts[0].rstrip(":"), self.parts[1])

    @property
    def key(self) -> str:
        """The key of the object."""
        return "/".join(self.parts[2:])

    @property
    def lease(self) -> Lease | None:
        """The lease under which this process writes here, if it holds one."""
        return holding(str(self))

    def absolute(self) -> "BucketPath":
        return self

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        return self.at.read(self.key)[0] is not None

    def is_dir(self) -> bool:
        return bool(self.at.keys(f"{self.key}/" if self.key else ""))

    def files(self) -> list["BucketPath"]:
        """Returns all objects below this directory, however deep."""
        root = BucketPath("/".join(self.parts[:2]))
        return [root / key for key in self.at.keys(f"{self.key}/" if self.key else "")]

    def glob(self, pattern: str) -> Iterator["BucketPath"]:
        wanted = pattern.split("/")
        plain = list(itertools.takewhile(lambda part: not set(part) & set("*?["), wanted[:-1]))
        found = set()
        for path in self.joinpath(*plain).files():
            parts = path.parts[len(self.parts) :][: len(wanted)]
            if len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted)):
                found.add(self.joinpath(*parts))
        yield from sorted(found)

    def iterdir(self) -> Iterator["BucketPath"]:
        return self.glob("*")

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing: a bucket has no directories."""

    def read_bytes(self) -> bytes:
        content = self.at.read(self.key)[0]
        if content is None:
            raise FileNotFoundError(f"there is no object {self}")
        return content

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def open(self, mode: str = "r", encoding: str | None = None) -> IO[Any]:
        if mode not in ("r", "rb"):
            raise ValueError(f"{self}: an object is opened to be read, not with mode {mode!r}")
        binary = io.BytesIO(self.read_bytes())
        return binary if "b" in mode else io.TextIOWrapper(binary, encoding=encoding)

    def write_bytes(self, data: bytes) -> None:
        tails.settle()
        if (lease := self.lease) is not None:
            lease.put(self.key, data)
        else:
            self.at.write(self.key, data)

    def write_text(self, data: str, encoding: str = "utf-8") -> None:
        self.write_bytes(data.encode(encoding))

    def unlink(self, missing_ok: bool = False) -> None:
        if not missing_ok:
            self.read_bytes()
        self._delete([self.key])

    def remove_tree(self) -> None:
        """Deletes all objects below this directory."""
        self._delete([path.key for path in self.files()])

    def _delete(self, keys: list[str]) -> None:
        """Deletes objects as this process found them, not those that a next holder of the lease has written since."""
        if (lease := self.lease) is None:
            self.at.delete_all(dict.fromkeys(keys))
            return
        known = self.at.generations(key for key in keys if not _RANDOM.fullmatch(key.rpartition("/")[2]))
        # After the keys and generations are known: while this process hung, others may have written the same keys.
        lease.check(surely=True)
        for key in keys:
            lease.forget(key)
        self.at.delete_all({key: known.get(key) for key in keys if known.get(key) != absent()})


def parse(text: str) -> BucketPath | str:
    """Returns the path of a URL, or what is wrong with it."""
    scheme, _, rest = text.partition(":")
    name = rest.lstrip("/").partition("/")[0]
    if scheme not in SCHEMES:
        return "expected a path, or a URL of a bucket: gs://BUCKET/DIRECTORY or s3://BUCKET/DIRECTORY"
    if not rest.startswith("//") or rest.startswith("///") or not name:
        return f"expected {scheme}://BUCKET/DIRECTORY"
    path = BucketPath(text)
    if ".." in path.parts or not path.key:
        return f"expected {scheme}://BUCKET/DIRECTORY, with a directory of its own in the bucket and no `..`"
    return path


def append_line(path: BucketPath, line: bytes) -> None:
    """Appends a line to a log; see `tails.append`."""
    tails.append(path.at, path.key, line, path.lease)


def read_log(path: BucketPath) -> bytes:
    """Reads all parts of a log.

    Raises:
      FileNotFoundError: if there is none.
    """
    parts = tails.read_parts(path.at, path.key)
    if not parts:
        raise FileNotFoundError(f"there is no object {path}")
    return b"".join(parts.values())


def write_log(path: BucketPath, content: bytes) -> None:
    """Makes a log hold `content`: see `tails.write_parts`."""
    tails.settle()
    tails.forget(str(path))
    lease = path.lease
    if lease is not None:
        lease.check()
    put = path.at.write if lease is None else lease.put
    tails.write_parts(path.at, path.key, content, put, lambda key: path._delete([key]))
    if lease is not None:  # the generation of the last part is its own from here on
        for key in tails.part_keys(path.at, path.key):
            lease.forget(key)


def local_copy(path: BucketPath) -> pathlib.Path:
    """Copies an object to a temporary file with the same name, which is deleted when the process ends."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="gan_jax_"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    copy = directory / path.name
    copy.write_bytes(path.read_bytes())
    return copy
