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

from gan_jax import gans, losses, nets, ops, regularizers
from gan_jax.core.phase import gradient
from gan_jax.types import Network

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


def critic_weights(weights, prefix="main", *, act=False):
    """Converts the official discriminator's weights to parameters and model state of `PatchDiscriminator`."""
    get = lambda index, name: jnp.asarray(weights[f"w/{prefix}.{index}.{name}"])  # noqa: E731
    params, state = {}, {}
    for layer, index in {"conv_0": 0, "conv_1": 2, "conv_2": 5, "conv_3": 8, "logit": 11}.items():
        params[layer] = {"kernel": get(index, "weight").transpose(2, 3, 1, 0)}
        if f"w/{prefix}.{index}.bias" in weights:
            params[layer]["bias"] = get(index, "bias")
    for layer, index in {"norm_1": 3, "norm_2": 6, "norm_3": 9}.items():
        if act:
            params[layer] = {name: get(index, name).ravel() for name in ("loc", "scale")}
            width = params[layer]["loc"].size
            state[layer] = {"shift": jnp.zeros(width), "factor": jnp.ones(width), "started": jnp.ones((), jnp.int32)}
        else:
            params[layer] = {"scale": get(index, "weight"), "bias": get(index, "bias")}
            state[layer] = {"mean": get(index, "running_mean"), "var": get(index, "running_var")}
    return params, {"first_batch" if act else "batch_stats": state}


@pytest.mark.parametrize("norm", ["act", "batch"])
def test_patchgan(norm):
    _, arrays = read(f"patchgan_{'actnorm' if norm == 'act' else 'batch'}")
    critic = nets.from_linen(nets.PatchDiscriminator(4, norm=norm))
    params, state = critic_weights(arrays, act=norm == "act")

    @functools.partial(jax.jit, static_argnums=1)
    def run(x, train):
        logits = lambda x: critic.apply(params, state, x, train=train)[0]  # noqa: E731
        return logits(x), regularizers.zero_centered_penalty(lambda x: logits(x).sum((1, 2)), x)

    for mode in ("train/", "eval/") if norm == "batch" else ("",):
        logits, penalty = run(images(arrays["in/x"]), mode == "train/")
        close(logits, arrays[f"out/{mode}logits"][:, 0], 5e-6)
        close(penalty, arrays[f"out/{mode}r1"])


def test_actnorm_starts_at_the_first_batch_alone():
    module = nets.from_linen(nets.PatchDiscriminator(2, 1, norm="act"))
    x = 3.0 + jax.random.normal(jax.random.key(0), (4, 8, 8, 1))
    params, state = module.init(jax.random.key(1), x)
    _, first = module.apply(params, state, x, train=True)
    _, second = module.apply(params, first, 2 * x, train=True)
    assert int(state["first_batch"]["norm_1"]["started"]) == 0
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize("kind", ["hinge", "vanilla"])
def test_the_game_has_the_losses_the_weight_and_the_gradients_of_the_official_loss(kind):
    """Before and after `disc_start`, both players. The authors' discriminator losses have a factor 1/2.

    Both of the official losses have the generator's loss of hinge. LPIPS is replaced in the file.
    """
    meta, arrays = read(f"loss_{kind}")
    args = meta["args"]
    hidden, real = images(arrays["in/hidden"]), images(arrays["in/x"])
    codebook = jnp.asarray(arrays["in/codebook_loss"])

    def last(kernel, hidden):
        return ops.conv(hidden, kernel, padding=1)

    def apply(params, model_state, inputs, *, train, key=None):
        given = hidden[: len(inputs)]  # the game is initialised with one image
        made = last(params["kernel"], given) + params["bias"]
        return {"images": made, "hidden": given, "losses": {"codebook": codebook}}, model_state

    params = {
        "kernel": jnp.asarray(arrays["in/last_layer"]).transpose(2, 3, 1, 0),
        "bias": jnp.asarray(arrays["in/last_bias"]),
    }
    network = Network(lambda key, x: (params, {}), apply)
    weights = critic_weights(arrays, "discriminator.main")
    critic = Network(lambda key, x: weights, nets.from_linen(nets.PatchDiscriminator(4)).apply)
    loss = losses.hinge if kind == "hinge" else losses.non_saturating
    recipe = gans.TOKENIZER_RECIPES["vqgan"]._replace(
        loss=losses.GANLoss(loss.discriminator, losses.hinge.generator),
        pixel_weight=args["pixelloss_weight"], perceptual_weight=args["perceptual_weight"],
        adversarial_weight=args["disc_weight"] * args["disc_factor"],
        discriminator_start=args["disc_start"], adversarial_start=args["disc_start"],
    )  # fmt: skip
    lpips = gans.FrozenFeatures("lpips", lambda params, y, x: 0.37 * jnp.mean((y - x) ** 2, (1, 2, 3)))
    game = gans.tokenizer(
        network, critic, recipe, bottleneck={"codebook": args["codebook_weight"]}, perceptual=lpips,
        last_layer=(lambda params: params["kernel"], last),
    )  # fmt: skip
    batch = {"real": real}
    state = game.init(jax.random.key(0), batch).replace(frozen={"lpips": {}})
    assert [(phase.name, phase.start) for phase in game.phases] == [("generator", 0), ("discriminator", 10)]
    both = jax.jit(lambda state: [gradient(phase, state, batch, jax.random.key(0)) for phase in game.phases])
    for step in (9, 10):
        out = lambda key: arrays[f"out/train/step{step}/{key}"]  # noqa: B023, E731
        (by_generator, made, total), (by_critic, judged, critic_total) = both(state.replace(step=jnp.int32(step)))
        close(total, out("ae/total_loss"))
        close(args["disc_weight"] * made.metrics["adaptive_weight"], out("ae/d_weight"))
        close(made.metrics["perceptual"], out("ae/p_loss"))
        close(made.metrics["adversarial"], out("ae/g_loss"))
        close(by_generator["kernel"].transpose(3, 2, 0, 1), out("ae/grad_last_layer"))
        if step == 10:
            half = 0.5 * args["disc_factor"]
            close(half * critic_total, out("d/disc_loss"))
            close(judged.metrics["real_logits"], out("d/logits_real"))
            names = meta["names"]["out/train/step10/d/gradnorm"]
            norms = dict(zip(names, out("d/gradnorm"), strict=True))
            for layer, index in {"conv_0": 0, "conv_1": 2, "conv_3": 8, "logit": 11}.items():
                found = half * jnp.linalg.norm(by_critic[layer]["kernel"].ravel())
                close(found, norms[f"main.{index}.weight"])
