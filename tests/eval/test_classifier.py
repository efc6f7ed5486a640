"""The classifier of a run's own data: it learns, trains reproducibly, and can be saved and loaded."""

import numpy as np
import pytest

from gan_jax import data, metrics
from gan_jax import eval as evals
from gan_jax.types import InvalidInputError


def digits():
    source = data.digits(labels=True)
    images = np.round((source.arrays["real"] + 1.0) * 127.5).astype(np.uint8)
    tested = np.arange(len(images)) % 10 == 0
    labels = source.arrays["label"]
    return images[~tested], labels[~tested], (images[tested], labels[tested])


@pytest.fixture(scope="module")
def trained():
    said = []
    made = evals.train_classifier(*digits(), num_classes=10, width=8, features=32, log=said.append)
    assert "pass 1 of" in said[0] and "ETA" in said[0] and "held out are right" in said[-1]
    return made


@pytest.mark.slow
@pytest.mark.xdist_group("classifier")
def test_it_learns_and_its_features_tell_data_apart(trained):
    assert trained.record["accuracy"] > 0.97 and trained.record["held_out"] == 180
    images, labels, (held_out, _) = digits()

    def moments(x):
        return metrics.moments(np.asarray(trained.apply(trained.params, x)["features"]))

    noise = np.random.default_rng(0).integers(0, 256, held_out.shape, np.uint8)
    near = metrics.frechet_distance(moments(images), moments(held_out))
    one_class = metrics.frechet_distance(moments(images), moments(images[labels == 3]))
    far = metrics.frechet_distance(moments(images), moments(noise))
    assert near < one_class < far


@pytest.mark.slow
@pytest.mark.xdist_group("classifier")
def test_a_file_brings_it_back_and_a_damaged_one_is_refused(trained, tmp_path):
    path = tmp_path / "classifier.npz"
    evals.save_classifier(path, trained)
    again = evals.load_classifier(path)
    x = digits()[2][0]
    assert again.record == trained.record
    assert (again.apply(again.params, x)["logits"] == trained.apply(trained.params, x)["logits"]).all()
    with np.load(path) as kept:
        arrays = dict(kept)
    name = next(name for name, value in arrays.items() if value.dtype == np.float32)
    arrays[name] = arrays[name] + 1.0
    np.savez(path, **arrays)
    with pytest.raises(InvalidInputError, match="damaged"):
        evals.load_classifier(path)
    path.write_bytes(b"nothing")
    with pytest.raises(InvalidInputError, match="no classifier"):
        evals.load_classifier(path)


def test_bad_images_and_labels_are_refused():
    images, labels, held_out = digits()
    with pytest.raises(InvalidInputError, match="labels from 0 to 9: expected 0 to 4"):
        evals.train_classifier(images, labels, held_out, num_classes=5)
    with pytest.raises(InvalidInputError, match="expected uint8"):
        evals.train_classifier(images.astype(np.float32), labels, held_out, num_classes=10)
    with pytest.raises(InvalidInputError, match="128 or more"):
        evals.train_classifier(images[:100], labels[:100], held_out, num_classes=10)
