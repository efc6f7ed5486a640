"""The shipped configs of image translation: each builds its game for its data, and one trains and translates."""

import jax
import numpy as np
import pytest
from PIL import Image

import gan_jax
from gan_jax import data, host, runs, runtime, types
from gan_jax.types import InvalidInputError

FOLDER = {"image_size": 32, "load_size": 36, "width": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with pairs side by side, and with two domains, of 40x40 pixels."""
    root, draw = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for name, width in ((split, 80), (f"{split}A", 40), (f"{split}B", 40)):
            (root / name).mkdir()
            for index in range(count):
                pixels = draw.integers(0, 256, (40, width, 3), np.uint8)
                Image.fromarray(pixels).save(root / name / f"{index}.png")
    return str(root)


def shapes(experiment):
    """Returns the abstract state of a game for its data, and that of an output for the first of its conditions."""
    spec = experiment.open_source().spec
    batch = {name: jax.ShapeDtypeStruct((2, *x.shape), x.dtype) for name, x in spec.items()}
    state = jax.eval_shape(experiment.game.init, jax.random.key(0), batch)
    inputs = experiment.examples.read(0, 2)["inputs"]
    translate = experiment.game.functions["translate"]
    return state, jax.eval_shape(translate, state, jax.random.key(0), inputs), spec


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("pix2pix_folder", {"direction": "BtoA"}),
        ("pix2pix_folder", {"networks": "pix2pixhd"}),
        ("cyclegan_folder", {"blocks": 2}),
        ("cut_folder", {"fast": True, "blocks": 5}),
        ("cut_folder", {"blocks": 5}),
    ],
)
def test_the_game_of_a_folder_fits_its_images(name, values, folder):
    experiment = runs.build(name, data_dir=folder, **FOLDER, **values)
    state, out, spec = shapes(experiment)
    assert out.shape == (2, 32, 32, 3) == (2, *spec["b"].shape)
    hparams = state.hparams
    assert {"generator/learning_rate_images", "discriminator/learning_rate_begin"} <= set(hparams)
    expected = {
        "pix2pix_folder": {"feature_matching_weight"} if "networks" in values else {"l1_weight"},
        "cyclegan_folder": {"cycle_weight", "identity_weight"},
        "cut_folder": {"nce_weight"} if values.get("fast") else {"nce_weight", "identity_weight"},
    }[name]
    weights = {"l1_weight", "feature_matching_weight", "cycle_weight", "identity_weight", "nce_weight"}
    assert set(hparams) & weights == expected


def test_cyclegan_is_measured_and_shown_both_ways(folder):
    experiment = runs.build("cyclegan_folder", data_dir=folder, **FOLDER, blocks=2)
    back = experiment.domains["translate_back"]
    there, inputs = experiment.examples.read(0, 2)["inputs"], back.conditions().read(np.arange(2))["inputs"]
    assert not np.array_equal(host.to_uint8(there), inputs)
    np.testing.assert_array_equal(inputs, experiment.reference().read(np.arange(2))["real"])
    np.testing.assert_array_equal(host.to_uint8(there), back.reference().read(np.arange(2))["real"])
    shown = {name: preview.function for name, preview in experiment.previews.items()}
    assert shown == {"translations": "sample", "translations_back": "translate_back"}


@pytest.mark.long
@pytest.mark.parametrize(("name", "turns"), [("cyclegan_mnist", 0), ("cut_mnist", 1)])
def test_the_games_of_digits_know_the_truth(name, turns, tfds_dir):
    experiment = runs.build(name, data_dir=tfds_dir, width=2, blocks=5, turns=turns)
    _, out, spec = shapes(experiment)
    assert out.shape == (2, 32, 32, 3) == (2, *spec["a"].shape)
    examples = experiment.examples.read(0, 3)
    upright = np.rot90(examples["target"], -turns, axes=(1, 2))
    grey = (examples["inputs"][..., :1] + 1) / 2
    paper, ink = (np.array(colour, np.float32) / 127.5 - 1 for colour in ((255, 200, 80), (40, 30, 160)))
    np.testing.assert_allclose(upright, (1 - grey) * paper + grey * ink, atol=1 / 127)


def test_outputs_have_the_brightness_of_the_source():
    sources, outputs = np.random.default_rng(0).uniform(-1, 1, (2, 3, 8, 8, 1)).astype(np.float32)
    colours = np.concatenate([outputs, 0.3 * outputs, -outputs], axis=-1)
    network = types.Network(lambda *inputs: ({}, {}), lambda params, state, x, *, train: (colours, state))
    kept = runs.load_module(runs.find("pix2pix_cifar10_colour")).keep_brightness(network)
    found, _ = kept.apply({}, {}, 0.3 * sources, train=False)
    inside = np.all(np.abs(found) < 1, axis=-1)
    assert inside.mean() > 0.5 and np.all(np.abs(found) <= 1)
    np.testing.assert_allclose(data.luma(found)[inside], 0.3 * sources[inside], atol=1e-6)
    np.testing.assert_allclose((found[..., 0] - found[..., 2])[inside], (2 * outputs[..., 0])[inside], atol=1e-6)


@pytest.mark.long
def test_the_game_of_colours_can_do_without_the_critic(tfds_dir):
    experiment = runs.build(
        "pix2pix_cifar10_colour", data_dir=tfds_dir, width=2, critic_width=2, adversarial_weight=0.0
    )
    assert {phase.player: phase.start for phase in experiment.game.phases} == {"generator": 0, "discriminator": 8000}
    spec = experiment.open_source().spec
    assert spec["a"].shape == (32, 32, 1) and spec["b"].shape == (32, 32, 3)


def test_values_that_are_refused(folder):
    with pytest.raises(InvalidInputError, match="networks='vit': expected pix2pix or pix2pixhd"):
        runs.build("pix2pix_folder", data_dir=folder, networks="vit")
    for size, near in ((50, 64), (16, 32)):
        with pytest.raises(InvalidInputError, match=f"image_size={size}: .* multiples of 32, such as {near};"):
            runs.build("pix2pix_folder", data_dir=folder, image_size=size)
    with pytest.raises(InvalidInputError, match="networks='vit': expected resnet or unet"):
        runs.build("cyclegan_mnist", data_dir=folder, networks="vit")


def test_a_folder_of_maps_of_classes(tmp_path):
    draw = np.random.default_rng(0)
    for split in ("train", "test"):
        for name, shape, classes in (("A", (40, 40), 4), ("B", (40, 40, 3), 256)):
            (tmp_path / name / split).mkdir(parents=True)
            Image.fromarray(draw.integers(0, classes, shape, np.uint8)).save(tmp_path / name / split / "0.png")
    options = {"data_dir": str(tmp_path), "mirror": False, **FOLDER}
    experiment = runs.build("pix2pix_folder", classes=4, **options)
    state, out, spec = shapes(experiment)
    assert (spec["a"].shape, spec["a"].dtype) == ((32, 32), np.int32) and out.shape == (2, 32, 32, 3)
    assert state.players["generator"].params["down_0"]["kernel"].shape == (4, 4, 4, 2)
    with pytest.raises(InvalidInputError, match="values from 0 to 3: expected classes from 0 to 2"):
        runs.build("pix2pix_folder", classes=3, **options).open_source()


@pytest.mark.slow
def test_a_folder_trains_and_translates(folder, tmp_path):
    """With microbatches, and a picture that shows source, output and target."""
    short = dict.fromkeys(("steps", "steps_per_dispatch", "report_every", "sample_every", "checkpoint_every"), 2)
    experiment = runs.build(
        "pix2pix_folder", data_dir=folder, **FOLDER, norm="instance", batch_size=16, microbatches=2, evaluate_every=2,
        sample_count=2, constant_images=2.0, decay_images=2.0, **short,
    )  # fmt: skip
    runtime.train(experiment, tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").rglob("*.png")}
    assert any(name.startswith("translations") for name in names), names
    picture = np.random.default_rng(1).integers(0, 256, (1, 50, 41, 3), np.uint8)  # no size of the network
    out = gan_jax.load(tmp_path / "run").translate(picture)  # one image, which 2 microbatches do not divide
    assert out.shape == picture.shape and float(np.abs(out).max()) <= 1.0
