"""How tests start processes: forked ones behave like those started from nothing, and none outlives its test."""

import json
import os
import re
import signal

import pytest

from tests import processes
from tests.processes import finish, start_module, when

FRESH = pytest.mark.parametrize("fresh", [False, True])


@FRESH
def test_a_process_has_its_own_number_arguments_environment_and_devices(fresh):
    code, output = finish(start_module("tests.echo", "facts", fresh=fresh, ECHO_MARK="here", devices=3))
    found = json.loads(output)
    assert code == 0 and found["pid"] != os.getpid() and found["path"] == "__main__"
    assert found["argv"] == [str(processes.ROOT / "tests" / "echo.py"), "facts"]
    assert found["mark"] == "here" and found["devices"] == 3 and found["directory"] == str(processes.ROOT)


def test_what_is_forked_from_has_imported_everything_and_started_nothing():
    """Otherwise a fork would inherit locks that threads hold, or a device of another process."""
    found = json.loads(finish(start_module("tests.echo", "facts"))[1])
    assert found["threads"] == 1 and found["backends"] == 0 and found["preloaded"]


@FRESH
@pytest.mark.parametrize(
    ("what", "expected", "message"),
    [("exit", 7, ""), ("error", 1, "ValueError: on purpose"), ("interrupt", -signal.SIGINT, "KeyboardInterrupt")],
)
def test_exit_codes(what, expected, message, fresh):
    code, output = finish(start_module("tests.echo", what, fresh=fresh))
    assert code == expected and message in output and ("not flushed yet" in output) == (what == "interrupt")


@FRESH
def test_what_a_test_leaves_running_is_found_and_killed(fresh):
    process = start_module("tests.echo", "wait", fresh=fresh)
    when(process, lambda line: line == "waiting\n")
    assert processes.kill_left_over() == ["tests.echo"]
    assert process.poll() == -signal.SIGKILL and processes.kill_left_over() == []


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="only Linux gives orphans to an ancestor that wants them")
@FRESH
def test_also_what_outlives_its_own_parent(fresh):
    code, output = finish(start_module("tests.echo", "leave", fresh=fresh))
    assert code == 0 and os.path.isdir(f"/proc/{output.strip()}")
    [left] = processes.kill_left_over()
    assert "time.sleep(1000)" in left


def test_a_process_that_says_nothing_is_not_waited_for_without_end():
    process = start_module("tests.echo", "wait")
    with pytest.raises(TimeoutError, match=r"no end after 0\.5 s:\nwaiting"):
        when(process, lambda line: line == "more\n", timeout=0.5)
    assert processes.kill_left_over() == ["tests.echo"]


LEAVING = """
import pytest
from tests.processes import start_module, when

def begin():
    when(start_module("tests.echo", "wait", fresh=True), lambda line: True)

def test_leaves_a_process():
    begin()

def test_after_it():
    pass

def test_leaves_a_file_open_in_a_circle(tmp_path):
    circle = [open(tmp_path / "file", "w")]
    circle.append(circle)

def test_after_that():
    pass

@pytest.fixture(scope="module")
def broken():
    begin()
    raise RuntimeError("on purpose")

def test_whose_fixture_leaves_a_process_and_fails(broken):
    pass

def test_in_the_end():
    pass
"""


@pytest.mark.slow
def test_the_test_that_leaves_something_fails_and_no_other(tmp_path):
    (tmp_path / "test_leaving.py").write_text(LEAVING)
    config = (f"--rootdir={tmp_path}", "-c", str(processes.ROOT / "pyproject.toml"), "-p", "tests.conftest", "-rA")
    code, output = finish(start_module("pytest", *config, str(tmp_path / "test_leaving.py"), fresh=True))
    lines = re.findall(r"^(PASSED|ERROR|FAILED) \S*::(\w+)", output, re.MULTILINE)
    bad = {name for word, name in lines if word != "PASSED"}
    assert code == 1 and bad == {
        "test_leaves_a_process",
        "test_leaves_a_file_open_in_a_circle",
        "test_whose_fixture_leaves_a_process_and_fails",
    }, output
    assert {"test_after_it", "test_after_that", "test_in_the_end"} <= {name for word, name in lines if word == "PASSED"}
    assert output.count("left running") >= 2
