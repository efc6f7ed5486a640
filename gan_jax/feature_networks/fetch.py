"""Download of published weights, on the user's word alone: nothing else in the package connects to anything."""

import functools
import hashlib
import http.client
import os
import pathlib
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import IO

from gan_jax.feature_networks.clip import clip
from gan_jax.feature_networks.dinov2 import dinov2
from gan_jax.feature_networks.inception import inception
from gan_jax.feature_networks.lpips import lpips
from gan_jax.feature_networks.network import FeatureNetwork
from gan_jax.feature_networks.weights import WeightsFile, default_directory
from gan_jax.host import check_writable, take_lock, user_path
from gan_jax.types import InvalidInputError

NETWORKS: Mapping[str, Callable[[], FeatureNetwork]] = {
    "fid": inception,
    "dinov2": dinov2,
    "dinov2_vitb14": functools.partial(dinov2, "vitb14"),
    "clip": clip,
    "lpips": lpips,
}
"""Networks by the names under which `gan-jax fetch` downloads their weights."""

_CHUNK = 2**20  # bytes that are read at a time
_TIMEOUT = 30  # seconds without any byte
_SPARE = 2**26  # bytes that stay free on the disk
_ATTEMPTS = 5  # connections in a row that bring nothing new

Progress = Callable[[int, int, float], None]


def fetch(
    wanted: str | WeightsFile,
    directory: str | os.PathLike[str] | None = None,
    *,
    log: Callable[[str], None] = print,
    progress: Progress = lambda done, size, seconds: None,
    wait: float = 2.0,
) -> pathlib.Path:
    """Downloads a file of weights from its published address, and checks its sha256.

    The file appears under its name only when it is complete and right. A download that breaks off is continued, by this
    call or by a later one.

    Args:
      wanted: name of a network in `NETWORKS`, or a file.
      directory: directory for the file; by default `$GAN_JAX_WEIGHTS`, or `~/.cache/gan_jax/weights`, where the feature
        networks look for it.
      log: receives messages.
      progress: receives the bytes that are there, the bytes of the whole file, and the seconds still needed.
      wait: seconds before the first of the next attempts; it doubles from one to the next.

    Returns:
      The path of the file.

    Raises:
      InvalidInputError: for an unknown name, a file without a known hash or address, a wrong hash, or an address that
        cannot be reached; the message says what to put where.
    """
    file = _file(wanted)
    root = default_directory() if directory is None else user_path(directory, "directory")
    check_writable(root, f"directory={root}")
    path, part = root / file.name, root / f"{file.name}.part"
    lock = take_lock(root / f"{file.name}.lock", told=True)
    if isinstance(lock, str):
        raise InvalidInputError(f"{path} is being downloaded by {lock}: wait for it, or stop it")
    try:
        for name in (file.name, *file.other_names):
            if (root / name).exists():
                return _checked(root / name, file, "move it away, or name another directory")
        log(f"{file.name}, {file.size:,} bytes, from {file.url} to {root}")
        _download(file, part, log, progress, wait)
        _checked(part, file, "the download was removed", remove=True)
        os.replace(part, path)
    finally:
        (root / f"{file.name}.lock").unlink(missing_ok=True)
        lock.release()
    return path


def _file(wanted: str | WeightsFile) -> WeightsFile:
    if isinstance(wanted, str) and wanted not in NETWORKS:
        raise InvalidInputError(f"network {wanted!r}: expected one of {', '.join(NETWORKS)}")
    file = NETWORKS[wanted]().file if isinstance(wanted, str) else wanted
    if file.sha256 is None or not file.url.startswith(("https://", "http://")):
        raise InvalidInputError(f"{file.name} has no address to download it from: {file.wanted()}")
    return file


def _checked(path: pathlib.Path, file: WeightsFile, remedy: str, *, remove: bool = False) -> pathlib.Path:
    """Checks the sha256 of a file; `remove` deletes one that is wrong."""
    with path.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found == file.sha256:
        return path
    size = path.stat().st_size
    if remove:
        path.unlink()
    raise InvalidInputError(
        f"{path} has {size:,} bytes and sha256 {found}, which is not {file.name}: damaged, or another file; {remedy}. "
        f"{file.wanted()}"
    )


def _download(
    file: WeightsFile, part: pathlib.Path, log: Callable[[str], None], progress: Progress, wait: float
) -> None:
    """Downloads what is missing of a file, with new connections where one breaks."""
    failures = 0
    while (before := _size(part)) < file.size:
        if (free := shutil.disk_usage(part.parent).free) < file.size - before + _SPARE:
            raise InvalidInputError(
                f"{part.parent} has {free:,} bytes free, and {file.name} needs {file.size - before:,} more: make room, "
                "or name another directory"
            )
        try:
            _continue(file, part, progress)
        except (OSError, http.client.HTTPException) as error:
            failures = 0 if _size(part) > before else failures + 1
            if failures == _ATTEMPTS or _is_final(error):
                raise InvalidInputError(
                    f"{file.url} cannot be read ({error}); {_size(part):,} of {file.size:,} bytes are here, and the "
                    f"next call continues. Without a connection: {file.wanted()}"
                ) from error
            log(f"the connection broke after {_size(part):,} of {file.size:,} bytes ({error}): trying again")
            time.sleep(wait * 2**failures)


def _is_final(error: Exception) -> bool:
    """Whether an error would come again at once: a refusal, an unknown name, a wrong certificate."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code < 500 and error.code not in (408, 429)
    reason = error.reason if isinstance(error, urllib.error.URLError) else None
    passing = isinstance(reason, ConnectionError | TimeoutError) and not isinstance(reason, ConnectionRefusedError)
    return reason is not None and not passing


def _size(path: pathlib.Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _continue(file: WeightsFile, part: pathlib.Path, progress: Progress) -> None:
    """Appends to a part of a file what one connection brings."""
    begin, started = _size(part), time.monotonic()
    request = urllib.request.Request(file.url, headers={"User-Agent": "gan_jax"})
    if begin:
        request.add_header("Range", f"bytes={begin}-")
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
        continues = answer.status == http.HTTPStatus.PARTIAL_CONTENT and begin > 0
        if continues and not answer.headers.get("Content-Range", "").startswith(f"bytes {begin}-"):
            raise InvalidInputError(f"{file.url} answers with another part of the file: remove {part}, and try again")
        begin = begin if continues else 0

        def tell(done: int) -> None:
            progress(done, file.size, (time.monotonic() - started) / max(done - begin, 1) * (file.size - done))

        with part.open("ab" if continues else "wb") as opened:
            _copy(answer, opened, begin, file.size, tell)
            opened.flush()
            os.fsync(opened.fileno())


def _copy(answer: IO[bytes], part: IO[bytes], done: int, size: int, tell: Callable[[int], None]) -> None:
    """Copies an answer into a part; what exceeds the size of the file is not read."""
    while done < size and (content := answer.read(min(_CHUNK, size - done))):
        part.write(content)
        done += len(content)
        tell(done)
    if done < size:
        raise ConnectionError("the server has closed it")
