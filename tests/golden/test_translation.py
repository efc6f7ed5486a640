"""Networks and losses of image translation against the official code's outputs, stored in translation/*.npz.

The files hold seeded random weights, inputs and outputs of taesungp/contrastive-unpaired-translation at commit b3ac297
and of NVIDIA/pix2pixHD at commit 14b3b3c, in torch's layout. Tolerances are relative to the largest value of an array:
1e-5 for images, 5e-6 for logits. Normalisation with an epsilon of 1e-6 in place of 1e-5 differs by 2e-5 or more.
"""

import contextlib
import functools
import json
import pathlib
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import losses, nets, regularizers

HERE = pathlib.Path(__file__).with_name("translation")


@functools.cache
def read(name):
    with np.load(HERE / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return json.loads(str(arrays.pop("meta"))), arrays


def images(x):
    return jnp.asarray(x.transpose(0, 2, 3, 1))


def close(ours, theirs, tolerance, message=""):
    np.testing.assert_allclose(
        ours, theirs, rtol=0, atol=tolerance * float(np.abs(theirs).max()), err_msg=message
    )  # relative to the largest value alone


class Weights:
    """The official weights of a network, converted to our parameters and model state."""

    def __init__(self, arrays, prefix="w/"):
        self.arrays = {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
        self.params, self.stats, self.moved = {}, {}, {}
        self.after = {key.removeprefix("after_train/"): x for key, x in arrays.items() if key.startswith("after_train")}

    def conv(self, ours, theirs, *, transposed=False):
        order = (2, 3, 0, 1) if transposed else (2, 3, 1, 0)
        self.params[ours] = {"kernel": jnp.asarray(self.arrays[f"{theirs}.weight"].transpose(order))}
        if f"{theirs}.bias" in self.arrays:
            self.params[ours]["bias"] = jnp.asarray(self.arrays[f"{theirs}.bias"])

    def norm(self, ours, theirs):
        """Converts a batch norm, if there is one under this name."""
        if f"{theirs}.running_var" in self.arrays:
            names = {"scale": "weight", "bias": "bias"}
            self.params[ours] = {a: jnp.asarray(self.arrays[f"{theirs}.{b}"]) for a, b in names.items()}
            names = {"mean": "running_mean", "var": "running_var"}
            self.stats[ours] = {a: jnp.asarray(self.arrays[f"{theirs}.{b}"]) for a, b in names.items()}
            if self.after:
                self.moved[ours] = {a: self.after[f"{theirs}.{b}"] for a, b in names.items()}

    @property
    def state(self):
        return {"batch_stats": self.stats} if self.stats else {}


def resnet(meta, arrays, prefix="w/", arguments=None):
    """Returns the ResNet of a file and its weights; the layers' positions in the official Sequential are counted."""
    given = meta["args"] if arguments is None else arguments
    antialias = not given.get("no_antialias", True)
    downs = given.get("n_downsampling", 2)
    module = nets.TranslationResNet(
        given["output_nc"], given["ngf"], given["n_blocks"], downs, antialias, norm=given["norm_layer"]
    )
    weights, layer = Weights(arrays, prefix), 4
    weights.conv("first", "model.1")
    weights.norm("norm_first", "model.2")
    for level in range(downs):
        weights.conv(f"down_{level}", f"model.{layer}")
        weights.norm(f"norm_down_{level}", f"model.{layer + 1}")
        layer += 4 if antialias else 3
    for block in range(given["n_blocks"]):
        for part, index in enumerate((1, 5)):
            weights.conv(f"block_{block}_{part}", f"model.{layer}.conv_block.{index}")
            weights.norm(f"norm_block_{block}_{part}", f"model.{layer}.conv_block.{index + 1}")
        layer += 1
    for level in reversed(range(downs)):
        layer += antialias
        weights.conv(f"up_{level}", f"model.{layer}", transposed=not antialias)
        weights.norm(f"norm_up_{level}", f"model.{layer + 1}")
        layer += 3
    weights.conv("image", f"model.{layer + 1}")
    return module, weights


def unet(meta, arrays):
    given = meta["args"]
    levels = given["num_downs"]
    module, weights = nets.UNet(given["output_nc"], levels, given["ngf"], norm=given["norm_layer"]), Weights(arrays)
    home = "model.model"
    weights.conv("down_0", f"{home}.0")
    weights.conv("image", f"{home}.3", transposed=True)
    for level in range(1, levels):
        home += ".1.model" if level == 1 else ".3.model"
        innermost = level == levels - 1
        up = 3 if innermost else 5
        weights.conv(f"down_{level}", f"{home}.1")
        weights.norm(f"norm_down_{level}", f"{home}.2")
        weights.conv(f"up_{level}", f"{home}.{up}", transposed=True)
        weights.norm(f"norm_up_{level}", f"{home}.{up + 1}")
    return module, weights


def patchgan(meta, arrays):
    given = meta["args"]
    antialias = not given["no_antialias"]
    module = nets.PatchDiscriminator(given["ndf"], given["n_layers"], antialias, norm=given["norm_layer"])
    weights, layer = Weights(arrays), 0
    for level in range(given["n_layers"] + 1):
        weights.conv(f"conv_{level}", f"model.{layer}")
        weights.norm(f"norm_{level}", f"model.{layer + 1}")
        layer += (2 if level == 0 else 3) + antialias
    weights.conv("logit", f"model.{layer - antialias}")
    return module, weights


def pixel(meta, arrays):
    given, weights = meta["args"], Weights(arrays)
    for ours, index in (("conv_0", 0), ("conv_1", 2), ("logit", 5)):
        weights.conv(ours, f"net.{index}")
    weights.norm("norm_1", "net.3")
    return nets.PixelDiscriminator(given["ndf"], norm=given["norm_layer"]), weights


@contextlib.contextmanager
def masked(arrays):
    """Makes dropout use the masks of a file."""
    masks = {
        level: images(x)
        for level, x in enumerate([x for key, x in sorted(arrays.items()) if key.startswith("in/dropout_mask")], 4)
    }

    def drop(call, arguments, options, context):
        if not masks or not isinstance(context.module, nn.Dropout) or context.module.deterministic:
            return call(*arguments, **options)
        level = int(re.fullmatch(r"dropout_(\d+)", context.module.name)[1])
        return arguments[0] * masks[level] * 2.0

    with nn.intercept_methods(drop):
        yield


def run(module, weights, x, *, train, penalty=False):
    """Returns the outputs, the state afterwards, the norms of the gradient of mean(outputs^2), and R1 if asked for."""
    network = nets.from_linen(module)

    def loss(params):
        out, state = network.apply(params, weights.state, x, train=train)
        return jnp.mean(out**2), (out, state)

    @jax.jit
    def everything(params):
        gradient, (out, state) = jax.grad(loss, has_aux=True)(params)
        found = {"out": out, "state": state, "norms": jax.tree.map(jnp.linalg.norm, gradient)}
        if penalty:
            critic = lambda x: network.apply(params, weights.state, x, train=train)[0]  # noqa: E731
            found["r1"] = regularizers.zero_centered_penalty(critic, x)
        return found

    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, (weights.params, weights.state)) == jax.tree.map(jnp.shape, shapes)
    return everything(weights.params)


def check_gradient(found, theirs):
    close(np.sort(jax.tree.leaves(found["norms"])), np.sort(theirs), 1e-5)


MODES = ("train", "eval")


@pytest.mark.parametrize(
    ("make", "name", "mode"),
    [
        *((unet, f"unet_generator_{norm}", mode) for norm in ("batch", "instance") for mode in MODES),
        *((resnet, "resnet_generator_batch", mode) for mode in MODES),
        *((resnet, name, "") for name in ("resnet_generator_instance", "pix2pixhd_global_g")),
    ],
)
def test_generators(make, name, mode):
    meta, arrays = read(name)
    module, weights = make(meta, arrays)
    out = f"out/{mode}".rstrip("/")
    with masked(arrays):
        found = run(module, weights, images(arrays["in/x"]), train=mode == "train")
    close(found["out"], images(arrays[f"{out}/image"]), 1e-5)
    check_gradient(found, arrays[f"{out}/gradnorm"])
    if mode == "train" and weights.moved:
        statistics(found["state"], weights, arrays)


def statistics(state, weights, arrays):
    """Checks the running statistics after a step. Torch's variance is unbiased, n / (n - 1) times Flax's."""
    for name, moved in weights.moved.items():
        ours = state["batch_stats"][name]
        close(ours["mean"], moved["mean"], 1e-5, name)
        before = 0.9 * np.asarray(weights.stats[name]["var"])
        ratio = (np.asarray(moved["var"]) - before) / (np.asarray(ours["var"]) - before)
        # n is a product of the batch size and the size of a map
        n = 1 / (1 - 1 / ratio)
        np.testing.assert_allclose(ratio, np.median(ratio), rtol=1e-3, err_msg=name)
        assert np.median(n) >= arrays["in/x"].shape[0] * 1.9


def test_features_of_the_antialiased_generator():
    """The layers are numbered as the authors number them: the padded image, two convolutions before their norm, and
    the outputs of two blocks."""
    meta, arrays = read("resnet_generator_instance_antialias")
    module, weights = resnet(meta, arrays)
    found = run(module, weights, images(arrays["in/x"]), train=True)
    close(found["out"], images(arrays["out/image"]), 1e-5)
    check_gradient(found, arrays["out/gradnorm"])
    names = ("input", "down_0", "down_1", "block_0", "block_1")
    apply = jax.jit(nets.from_linen(module.clone(features=names)).apply, static_argnames="train")
    made = apply(weights.params, {}, images(arrays["in/x"]), train=True)[0]
    close(made["image"], found["out"], 1e-6)
    for name, index in zip(names, (0, 4, 8, 12, 13), strict=True):
        feature = made["features"][name]
        n, c, h, w = arrays[f"out/feature{index}/shape"]
        assert feature.shape == (n, h, w, c)
        np.testing.assert_allclose(jnp.mean(feature), arrays[f"out/feature{index}/mean"], atol=1e-5)
        np.testing.assert_allclose(jnp.std(feature), arrays[f"out/feature{index}/std"], rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "name", "mode"),
    [
        *((patchgan, "patchgan_batch", mode) for mode in MODES),
        *((patchgan, name, "") for name in ("patchgan_instance", "patchgan_instance_antialias")),
        *((pixel, "pixel_discriminator_batch", mode) for mode in MODES),
    ],
)
def test_discriminators_and_r1(make, name, mode):
    meta, arrays = read(name)
    module, weights = make(meta, arrays)
    out = f"out/{mode}".rstrip("/")
    found = run(module, weights, images(arrays["in/x"]), train=mode == "train", penalty=True)
    close(found["out"], arrays[f"{out}/logits"][:, 0], 5e-6)
    close(found["r1"], arrays[f"{out}/r1"], 1e-5)
    check_gradient(found, arrays[f"{out}/gradnorm"])


def test_multi_scale_discriminator():
    """Entry k of the official list has the parameters of scale num_D - 1 - k."""
    meta, arrays = read("pix2pixhd_multiscale_d")
    given, x = meta["args"], images(arrays["in/x"])
    network = nets.from_linen(nets.MultiScaleDiscriminator(given["num_D"], given["ndf"], given["n_layers"]))
    params = {}
    for scale in range(given["num_D"]):
        weights = Weights(arrays)
        for level in range(given["n_layers"] + 1):
            weights.conv(f"conv_{level}", f"scale{given['num_D'] - 1 - scale}_layer{level}.0")
        weights.conv("logit", f"scale{given['num_D'] - 1 - scale}_layer{given['n_layers'] + 1}.0")
        params[f"scale_{scale}"] = weights.params

    @jax.jit
    def everything(params):
        out = network.apply(params, {}, x, train=True)[0]
        logits = lambda x: network.apply(params, {}, x, train=True)[0]["logits"]  # noqa: E731
        gradient = jax.grad(lambda params: jnp.mean(network.apply(params, {}, x, train=True)[0]["logits"][0] ** 2))(
            params
        )
        slope = jax.grad(lambda x: sum(jnp.sum(y) for y in logits(x)))(x)
        r1 = jnp.sum(jnp.square(slope), axis=(1, 2, 3))
        return out, r1, jax.tree.map(jnp.linalg.norm, gradient)

    out, r1, norms = everything(params)
    for scale in range(given["num_D"]):
        close(out["logits"][scale], arrays[f"out/scale{scale}/layer4"][:, 0], 5e-6)
        for level, feature in enumerate(out["features"][scale]):
            n, c, h, w = arrays[f"out/scale{scale}/layer{level}/shape"]
            assert feature.shape == (n, h, w, c)
            np.testing.assert_allclose(jnp.mean(feature), arrays[f"out/scale{scale}/layer{level}/mean"], rtol=1e-5)
            np.testing.assert_allclose(jnp.std(feature), arrays[f"out/scale{scale}/layer{level}/std"], rtol=1e-5)
    close(r1, arrays["out/r1"], 1e-5)
    ours = np.sort([float(x) for x in jax.tree.leaves(norms["scale_0"])])
    close(ours, np.sort(arrays["out/gradnorm"]), 1e-5)


@pytest.mark.parametrize("all_negatives", [False, True])
def test_patch_nce(all_negatives):
    """With the negatives of all images, the images of a batch are one long list of places."""
    _, arrays = read("patch_nce")
    shape = (1, 24, 16) if all_negatives else (2, 12, 16)
    q, k = (jnp.asarray(arrays[f"in/{name}"]).reshape(shape) for name in "qk")
    found = losses.patch_nce(q, k)
    slope = jax.grad(lambda q: jnp.mean(losses.patch_nce(q, k)))(q)
    kind = "all_negatives" if all_negatives else "per_image"
    close(found.ravel(), arrays[f"out/{kind}/loss"], 1e-5)
    close(slope.reshape(24, 16), arrays[f"out/{kind}/grad_q"], 1e-5)


def test_the_contrastive_loss_of_cut():
    """From images through generator, places and projection to the mean over layers, with all gradients."""
    meta, arrays = read("cut_nce")
    names = nets.CUT_FEATURES[:4]
    module, weights = resnet(meta, arrays, "w/G/", meta["args"]["G"])
    generator = nets.from_linen(module.clone(features=names))
    projector = nets.from_linen(nets.PatchProjector(meta["args"]["F"]["nc"]))
    params = {"G": weights.params, "F": {}}
    for layer, name in enumerate(names):
        for ours, theirs in (("hidden", 0), ("out", 2)):
            at = f"w/F/mlp_{layer}.{theirs}"
            kernel, bias = jnp.asarray(arrays[f"{at}.weight"].T), jnp.asarray(arrays[f"{at}.bias"])
            params["F"][f"{name}_{ours}"] = {"kernel": kernel, "bias": bias}

    def embeddings(params, x):
        features = generator.apply(params["G"], {}, x, train=True)[0]["features"]
        flat = {name: y.reshape(y.shape[0], -1, y.shape[-1]) for name, y in features.items()}
        places = {name: y[:, arrays[f"in/patch_ids{layer}"]] for layer, (name, y) in enumerate(flat.items())}
        return projector.apply(params["F"], {}, places, train=True)[0]

    def loss(params, fake):
        q, k = embeddings(params, fake), embeddings(params, images(arrays["in/real"]))
        found = {name: losses.patch_nce(q[name], k[name]) for name in names}
        return sum(jnp.mean(x) for x in found.values()) / len(names), (q, k, found)

    (value, parts), (slope, slope_fake) = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(
        params, images(arrays["in/fake"])
    )
    close(value, arrays["out/nce"], 1e-5)
    for layer, name in enumerate(names):
        for part, kind in zip(parts, ("q", "k", "nce"), strict=True):
            theirs = arrays[f"out/{kind}{layer}"]
            close(part[name].reshape(theirs.shape), theirs, 1e-5, f"{kind} of {name}")
    close(jnp.sum(jnp.square(slope_fake), axis=(1, 2, 3)), arrays["out/grad_fake_sq"], 1e-5)
    norms = [float(x) for x in jax.tree.leaves(jax.tree.map(jnp.linalg.norm, slope))]
    used = np.sort([x for x in norms if x > 0])[-len(arrays["out/gradnorm"]) :]
    close(used, np.sort(arrays["out/gradnorm"])[-len(used) :], 1e-5)


def count(module, *shapes):
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    made = jax.eval_shape(nets.from_linen(module).init, jax.random.key(0), *inputs)[0]
    return sum(x.size for x in jax.tree.leaves(made))


def test_networks_of_the_papers_have_as_many_parameters_as_the_authors():
    """The counts are computed by their code."""
    for blocks, expected in ((9, 11_378_179), (6, 7_837_699)):
        assert count(nets.TranslationResNet(3, blocks=blocks), (1, 64, 64, 3)) == expected
    for levels, expected in ((8, 54_413_955), (7, 41_828_995), (6, 29_244_035)):
        assert count(nets.UNet(3, levels), (1, 1 << levels, 1 << levels, 3)) == expected
    image = (1, 256, 256, 3)
    assert count(nets.PatchDiscriminator(), image, image) == 2_768_705
    assert count(nets.PatchDiscriminator(norm="instance"), image) == 2_764_737


def test_losses_of_gans():
    """Theirs for D is (real is real + fake is fake) / 2. Our least squares contain the half, for G too."""
    _, arrays = read("gan_losses_translation")
    real, fake = jnp.asarray(arrays["in/real_logits"]), jnp.asarray(arrays["in/fake_logits"])
    for ours, theirs, factor in (
        (losses.least_squares, "lsgan", 0.5),
        (losses.non_saturating, "vanilla", 1.0),
        (losses.wasserstein, "wgangp", 1.0),
    ):
        g = np.mean(ours.generator(real, fake))
        d = np.mean(ours.discriminator(real, fake))
        close(g, factor * arrays[f"out/{theirs}/fake_is_real"], 1e-6)
        close(d, factor * (arrays[f"out/{theirs}/real_is_real"] + arrays[f"out/{theirs}/fake_is_fake"]), 1e-6)
    per_image = np.mean(losses.non_saturating.generator(real, fake), axis=(1, 2, 3))
    close(per_image, arrays["out/nonsaturating/fake_is_real"], 1e-6)


def test_losses_of_pix2pixhd():
    """With our least squares, whose G term is half of theirs, 20 times our feature matching is half of their loss."""
    meta, arrays = read("pix2pixhd_losses")
    found = {
        kind: [[jnp.asarray(arrays[f"in/{kind}{scale}_{layer}"]) for layer in range(3)] for scale in range(2)]
        for kind in ("real", "fake")
    }
    features = {kind: [layers[:-1] for layers in scales] for kind, scales in found.items()}
    ours, slope = jax.value_and_grad(lambda fake: jnp.mean(losses.feature_matching(features["real"], fake)))(
        features["fake"]
    )
    close(40 * ours, arrays["out/feature_matching"], 1e-6)
    close(
        np.sort([40 * np.linalg.norm(x) for x in jax.tree.leaves(slope)]),
        np.sort(arrays["out/feature_matching_gradnorm"]),
        1e-5,
    )
    logits = {kind: [layers[-1] for layers in scales] for kind, scales in found.items()}
    pairs = list(zip(logits["real"], logits["fake"], strict=True))
    d = sum(np.mean(losses.least_squares.discriminator(real, fake)) for real, fake in pairs)
    g = sum(np.mean(losses.least_squares.generator(real, fake)) for real, fake in pairs)
    close(d, (arrays["out/d_real"] + arrays["out/d_fake"]) / 2, 1e-6)
    close(g, arrays["out/g_gan"] / 2, 1e-6)
    assert meta["args"]["lambda_feat"] == 10.0
