"""The decisions of searches, and the spaces that they search: functions of their arguments."""

import itertools
import json
import math

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from gan_jax import sweep
from gan_jax.sweep import driver, importance, lineage, pictures, trials
from gan_jax.sweep import space as spaces
from gan_jax.sweep.report import best, write_table
from gan_jax.types import InvalidInputError


def test_rungs_of_halving():
    halving = sweep.Halving(10, 3)
    assert [step for step in range(1, 300) if halving.due(step)] == halving.rungs(300) == [10, 30, 90, 270]
    for n, kept in ((9, 3), (10, 3), (3, 1), (2, 1), (1, 1)):
        scores = {member: float(-member) for member in range(n)}
        assert halving.decide(10, scores, {}).pruned == list(range(kept, n))
    assert sweep.Halving(1, 2).decide(1, {4: 1.0, 7: 1.0, 5: 0.0, 2: 1.0}, {}).pruned == [5, 7], "of equals the first"
    with pytest.raises(InvalidInputError, match="eta=1"):
        sweep.Halving(1, 1)


def test_population_based_training_copies_the_best_over_the_worst():
    scores = {member: float(member) for member in range(10)}
    hparams = {member: {"a": 1.0 + member, "b": 0.5} for member in range(10)}
    search = sweep.PopulationBased(5, seed=3, share=0.2, factor=2.0, bounds={"b": (0.3, 0.9)})
    made = search.decide(10, scores, hparams)
    assert not made.pruned and set(made.copies) == {0, 1} and set(made.copies.values()) <= {8, 9}
    for child, parent in made.copies.items():
        assert made.hparams[child]["a"] / hparams[parent]["a"] in (0.5, 2.0) and made.hparams[child]["b"] in (0.3, 0.9)
    assert made == search.decide(10, scores, hparams) and search.due(10) and not search.due(11)
    assert len({str(search.decide(step, scores, hparams)) for step in range(0, 100, 5)}) > 10
    one = search.decide(5, {0: 1.0}, {0: {"a": 1.0}})
    assert not one.copies, "nobody to copy"
    for lost in (1, 2, 5, 9):  # number of members without a score
        some = search.decide(10, {member: scores[member] for member in range(lost, 10)}, hparams)
        assert set(some.copies) == set(range(max(2, lost))), "all of those, and a fifth at least"
        assert set(some.copies.values()) <= ({8, 9} if lost < 5 else {9}) and some.hparams.keys() == some.copies.keys()
    assert search.decide(10, {}, hparams) == sweep.Decision(), "nobody to copy"
    poor = search.decide(10, {**dict.fromkeys(range(9), -np.inf), 9: 1.0}, hparams)
    assert set(poor.copies) == {7, 8} and set(poor.copies.values()) == {9}, "not one without a finite score"
    many = search.decide(10, {9: 1.0}, hparams).hparams  # by a factor alone, only four of nine copies could differ
    assert len({(x["a"], x["b"]) for x in many.values()}) == 9 and all(0.3 <= x["b"] <= 0.9 for x in many.values())
    edge = sweep.PopulationBased(5, bounds={"a": (0.1, 1.0)})
    for step in range(5, 100, 5):
        near = edge.decide(step, {0: 1.0, 1: 0.0}, {0: {"a": float(np.float32(1.0))}, 1: {"a": 0.5}}).hparams[1]["a"]
        assert 0.1 <= near < 0.999, "unlike its parent's, which is at the bound"
    fixed = sweep.PopulationBased(5, bounds={"a": (1.0, 1.0)}).decide(5, {0: 1.0, 1: 0.0}, {0: {"a": 1.0}, 1: {"a": 1}})
    assert fixed.hparams[1] == {"a": 1.0}, "where there is no room"
    free = sweep.PopulationBased(5, factor=1.5, resample=1.0)
    powers = [
        np.log(free.decide(step, scores, hparams).hparams[0]["b"] / 0.5) / np.log(1.5) for step in range(0, 1000, 5)
    ]
    assert min(powers) > -4 and max(powers) < 4 and len(set(powers)) > 150
    for wrong in ({"share": 0.6}, {"factor": 1.0}, {"resample": 2.0}, {"every": 0}):
        with pytest.raises(InvalidInputError, match="expected every >= 1"):
            sweep.PopulationBased(**({"every": 5} | wrong))


def test_grids_are_products_and_random_points_do_not_depend_on_how_many():
    space = {"a": spaces.LogUniform(1e-4, 1e-2), "b": spaces.Choice(["x", "y"]), "n": spaces.Uniform(1, 3)}
    grid = spaces.grid(space, 3)
    assert len(grid) == 18 and [point["n"] for point in grid[:3]] == [1, 2, 3]
    assert sorted({point["a"] for point in grid}) == pytest.approx([1e-4, 1e-3, 1e-2])
    for draw in (spaces.random, spaces.qmc):
        many = draw(space, 200, 1)
        assert many[:50] == draw(space, 50, 1) != draw(space, 50, 2)
        assert {point["b"] for point in many} == {"x", "y"} and {point["n"] for point in many} == {1, 2, 3}
        logs = np.log10([point["a"] for point in many])
        assert logs.min() >= -4 and logs.max() <= -2 and abs(logs.mean() + 3) < 0.15
        assert all(isinstance(point["n"], int) for point in many)


def test_quasi_random_points_are_spread_more_evenly():
    def filled(draw, key):  # mean number of eighths of a key's range with one of eight points
        points = [draw(space, 8, seed) for seed in range(20)]
        return np.mean([len({int(8 * point[key]) for point in some}) for some in points])

    space = {name: spaces.Uniform(0.0, 1.0) for name in "abc"}
    assert filled(spaces.qmc, "a") == 8
    assert min(filled(spaces.qmc, key) for key in "bc") > 6.3 > 5.7 > max(filled(spaces.random, key) for key in "abc")


def test_spaces_from_flags():
    parsed = spaces.parse("lr=log(1e-4,1e-2); gamma=uniform(0,1.5);seed=0,1;rule=alternating,simultaneous;on=true")
    assert parsed["lr"] == spaces.LogUniform(1e-4, 1e-2) and parsed["gamma"] == spaces.Uniform(0, 1.5)
    assert [parsed[x].values for x in ("seed", "rule", "on")] == [[0, 1], ["alternating", "simultaneous"], [True]]
    whole = spaces.parse("rate=uniform(0,1);n=int(1,4)")
    assert not whole["rate"].whole and whole["n"] == spaces.Uniform(1, 4) and whole["n"].whole
    assert spaces.extremes(whole) == [{"rate": 0.0, "n": 1}, {"rate": 1.0, "n": 1}, {"rate": 0.0, "n": 4}]
    for wrong in ("lr=int(a,b)", "lr=log(1e-2,1e-4)", "lr=log(0,1)", "lr=uniform(1)", "lr="):
        with pytest.raises(InvalidInputError, match="expected KEY=VALUE"):
            spaces.parse(wrong)


def test_the_table_has_what_a_member_began_with_and_what_it_ended_with():
    """Also where a key of the config and a hyperparameter have one name."""
    began, ended = {"gamma": 1.0, "seed": 3}, {"gamma": 0.25, "fixed": 2.0}
    made = trials.Members(None, [sweep.Member(3, {"gamma": 1.0})], {"gamma": ["gamma"]})
    metrics = {"step": 4, "images": 64, "eval/kl": 0.5, "hparams/gamma": 0.3}
    row = driver._row(sweep.Outcome(0, "done", 4, 64, 3, ended, metrics, 0, ""), began, made)
    facts = {"trial": 0, "status": "done", "step": 4, "images": 64}
    assert row == {**facts, **began, "eval/kl": 0.5, "hparams/gamma": 0.25}


def test_the_best_has_gone_furthest_and_the_tables_hold_every_row(tmp_path):
    rows = [
        {"trial": 0, "status": "done", "images": 10, "m": 2.0},
        {"trial": 1, "status": "pruned", "images": 5, "m": 0.0},
        {"trial": 2, "status": "diverged", "images": 10, "m": 0.0},
        {"trial": 3, "status": "done", "images": 10, "m": 1.0, "extra": 7},
        {"trial": 4, "status": "done", "images": 10, "m": float("nan")},
    ]
    assert best(rows, "m", "min") == 3 and best(rows, "m", "max") == 0 and best(rows, "other", "max") is None
    write_table(tmp_path, rows)
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert lines[0] == "trial,status,images,m,extra" and lines[4] == "3,done,10,1.0,7" and len(lines) == 6
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 5
    assert all(a != b for a, b in itertools.pairwise(lines))


def test_pictures_show_what_there_is(tmp_path):
    statuses = ["done", "done", "pruned", "diverged"]
    rows = [
        {"trial": i, "rate": 10.0**-i, "kind": "ab"[i % 2], "same": 1, "status": status, "images": 20}
        | ({} if status == "diverged" else {"m": 1.0 + i})
        for i, status in enumerate(statuses)
    ]
    for i in range(3):
        (tmp_path / "members" / f"{i:05d}").mkdir(parents=True)
        lines = [{"step": step, "images": 10 * step, "m": 2.0 + i - step / 2} for step in (1, 2)]
        (tmp_path / "members" / f"{i:05d}" / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    assert sweep.draw(tmp_path / "nothing", rows[3:], ["rate"], "m", "min") == []
    made = sweep.draw(tmp_path, rows, ["rate", "kind", "same"], "m", "min")
    decisions = [
        {"step": 1, "images": 10, "pruned": [2], "copies": {}},
        {"step": 1, "images": 10, "pruned": [], "copies": {"0": 1}},
    ]
    (tmp_path / "decisions.jsonl").write_text("".join(json.dumps(x) + "\n" for x in decisions))
    (tmp_path / "members.json").write_text(json.dumps([{"hparams": {"rate": 10.0**-i}} for i in range(4)]))
    after = sweep.draw(tmp_path, rows, ["rate", "kind", "same"], "m", "min")
    assert [path.name for path in after] == ["sweep.png", "curves.png", "lineage.png"] and after[:2] == made
    for path in after:
        with Image.open(path) as picture:
            assert picture.width >= 800 and len(picture.convert("L").getcolors()) > 20
    assert tmp_path / "lineage.png" in sweep.draw(tmp_path, rows, ["rate"], "never finite", "min")


def test_a_trial_with_a_value_is_a_point_whatever_its_status():
    statuses = ["done", "pruned", "stopped", "unheard of"]
    rows = [{"trial": i, "rate": 1.0 + i, "status": status, "m": 2.0 * i} for i, status in enumerate(statuses)]
    axes = Figure().add_subplot()
    pictures._against(axes, rows, rows, "rate", "m", "min")
    found = {tuple(point) for points in axes.collections for point in points.get_offsets()}
    assert found == {(row["rate"], row["m"]) for row in rows}
    assert axes.get_legend_handles_labels()[1] == ["done", "stopped", "pruned", "unheard of"]


def test_importance_and_contours(tmp_path):
    pytest.importorskip("optuna")
    random = np.random.default_rng(0)
    rows = [
        {"trial": i, "rate": float(rate), "gamma": float(gamma), "loss": "ab"[i % 2], "status": "done", "images": 10}
        | {"m": float(100 * rate + 0.01 * gamma)}
        for i, (rate, gamma) in enumerate(random.uniform(0.0, 1.0, (12, 2)))
    ]
    style = {key: value for key, value in matplotlib.rcParams.items() if key != "backend"}
    made = importance.draw(tmp_path, rows, ["rate", "gamma", "loss"], "m", "min")
    assert [path.name for path in made] == ["importance.png", "contour.png"]
    assert {key: matplotlib.rcParams[key] for key in style} == style  # Optuna's style is for its picture alone
    for path in made:
        with Image.open(path) as picture:
            assert picture.width >= 800 and len(picture.convert("L").getcolors()) > 20
    assert importance.draw(tmp_path, rows[:7], ["rate", "gamma"], "m", "min") == []
    assert importance.draw(tmp_path, rows, ["rate"], "m", "min") == []


def test_a_lineage_is_traced_and_its_hyperparameters_move():
    decisions = [
        {"images": 10, "copies": {"2": 0}, "hparams": {"2": {"rate": 0.3}}},
        {"images": 20, "copies": {"1": 2}, "hparams": {"1": {"rate": 0.4}}},
    ]
    assert lineage.ancestry(1, decisions) == [(0, 0.0, 10), (2, 10, 20), (1, 20, math.inf)]
    logs = {i: [{"images": 10 * (k + 1), "m": 1.0 * i + k} for k in range(3)] for i in range(3)}
    began = [{"rate": 0.1 * (i + 1), "same": 1.0} for i in range(3)]
    members, rates, *_ = lineage.figure(logs, began, decisions, "m", "max").axes
    assert [text.get_text() for text in members.get_yticklabels()] == ["2", "1", "0"]
    assert [text.get_text() for text in members.texts if text.get_text()] == ["0", "2"]
    [line] = [x for x in rates.get_lines() if x.get_label().startswith("the best")]
    assert rates.get_ylabel() == "rate" and list(line.get_ydata()) == [0.1, 0.1]


def test_the_survivors_are_counted():
    axes = Figure().subplots()
    pictures.survival(axes, [(10, "pruned"), (10, "pruned"), (20, "diverged"), (30, "pruned")], 6, 40)
    [steps] = axes.patches
    assert list(steps.get_data().values) == [6, 5, 4, 3, 2] and list(steps.get_data().edges) == [0, 10, 10, 20, 30, 40]
    assert [text.get_text() for text in axes.texts] == ["4", "3", "2"]
    assert sum(len(dots.get_offsets()) for dots in axes.collections) == 4
