"""Writers of PyTorch's files, without PyTorch: pickles made opcode by opcode, in the three kinds of file."""

import struct
import zipfile

import numpy as np

KINDS = {"float32": "FloatStorage", "float16": "HalfStorage", "float64": "DoubleStorage", "int64": "LongStorage"}


def text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value):
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    digits = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(digits)]) + digits


def group(*items):
    return b"(" + b"".join(items) + b"t"


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def call(function, *arguments):
    return function + group(*arguments) + b"R"


def mapping(items):
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def ordered(items):
    return call(name("collections", "OrderedDict")) + b"(" + b"".join(text(k) + v for k, v in items.items()) + b"u"


def ordered_by_python_2(items):
    pairs = b"".join(b"](U" + bytes([len(k)]) + k.encode() + v + b"e" for k, v in items.items())
    return call(name("collections", "OrderedDict"), b"](" + pairs + b"e")


def pickle(body):
    return b"\x80\x02" + body + b"."


def storage(kind, key, size, *more):
    return group(text("storage"), name("torch", kind), text(key), text("cpu"), number(size), *more) + b"Q"


def tensor(stored, offset, shape, strides):
    hooks = call(name("collections", "OrderedDict"))
    shape, strides = (group(*map(number, each)) for each in (shape, strides))
    return call(name("torch._utils", "_rebuild_tensor_v2"), stored, number(offset), shape, strides, b"\x89", hooks)


def described(key, array, *more):
    """Returns the pickle of a contiguous tensor with a storage of its own."""
    strides = [int(np.prod(array.shape[i + 1 :], dtype=int)) for i in range(array.ndim)]
    return tensor(storage(KINDS[array.dtype.name], key, array.size, *more), 0, array.shape, strides)


def write_zip(path, content, storages, root="archive", more=()):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{root}/data.pkl", content)
        archive.writestr(f"{root}/byteorder", "little")
        for file, data in more:
            archive.writestr(f"{root}/{file}", data)
        for key, data in storages.items():
            archive.writestr(f"{root}/data/{key}", data)
        archive.writestr(f"{root}/version", "3\n")


def data(arrays):
    return {str(key): array.tobytes() for key, array in enumerate(arrays.values())}


def state_dict(arrays, *more, dictionary=ordered):
    return dictionary({title: described(str(key), array, *more) for key, (title, array) in enumerate(arrays.items())})


def save(path, arrays):
    """Writes a state dict as `torch.save` does since PyTorch 1.6, with metadata beside its items."""
    metadata = mapping({"_metadata": ordered({"": mapping({"version": number(1)})})})
    write_zip(path, pickle(state_dict(arrays) + metadata + b"b"), data(arrays))


def save_old(path, arrays, dictionary=ordered):
    """Writes a state dict as `torch.save` did before PyTorch 1.6."""
    magic, version = (b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", b"M\xe9\x03")
    system = mapping({"protocol_version": number(1001), "little_endian": b"\x88"})
    keys = b"](" + b"".join(text(key) for key in data(arrays)) + b"e"
    parts = [pickle(part) for part in (magic, version, system, state_dict(arrays, b"N", dictionary=dictionary), keys)]
    for array in arrays.values():
        parts += [struct.pack("<q", array.size), array.tobytes()]
    path.write_bytes(b"".join(parts))


def save_script(path, arrays):
    """Writes a file as `torch.jit.save` does for a module whose parameters have these names."""
    tree = {}
    for key, (title, array) in enumerate(arrays.items()):
        *parents, leaf = title.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = described(str(key), array)

    def record(node):
        attributes = {k: record(v) if isinstance(v, dict) else v for k, v in node.items()}
        attributes |= {"training": b"\x89", "sizes": call(name("torch.jit._pickle", "build_intlist"), b"](K\x01K\x02e")}
        return name("__torch__.some.place.___torch_mangle_7", "Module") + b")\x81" + mapping(attributes) + b"b"

    code = ("code/__torch__/some/place.py", "class Module(Module): ...")
    write_zip(path, pickle(record(tree)), data(arrays), more=[code, ("constants.pkl", pickle(b")"))])
