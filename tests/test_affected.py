"""The selection of tests for changed files."""

import pytest

from tests.affected import ALWAYS, PAGES, affected, build_graph, missing


@pytest.fixture(scope="module")
def graph():
    return build_graph()


@pytest.mark.parametrize(
    ("file", "some", "none"),
    [
        ("gan_jax/losses/adversarial.py", {"tests/losses/test_adversarial.py", "tests/conformance/test_functions.py"},
         {"tests/experiments/test_resume.py"}),
        ("gan_jax/runtime/loop.py", {"tests/runtime/test_train.py"}, {"tests/losses/test_adversarial.py"}),
        ("experiments/train.py", {"tests/experiments/test_commands.py"}, {"tests/losses/test_adversarial.py"}),
        ("gan_jax/runs/settings.py", {"tests/experiments/test_commands.py"}, {"tests/losses/test_adversarial.py"}),
        ("tests/losses/test_adversarial.py", {"tests/losses/test_adversarial.py"}, {"tests/nets/test_nets.py"}),
        ("tests/golden/losses.json", {"tests/golden/test_losses.py"}, {"tests/nets/test_nets.py"}),
        ("docs/losses.md", PAGES, {"tests/nets/test_nets.py"}),
    ],
)  # fmt: skip
def test_near_tests_are_chosen_and_far_ones_are_not(file, some, none, graph):
    chosen = affected([file], graph)
    assert some | ALWAYS <= chosen and not none & chosen


@pytest.mark.parametrize("file", ["tests/conftest.py", "tests/preload.py", "pyproject.toml"])
def test_what_all_tests_hang_on_calls_for_all(file, graph):
    chosen = affected([file], graph)
    assert {"tests/losses/test_adversarial.py", "tests/runtime/test_train.py", "tests/test_docs.py"} <= chosen


def test_a_file_that_is_not_there_is_told():
    assert missing(["gan_jax/losses/hinge.py", "README.md"]) == ["gan_jax/losses/hinge.py"]
