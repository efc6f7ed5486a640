"""The classifier of a data set as a frozen network, and a perceptual distance of its feature maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import data, losses, nets, runtime
from gan_jax.host import from_uint8
from gan_jax.types import InvalidInputError


def test_maps_lead_to_the_classifier_s_features():
    """The mean of the last map, through the dense layer of features, is what the classifier returns."""
    classifier = nets.Classifier(3, 4, 5)
    x = jax.random.normal(jax.random.key(0), (2, 16, 16, 1))
    params, state = nets.from_linen(classifier).init(jax.random.key(1), x)
    maps = nets.classifier_maps(classifier)((params, state), x)
    assert [m.shape[1:] for m in maps] == [(16, 16, 4), (8, 8, 8), (8, 8, 8), (4, 4, 16)]
    dense = params["features"]
    expected = jax.nn.relu(jnp.mean(maps[-1], (1, 2)) @ dense["kernel"] + dense["bias"])
    found = classifier.apply({"params": params, **state}, x, train=False)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_classifier_is_trained_once_and_is_a_distance(tmp_path):
    arrays = data.digits(labels=True).arrays
    source = data.Arrays("digits", {name: values[:500] for name, values in arrays.items()}, 10)
    first, second = (runtime.trained_classifier(source, tmp_path) for _ in range(2))
    assert first.sha256() == second.sha256() and "digits" in first.source
    assert len(list(tmp_path.glob("classifier-*.npz"))) == 1
    images = source.read(np.arange(64))["real"]
    x = jnp.asarray(images if images.dtype != np.uint8 else from_uint8(images))
    maps = nets.classifier_maps(nets.Classifier(10))

    def distance(y):
        return jnp.mean(losses.perceptual(maps(first.params, y), maps(first.params, x), normalize=True))

    assert float(distance(x)) == 0.0 and float(distance(0.9 * x)) < float(distance(jnp.roll(x, 1, axis=0)))
    with pytest.raises(InvalidInputError, match="without labels"):
        runtime.trained_classifier(data.digits(labels=False), tmp_path)
