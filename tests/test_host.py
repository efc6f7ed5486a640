"""JSON records: whatever is on the disk is read, or refused in one sentence."""

import dataclasses
import json
import os
from typing import Any, NotRequired, TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gan_jax.host import append_line, read_json, read_lines, replacing, write_json
from gan_jax.types import InvalidInputError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


class Inner(TypedDict):
    name: str


class Form(TypedDict):
    step: int
    rate: float
    maybe: int | None
    names: list[str]
    inner: Inner
    table: dict[str, float]
    more: NotRequired[bool]


RIGHT = {"step": 1, "rate": 2, "maybe": None, "names": ["a"], "inner": {"name": "x"}, "table": {"m": 0.5}, "other": []}
WRONG = [
    ({"step": True}, "step is true, expected int"),
    ({"step": 1.0}, "step is 1.0, expected int"),
    ({"rate": "fast"}, 'rate is "fast", expected float'),
    ({"maybe": "x"}, 'maybe is "x", expected int'),
    ({"names": [1]}, r"names\[0\] is 1, expected str"),
    ({"inner": {}}, r"inner\.name is missing"),
    ({"inner": None}, "inner is null, expected an object"),
    ({"table": {"m": None}}, r"table\.m is null, expected float"),
    ({"more": 1}, "more is 1, expected bool"),
]


def test_a_record_of_the_right_form_is_read_with_what_else_it_has(tmp_path):
    write_json(tmp_path / "a.json", RIGHT)
    assert read_json(tmp_path / "a.json", Form, remedy="x") == RIGHT


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_a_record_of_another_form_is_refused(change, message, tmp_path):
    path = tmp_path / "a.json"
    write_json(path, RIGHT | change)
    with pytest.raises(InvalidInputError, match=rf"^{path} is damaged: {message}: put it back$"):
        read_json(path, Form, remedy="put it back")


@dataclasses.dataclass
class Point:
    x: int


@settings(max_examples=120, deadline=None)
@given(
    JSON, st.sampled_from([Form, Point, Any, list[int], dict[str, list[float]], (Inner, dict[str, str]), int | None])
)
def test_any_value_is_taken_as_it_is_or_refused(tmp_path_factory, value, form):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(value))
    try:
        assert read_json(path, form, remedy="remove it") == value
    except InvalidInputError as error:
        assert str(error).startswith(f"{path} is damaged: ") and str(error).endswith(": remove it")


@settings(max_examples=120, deadline=None)
@given(st.binary(max_size=60) | st.integers(1, 100).map(lambda n: json.dumps(RIGHT).encode()[:n]))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bytes.json"
    path.write_bytes(content)
    for read in (lambda: read_json(path, Form, remedy="remove it"), lambda: read_lines(path, Form, remedy="remove it")):
        try:
            read()
        except InvalidInputError as error:
            assert str(path) in str(error) and str(error).endswith(": remove it")


def test_what_is_no_file_or_nested_too_deeply_is_refused(tmp_path):
    (tmp_path / "deep").write_text("[" * 200_000)
    for name in ("deep", "missing", "."):
        with pytest.raises(InvalidInputError, match="remove it"):
            read_json(tmp_path / name, Any, remedy="remove it")
    assert read_lines(tmp_path / "missing", Any, remedy="") == []


@settings(max_examples=40, deadline=None)
@given(st.lists(JSON, max_size=4), st.integers(0, 200), JSON)
def test_a_line_is_appended_after_the_last_whole_one(tmp_path_factory, lines, cut, new):
    """Wherever a kill has cut the file before."""
    path = tmp_path_factory.getbasetemp() / "lines.jsonl"
    path.unlink(missing_ok=True)
    for line in lines:
        append_line(path, line)
    if lines:
        os.truncate(path, max(0, path.stat().st_size - cut))
    whole = read_lines(path, Any, remedy="")
    append_line(path, new)
    assert whole == lines[: len(whole)] and read_lines(path, Any, remedy="") == [*whole, new]


def test_a_long_line_that_is_not_whole_is_removed(tmp_path):
    path = tmp_path / "lines.jsonl"
    for before in ("", "1\n"):
        path.write_text(before + "x" * 200_000)
        append_line(path, 2)
        assert path.read_text() == f"{before}2\n"


def test_a_record_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    happened, sync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: happened.append("fsync") or sync(file))
    monkeypatch.setattr(os, "replace", lambda *paths: happened.append("replace") or replace(*paths))
    write_json(tmp_path / "a.json", {})
    assert happened == ["fsync", "replace", "fsync"]  # the file, its name, and the directory


@pytest.mark.parametrize("shared", [False, True])
def test_a_record_that_cannot_be_written_leaves_the_one_before_and_nothing_else(shared, tmp_path):
    write_json(tmp_path / "record.json", {"step": 1})
    with pytest.raises(OSError, match="full"), replacing(tmp_path / "record.json", shared=shared) as file:
        file.write("half of")
        raise OSError("disk is full")
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]
    assert json.loads((tmp_path / "record.json").read_text()) == {"step": 1}
