"""Studies: workers that share trials, one of which is killed; pruning; the storage."""

import collections
import json

import optuna
import pytest

from gan_jax.sweep import space as spaces
from gan_jax.sweep.study import Study
from gan_jax.types import InvalidInputError
from tests.experiments.commands import finish, result, run, start, when
from tests.experiments.test_sweep import FLAGS, table

SPACE = {"rate": spaces.LogUniform(1e-3, 1.0), "kind": spaces.Choice(["a", "b"]), "n": spaces.Uniform(1, 3)}


@pytest.fixture
def study():
    """Opens studies, and lets go of their trials in the end."""
    opened = []

    def make(workdir, **options):
        options = {"facts": {"config": 1}, "num_trials": 6, "mode": "min", "sampler": "random"} | options
        opened.append(Study(workdir, SPACE, **options))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def test_trials_are_taken_once_and_end_once(tmp_path, study):
    one, two = study(tmp_path), study(tmp_path)
    taken = [who.take() for who in (one, two, one, two, one, two)]
    assert [x.number for x in taken] == list(range(6)) and not any(x.continued for x in taken)
    assert one.take() is None and two.take() is None
    assert len({str(x.point) for x in taken}) == 6 and {x.point["n"] for x in taken} <= {1, 2, 3}
    one.tell(0, "done", 3.0)
    two.tell(1, "done", 1.0)
    one.tell(2, "diverged", None)
    two.tell(3, "failed", None)
    assert one.best() == (1, 1.0)
    with pytest.raises(InvalidInputError, match="trial 0 is not this worker's"):
        two.tell(0, "done", 0.0)
    assert [row["status"] for row in one.rows("m")] == ["done", "done", "diverged", "failed", "running", "running"]
    assert study(tmp_path / "again").take().point == taken[0].point, "with one worker a function of the seed"


def test_what_a_dead_worker_leaves_is_taken_up_again_but_not_for_ever(tmp_path, study):
    one = study(tmp_path, num_trials=1)
    taken = one.take()
    assert not one.report(0, 256, 5.0)
    one.close()  # as the end of its process does
    for _ in range(1):
        two = study(tmp_path, num_trials=1)
        assert two.take() == (0, taken.point, True)
        two.close()
    for _ in range(2):
        three = study(tmp_path, num_trials=1)
        assert three.take().continued
        three.close()
    last = study(tmp_path, num_trials=1)
    assert last.take() is None, "three attempts that got no further"
    assert [row["status"] for row in last.rows("m")] == ["failed"]


def test_grids_are_taken_whole_and_pruners_are_asked(tmp_path, study):
    one = study(tmp_path, sampler="grid", grid_size=2, pruner="median")
    points = []
    while (taken := one.take()) is not None:
        points.append(taken.point)
        values = [10.0 + len(points) * (1 if step < 3 else 0) for step in range(5)]
        pruned = max(one.report(taken.number, step, value) for step, value in enumerate(values))
        one.tell(taken.number, "pruned" if pruned else "done", values[-1])
    assert points == spaces.grid(SPACE, 2) and len(points) == 8
    told = [row["status"] for row in one.rows("m")]
    assert told[:5] == ["done"] * 5 and set(told[5:]) == {"pruned"}, "after five, those above the median"


def test_another_study_is_refused(tmp_path, study):
    study(tmp_path)
    with pytest.raises(InvalidInputError, match="config: 1 there, 2 now"):
        study(tmp_path, facts={"config": 2})
    with pytest.raises(InvalidInputError, match="cannot be opened"):
        study(tmp_path / "other", storage="nothing://here")


def test_a_database_will_do(tmp_path, study):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    one, two = study(tmp_path / "a", storage=url), study(tmp_path / "a", storage=url)
    assert [one.take().number, two.take().number] == [0, 1]


STUDY = (
    "--engine=study", "--space=learning_rate=log(2e-4,2e-2)", "--sampler=random", "--num_trials=6",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.xdist_group("sweep")
def test_four_workers_share_a_study_and_one_is_killed(tmp_path):
    """Every trial ends exactly once, and what the killed one was at is continued from its checkpoint."""
    flags = [*FLAGS, *STUDY, f"--workdir={tmp_path}"]
    first = start("sweep", *flags)
    when(first, lambda line: line.startswith("step 120/"))
    first.kill()
    finish(first)
    workers = [start("sweep", *flags) for _ in range(3)]
    ends = [finish(worker) for worker in workers]
    assert [code for code, _ in ends] == [0, 0, 0], ends
    said = "".join(output for _, output in ends)
    assert "trial 0, which another worker has left" in said and "continuing from the checkpoint of step" in said
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.journal"))
    )
    trials = optuna.load_study(study_name="sweep", storage=storage).trials
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
    assert "is of something else" in run("sweep", *flags, "--config.gamma=0.5", code=2)
