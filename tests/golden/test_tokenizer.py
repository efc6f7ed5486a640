"""The parts of taming-transformers against the outputs of the authors' code, stored in taming/*.npz.

The files hold seeded random weights, inputs and outputs of CompVis/taming-transformers at commit 3ba01b2, in torch's
layout.
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import losses, ops

HERE = pathlib.Path(__file__).with_name("taming")


@functools.cache
def read(name):
    with np.load(HERE / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return json.loads(str(arrays.pop("meta"))), arrays


def images(x):
    """Moves the channels of an array in torch's layout to the end."""
    return jnp.asarray(x.transpose(0, 2, 3, 1))


def close(found, expected, tolerance=1e-5):
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(np.abs(expected).max(), 1e-30))


@pytest.mark.parametrize("name", ["vq_fixed", "vq_legacy"])
def test_vector_quantizer(name):
    """The factor 0.25 is on the term that moves the encoder, or with `legacy` on the one that moves the codes."""
    meta, arrays = read(name)
    beta = meta["args"]["beta"]
    commitment, codebook = (1.0, beta) if meta["args"]["legacy"] else (beta, 1.0)

    def loss(z, codes):
        found = ops.vector_quantize(z, codes)
        return found.loss(commitment=commitment, codebook=codebook), found

    z, codes = images(arrays["in/z"]), jnp.asarray(arrays["w/embedding.weight"])
    (value, found), (by_z, by_codes) = jax.value_and_grad(loss, (0, 1), has_aux=True)(z, codes)
    np.testing.assert_array_equal(found.ids, arrays["out/ids"])
    close(found.codes, images(arrays["out/z_q"]))
    close(value, arrays["out/loss"])
    close(by_z, images(arrays["out/grad_loss_z"]))
    close(by_codes, arrays["out/grad_loss_embedding"])
    through = jax.grad(lambda z: jnp.sum(ops.vector_quantize(z, codes).codes * images(arrays["in/cotangent"])))(z)
    close(through, images(arrays["out/grad_straight_through_z"]))


@pytest.mark.parametrize(("name", "loss"), [("hinge", losses.hinge), ("vanilla", losses.non_saturating)])
def test_discriminator_losses(name, loss):
    """The authors' losses have a factor 1/2, ours have none."""
    _, arrays = read("d_losses")
    found = jnp.mean(loss.discriminator(jnp.asarray(arrays["in/real"]), jnp.asarray(arrays["in/fake"])))
    close(0.5 * found, arrays[f"out/{name}"])
