"""Studies: workers that share trials, one of which is killed; pruning; the storage."""

import collections
import concurrent.futures
import json
import os
import pathlib
import re
import time

import optuna
import pytest

from gan_jax.sweep import space as spaces
from gan_jax.sweep.study import Study
from gan_jax.types import InvalidInputError
from tests.experiments.test_sweep import FLAGS, table
from tests.processes import ROOT, finish, result, run, start, start_module, when

SPACE = {"rate": spaces.LogUniform(1e-3, 1.0), "kind": spaces.Choice(["a", "b"]), "n": spaces.Uniform(1, 3)}


@pytest.fixture
def study():
    """Returns a function that opens studies; their claims on trials are released when the test ends."""
    opened = []

    def make(workdir, **options):
        options = {"facts": {"config": 1}, "num_trials": 6, "mode": "min", "sampler": "random"} | options
        opened.append(Study(workdir, SPACE, **options))
        return opened[-1]

    def close():
        for one in opened:
            one.close()

    make.close = close
    yield make
    close()


def test_trials_are_taken_once_and_end_once(tmp_path, study):
    one, two = study(tmp_path), study(tmp_path)
    taken = [who.take() for who in (one, two, one, two, one, two)]
    assert [x.numbers for x in taken] == [[number] for number in range(6)] and not any(x.continued for x in taken)
    assert one.take() is None and two.take() is None
    points = [point for x in taken for point in x.points]
    assert len({str(point) for point in points}) == 6 and {point["n"] for point in points} <= {1, 2, 3}
    one.tell(0, "done", 3.0)
    two.tell(1, "done", 1.0)
    one.tell(2, "diverged", None)
    two.tell(3, "failed", None)
    assert one.best() == (1, 1.0)
    with pytest.raises(InvalidInputError, match="trial 0 is not this worker's"):
        two.tell(0, "done", 0.0)
    assert [row["status"] for row in one.rows("m")] == ["done", "done", "diverged", "failed", "running", "running"]
    assert study(tmp_path / "again").take().points == points[:1], "with one worker a function of the seed"


def test_what_a_dead_worker_leaves_is_taken_up_again_but_not_for_ever(tmp_path, study):
    one = study(tmp_path, num_trials=1)
    taken = one.take()
    assert not one.report(0, 256, 5.0)
    one.close()  # like the end of its process
    for _ in range(1):
        two = study(tmp_path, num_trials=1)
        assert two.take() == ([0], taken.points, True, False)
        two.close()
    for _ in range(2):
        three = study(tmp_path, num_trials=1)
        assert three.take().continued
        three.close()
    last = study(tmp_path, num_trials=1)
    assert last.take() is None, "three attempts that got no further"
    assert [row["status"] for row in last.rows("m")] == ["failed"]


def test_a_population_that_comes_further_is_taken_up_every_time(tmp_path, study):
    """Any member's reports count as progress, and so do checkpoints. After three attempts without any, all fail."""
    taken = study(tmp_path, num_trials=3).take(together=2)
    for images in range(5):
        study.close()
        one = study(tmp_path)
        assert one.take() == (taken.numbers, taken.points, True, True)
        one.report(1, images + 1, 1.0)  # trial 0 never reports
    for step in range(1, 5):
        study.close()
        assert study(tmp_path).take(saved=lambda first, together, step=step: 1000 * step).continued
    for _ in range(2):
        study.close()
        assert study(tmp_path).take(saved=lambda first, together: 4000).continued
    study.close()
    last = study(tmp_path, num_trials=3)
    assert last.take(saved=lambda first, together: 4000).numbers == [2], "and the next is taken"
    assert [row["status"] for row in last.rows("m")] == ["failed", "failed", "running"]


def test_a_worker_may_die_while_it_asks(tmp_path, study, monkeypatch):
    """Values that the dead worker had not drawn are drawn by the next; the rest of a grid is still enqueued."""
    one = study(tmp_path / "random")
    one._study.ask()  # Optuna's first step, after which the worker dies
    again = study(tmp_path / "random").take()
    assert again.numbers == [0] and again.continued and again.points[0].keys() == SPACE.keys()
    enqueue, points = optuna.Study.enqueue_trial, []

    def dies(self, point):
        if len(points) == 3:
            raise KeyboardInterrupt
        points.append(point)
        enqueue(self, point)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(optuna.Study, "enqueue_trial", dies)
        study(tmp_path / "grid", sampler="grid", grid_size=2)
    two = study(tmp_path / "grid", sampler="grid", grid_size=2)
    found = []
    while (taken := two.take()) is not None:
        found += taken.points
        two.tell(taken.numbers[0], "done", 0.0)
    assert found == spaces.grid(SPACE, 2)


def test_of_a_population_all_claims_are_had_or_none(tmp_path, study):
    one, two = study(tmp_path), study(tmp_path)
    one.take(together=3)
    one._release(0)  # an ending process releases its claims one by one
    assert two.take().numbers == [3] and not two.holds(0)


def test_a_torn_line_of_the_journal_is_removed_by_the_next_who_writes(tmp_path, study):
    """When a study is opened, and while others are at it."""
    said, journal = [], tmp_path / "study.journal"
    one = study(tmp_path, log=said.append)
    for torn in ("{", '{"op_code": 5, "worker_id": "a"'):
        one.report(one.take().numbers[0], 1, 2.0)
        with journal.open("a") as file:
            file.write(torn)  # what a worker leaves that is killed while it writes
        two = study(tmp_path, log=said.append)
        two.tell(two.take().numbers[0], "done", 1.0)
        assert [len(torn)] == [int(line.split(" of ")[1].split()[0]) for line in said] and str(journal) in said.pop()
    assert [row["status"] for row in one.rows("m")] == ["running", "done"] * 2
    [json.loads(line) for line in journal.read_text().splitlines()]


HOLDS_THE_JOURNAL = """
import pathlib, time
from gan_jax.sweep.study import Study
from tests.experiments.test_study import SPACE
one = Study(pathlib.Path({!r}), SPACE, facts=dict(config=1), num_trials=6, mode="min", sampler="random")
one._study._storage._backend._lock.acquire()
print("held", flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("relative", [False, True])
def test_a_worker_killed_while_it_writes_to_the_journal_keeps_nobody_waiting(relative, tmp_path, study, monkeypatch):
    monkeypatch.chdir(ROOT)
    workdir = pathlib.Path(os.path.relpath(tmp_path, ROOT)) if relative else tmp_path
    (tmp_path / "worker.py").write_text(HOLDS_THE_JOURNAL.format(str(workdir)))
    worker = start_module("tests.program", str(tmp_path / "worker.py"))
    when(worker, lambda line: line == "held\n")
    worker.kill()
    finish(worker)
    began = time.monotonic()
    assert study(workdir).take().numbers == [0] and time.monotonic() - began < 10


def test_a_journal_that_is_damaged_is_named(tmp_path, study):
    study(tmp_path)
    journal = tmp_path / "study.journal"
    whole = journal.read_text()
    lines = whole.splitlines(keepends=True)
    for number, damaged in ((1, ["{\n", *lines]), (2, [lines[0], "[]\n", *lines[1:]]), (1, [lines[0][:9] + "\n"])):
        journal.write_text("".join(damaged))
        with pytest.raises(InvalidInputError, match=rf"^line {number} of .*study\.journal is damaged.*restore it"):
            study(tmp_path)
    journal.write_text(whole.replace('"op_code":0', '"op_code":99'))
    with pytest.raises(InvalidInputError, match=r"study\.journal cannot be opened"):
        study(tmp_path)
    journal.write_text(re.sub(r'"facts":\{.*?\}\}', '"facts":[]', whole))
    with pytest.raises(InvalidInputError, match=r"study in .* has damaged settings"):
        study(tmp_path)


def test_grids_are_taken_whole_and_pruners_are_asked(tmp_path, study):
    one = study(tmp_path, sampler="grid", grid_size=2, pruner="median")
    points = []
    while (taken := one.take()) is not None:
        points += taken.points
        [number] = taken.numbers
        values = [10.0 + len(points) * (1 if step < 3 else 0) for step in range(5)]
        pruned = max(one.report(number, step, value) for step, value in enumerate(values))
        one.tell(number, "pruned" if pruned else "done", values[-1])
    assert points == spaces.grid(SPACE, 2) and len(points) == 8
    told = [row["status"] for row in one.rows("m")]
    assert told[:5] == ["done"] * 5 and set(told[5:]) == {"pruned"}, "after five, those above the median"


def test_the_dashboard_of_optuna_shows_names(tmp_path, study):
    """Also after the workdir was renamed, and of a study that has the name of earlier versions."""
    home = tmp_path / "digits"
    one, two = study(home, metric="eval/fcd2k"), study(home, metric="eval/fcd2k")
    for each in (one, two):
        assert each._study.study_name == "digits" and each._study.metric_names == ["eval/fcd2k"]
    study.close()
    assert study(home.rename(tmp_path / "moved"))._study.study_name == "digits"
    old = (tmp_path / "moved" / "study.journal").read_text().replace('"digits"', '"sweep"')
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "study.journal").write_text(old)
    assert study(tmp_path / "old")._study.study_name == "sweep"


def test_another_study_is_refused(tmp_path, study):
    study(tmp_path)
    with pytest.raises(InvalidInputError, match="config: 1 there, 2 now"):
        study(tmp_path, facts={"config": 2})
    with pytest.raises(InvalidInputError, match="cannot be opened"):
        study(tmp_path / "other", storage="nothing://here")


@pytest.mark.parametrize("where", ["://", ":///", ":///:memory:", "+pysqlite:///:memory:", ":///file:a?mode=memory"])
def test_a_database_in_memory_is_refused(where, tmp_path, study):
    with pytest.raises(InvalidInputError, match=r"in memory.*name a file"):
        study(tmp_path, storage=f"sqlite{where}")
    assert not (tmp_path / "study.json").exists()


def test_a_database_will_do(tmp_path, study, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert study(tmp_path / "home", storage="sqlite:///~/home.db") and (tmp_path / "home.db").exists()
    url = f"sqlite:///{tmp_path / 'study.db'}"
    one, two = study(tmp_path / "a", storage=url), study(tmp_path / "a", storage=url)
    assert [one.take().numbers, two.take().numbers] == [[0], [1]]
    (tmp_path / "other").mkdir()
    assert study(tmp_path / "other" / "a", storage=url).take().numbers == [0], "another sweep of the same name"


def test_workers_that_open_a_new_database_together(tmp_path):
    """Eight at once: the lock lets one create the tables."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        options = {"facts": {}, "num_trials": 8, "mode": "min", "storage": f"sqlite:///{tmp_path / 'new.db'}"}
        opened = list(pool.map(lambda _: Study(tmp_path, SPACE, **options), range(8)))
    assert len({one._study._study_id for one in opened}) == 1
    for one in opened:
        one.close()


def test_a_grid_says_what_waits(tmp_path, study):
    one = study(tmp_path, sampler="grid", grid_size=1)
    assert [row["status"] for row in one.rows("m")] == ["waiting"] * 2
    [number] = one.take().numbers
    assert sorted(row["status"] for row in one.rows("m")) == ["running", "waiting"]
    one.tell(number, "done", 1.0)
    rows = one.rows("m")
    assert [row["status"] for row in rows] == ["done", "waiting"] and all(row["kind"] in "ab" for row in rows)


def test_a_population_is_taken_and_taken_up_again_together(tmp_path, study):
    one, two = study(tmp_path, pruner="asha"), study(tmp_path)
    taken = one.take(together=4)
    assert taken.numbers == [0, 1, 2, 3] and taken.together and not taken.continued
    rest = two.take(together=4)
    assert rest.numbers == [4, 5] and two.take(together=4) is None, "no more than were asked for"
    for number in taken.numbers:
        one.report(number, 1, float(number))
    pruned = [number for number in taken.numbers if one.report(number, 2, float(number))]
    assert pruned
    one.tell(3, "done", 3.0)
    one.close()  # like the end of its process, in the middle of telling
    again = two.take()
    assert again == (taken.numbers, taken.points, True, True), "by a worker that takes one at a time, too"
    assert [number for number in taken.numbers if two.holds(number)] == [0, 1, 2]
    assert all(two.report(number, 3, 0.0) for number in pruned), "what was pruned stays pruned"


STUDY = (
    "--engine=study", "--space=learning_rate=log(2e-4,2e-2)", "--sampler=random", "--num_trials=6",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.xdist_group("sweep")
def test_four_workers_share_a_study_and_one_is_killed(tmp_path):
    """Every trial ends exactly once, and the killed worker's trial is continued from its checkpoint."""
    flags = [*FLAGS, *STUDY, f"--workdir={tmp_path}"]
    workers = [start("sweep", *flags) for _ in range(4)]
    first = when(workers[0], lambda line: line.startswith("step 120/"))
    workers[0].kill()
    first += finish(workers[0])[1]
    ends = [finish(worker) for worker in workers[1:]]
    assert [code for code, _ in ends] == [0, 0, 0], ends
    left = [line.split()[1].strip(":") for line in first.splitlines() if line.startswith("trial ")][-1]
    said = "".join(output for _, output in ends)
    assert f"trial {left}, abandoned by another worker" in said and "continuing from the checkpoint of step" in said
    said += first
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.journal"))
    )
    trials = optuna.load_study(study_name=tmp_path.name, storage=storage).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 6
    ended = collections.Counter(
        line.split()[1] for line in said.splitlines() if line.startswith("trial ") and " done, " in line
    )
    assert ended == {str(number): 1 for number in range(6)}
    rows = table(tmp_path)
    assert [row["status"] for row in rows] == ["done"] * 6
    values = [float(row["eval/mixture_kl"]) for row in rows]
    study_best = min(trials, key=lambda trial: trial.value)
    assert values[study_best.number] == min(values) == study_best.value
    for number, row in enumerate(rows):
        home = tmp_path / "trials" / f"{number:05d}"
        logged = [json.loads(line) for line in (home / "metrics.jsonl").read_text().splitlines()]
        assert result(home)["status"] == "done" and logged[-1]["eval/mixture_kl"] == float(row["eval/mixture_kl"])
        assert [line["step"] for line in logged] == list(range(40, 401, 40))
    assert "no more trials" in run("sweep", *flags)
    assert "has other settings" in run("sweep", *flags, "--config.gamma=0.5", code=2)
    assert "best_metric" in run("sweep", *flags, "--config.best_metric=eval/mixture_high_quality", code=2)


@pytest.mark.long
@pytest.mark.xdist_group("sweep")
def test_a_study_of_populations_is_killed_and_continued(tmp_path):
    """Trials are taken three at a time; a killed population continues; its best member is a run that can be sampled."""
    flags = [flag.replace("steps=400", "steps=200") for flag in FLAGS]
    flags += [*STUDY, "--num_trials=5", "--population=3", "--pruner=median", f"--workdir={tmp_path}"]
    assert "width=32 changes the program" in run("sweep", *flags, "--space=width=16,32", code=2)
    assert not (tmp_path / "study.journal").exists(), "refused before anything runs"
    first = start("sweep", *flags)
    when(first, lambda line: line.startswith("step 120/"))
    first.kill()
    finish(first)
    said = run("sweep", *flags)
    assert "trials 0 to 2 as one population, abandoned by another worker" in said
    assert "continuing from the checkpoint of step" in said and "trials 3 to 4 as one population" in said
    rows = table(tmp_path)
    assert [row["population"] for row in rows] == ["0", "0", "0", "3", "3"]
    assert {row["status"] for row in rows} <= {"done", "pruned"} and rows[0]["status"] == "done"
    for row in rows:
        number, first = int(row["trial"]), int(row["population"])
        home = tmp_path / "populations" / f"{first:05d}"
        ended = result(home / "members" / f"{number - first:05d}")
        assert ended["status"] == row["status"] and ended["metrics"]["eval/mixture_kl"] == float(row["eval/mixture_kl"])
        assert [ended["images"]] == [int(row["images"])]
    [best] = (tmp_path / "populations/00003/trials").iterdir()
    run("sample", f"--workdir={best}", f"--out={tmp_path / 'samples.png'}")
    assert (tmp_path / "curves.png").exists() and (tmp_path / "sweep.png").exists()
    assert "is for --engine=population; this is --engine=study" in run("sweep", *flags, "--search=pbt", code=2)
