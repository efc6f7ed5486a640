"""Writes pairs.json: scikit-image's values for the pairs of images that gan_jax's metrics get too.

test_pairs.py compares gan_jax with that file, and does not need scikit-image. To make it again, with Python 3.11:

    python3.11 -m venv venv
    venv/bin/pip install scikit-image==0.26.0
    venv/bin/python tests/golden/make_pairs.py
"""

import importlib.metadata
import json
import pathlib

import numpy as np


def pairs(seed, n=4, height=24, width=17, channels=3):
    """Draws smooth images in [-1, 1]; returns them with noise and a shifted mean, and as they are."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(-1, 1, (n, 4, 4, channels)).repeat(6, axis=1).repeat(5, axis=2)[:, :height, :width]
    noisy = coarse + random.normal(size=coarse.shape) * np.array([0.01, 0.1, 0.3, 0.6]).reshape(-1, 1, 1, 1) + 0.05
    return np.clip(noisy, -1, 1).astype(np.float32), coarse.astype(np.float32)


def main():
    """Calls the package, and writes the file."""
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    entries = []
    for seed, channels in ((0, 3), (1, 1)):
        outputs, targets = pairs(seed, channels=channels)
        wide = [(x.astype(np.float64) + 1, y.astype(np.float64) + 1) for x, y in zip(outputs, targets, strict=True)]
        accumulator = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": -1}
        entries.append(
            {
                "seed": seed, "channels": channels,
                "psnr": [peak_signal_noise_ratio(y, x, data_range=2.0) for x, y in wide],
                "ssim": [structural_similarity(y, x, data_range=2.0, **accumulator) for x, y in wide],
            }
        )  # fmt: skip
    versions = {name: importlib.metadata.version(name) for name in ("scikit-image", "numpy")}
    text = json.dumps({"versions": versions, "entries": entries}, indent=1, default=float)
    pathlib.Path(__file__).with_name("pairs.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
