"""A reader of the three file formats in which PyTorch saves tensors, and of pickled NumPy arrays.

It does not need PyTorch.

- A zip archive, written by `torch.save` since PyTorch 1.6: `NAME/data.pkl` describes a dict of tensors, and
  `NAME/data/KEY` holds the numbers of one storage.
- A TorchScript archive, written by `torch.jit.save`: the same layout, but the pickle describes an object of a
  TorchScript class. The code in the archive is not read.
- A sequence of pickles followed by raw numbers, written by `torch.save` until PyTorch 1.5. The published file of the
  Inception network has this format.
- A pickle of nested dicts of NumPy arrays, as `pickle.dump` writes it with protocol 3. The published file of LPIPS for
  JAX has this format; the name of a tensor is the keys that lead to it, joined by dots.

Numbers are little-endian in all formats; big-endian files are refused.
"""

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from gan_jax.feature_networks import pickles
from gan_jax.feature_networks.pickles import RefusedError, Storage, Tensor

_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a file in the old format
_LARGEST_PICKLE = 2**26
_MOST_OBJECTS = 100_000
# What reading a damaged file can raise. It includes ValueError, hence RefusedError, which is passed on unchanged below.
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError, KeyError)


class Archive(NamedTuple):
    """An opened weight file.

    Attributes:
      tensors: the position, shape and strides of each tensor, by name.
      read: reads one of these tensors from the file.
    """

    tensors: dict[str, Tensor]
    read: Callable[[Tensor], np.ndarray]


def open_archive(file: BinaryIO) -> Archive:
    """Finds the tensors in a file of any of the formats.

    Args:
      file: the file, at any position; it must stay open while tensors are read.

    Returns:
      The archive.

    Raises:
      RefusedError: if the file is damaged or has another format, or if `feature_networks.pickles` refuses its pickle.
    """
    file.seek(0)
    start = file.read(4)
    file.seek(0)
    try:
        if start == b"PK\x03\x04":
            return _open_zip(file)
        if start[:2] == b"\x80\x02":
            return _open_pickles(file)
        if start[:2] == b"\x80\x03":
            return _open_arrays(file)
    except RefusedError:
        raise
    except _DAMAGE as error:
        raise RefusedError(f"it is damaged ({error})") from error
    raise RefusedError(f"it begins with {start!r}: neither a zip archive nor a pickle")


def _open_zip(file: BinaryIO) -> Archive:
    archive = zipfile.ZipFile(file)
    packed = [info.filename for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise RefusedError(f"its {packed[0][:80]} is compressed, which PyTorch does not do")
    found = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(found) != 1:
        raise RefusedError(
            f"it is a zip archive with {len(found)} files called NAME/data.pkl: PyTorch writes exactly one"
        )
    root = found[0].removesuffix("data.pkl")
    if archive.getinfo(found[0]).file_size > _LARGEST_PICKLE:
        raise RefusedError(f"its {found[0]} is larger than {_LARGEST_PICKLE} bytes")
    if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
        raise RefusedError("it was written on a big-endian machine")
    content = pickles.read(io.BytesIO(archive.read(found[0])))

    def read(storage: Storage) -> bytes:
        name = f"{root}data/{storage.key}"
        if archive.getinfo(name).file_size != _bytes(storage):
            raise RefusedError(f"its {name} does not have the {_bytes(storage)} bytes that the pickle says")
        return archive.read(name)

    return Archive(_flattened(content), _reader(read))


def _open_pickles(file: BinaryIO) -> Archive:
    magic, version, system = pickles.read(file), pickles.read(file), pickles.read(file)
    if magic != _MAGIC or version != 1001 or not isinstance(system, dict):
        raise RefusedError("it is a pickle, but not one written by torch.save")
    if system.get("little_endian") is not True:
        raise RefusedError("it was written on a big-endian machine")
    tensors, keys = _flattened(pickles.read(file)), pickles.read(file)
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    strings = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not strings or sorted(keys) != sorted(storages):
        raise RefusedError("its list of storages does not match its tensors")
    offsets, place = {}, file.tell()
    for key in keys:  # each storage: its number of elements in 8 bytes, then the elements
        offsets[key] = place + 8
        place += 8 + _bytes(storages[key])
    if file.seek(0, io.SEEK_END) != place:
        raise RefusedError(f"it has {file.tell()} bytes, not the {place} that its pickles say")

    def read(storage: Storage) -> bytes:
        file.seek(offsets[storage.key] - 8)
        if struct.unpack("<q", file.read(8))[0] != storage.size:
            raise RefusedError(
                f"storage {storage.key[:80]} does not have the {storage.size} elements that the pickle says"
            )
        return file.read(_bytes(storage))

    return Archive(tensors, _reader(read))


def _open_arrays(file: BinaryIO) -> Archive:
    content = pickles.read(file, pickles.NUMPY)
    if file.read(1):
        raise RefusedError("it goes on after the pickle")
    tensors, data = dict[str, Tensor](), dict[str, bytes]()
    waiting = [("", content)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, pickles.NumpyArray):
            size = len(value.data) // value.dtype.itemsize
            steps = [math.prod(value.shape[axis + 1 :]) for axis in range(len(value.shape))]
            tensors[name] = Tensor(Storage(value.dtype, name, size), 0, value.shape, tuple(steps))
            data[name] = value.data
        elif isinstance(value, dict) and len(tensors) + len(waiting) < _MOST_OBJECTS and len(name) < 1000:
            waiting += [(f"{name}.{key}".removeprefix("."), inner) for key, inner in value.items()]
        else:
            raise RefusedError(f"its entry {name[:80]!r} is neither an array nor a dict of a reasonable size")
    return Archive(tensors, _reader(lambda storage: data[storage.key]))


def _bytes(storage: Storage) -> int:
    return storage.size * storage.dtype.itemsize


def _reader(read: Callable[[Storage], bytes]) -> Callable[[Tensor], np.ndarray]:
    def array(tensor: Tensor) -> np.ndarray:
        try:
            flat = np.frombuffer(read(tensor.storage), tensor.storage.dtype)
        except RefusedError:
            raise
        except _DAMAGE as error:
            raise RefusedError(f"it is damaged ({error})") from error
        if flat.size != tensor.storage.size:
            raise RefusedError("it ends early")
        steps = zip(tensor.strides, tensor.shape, strict=True)
        # The stride of an axis of length 1 is unchecked and may be huge: it is never used, and could overflow in bytes.
        strides = tuple(stride * flat.itemsize if length > 1 else 0 for stride, length in steps)
        return np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides, writeable=False)

    return array


def _flattened(content: Any) -> dict[str, Tensor]:
    """Returns the tensors of a state dict, or of a TorchScript object and its submodules, by dotted name."""
    if isinstance(content, dict):
        for name, value in content.items():
            if not isinstance(value, Tensor):
                raise RefusedError(f"its entry {name[:80]!r} is not a tensor: expected the state dict itself")
        return dict(content)
    if not isinstance(content, pickles.Record):
        raise RefusedError("it holds neither a state dict nor a TorchScript module")
    tensors: dict[str, Tensor] = {}
    waiting, seen = [("", content)], 0
    while waiting:
        prefix, record = waiting.pop()
        seen += 1
        if seen > _MOST_OBJECTS or len(prefix) > 1000:
            raise RefusedError("its nested objects form a cycle, or are too many")
        for name, value in record.attributes.items():
            if isinstance(value, Tensor):
                tensors[prefix + name] = value
            elif isinstance(value, pickles.Record):
                waiting.append((f"{prefix}{name}.", value))
    return tensors
