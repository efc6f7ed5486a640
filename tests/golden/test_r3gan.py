"""R3GAN's networks, penalties and losses against the official code's outputs, stored in r3gan/*.npz.

The files hold seeded random weights, inputs and outputs of brownvc/R3GAN at commit 19a7ddf, in torch's layout.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import core, gans, losses, nets, regularizers
from gan_jax.core.phase import gradient as phase_gradient
from gan_jax.types import Network

HERE = pathlib.Path(__file__).with_name("r3gan")
CASES = pytest.mark.parametrize("conditional", [False, True])


def read(name, conditional):
    with np.load(HERE / f"{name}{'_cond' if conditional else ''}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return json.loads(str(arrays.pop("meta"))), arrays


def kernel(x):
    """Converts the kernel of a convolution or a dense layer to our layout."""
    return x.transpose(2, 3, 1, 0) if x.ndim == 4 else x.T


def block(weights, name):
    return {
        **{f"conv_{i}": {"kernel": kernel(weights[f"{name}.LinearLayer{i + 1}.Layer.weight"])} for i in range(3)},
        **{f"bias_{i}": weights[f"{name}.NonLinearity{i + 1}.Bias"] for i in range(2)},
    }


def convert(weights, blocks, *, generator):
    """Converts the official weights to our parameters; `blocks` lists the blocks of each stage, from 4x4 up."""
    params = {"image": {"kernel": kernel(weights[f"{'Aggregation' if generator else 'Extraction'}Layer.Layer.weight"])}}
    if "EmbeddingLayer.weight" in weights:
        params["label"] = {"embedding": weights["EmbeddingLayer.weight"].T}
    for stage, count in enumerate(blocks):
        home = f"MainLayers.{stage if generator else len(blocks) - 1 - stage}.Layers"
        first, last = (1, 0) if generator else (0, count)
        for index in range(count):
            params[f"stage_{stage}_block_{index}"] = block(weights, f"{home}.{first + index}")
        if f"{home}.{last}.LinearLayer.Layer.weight" in weights:
            params[f"mix_{stage}"] = {"kernel": kernel(weights[f"{home}.{last}.LinearLayer.Layer.weight"])}
        if stage == 0:
            basis = weights[f"{home}.{last}.Basis" if generator else f"{home}.{last}.Basis.weight"]
            params["basis"] = basis.transpose(1, 2, 0) if generator else basis[:, 0].transpose(1, 2, 0)
            params["factors" if generator else "logit"] = {"kernel": weights[f"{home}.{last}.LinearLayer.weight"].T}
    return jax.tree.map(jnp.asarray, params)


def network(kind, arguments, arrays, prefix, conditional):
    """Returns a network as a function of parameters and inputs, and the official weights."""
    generator = kind is nets.R3GANGenerator
    order = (
        slice(None) if generator else slice(None, None, -1)
    )  # the official discriminator's stages begin at the image
    widths, groups, blocks = (tuple(arguments[f"{name}PerStage"][order]) for name in ("Width", "Cardinality", "Blocks"))
    options = {"channels": 3} if generator else {}
    if conditional:
        options |= {
            "num_classes": arguments["ConditionDimension"],
            "embedding": arguments["ConditionEmbeddingDimension"],
        }
    module = kind(widths=widths, groups=groups, blocks=blocks, **options)
    weights = {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}

    @jax.jit
    def apply(params, *inputs):
        return module.apply({"params": params}, *inputs, train=False)

    return apply, convert(weights, blocks, generator=generator)


def label(arrays):
    return (jnp.asarray(arrays["in/y"].argmax(1)),) if "in/y" in arrays else ()


def images(x):
    return jnp.asarray(x.transpose(0, 2, 3, 1))


def close(ours, theirs, tolerance):
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * float(np.abs(theirs).max()))


def norms(tree):
    return np.sort([float(jnp.linalg.norm(x)) for x in jax.tree.leaves(tree)])


@CASES
def test_generator(conditional):
    meta, arrays = read("g", conditional)
    apply, params = network(nets.R3GANGenerator, meta["args"], arrays, "w/", conditional)
    inputs = jnp.asarray(arrays["in/z"]), *label(arrays)
    out = apply(params, *inputs)
    close(out, arrays["out/image"].transpose(0, 2, 3, 1), 1e-5)
    close(norms(jax.grad(lambda p: jnp.mean(apply(p, *inputs) ** 2))(params)), np.sort(arrays["out/gradnorm"]), 1e-4)


@CASES
def test_discriminator_and_r1(conditional):
    meta, arrays = read("d", conditional)
    apply, params = network(nets.R3GANDiscriminator, meta["args"], arrays, "w/", conditional)
    x, condition = images(arrays["in/x"]), label(arrays)
    close(apply(params, x, *condition), arrays["out/logits"], 1e-5)
    close(regularizers.zero_centered_penalty(lambda x: apply(params, x, *condition), x), arrays["out/r1"], 1e-4)
    gradient = jax.grad(lambda p: jnp.mean(apply(p, x, *condition) ** 2))(params)
    close(norms(gradient), np.sort(arrays["out/gradnorm"]), 1e-4)


@CASES
def test_both_losses_and_their_gradients(conditional):
    """One step of the official trainer. The penalties use the forward pass that gives the loss its logits."""
    meta, arrays = read("step", conditional)
    generate, g = network(nets.R3GANGenerator, meta["args"]["G"], arrays, "w/G/", conditional)
    judge, d = network(nets.R3GANDiscriminator, meta["args"]["D"], arrays, "w/D/", conditional)
    x, z, condition = images(arrays["in/x"]), jnp.asarray(arrays["in/z"]), label(arrays)
    loss, gamma = losses.relativistic_pairing, float(arrays["in/gamma"])
    fake = generate(g, z, *condition)

    def of_discriminator(d):
        critic = lambda x: judge(d, x, *condition)  # noqa: E731
        adversarial = loss.discriminator(critic(x), critic(fake))
        penalties = [regularizers.zero_centered_penalty(critic, images) for images in (x, fake)]
        return jnp.mean(adversarial + gamma / 2 * sum(penalties)), (adversarial, *penalties)

    def of_generator(g):
        adversarial = loss.generator(judge(d, x, *condition), judge(d, generate(g, z, *condition), *condition))
        return jnp.mean(adversarial), adversarial

    (value, parts), gradient = jax.value_and_grad(of_discriminator, has_aux=True)(d)
    for ours, name in zip((value, *parts), ("loss", "adversarial", "r1", "r2"), strict=True):
        close(ours, arrays[f"out/d/{name}"], 1e-4)
    close(norms(gradient), np.sort(arrays["out/d/gradnorm"]), 1e-4)
    (value, adversarial), gradient = jax.value_and_grad(of_generator, has_aux=True)(g)
    close(value, arrays["out/g/loss"], 1e-5)
    close(adversarial, arrays["out/g/adversarial"], 1e-5)
    close(norms(gradient), np.sort(arrays["out/g/gradnorm"]), 1e-4)


@CASES
def test_the_game_makes_that_step(conditional):
    """At the official trainer's latents, the phases of `gans.r3gan` log the same values and have the same gradients."""
    meta, arrays = read("step", conditional)
    generate, g = network(nets.R3GANGenerator, meta["args"]["G"], arrays, "w/G/", conditional)
    judge, d = network(nets.R3GANDiscriminator, meta["args"]["D"], arrays, "w/D/", conditional)
    z, gamma = jnp.asarray(arrays["in/z"]), float(arrays["in/gamma"])

    def fixed(apply, params):
        return Network(
            lambda key, *inputs: (params, {}),
            lambda params, model_state, *inputs, train, key=None: (apply(params, *inputs), model_state),
        )

    prior = core.normal(z.shape[1])._replace(sample=lambda key, n, truncation=None: z[:n])
    classes = {"num_classes": meta["args"]["G"]["ConditionDimension"]} if conditional else {}
    game = gans.r3gan(fixed(generate, g), fixed(judge, d), prior, gamma=(gamma, 0.1 * gamma), **classes)
    batch = {"real": images(arrays["in/x"])} | dict(zip(["label"], label(arrays), strict=False))
    state, key = game.init(jax.random.key(0), batch), jax.random.key(1)
    assert [(phase.player, phase.every, phase.reuse_batch) for phase in game.phases] == [
        ("discriminator", 1, False),
        ("generator", 1, False),
    ]
    for phase, ours in zip(game.phases, ("d", "g"), strict=True):
        gradient, out, loss = phase_gradient(phase, state, batch, key)
        close(loss, arrays[f"out/{ours}/loss"], 1e-4)
        for name in ("r1", "r2") if ours == "d" else ():
            close(out.metrics[name], np.mean(arrays[f"out/d/{name}"]), 1e-4)
        close(norms(gradient), np.sort(arrays[f"out/{ours}/gradnorm"]), 1e-4)


def test_networks_of_every_preset_of_r3gan_have_as_many_parameters_as_the_authors():
    """The counts, of generator and discriminator, are computed by their code."""
    counts = {
        ("cifar10", 10): (20_781_952, 21_280_512),
        ("cifar10", None): (20_732_160, 20_683_776),
        ("ffhq64", None): (22_429_824, 22_381_440),
        ("ffhq256", None): (23_057_952, 23_009_568),
        ("imagenet32", 1000): (82_914_304, 86_548_992),
    }
    for (name, classes), expected in counts.items():
        preset = nets.R3GAN_PRESETS[name]
        size = 4 * 2 ** (len(preset.widths) - 1)
        label = () if classes is None else (jax.ShapeDtypeStruct((1,), jnp.int32),)
        found = [
            count(made, jax.ShapeDtypeStruct(shape, jnp.float32), *label)
            for made, shape in (
                (nets.R3GANGenerator(3, *preset[:2], num_classes=classes, embedding=preset.embedding[0]), (1, 64)),
                (
                    nets.R3GANDiscriminator(*preset[:2], num_classes=classes, embedding=preset.embedding[1]),
                    (1, size, size, 3),
                ),
            )
        ]
        assert tuple(found) == expected, name


def count(module, *inputs):
    shapes = jax.eval_shape(nets.from_linen(module).init, jax.random.key(0), *inputs)[0]
    return sum(x.size for x in jax.tree.leaves(shapes))


@pytest.mark.parametrize("stages", [0, 1, 2])
def test_the_finest_stages_alone_are_in_half_precision(stages):
    """Both networks have two stages. Images and logits are always float32."""
    z, images = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(4, 8), (4, 8, 8, 3)]))
    for make, x in (
        (lambda **o: nets.R3GANGenerator(3, (8, 8), (2, 2), **o), z),
        (lambda **o: nets.R3GANDiscriminator((8, 8), (2, 2), **o), images),
    ):
        whole, half = (nets.from_linen(make(**o)) for o in ({}, {"dtype": jnp.bfloat16, "fine_stages": stages}))
        params, _ = whole.init(jax.random.key(2), x)
        params = jax.tree.map(lambda p: p + 0.05, params)  # blocks are initially identities
        expected, found = (made.apply(params, {}, x, train=False)[0] for made in (whole, half))
        assert found.dtype == jnp.float32
        assert bool(jnp.all(found == expected)) == (stages == 0)
        np.testing.assert_allclose(found, expected, rtol=0.1, atol=0.05 * float(jnp.abs(expected).max()))
