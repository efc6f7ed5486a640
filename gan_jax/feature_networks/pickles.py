"""A safe reader of the pickles in weight files of PyTorch and of NumPy arrays: it executes none of their code.

A pickle is a program, and Python's `pickle.load` imports and calls whatever it names. Here the program is interpreted
over inert values: a global is a pair of strings, nothing is imported, and the few calls that a file of tensors needs
(`_CALLS`) become tuples that describe where each tensor lies. Anything else is refused, with an error that names it.

There are two languages. `PYTORCH` has the opcodes that PyTorch writes, which belong to pickle protocol 2. `NUMPY` has
those of protocol 3 for nested dicts of NumPy arrays, with the three names that these need. The standard library's
`pickletools` describes all of them.
"""

import math
import struct
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from gan_jax.types import InvalidInputError

_DTYPES = {
    "BoolStorage": "?",
    "ByteStorage": "u1",
    "CharStorage": "i1",
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "IntStorage": "<i4",
    "LongStorage": "<i8",
    "ShortStorage": "<i2",
}
_LONGEST = 2**26  # bytes of a string; the pickle of a whole state dict has less than 2**20


class RefusedError(InvalidInputError):
    """An error for a weight file that is damaged, or whose pickle asks for something that no file of tensors needs."""


class Global(NamedTuple):
    """The name of an object that Python's unpickler would import."""

    module: str
    name: str


class Storage(NamedTuple):
    """A contiguous block of numbers in the file: their dtype, the block's key, and the number of elements."""

    dtype: np.dtype
    key: str
    size: int


class Tensor(NamedTuple):
    """A view of a storage: its offset, shape and strides, all in elements, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Record:
    """A stand-in for an object of a TorchScript class: its attributes, without methods."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}


class Ordered(dict[str, Any]):
    """A stand-in for an `OrderedDict`: the items, without the extra state (`_metadata`) that PyTorch attaches."""


class NumpyArray:
    """A stand-in for a NumPy array: its dtype, shape and bytes, in C order."""

    def __init__(self) -> None:
        self.dtype, self.shape, self.data = np.dtype("<f4"), (0,), b""


class NumpyDtype:
    """A stand-in for a NumPy dtype: its name, such as `f4`, until its byte order is known."""

    def __init__(self, name: str) -> None:
        self.name, self.ordered = name, False


class _Mark:
    """The marker on the stack where a tuple, list or dict begins."""


class Language(NamedTuple):
    """The opcodes that a reader accepts.

    Attributes:
      writer: who writes such pickles, for messages.
      strings: opcode -> layout of the length that precedes a text.
      bytes: opcode -> layout of the length that precedes bytes.
      operations: opcode -> function of the stack and the file.
    """

    writer: str
    strings: dict[bytes, str]
    bytes: dict[bytes, str]
    operations: dict[bytes, Callable[[list[Any], BinaryIO], None]]


def read(file: BinaryIO, language: Language | None = None) -> Any:
    """Reads one pickle.

    Args:
      file: the file, positioned at the beginning of the pickle; afterwards it is positioned just behind the pickle.
      language: accepted opcodes: `PYTORCH`, the default, or `NUMPY`.

    Returns:
      The pickled value, made of None, bools, numbers, strings, tuples, lists, dicts, and the types of this module.

    Raises:
      RefusedError: if the pickle has an opcode or a name that is not allowed, calls something with other arguments than
        its writer does, or ends early.
    """
    language = language or PYTORCH
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    while True:
        opcode = _exactly(file, 1)
        if opcode == b".":
            return _pop(stack)
        if opcode in _CONSTANTS:
            stack.append(_CONSTANTS[opcode]())
        elif opcode in _NUMBERS:
            layout = _NUMBERS[opcode]
            stack.append(struct.unpack(layout, _exactly(file, struct.calcsize(layout)))[0])
        elif opcode in language.strings or opcode in language.bytes:
            layout = (language.strings | language.bytes)[opcode]
            (size,) = struct.unpack(layout, _exactly(file, struct.calcsize(layout)))
            data = _exactly(file, size)
            stack.append(_decoded(data) if opcode in language.strings else data)
        elif opcode in _MEMO:
            layout, store = _MEMO[opcode]
            (index,) = struct.unpack(layout, _exactly(file, struct.calcsize(layout)))
            if store:
                memo[index] = stack[-1] if stack else _pop(stack)  # _pop of an empty stack raises RefusedError
            elif index in memo:
                stack.append(memo[index])
            else:
                raise RefusedError("it uses a memo entry before storing it")
        elif opcode in language.operations:
            language.operations[opcode](stack, file)
        else:
            raise RefusedError(f"it has opcode {opcode!r}, which {language.writer} doesn't write")


def _exactly(file: BinaryIO, size: int) -> bytes:
    if size > _LONGEST:
        raise RefusedError(f"it has a string of {size} bytes")
    data = file.read(size)
    if len(data) != size:
        raise RefusedError("it ends early")
    return data


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise RefusedError("it has a string that is not UTF-8") from error


def _line(file: BinaryIO) -> str:
    line = file.readline(1024)
    if not line.endswith(b"\n"):
        raise RefusedError("it ends early, or has a name of more than 1023 bytes")
    return _decoded(line[:-1])


def _pop(stack: list[Any], kind: type | tuple[type, ...] = object) -> Any:
    if not stack:
        raise RefusedError("it takes a value from an empty stack")
    value = stack.pop()
    if isinstance(value, _Mark) or not isinstance(value, kind):
        raise RefusedError(f"it has a value of type {type(value).__name__} where PyTorch writes another type")
    return value


def _pop_to_mark(stack: list[Any]) -> list[Any]:
    for index in range(len(stack) - 1, -1, -1):
        if isinstance(stack[index], _Mark):
            values = stack[index + 1 :]
            del stack[index:]
            return values
    raise RefusedError("it has the end of a tuple, list or dict without its beginning")


def _tuple(stack: list[Any], size: int) -> None:
    stack.append(tuple(reversed([_pop(stack) for _ in range(size)])))


def _extend(stack: list[Any], values: list[Any]) -> None:
    target = _pop(stack, list)
    target.extend(values)
    stack.append(target)


def _update(stack: list[Any], values: list[Any]) -> None:
    target = _pop(stack, dict)
    keys = values[::2]
    if len(values) % 2 or not all(isinstance(key, str) for key in keys):
        raise RefusedError("it has a dict with keys that are not strings")
    target.update(zip(keys, values[1::2], strict=True))
    stack.append(target)


def _numpy_protocol(stack: list[Any], file: BinaryIO) -> None:
    if _exactly(file, 1) != b"\x03":
        raise RefusedError("its pickle protocol is not 3, which files of NumPy arrays have")


def _numpy_global(stack: list[Any], file: BinaryIO) -> None:
    name = Global(_line(file), _line(file))
    if name not in _NUMPY_NAMES:
        raise RefusedError(f"it names {name.module[:80]}.{name.name[:80]}, which is no part of a file of NumPy arrays")
    stack.append(name)


def _numpy_call(stack: list[Any], file: BinaryIO) -> None:
    """Makes an empty array or a dtype, which `_numpy_build` fills."""
    arguments, function = _pop(stack, tuple), _pop(stack, Global)
    if function.name == "_reconstruct" and arguments == (Global("numpy", "ndarray"), (0,), b"b"):
        stack.append(NumpyArray())
    elif function.name == "dtype" and arguments[:1] in ((name,) for name in _NUMPY_DTYPES) and len(arguments) == 3:
        stack.append(NumpyDtype(arguments[0]))
    else:
        raise RefusedError(f"it calls {function.module}.{function.name} with other arguments than NumPy does")


def _numpy_build(stack: list[Any], file: BinaryIO) -> None:
    state, target = _pop(stack, tuple), _pop(stack, (NumpyArray, NumpyDtype))
    if isinstance(target, NumpyDtype):
        if len(state) != 8 or state[1] != "<" or state[2:5] != (None,) * 3:
            raise RefusedError("it has a dtype that is not of little-endian numbers")
        target.ordered = True
    else:
        if len(state) != 5:
            raise RefusedError(f"it describes an array with {len(state)} values")
        _, shape, dtype, fortran, data = state
        known = isinstance(dtype, NumpyDtype) and dtype.ordered and isinstance(shape, tuple) and all(map(_count, shape))
        if not known or fortran is not False or not isinstance(data, bytes):
            raise RefusedError("it describes an array in an unknown way")
        target.dtype, target.shape, target.data = np.dtype(f"<{dtype.name}"), shape, data
        if len(data) != math.prod(shape) * target.dtype.itemsize:
            raise RefusedError(f"it has an array of shape {shape[:8]} with {len(data)} bytes")
    stack.append(target)


def _protocol(stack: list[Any], file: BinaryIO) -> None:
    if _exactly(file, 1) != b"\x02":
        raise RefusedError("its pickle protocol is not 2, which PyTorch's files have")


def _long(stack: list[Any], file: BinaryIO) -> None:
    stack.append(int.from_bytes(_exactly(file, _exactly(file, 1)[0]), "little", signed=True))


def _global(stack: list[Any], file: BinaryIO) -> None:
    name = Global(_line(file), _line(file))
    storage = name.module == "torch" and name.name in _DTYPES
    if not (storage or name in _CALLS or name.module.split(".")[0] == "__torch__"):
        raise RefusedError(f"it names {name.module[:80]}.{name.name[:80]}, which is no part of a file of tensors")
    stack.append(name)


def _storage(stack: list[Any], file: BinaryIO) -> None:
    parts = _pop(stack, tuple)
    view = parts[5] if len(parts) == 6 else None  # old format only: a view of another storage
    if len(parts) not in (5, 6) or parts[0] != "storage" or view is not None:
        raise RefusedError("it refers to something other than a storage")
    _, kind, key, _, size = parts[:5]
    if not isinstance(kind, Global) or kind.name not in _DTYPES or not isinstance(key, str) or not _count(size):
        raise RefusedError("it describes a storage in an unknown way")
    stack.append(Storage(np.dtype(_DTYPES[kind.name]), key, size))


def _new(stack: list[Any], file: BinaryIO) -> None:
    arguments, kind = _pop(stack, tuple), _pop(stack, Global)
    if arguments or kind.module.split(".")[0] != "__torch__":
        raise RefusedError(f"it makes an object of {kind.module[:80]}.{kind.name[:80]}")
    stack.append(Record())


def _build(stack: list[Any], file: BinaryIO) -> None:
    state, target = _pop(stack), _pop(stack, (Record, Ordered))
    if isinstance(target, Record) and isinstance(state, dict):
        target.attributes = state
    stack.append(target)


def _call(stack: list[Any], file: BinaryIO) -> None:
    arguments, function = _pop(stack, tuple), _pop(stack, Global)
    if function not in _CALLS:
        raise RefusedError(f"it calls {function.module[:80]}.{function.name[:80]}")
    try:
        stack.append(_CALLS[function](*arguments))
    except TypeError as error:  # the wrong number of arguments
        raise RefusedError(f"it calls {function.module}.{function.name} with {len(arguments)} arguments") from error


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _rebuild_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, requires_grad: Any, hooks: Any, metadata: Any = None
) -> Tensor:
    lists = isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides)
    if not (isinstance(storage, Storage) and lists and all(map(_count, (offset, *shape, *strides)))):
        raise RefusedError("it describes a tensor in an unknown way")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if 0 not in shape and last >= storage.size:
        raise RefusedError(f"it has a tensor of shape {shape[:8]} that reaches beyond its storage of {storage.size}")
    return Tensor(storage, offset, shape, strides)


def _rebuild_old_tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
    return _rebuild_tensor(storage, offset, shape, strides, False, None)


def _ordered(pairs: Any = ()) -> Ordered:
    """Makes an `Ordered`. Python 3 pickles add the items later; Python 2 pickles pass them here, as a list of lists."""
    lists = isinstance(pairs, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in pairs)
    if pairs != () and not (lists and all(isinstance(pair[0], str) for pair in pairs)):
        raise RefusedError("it makes an OrderedDict of something other than pairs with a string")
    return Ordered(pairs)


def _rebuild_parameter(data: Any, requires_grad: Any, hooks: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise RefusedError("it has a parameter that is not a tensor")
    return data


def _list(values: Any) -> list[Any]:
    if not isinstance(values, list):
        raise RefusedError("it has a TorchScript list that is not a list")
    return values


_CALLS: dict[Global, Callable[..., Any]] = {
    Global("collections", "OrderedDict"): _ordered,
    Global("torch._utils", "_rebuild_tensor"): _rebuild_old_tensor,
    Global("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    Global("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    Global("torch.jit._pickle", "build_intlist"): _list,
    Global("torch.jit._pickle", "build_doublelist"): _list,
    Global("torch.jit._pickle", "build_boollist"): _list,
    Global("torch.jit._pickle", "build_tensorlist"): _list,
    Global("torch.jit._pickle", "restore_type_tag"): lambda value, tag: value,
}
_CONSTANTS: dict[bytes, Callable[[], Any]] = {
    b"N": lambda: None,
    b"\x88": lambda: True,
    b"\x89": lambda: False,
    b"(": _Mark,
    b")": tuple,
    b"]": list,
    b"}": dict,
}
_NUMBERS = {b"J": "<i", b"K": "<B", b"M": "<H", b"G": ">d"}
_STRINGS = {b"X": "<I", b"T": "<I", b"U": "<B"}
_MEMO = {b"q": ("<B", True), b"r": ("<I", True), b"h": ("<B", False), b"j": ("<I", False)}
_CONTAINERS: dict[bytes, Callable[[list[Any], BinaryIO], None]] = {
    b"t": lambda stack, _: stack.append(tuple(_pop_to_mark(stack))),
    b"\x85": lambda stack, _: _tuple(stack, 1),
    b"\x86": lambda stack, _: _tuple(stack, 2),
    b"\x87": lambda stack, _: _tuple(stack, 3),
    b"a": lambda stack, _: _extend(stack, [_pop(stack)]),
    b"e": lambda stack, _: _extend(stack, _pop_to_mark(stack)),
    b"s": lambda stack, _: _update(stack, [_pop(stack), _pop(stack)][::-1]),
    b"u": lambda stack, _: _update(stack, _pop_to_mark(stack)),
}
PYTORCH = Language(
    "PyTorch",
    _STRINGS,
    {},
    {
        **_CONTAINERS,
        b"\x80": _protocol,
        b"\x8a": _long,
        b"c": _global,
        b"Q": _storage,
        b"R": _call,
        b"b": _build,
        b"\x81": _new,
    },
)
_NUMPY_NAMES = (
    Global("numpy.core.multiarray", "_reconstruct"),
    Global("numpy._core.multiarray", "_reconstruct"),
    Global("numpy", "ndarray"),
    Global("numpy", "dtype"),
)
_NUMPY_DTYPES = ("f2", "f4", "f8")
NUMPY = Language(
    "Python for NumPy arrays",
    {b"X": "<I"},
    {b"B": "<I", b"C": "<B"},
    {**_CONTAINERS, b"\x80": _numpy_protocol, b"c": _numpy_global, b"R": _numpy_call, b"b": _numpy_build},
)
