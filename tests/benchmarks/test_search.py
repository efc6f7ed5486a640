"""The table and the picture of the search benchmark, from records whose result is known."""

import math

import pytest
from PIL import Image

from benchmarks import measure, search


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    return tmp_path


def write(method, seed, again, ends):
    line = {"case": "ring", "method": method, "seed": seed, "setup": search.setup("ring", method), "members": len(ends)}
    images = {"grid": 100, "halving": 30, "pbt": 25}[method]
    measure.record(
        "search", line | {"images": images, "again": again, "ends": ends, "curve": [[50, 0.9], [images, 0.5]]}
    )


def settle(setting, again):
    line = {"case": "ring", "method": "setting", "setup": search.setup("ring", "grid")}
    measure.record("search", line | {"setting": setting, "again": again})


def test_a_setting_that_diverged_once_is_not_the_best():
    for seed, (first, second) in enumerate([(0.1, 0.3), (math.inf, 0.4)]):
        for method in search.METHODS:
            write(method, seed, [0.1], [[1e-3, 1.0, first], [1e-2, 2.0, second]])
    assert search.best_setting("ring") == [1e-2, 2.0]


def test_what_searches_are_compared_with(tmp_path):
    for seed, (first, second) in enumerate([(0.1, 0.3), (0.5, 0.2), (math.inf, 0.4)]):
        write("grid", seed, [min(first, second)] * 2, [[1e-3, 1.0, first], [1e-2, 2.0, second]])
        write("halving", seed, [0.25, 0.27], [[2e-3, 1.5, 0.2]])
        if seed < 2:
            write("pbt", seed, [0.15, 0.15], [[2e-3, 1.5, 0.1]])
    assert search.seeds("ring") == [0, 1] and search.seeds("digits") == []
    assert search.best_setting("ring") == [1e-2, 2.0], "of the seeds that all methods have"
    assert search.trained_setting("ring") is None and len(search.summary().splitlines()) == 2
    settle([1e-3, 1.0], {"0": [0.1], "1": [0.1]})
    settle([1e-2, 2.0], {"0": [0.1], "1": [0.1], "2": [0.1]})
    assert search.trained_setting("ring") is None, "of another setting, or other seeds"
    settle([1e-2, 2.0], {"0": [0.7], "1": [0.7]})
    settle([1e-2, 2.0], {"0": [0.2, 0.3], "1": [0.25, 0.25]})  # the newest record counts
    head, _, *rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in search.summary().splitlines()]
    assert [row[:4] for row in rows] == [
        ["ring", "eval/mixture_js", method, str(members)]
        for method, members in (("grid", 2), ("halving", 1), ("pbt", 1))
    ]
    assert rows[0][-2:] == ["that is 0.25 [0.25, 0.25]: learning_rate 0.01, gamma 2", ""]
    assert [row[-2:] for row in rows[1:]] == [["0 of 2 seeds", "0 of 2 seeds"], ["2 of 2 seeds", "1 of 2 seeds"]]
    assert [row[head.index("images of the grid's")][:3] for row in rows[1:]] == ["30%", "25%"]
    search.picture(tmp_path / "search.png")
    with Image.open(tmp_path / "search.png") as picture:
        assert picture.width > 1000


def test_both_searches_see_less_than_a_third_of_the_images_of_the_grid():
    for case in search.CASES.values():
        assert case.steps % 16 == 0
        rungs = 52 * case.steps // 16 + 13 * 3 * case.steps // 16 + 3 * 3 * case.steps // 4
        assert max(rungs, 8 * case.steps) / (25 * case.steps) < 1 / 3
