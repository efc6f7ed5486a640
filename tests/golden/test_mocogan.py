"""MoCoGAN's networks, R1 and losses against the official code's outputs, stored in mocogan/*.npz.

The files hold seeded random weights, inputs and outputs of sergeytulyakov/mocogan at commit 937a99d, in torch's layout.
Their arrays of images and clips have the channels before time, height and width.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import losses, nets, regularizers

HERE = pathlib.Path(__file__).with_name("mocogan")


def read(name):
    with np.load(HERE / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return json.loads(str(arrays.pop("meta"))), arrays


def last(x):
    """Moves the axis of channels to the end."""
    return jnp.asarray(np.moveaxis(x, 1, -1))


def convolution(x):
    """Converts the kernel of a convolution: out and in move behind the positions."""
    return jnp.asarray(np.moveaxis(x, (1, 0), (-2, -1)))


def norm(weights, name, level, ours):
    params = {"scale": weights[f"{name}.weight"], "bias": weights[f"{name}.bias"]}
    stats = {"mean": weights[f"{name}.running_mean"], "var": weights[f"{name}.running_var"]}
    return {f"{ours}_{level}": params}, {f"{ours}_{level}": stats}


def critic(name):
    _, arrays = read(name)
    weights = {key[2:]: value for key, value in arrays.items() if key.startswith("w/")}
    convs = [key for key, value in weights.items() if key.endswith("weight") and value.ndim > 2]
    norms = [key.removesuffix(".running_mean") for key in weights if key.endswith("running_mean")]
    params = {f"halved_{level}": {"kernel": convolution(weights[key])} for level, key in enumerate(convs[:-1])}
    params["last"] = {"kernel": convolution(weights[convs[-1]])}
    stats = {}
    for level, key in enumerate(norms, 1):
        p, s = norm(weights, key, level, "norm")
        params, stats = params | p, stats | s
    width, outputs = weights[convs[0]].shape[0], weights[convs[-1]].shape[0]
    patch = "patch" in name
    module = nets.MoCoGANCritic(outputs, width, 0.0, halvings=3 if patch else None, patch=patch)
    params, stats = jax.tree.map(jnp.asarray, (params, stats))
    return arrays, nets.from_linen(module), params, {"batch_stats": stats}


def close(ours, theirs, tolerance):
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * float(np.abs(theirs).max()))


def check_statistics(changed, arrays, rows):
    """Compares running statistics; torch's variance is unbiased, and Flax's is not."""
    layers = sorted({key.split(".")[1] for key in arrays if key.startswith("after_train/")}, key=int)
    for (_, stats), layer, n in zip(sorted(changed.items()), layers, rows, strict=True):
        before = arrays[f"w/main.{layer}.running_var"]
        var = (stats["var"] - 0.9 * before) * n / (n - 1) + 0.9 * before
        close(stats["mean"], arrays[f"after_train/main.{layer}.running_mean"], 1e-5)
        close(var, arrays[f"after_train/main.{layer}.running_var"], 1e-5)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("d_image", "d_categorical_video")]


@pytest.mark.parametrize("name", ["d_patch_image", "d_patch_video", *SLOW])
def test_critics_and_r1(name):
    arrays, network, params, state = critic(name)
    x = last(arrays["in/x"])
    for mode in ("train", "eval"):

        @jax.jit
        def run(params, x, train=mode == "train"):
            return network.apply(params, state, x, train=train)

        outputs, changed = run(params, x)
        logits = arrays[f"out/{mode}/logits"]
        close(outputs[..., 0].reshape(logits.shape), logits, 5e-6)
        if "categorical" in name:
            close(outputs[:, 1:], arrays[f"out/{mode}/categories"], 5e-6)
        penalty = regularizers.zero_centered_penalty(lambda x: run(params, x)[0][..., 0], x)
        close(penalty, arrays[f"out/{mode}/r1"], 1e-4)
        gradient = jax.grad(lambda p: jnp.mean(run(p, x)[0][..., 0] ** 2))(params)
        norms = np.sort([float(jnp.linalg.norm(leaf)) for leaf in jax.tree.leaves(gradient)])
        close(norms, np.sort(arrays[f"out/{mode}/gradnorm"]), 1e-4)
        if mode == "train":
            sizes = {
                "d_image": (16, 8, 4),
                "d_patch_image": (8, 4),
                "d_patch_video": (8, 4),
                "d_categorical_video": (16, 8, 4),
            }
            frames = iter(range(x.shape[1] - 6, 0, -3)) if x.ndim == 5 else iter([1, 1, 1])
            rows = [len(x) * size**2 * next(frames) for size in sizes[name]]
            check_statistics(changed["batch_stats"], arrays, rows)


def generator():
    meta, arrays = read("g")
    weights = {key[2:]: value for key, value in arrays.items() if key.startswith("w/")}
    motion = {}
    for ours, theirs in (("input", "ih"), ("hidden", "hh")):
        motion[f"{ours}_kernel"] = weights[f"recurrent.weight_{theirs}"].T
        motion[f"{ours}_bias"] = weights[f"recurrent.bias_{theirs}"]
    params, stats = {"motion": motion}, {}
    for level, key in enumerate((0, 3, 6, 9, 12)):
        params[f"doubled_{level}"] = {"kernel": weights[f"main.{key}.weight"].transpose(2, 3, 0, 1)}
        if level < 4:
            p, s = norm(weights, f"main.{key + 1}", level, "doubled_norm")
            params, stats = params | p, stats | s
    a = meta["args"]
    sizes = {"content": a["dim_z_content"], "motion": a["dim_z_motion"]}
    module = nets.MoCoGANGenerator(64, a["n_channels"], a["ngf"], categories=a["dim_z_category"], **sizes)
    category = np.eye(a["dim_z_category"], dtype=np.float32)[arrays["in/category"]]
    noise = arrays["in/e"].transpose(1, 0, 2).reshape(len(category), -1)
    z = jnp.asarray(np.concatenate([arrays["in/content"], category, arrays["in/h0"], noise], axis=1))
    return arrays, module, jax.tree.map(jnp.asarray, params), {"batch_stats": jax.tree.map(jnp.asarray, stats)}, z


@pytest.mark.parametrize("mode", [pytest.param("train", marks=pytest.mark.slow), "eval"])
def test_generator_and_its_motion(mode):
    arrays, module, params, state, z = generator()
    network = nets.from_linen(module)

    @jax.jit
    def run(params):
        return network.apply(params, state, z, train=mode == "train")

    clips, changed = run(params)
    close(clips, np.moveaxis(arrays[f"out/{mode}/video"], 1, -1), 1e-5)
    parts = nets.split_latents(z, module.content, module.motion, module.categories)
    motion = nets.MotionGRU().apply({"params": params["motion"]}, parts.start, parts.noise)
    close(motion, arrays[f"out/{mode}/motion"], 1e-6)
    gradient = jax.grad(lambda p: jnp.mean(run(p)[0] ** 2))(params)
    norms = np.sort([float(jnp.linalg.norm(leaf)) for leaf in jax.tree.leaves(gradient)])
    close(norms, np.sort(arrays[f"out/{mode}/gradnorm"]), 1e-4)
    if mode == "train":
        check_statistics(changed["batch_stats"], arrays, [8 * size**2 for size in (4, 8, 16, 32)])


def test_losses():
    """The players' losses, as the game adds up its terms: image and video critic, and the categories of both sides."""
    _, arrays = read("losses")
    loss = losses.non_saturating

    def outputs(which):
        names = {"image": "image", "video": "video/logits", "classes": "video/categories"}
        return {name: jnp.asarray(arrays[f"in/{which}_{key}"]) for name, key in names.items()}

    real, fake = outputs("real"), outputs("fake")
    image = jnp.mean(loss.discriminator(real["image"], fake["image"]))
    video = jnp.mean(loss.discriminator(real["video"][:, 0], fake["video"][:, 0]))
    close(image, arrays["out/d_image"], 1e-6)
    close(video, arrays["out/d_video/categories_False"], 1e-6)
    true, made = (jnp.asarray(arrays[f"in/{name}_category"]).ravel().astype(jnp.int32) for name in ("true", "fake"))
    classified = jnp.mean(losses.auxiliary_classifier(real["classes"], true))
    close(video + classified, arrays["out/d_video/categories_True"], 1e-6)
    late = [jnp.asarray(arrays[f"in/fake_{name}"]) for name in ("image_g", "video_g/logits", "video_g/categories")]
    generator_loss = sum(jnp.mean(loss.generator(x, x)) for x in late[:2])
    close(generator_loss, arrays["out/g/infogan_False"], 1e-6)
    close(generator_loss + jnp.mean(losses.auxiliary_classifier(late[2], made)), arrays["out/g/infogan_True"], 1e-6)
