"""VQGAN's adaptive weight and the decoder's gradient against taming-transformers' loss, stored in taming/*.npz.

The files hold seeded random weights, inputs and outputs of CompVis/taming-transformers at commit 3ba01b2, in torch's
layout. LPIPS is replaced there by .37 times the mean square of an image.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import losses

HERE = pathlib.Path(__file__).with_name("taming")
DIMENSIONS = ("NCHW", "OIHW", "NCHW")


@pytest.fixture(scope="module")
def golden():
    with np.load(HERE / "loss_hinge.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return json.loads(str(arrays.pop("meta")))["args"], arrays


def conv(x, kernel, bias=None, stride=1):
    y = jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [(1, 1)] * 2, dimension_numbers=DIMENSIONS, precision="highest"
    )
    return y if bias is None else y + bias[:, None, None]


def patchgan(weights, x):
    """The official discriminator at evaluation: 4x4 convolutions, batch norm by running statistics, slope 0.2."""
    get = lambda index, name: weights[f"w/discriminator.main.{index}.{name}"]  # noqa: E731
    x = jax.nn.leaky_relu(conv(x, get(0, "weight"), get(0, "bias"), 2), 0.2)
    for index, stride in ((2, 2), (5, 2), (8, 1)):
        x = conv(x, get(index, "weight"), stride=stride)
        mean, var, scale, shift = (
            get(index + 1, name)[:, None, None] for name in ("running_mean", "running_var", "weight", "bias")
        )
        x = jax.nn.leaky_relu((x - mean) / jnp.sqrt(var + 1e-5) * scale + shift, 0.2)
    return conv(x, get(11, "weight"), get(11, "bias"))


def test_adaptive_weight_and_steered_gradient(golden):
    """Steering at the output gives the gradient that taming's one backward pass gives the last layer."""
    args, arrays = golden
    weights = jax.tree.map(jnp.asarray, arrays)

    def last(kernel):
        return conv(weights["in/hidden"], kernel, weights["in/last_bias"])

    def reconstruction(y):
        x = weights["in/x"]
        images = 0.37 * jnp.mean((x - y) ** 2, axis=(1, 2, 3), keepdims=True)
        return losses.l1(y, x) + args["perceptual_weight"] * images

    def adversarial(y):
        logits = patchgan(weights, y)
        return losses.hinge.generator(jnp.zeros_like(logits), logits)

    @jax.jit
    def both(kernel):
        y, back = jax.vjp(last, kernel)
        values, gradients = losses.output_gradients({"nll": reconstruction, "gan": adversarial}, y)
        at_kernel = {name: back(gradient)[0] for name, gradient in gradients.items()}
        weight = losses.adaptive_weight(at_kernel["nll"], at_kernel["gan"], epsilon=1e-4) * args["disc_weight"]
        factor = weight * args["disc_factor"]

        def loss(kernel):
            total = jax.tree.map(lambda a, b: a + factor * b, gradients["nll"], gradients["gan"])
            return losses.steer(last(kernel), total)

        return values, at_kernel, weight, jax.grad(loss)(kernel)

    values, at_kernel, weight, total = both(weights["in/last_layer"])

    def close(found, key):
        expected = arrays[f"out/eval/{key}"]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())

    close(jnp.mean(values["nll"]), "step10/ae/nll_loss")
    close(jnp.mean(values["gan"]), "step10/ae/g_loss")
    close(at_kernel["nll"], "grad_nll")
    close(at_kernel["gan"], "grad_g")
    close(weight, "adaptive_weight")
    close(weight, "step10/ae/d_weight")
    close(total, "step10/ae/grad_last_layer")
    # before the discriminator counts, the gradient is that of the reconstruction alone
    started = losses.ramp(jnp.array([9, 10]), args["disc_start"])
    np.testing.assert_array_equal(started, [0, 1])
    close(at_kernel["nll"] + started[0] * weight * at_kernel["gan"], "step9/ae/grad_last_layer")
