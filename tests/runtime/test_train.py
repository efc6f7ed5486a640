"""The loop, in this process."""

import numpy as np
import pytest

from gan_jax import data, runtime
from gan_jax.types import InvalidInputError
from tests.conformance.games import GAMES, LABELLED, REAL


class Reader:
    """The images of the list's data set, read as if from disk."""

    def __init__(self, broken_at: int | None = None) -> None:
        self.broken_at = broken_at

    def __len__(self) -> int:
        return REAL.size

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        if self.broken_at is not None and self.broken_at in indices:
            raise InvalidInputError(f"image {self.broken_at} is corrupt")
        return {"real": REAL.arrays["real"][indices]}


def train(workdir, source, cache=None, **options):
    settings = {"seed": 1, "batch_size": 16, "steps": 8, "report_every": 4, "checkpoint_every": 4, "sample_every": 0}
    run = runtime.Experiment(
        game=GAMES["vanilla"][0](), source=lambda: source, preview=runtime.image_grid, **(settings | options)
    )
    workdir.mkdir(exist_ok=True)
    said = []
    return runtime.train(run, workdir, say=said.append, evaluation_cache=cache), said


def test_a_streamed_data_set_trains_as_a_resident_one(tmp_path):
    resident, _ = train(tmp_path / "resident", REAL)
    streamed, said = train(tmp_path / "streamed", data.Records("streamed", Reader()))
    assert streamed.state_sha256 == resident.state_sha256 and streamed.status == "done"
    assert any("streamed (below: 48 of them)" in line for line in said)


def test_a_record_that_cannot_be_read_stops_the_run_and_loses_nothing(tmp_path):
    """Found by training, since the summary reads before: the reader breaks once it has been read through."""
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


def test_labels_that_the_game_does_not_know(tmp_path):
    with pytest.raises(InvalidInputError, match="labelled has labels of 3 classes, but the game has no labels"):
        train(tmp_path / "run", LABELLED)
