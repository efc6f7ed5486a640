"""The first question about a GAN: does it find all modes?"""

import numpy as np
import pytest

from gan_jax import data, load
from tests.processes import run


@pytest.mark.slow
def test_ring_covers_its_eight_modes(tmp_path):
    config = ("--config=experiments/configs/ring.py", "--config.steps=3000")
    faster = ("--config.width=64", "--config.learning_rate=2e-3")
    run("train", *config, *faster, f"--workdir={tmp_path / 'run'}", quick=False)
    mixture = data.ring()
    distance = np.linalg.norm(load(tmp_path / "run").sample(2500)[:, None] - mixture.centers, axis=-1)
    found = np.bincount(distance.argmin(1)[distance.min(1) < 3 * mixture.std], minlength=8)
    assert np.all(found >= 100), found
    assert found.sum() > 0.5 * 2500, found  # evenly spread points would give 7%
