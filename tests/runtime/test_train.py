"""The training loop, run in this process."""

import functools
import json
import types

import numpy as np
import pytest

from gan_jax import data, runtime
from gan_jax.distributed.signals import StopRequest
from gan_jax.types import InvalidInputError
from tests.conformance.games import GAMES, LABELLED, REAL
from tests.experiments import conformance


class Reader:
    """A reader of the suite's images, as if from disk."""

    def __init__(self, broken_at: int | None = None) -> None:
        self.broken_at = broken_at

    def __len__(self) -> int:
        return REAL.size

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        if self.broken_at is not None and self.broken_at in indices:
            raise InvalidInputError(f"image {self.broken_at} is corrupt")
        return {"real": REAL.arrays["real"][indices]}


def experiment(source, **options):
    settings = {"seed": 1, "batch_size": 16, "steps": 8, "report_every": 4, "checkpoint_every": 4, "sample_every": 0}
    settings |= {"game": GAMES["vanilla"][0]()} | options
    return runtime.Experiment(source=lambda: source, preview=runtime.image_grid, **settings)


def train(workdir, source, cache=None, stop=None, watch=lambda record: None, **options):
    said, made = [], experiment(source, **options)
    ended = runtime.train(made, workdir, log=said.append, evaluation_cache=cache, stop=stop, watch=watch)
    return ended, said


def test_a_streamed_data_set_trains_as_a_resident_one(tmp_path):
    resident, _ = train(tmp_path / "resident", REAL)
    streamed, said = train(tmp_path / "streamed", data.Records("streamed", Reader()))
    assert streamed.state_sha256 == resident.state_sha256 and streamed.status == "done"
    assert any("streamed (below: 48 of them)" in line for line in said)


def test_the_last_step_is_in_the_log_wherever_it_falls(tmp_path):
    ended, _ = train(tmp_path / "run", REAL, steps=12, report_every=8, checkpoint_every=12)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [8, 12] and ended.metrics == lines[-1]


def test_no_checkpoint_is_kept_of_a_generator_that_is_not_finite(tmp_path):
    """The generator's loss is NaN only in the iteration before a checkpoint, after the discriminator's update.

    No line of the log is due that would show it.
    """
    poison = types.SimpleNamespace(seed=1, poison_from=3, poison_all=True)
    game = conformance.poisoned(GAMES["vanilla"][0](), poison)
    ended, said = train(tmp_path / "run", REAL, game=game, report_every=8)
    assert (ended.status, ended.step, ended.checkpoint) == ("diverged", 4, None)
    assert "step 4: not finite: a parameter, an optimiser's moment or a metric" in said


def test_a_signal_changes_nothing_about_a_divergence(tmp_path):
    """A signal that comes before the divergence is reported: the run stops, and finds it where it would have been."""
    poison = types.SimpleNamespace(seed=1, poison_from=4, poison_all=False)
    options = {"steps": 16, "steps_per_dispatch": 2, "on_divergence": "rollback"}
    stop, ends = StopRequest(), {}

    def watch(record):
        stop.signal = 15 if record["step"] == 4 else stop.signal  # stops at step 6, which is not finite

    def run(name, **more):
        game = conformance.poisoned(GAMES["vanilla"][0](), poison)
        ends[name], said = train(tmp_path / name, REAL, game=game, **options, **more)
        return said

    run("whole")
    said = run("broken", stop=stop, watch=watch)
    assert "stopped by SIGTERM at step 6, not saved since it is not finite" in said
    assert (ends["broken"].status, ends["broken"].checkpoint) == ("stopped", 4)
    run("broken")
    assert ends["broken"].state_sha256 == ends["whole"].state_sha256 and ends["broken"].rollbacks == 1
    records = [json.loads((tmp_path / name / "rollbacks.json").read_text()) for name in ("whole", "broken")]
    assert records[0] == records[1] and records[0][0]["diverged_at"] == 8


def test_a_record_that_cannot_be_read_stops_the_run_and_loses_nothing(tmp_path):
    """Training finds it: the summary, which would read the record first, is replaced when the reader breaks."""
    reader = Reader()
    source = data.Records("streamed", reader, prefetch=1, num_threads=1)
    train(tmp_path / "run", source)
    reader.broken_at = 7
    summary = source.summary
    object.__setattr__(source, "summary", lambda: "not read again")
    with pytest.raises(InvalidInputError, match="image 7 is corrupt"):
        train(tmp_path / "run", source, steps=40)
    object.__setattr__(source, "summary", summary)
    reader.broken_at = None
    mended, said = train(tmp_path / "run", source, steps=40)
    assert mended.step == 40 and any("continuing from the checkpoint of step" in line for line in said)
    assert mended.state_sha256 == train(tmp_path / "whole", REAL, steps=40)[0].state_sha256


def test_the_best_checkpoint_is_that_of_the_run_that_was_not_stopped(tmp_path):
    """A signal saves at the report with the best value, which is no checkpoint of the whole run."""
    best = {"best_metric": "discriminator/loss", "best_mode": "min"}
    run = experiment(REAL, seed=2, steps=12, report_every=2, keep_last=1, **best)  # one, so that it is traced once
    train = functools.partial(runtime.train, run, log=lambda message: None)
    whole = train(tmp_path / "whole")
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    at = min(lines, key=lambda line: line["discriminator/loss"])["step"]
    assert at % 4 and whole.best_checkpoint == 4, "neither on schedule, nor is the newest the best"
    stop = StopRequest()

    def watch(record):  # is told of a step while the next dispatch runs
        stop.signal = 15 if record["step"] == at - 2 else stop.signal

    stopped = train(tmp_path / "broken", stop=stop, watch=watch)
    assert stopped.status == "stopped" and stopped.step == at
    ended = train(tmp_path / "broken")
    assert ended.state_sha256 == whole.state_sha256 and ended.best_checkpoint == whole.best_checkpoint
    kept = [sorted(path.name for path in (tmp_path / name / "checkpoints").iterdir()) for name in ("whole", "broken")]
    assert kept[0] == kept[1]


def test_labels_that_the_game_does_not_know(tmp_path):
    with pytest.raises(InvalidInputError, match="labelled has labels of 3 classes, but the game has no labels"):
        train(tmp_path / "run", LABELLED)
