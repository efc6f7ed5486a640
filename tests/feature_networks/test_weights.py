"""Weight files: what is read, and what is refused with a message that says what to do."""

import builtins
import functools
import hashlib
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from gan_jax import eval
from gan_jax.eval import WeightsFile
from gan_jax.feature_networks.weights import VARIABLE
from gan_jax.types import InvalidInputError
from tests.feature_networks import writers

ARRAYS = {
    "layer.0.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "layer.0.bias": np.array([0.5, -2.0, 3.0], np.float16),
    "scale": np.array(7.0, np.float32),
    "steps": np.array(3, np.int64),
}
USED = {name: array.shape for name, array in ARRAYS.items() if name != "steps"}
FILE = WeightsFile("net.pth", 1234, None, "https://example.org/net.pth", USED, ["steps"], other_names=("same.pth",))
SAVERS = {"zip": writers.save, "old": writers.save_old, "script": writers.save_script}
PYTHON_2 = functools.partial(writers.save_old, dictionary=writers.ordered_by_python_2)
NETWORKS = [eval.inception(), eval.dinov2("vitb14"), eval.dinov2(), eval.clip()]


def pinned(path):
    return FILE._replace(sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def refusal(directory, file=FILE):
    """Returns the error message, and checks that it says which file is needed and where to get it."""
    with pytest.raises(InvalidInputError) as caught:
        file.load(directory)
    message = str(caught.value)
    assert file.name in message and file.url in message and f"{file.size:,} bytes" in message
    assert "--feature_weights=DIR" in message and VARIABLE in message and (file.sha256 or "your own") in message
    return message


@pytest.mark.parametrize("save", [*SAVERS.values(), PYTHON_2], ids=[*SAVERS, "python 2"])
def test_all_three_formats_are_read(save, tmp_path, monkeypatch):
    path = tmp_path / "net.pth"
    save(path, ARRAYS)
    arrays, digest = pinned(path).load(tmp_path)
    assert digest == pinned(path).sha256 and set(arrays) == set(USED)
    for name, array in arrays.items():
        assert array.dtype == np.float32 and array.shape == ARRAYS[name].shape
        np.testing.assert_array_equal(array, ARRAYS[name])
    path.rename(tmp_path / "same.pth")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    np.testing.assert_array_equal(FILE.load()[0]["scale"], 7.0)


def test_views_of_a_storage_are_read(tmp_path):
    stored = writers.storage("FloatStorage", "0", 12)
    views = {
        "turned": ((4, 3), 0, (1, 4)),
        "part": ((2, 2), 5, (4, 1)),
        "repeated": ((2, 3), 4, (0, 1)),
        "empty": ((0, 5), 0, (5, 1)),
        "alone": ((1,), 2, (2**62,)),
    }
    body = writers.ordered({name: writers.tensor(stored, at, shape, by) for name, (shape, at, by) in views.items()})
    numbers = np.arange(12, dtype=np.float32)
    writers.write_zip(tmp_path / "net.pth", writers.pickle(body), {"0": numbers.tobytes()})
    used = {name: shape for name, (shape, _, _) in views.items()}
    arrays, _ = FILE._replace(used=used).load(tmp_path)
    np.testing.assert_array_equal(arrays["turned"], numbers.reshape(3, 4).T)
    np.testing.assert_array_equal(arrays["part"], [[5, 6], [9, 10]])
    np.testing.assert_array_equal(arrays["repeated"], [[4, 5, 6], [4, 5, 6]])
    assert arrays["empty"].shape == (0, 5)


def test_a_tensor_reaches_no_further_than_its_storage(tmp_path):
    """The last of twelve numbers is at index 11."""
    numbers, file = np.arange(12, dtype=np.float32), FILE._replace(used={"scale": ()})
    stored = writers.storage("FloatStorage", "0", 12)

    def write(place):
        body = writers.mapping({"scale": writers.tensor(stored, place, (), ())})
        writers.write_zip(tmp_path / "net.pth", writers.pickle(body), {"0": numbers.tobytes()})

    write(11)
    assert file.load(tmp_path)[0]["scale"] == 11.0
    write(12)
    assert "reaches beyond its storage of 12" in refusal(tmp_path, file)


def test_a_parameter_is_its_tensor(tmp_path):
    inner = writers.described("0", ARRAYS["scale"])
    hooks = writers.call(writers.name("collections", "OrderedDict"))
    body = writers.call(writers.name("torch._utils", "_rebuild_parameter"), inner, b"\x88", hooks)
    content = writers.pickle(writers.mapping({"scale": body}))
    writers.write_zip(tmp_path / "net.pth", content, {"0": ARRAYS["scale"].tobytes()})
    assert FILE._replace(used={"scale": ()}).load(tmp_path)[0]["scale"] == 7.0


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_missing_files_are_told_of(network, tmp_path, monkeypatch):
    assert "has no " + network.file.name in refusal(tmp_path, network.file)
    assert "does not exist" in refusal(tmp_path / "nowhere", network.file)
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    told = refusal(None, network.file)
    assert f"{str(tmp_path / 'gan_jax' / 'weights')!r} does not exist" in told and "gan-jax fetch" in told
    assert len(network.file.sha256) == 64 and network.file.name in network.file.url


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_another_file_under_the_name_is_refused(network, tmp_path):
    SAVERS["zip"](tmp_path / network.file.name, ARRAYS)
    assert "damaged, or another file" in refusal(tmp_path, network.file)
    told = refusal(tmp_path, network.file._replace(sha256=None))  # refused even without a hash
    assert "of another network, with 4 unknown tensors" in told and "missing ones" in told


@pytest.mark.parametrize("kind", SAVERS)
def test_a_changed_byte_is_refused_before_anything_is_parsed(kind, tmp_path, monkeypatch):
    path = tmp_path / "net.pth"
    SAVERS[kind](path, ARRAYS)
    file, content = pinned(path), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr("gan_jax.feature_networks.weights.open_archive", lambda _: pytest.fail("parsed"))
    assert file.sha256 in refusal(tmp_path, file)


@pytest.mark.parametrize("kind", SAVERS)
def test_other_tensors_than_expected_are_refused(kind, tmp_path):
    def saved(arrays):
        SAVERS[kind](tmp_path / "net.pth", arrays)
        return refusal(tmp_path)

    without = {name: array for name, array in ARRAYS.items() if name != "scale"}
    assert "1 missing ones (such as scale)" in saved(without)
    assert "1 unknown tensors (such as more)" in saved({**ARRAYS, "more": ARRAYS["scale"]})
    assert "tensor scale has shape (1,): expected ()" in saved({**ARRAYS, "scale": np.zeros(1, np.float32)})
    assert "tensor scale is of float64" in saved({**ARRAYS, "scale": np.array(1.0)})
    assert "scale has values that are not finite" in saved({**ARRAYS, "scale": np.array(np.inf, np.float32)})


@pytest.mark.parametrize("kind", SAVERS)
def test_truncated_files_are_refused(kind, tmp_path):
    path = tmp_path / "net.pth"
    SAVERS[kind](path, ARRAYS)
    content = path.read_bytes()
    for size in {0, 1, 3, *range(4, len(content), 7), len(content) - 1}:
        path.write_bytes(content[:size])
        refusal(tmp_path)
    if kind == "old":
        path.write_bytes(content + b"\0")
        assert "not the" in refusal(tmp_path)


@pytest.mark.parametrize("kind", SAVERS)
def test_any_damage_is_refused_or_harmless(kind, tmp_path):
    """With random bytes changed, mostly in the pickle, the result is a refusal or arrays of the right shape."""
    path, random = tmp_path / "net.pth", np.random.default_rng(0)
    SAVERS[kind](path, ARRAYS)
    content, refused = path.read_bytes(), 0
    for _ in range(600):
        damaged = bytearray(content)
        for place in random.integers(0, min(len(content), 1200), size=random.integers(1, 4)):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        try:
            arrays, _ = FILE.load(tmp_path)
        except InvalidInputError:
            refused += 1
        else:
            assert {name: array.shape for name, array in arrays.items()} == USED
    assert refused > 200


@pytest.mark.parametrize("seed", range(3))
def test_damaged_pickles_are_refused_or_harmless(seed, tmp_path):
    """As above, but only the pickle is changed, and the checksums of the zip are right."""
    path, random = tmp_path / "net.pth", np.random.default_rng(seed)
    content = writers.pickle(writers.state_dict(ARRAYS))
    opcodes = np.frombuffer(b".()tNJKMGXTUqrhjcQRb\x81\x85\x86\x87aesu]}\x88\x89\x8a\x80", np.uint8)
    for _ in range(400):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), size=random.integers(1, 4)):
            damaged[place] = random.choice(opcodes) if random.random() < 0.7 else random.integers(256)
        writers.write_zip(path, bytes(damaged), writers.data(ARRAYS))
        try:
            arrays, _ = FILE.load(tmp_path)
        except InvalidInputError:
            continue
        assert {name: array.shape for name, array in arrays.items()} == USED


class Runs:
    """An object that calls a function when Python unpickles it."""

    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


def attacks(mark):
    """Returns contents of data.pkl that would run code, or do harm, if they were unpickled."""
    touch, python = f"touch {mark}", f"__import__('pathlib').Path({str(mark)!r}).touch()"
    dumps = {
        f"{function.__module__}.{function.__name__}, protocol {protocol}": pickle.dumps(
            {"scale": Runs(function, *arguments)}, protocol
        )
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
        for function, arguments in (
            (os.system, (touch,)),
            (exec, (python,)),
            (builtins.eval, (python,)),
            (getattr, ("text", "upper")),
            (__import__, ("os",)),
        )
    }
    n, call, rebuild = writers.name, writers.call, writers.name("torch._utils", "_rebuild_tensor_v2")
    stored, ordered = writers.storage("FloatStorage", "0", 1), n("collections", "OrderedDict")
    empty, big = b")", writers.number(2**62)
    bodies = {
        "a global of os": n("os", "system"),
        "a function of torch": call(n("torch", "load"), writers.text("/etc/passwd")),
        "a function of torch.hub": call(n("torch.hub", "load"), writers.text("a/b"), writers.text("c")),
        "another rebuild function": call(n("torch._utils", "_rebuild_device_tensor_from_numpy"), stored),
        "a nested name": call(n("torch._utils", "_rebuild_tensor_v2.__globals__"), stored),
        "a class of TorchScript called": call(n("__torch__.os", "system"), writers.text(touch)),
        "a class of TorchScript with arguments": n("__torch__.os", "system") + writers.group(empty) + b"\x81",
        "an object of another class": ordered + b")\x81",
        "no arguments": rebuild + b")R",
        "arguments that are no tuple": rebuild + b"]R",
        "a call of a string": writers.text("os.system") + b")R",
        "a call of nothing": b")R",
        "a mark as the function": b"()R",
        "too many arguments": call(rebuild, *[stored] * 9),
        "an OrderedDict of something": call(ordered, writers.text("x")),
        "an OrderedDict of pairs without strings": call(ordered, b"](](K\x01K\x02ee"),
        "an OrderedDict of strings": call(ordered, b"](" + writers.text("ab") + b"e"),
        "a storage that is a string": call(rebuild, writers.text("x"), empty, empty, empty, b"\x89", empty),
        "an offset that is a tuple": call(rebuild, stored, empty, empty, empty, b"\x89", empty),
        "an offset that is a bool": call(rebuild, stored, b"\x88", empty, empty, b"\x89", empty),
        "a negative offset": writers.tensor(stored, -1, (), ()),
        "a shape beyond the storage": writers.tensor(stored, 0, (2,), (1,)),
        "a shape beyond all memory": writers.tensor(stored, 0, (2**62,), (0,)),
        "a stride beyond the storage": writers.tensor(stored, 0, (2,), (2**62,)),
        "a negative stride": writers.tensor(stored, 0, (1,), (-1,)),
        "shape and strides that differ": writers.tensor(stored, 0, (1, 1), (1,)),
        "a shape of strings": call(rebuild, stored, b"K\0", writers.group(writers.text("1")), empty, b"\x89", empty),
        "a storage of nothing": b")Q",
        "a storage that is no tuple": writers.text("storage") + b"Q",
        "a storage of an unknown type": writers.group(writers.text("storage"), *[b"N"] * 4) + b"Q",
        "a storage of a class": writers.group(writers.text("storage"), ordered, *[writers.text("0")] * 3) + b"Q",
        "a storage of a size below 0": writers.tensor(writers.storage("FloatStorage", "0", -1), 0, (), ()),
        "a view of a storage": writers.tensor(writers.storage("FloatStorage", "0", 1, empty), 0, (), ()),
        "a storage that is not there": writers.tensor(writers.storage("FloatStorage", "9", 1), 0, (), ()),
        "a storage elsewhere": writers.tensor(writers.storage("FloatStorage", "../data.pkl", 1), 0, (), ()),
        "a storage of another size": writers.tensor(writers.storage("FloatStorage", "0", 2**40), 0, (), ()),
        "a state for a number": b"K\x01}b",
        "a state for a dict": b"}}b",
        "a parameter of a string": call(n("torch._utils", "_rebuild_parameter"), writers.text("x"), b"\x89", empty),
        "a list that is a string": call(n("torch.jit._pickle", "build_intlist"), writers.text("x")),
        "a dict of a list": b"}](]](e" + b"K\x01s",
        "a dict of numbers": b"}K\x01K\x02s",
        "an odd dict": b"}(" + writers.text("a") + b"u",
        "an append to a tuple": b")K\x01a",
        "a memo before it is filled": b"h\x07",
        "a memo of nothing": b"q\x00",
        "a huge memo": b"N" + b"r" + struct.pack("<I", 2**32 - 1) + b"0",
        "a huge string": b"X" + struct.pack("<I", 2**32 - 1) + b"x",
        "a string that is not UTF-8": b"X" + struct.pack("<I", 1) + b"\xff",
        "a name that goes on": b"c" + b"a" * 5000,
        "a name that is not UTF-8": b"c\xff\n\xff\n",
        "deep tuples": b")" + b"\x85" * 100_000,
        "a persistent number": big + b"Q",
        "an opcode of protocol 4 that changes nothing": writers.tensor(stored, 0, (), ()) + b"\x94",
    }
    for name, body in bodies.items():
        dumps[name] = writers.pickle(writers.mapping({"scale": body}))
    dumps |= {
        "another protocol": b"\x80\x04" + writers.mapping({}) + b".",
        "nothing": b"",
        "only its end": b".",
        "only a mark": b"(.",
        "a number": writers.pickle(b"K\x01"),
        "a list": writers.pickle(b"]"),
        "a circle": writers.pickle(n("__torch__.a", "B") + b")\x81q\0" + writers.mapping({"me": b"h\0"}) + b"b"),
        "a tree of ten to the thirty": writers.pickle(doubling(100)),
        "a record with a state that is no dict": writers.pickle(n("__torch__.a", "B") + b")\x81K\1b"),
        "a checkpoint": writers.pickle(writers.mapping({"state_dict": writers.mapping({})})),
    }
    return dumps


def doubling(depth):
    """Returns a pickle of nested records, each of which contains the previous one twice."""
    body = writers.name("__torch__.a", "B") + b")\x81" + writers.mapping({}) + b"bq\0"
    for _ in range(depth):
        body += writers.name("__torch__.a", "B") + b")\x81" + writers.mapping({"a": b"h\0", "b": b"h\0"}) + b"bq\0"
    return body


ATTACKS = list(attacks("mark"))


@pytest.mark.parametrize("attack", ATTACKS)
def test_pickles_that_ask_for_more_than_tensors_are_refused(attack, tmp_path):
    mark, file = tmp_path / "mark", FILE._replace(used={"scale": ()})
    content, one = attacks(mark)[attack], np.ones(1, np.float32).tobytes()
    writers.write_zip(tmp_path / "net.pth", content, {"0": one})
    told = refusal(tmp_path, file)
    assert len(told) < 1500
    (tmp_path / "net.pth").write_bytes(content)  # the same, in a file that is not a zip
    refusal(tmp_path, file)
    assert not mark.exists()


def test_what_a_pickle_names_is_told(tmp_path):
    writers.write_zip(tmp_path / "net.pth", pickle.dumps(Runs(os.system, "true"), 2), {})
    assert "it names posix.system, which is no part of a file of tensors" in refusal(tmp_path)


def test_the_attacks_would_work(tmp_path):
    """Python's own unpickler runs the attacks."""
    mark = tmp_path / "mark"
    for attack, content in attacks(mark).items():
        if attack.startswith(("posix.system", "builtins.e")):
            pickle.loads(content)
            assert mark.exists()
            mark.unlink()


def test_other_archives_are_refused(tmp_path):
    path = tmp_path / "net.pth"
    for names, told in (
        (["a/x"], "0 files called NAME/data.pkl"),
        (["a/data.pkl", "b/data.pkl"], "2 files called"),
        (["a/b/data.pkl"], "0 files called"),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, writers.pickle(b"}"))
        assert told in refusal(tmp_path)
    content = writers.pickle(writers.state_dict(ARRAYS))
    writers.write_zip(path, content, writers.data(ARRAYS))
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    for changed, told in (
        ({"archive/byteorder": b"big"}, "big-endian"),
        ({"archive/data/0": b"short"}, "does not have the 48 bytes"),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            for name, value in (files | changed).items():
                archive.writestr(name, value)
        assert told in refusal(tmp_path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/byteorder", b"little" * 10_000)
    assert "archive/byteorder is compressed" in refusal(tmp_path)
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    assert "neither a zip archive nor a pickle" in refusal(tmp_path)
    path.unlink()
    path.mkdir()
    assert "has no net.pth" in refusal(tmp_path)
