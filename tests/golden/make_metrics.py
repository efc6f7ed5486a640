"""Writes metrics.json: values of independent packages for the features that gan_jax's metrics get too.

test_metrics.py compares gan_jax with that file, and needs none of the packages. To make it again, with Python 3.11:

    python3.11 -m venv venv
    venv/bin/pip install torch==2.14.1 torchvision==0.29.1 torch-fidelity==0.4.0 clean-fid==0.1.35 prdc==0.2 \
        POT==0.9.7.post1
    venv/bin/python tests/golden/make_metrics.py

The packages draw the subsets of kernel distances by different generators, so here every subset is the whole set.
"""

import importlib.metadata
import json
import pathlib

import numpy as np


def features(seed, n, d=24):
    """Draws float32 features like those of networks: correlated, non-negative and skewed."""
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(n, d)) @ np.random.default_rng(99).normal(size=(d, d)) / d**0.5
    return np.maximum(mixed + 0.3 + 0.05 * seed, 0.0).astype(np.float32)


def logits(n=1005, classes=30):
    """Draws logits of confident and unconfident predictions."""
    return (3.0 * np.random.default_rng(5).normal(size=(n, classes))).astype(np.float32)


REAL, FAKE = features(0, 1000), features(1, 1000)


def main():
    """Calls the packages, and writes the file."""
    import torch
    import torchvision  # noqa: F401 - it crashes when imported after POT

    # isort: split
    import ot
    from cleanfid import fid as cleanfid
    from prdc import compute_prdc
    from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc

    real, fake = torch.from_numpy(REAL), torch.from_numpy(FAKE)
    fidelity = {
        "fid": metric_fid.fid_statistics_to_metric(
            metric_fid.fid_features_to_statistics(real), metric_fid.fid_features_to_statistics(fake), False
        ),
        "kid": metric_kid.kid_features_to_metric(real, fake, kid_subsets=2, kid_subset_size=1000, verbose=False),
        "isc": metric_isc.isc_features_to_metric(torch.from_numpy(logits()), splits=10, shuffle=False),
        "prc": metric_prc.prc_features_to_metric(fake, real, verbose=False),  # the fakes come first
    }
    wide = REAL.astype(np.float64), FAKE.astype(np.float64)
    moments = [x for side in wide for x in (side.mean(0), np.cov(side, rowvar=False))]
    entries = {
        "torch_fidelity": fidelity,
        "cleanfid": {
            "frechet_distance": cleanfid.frechet_distance(*moments),
            "kernel_distance": cleanfid.kernel_distance(*wide, num_subsets=2, max_subset_size=1000),
        },
        "prdc": compute_prdc(real_features=wide[0], fake_features=wide[1], nearest_k=5),
        "ot": {
            "sliced": ot.sliced_wasserstein_distance(wide[0], wide[1][:700], n_projections=4000, seed=0),
            "one_dimension": float(ot.wasserstein_1d(wide[0][:, 0], wide[1][:700, 0], p=2) ** 0.5),
        },
    }
    packages = ("torch", "torch-fidelity", "clean-fid", "prdc", "POT", "numpy")
    found = {"versions": {name: importlib.metadata.version(name) for name in packages}, "entries": entries}
    text = json.dumps(found, indent=1, default=lambda x: x.item() if hasattr(x, "item") else list(x))
    pathlib.Path(__file__).with_name("metrics.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
