"""Pictures of any size through networks of different kinds; and the same by tiles."""

import functools
import re
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gan_jax import data, gans, losses, nets, runtime
from gan_jax.runtime import translation
from gan_jax.types import InvalidInputError
from tests.conformance.games import GAMES
from tests.processes import start_module


class Local(nn.Module):
    """Sees 1 pixel around each; takes any size."""

    @nn.compact
    def __call__(self, image, *, train):
        return nn.tanh(nn.Conv(3, (3, 3))(image))


class Halving(nn.Module):
    """A U-Net with two levels: it needs multiples of 4."""

    @nn.compact
    def __call__(self, image, *, train):
        first = nn.relu(nn.Conv(4, (4, 4), 2, padding=1)(image))
        second = nn.relu(nn.Conv(4, (4, 4), 2, padding=1)(first))
        up = nn.ConvTranspose(4, (2, 2), (2, 2))(second)
        return nn.tanh(nn.ConvTranspose(3, (2, 2), (2, 2))(jnp.concatenate([up, first], -1)))


class Fixed(nn.Module):
    """A learned position, which fits images of one size alone."""

    @nn.compact
    def __call__(self, image, *, train):
        return nn.tanh(image + self.param("position", nn.initializers.normal(), (8, 12, 3)))


class Doubling(nn.Module):
    @nn.compact
    def __call__(self, image, *, train):
        return nn.tanh(nn.ConvTranspose(3, (2, 2), (2, 2))(image))


class Critic(nn.Module):
    @nn.compact
    def __call__(self, image, *, train):
        return nn.Conv(1, (3, 3))(image)[..., 0]


@functools.cache
def trained(module=Local, channels=1, size=(8, 12), maps=False):
    """An untrained pix2pix with this generator."""
    game = gans.standard_game(
        nets.from_linen(module()),
        nets.from_linen(Critic()),
        gans.terms.gan_loss(losses.non_saturating),
        inputs=lambda key, batch, hparams: (batch["a"].reshape(*batch["a"].shape[:3], -1),),
        real=lambda batch: batch["b"],
        optimizers={player: optax.sgd(0.1) for player in ("generator", "discriminator")},
    )
    scale = 2 if module is Doubling else 1
    arrays = {
        "a": np.zeros((4, *size, channels), np.uint8),
        "b": np.zeros((4, size[0] * scale, size[1] * scale, 3), np.uint8),
    }
    if maps:
        arrays["a"] = np.zeros((4, *size), np.int32)
    source = data.Arrays("pairs", arrays)
    made = runtime.Experiment(
        game=game, source=lambda: source, preview=runtime.image_grid, seed=0, batch_size=2, steps=2,
        conditions=lambda: data.renamed(source, inputs="a", target="b"),
    )  # fmt: skip
    batch = {name: jnp.zeros((2, *x.shape), x.dtype) for name, x in source.spec.items()}
    mesh = runtime.make_mesh(jax.devices()[:1])
    with jax.set_mesh(mesh):
        state = jax.jit(game.init)(jax.random.key(0), batch)
    return runtime.Trained(made, state, 0, mesh, (), source.spec)


def picture(height, width, channels=1, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (height, width, channels)).astype(np.float32)


def direct(made, image):
    """The generator itself."""
    with jax.set_mesh(made.mesh):
        return np.asarray(made.experiment.game.sample(made.state, jax.random.key(0), 1, inputs=image[None]))[0]


@pytest.mark.parametrize(
    ("module", "fit"),
    [(Local, (1, 1)), (Halving, (4, 1)), (Fixed, (0, 1)), (Doubling, (1, 2))],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_sizes_are_found_out_by_shapes_alone(module, fit):
    found = trained(module).translator().fit
    assert (found.multiple, found.scale, found.size) == (*fit, (8, 12))


def test_any_size_without_padding():
    made = trained()
    for shape in ((8, 12), (19, 13), (40, 12)):
        image = picture(*shape)
        np.testing.assert_allclose(made.translate([image])[0], direct(made, image), atol=1e-6)


def test_padding_by_reflection_to_what_the_network_takes():
    made = trained(Halving)
    image = picture(17, 14)
    whole = np.pad(image, [(1, 2), (1, 1), (0, 0)], mode="reflect")
    np.testing.assert_allclose(made.translate([image])[0], direct(made, whole)[1:18, 1:15], atol=1e-6)
    small = np.pad(picture(3, 5), [(2, 3), (3, 4), (0, 0)], mode="reflect")  # to the size of training
    np.testing.assert_allclose(made.translate([picture(3, 5)])[0], direct(made, small)[2:5, 3:8], atol=1e-6)


def test_arrays_and_lists_and_bytes():
    made = trained()
    images = np.random.default_rng(0).integers(0, 256, (3, 9, 10, 1), np.uint8)
    found = made.translate(images)
    assert found.shape == (3, 9, 10, 3) and found.dtype == np.float32
    np.testing.assert_array_equal(found, np.stack(made.translate(list(images / np.float32(127.5) - 1))))
    assert made.translate(np.zeros((0, 9, 10, 1))) == []
    doubled = trained(Doubling).translate([picture(9, 13)])[0]
    np.testing.assert_allclose(doubled, direct(trained(Doubling), picture(9, 13)), atol=1e-6)


def test_tiles_of_a_network_that_sees_little_are_the_whole():
    made, image = trained(), picture(41, 30)
    expected = direct(made, image)
    np.testing.assert_allclose(made.translate([image], tile=16, overlap=4)[0], expected, atol=1e-5)
    np.testing.assert_allclose(made.translate([image], tile=16)[0], expected, atol=1e-5)
    doubled = trained(Doubling).translate([image], tile=16)[0]
    np.testing.assert_allclose(doubled, direct(trained(Doubling), image), atol=1e-5)


def test_a_network_of_one_size_gets_tiles_of_it():
    made, image = trained(Fixed), picture(20, 30)
    found = made.translate([image])[0]
    assert found.shape == (20, 30, 3)
    np.testing.assert_allclose(found[:5, :8], direct(made, image[:8, :12])[:5, :8], atol=1e-6)
    np.testing.assert_allclose(made.translate([picture(8, 12)])[0], direct(made, picture(8, 12)), atol=1e-6)


def test_tiles_where_memory_does_not_suffice():
    made, told = trained(), []
    with jax.set_mesh(made.mesh):
        needed = {side: made.translator()._needed((side, side)) for side in (256, 300)}
    assert needed[256] > 256 * 256 * (1 + 3) * 4  # the picture and its translation at least
    image = picture(300, 300)
    tiled = made.translator(memory=(needed[256] + needed[300]) // 2, log=told.append)
    np.testing.assert_allclose(tiled(image), direct(made, image), atol=1e-5)
    assert len(told) == 1 and told[0].startswith("300x300 pixels need more than 0.00")
    assert told[0].endswith("GiB of memory: tiles of 256")
    assert made.translate([image], memory=needed[300], log=told.append)[0].shape == (300, 300, 3) and len(told) == 1
    refused("tiles of 64 pixels do not fit into 9.31e-10 GiB", lambda: made.translate([image], memory=1))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are those of Linux")
def test_a_process_whose_memory_is_limited():
    """The limit is real: for a process that ignores it, XLA's allocation fails, which ends it."""
    tiled, whole = (
        start_module("tests.runtime.limited_memory", memory, fresh=True).finish() for memory in ("0", str(2**60))
    )
    assert tiled[0] == 0 and re.search(r"1200x1200 pixels need more than 0.2\d+ GiB of memory: tiles of \d", tiled[1])
    assert whole[0] != 0 and ("Out of memory" in whole[1] or "RESOURCE_EXHAUSTED" in whole[1])


def test_maps_of_classes():
    class FromMap(nn.Module):
        @nn.compact
        def __call__(self, classes, *, train):
            return nn.tanh(nn.Conv(3, (3, 3))(jax.nn.one_hot(classes[..., 0], 4)))

    made = trained(FromMap, maps=True)
    assert made.translator().dtype == np.int32
    values = np.random.default_rng(0).integers(0, 4, (21, 30, 1), np.uint8)
    whole = direct(made, values.astype(np.int32))
    np.testing.assert_allclose(made.translate([values])[0], whole, atol=1e-6)
    np.testing.assert_allclose(made.translate([values.astype(np.int64)], tile=16)[0], whole, atol=1e-5)
    refused("a picture of float32: this game takes int32, from class 0 on", lambda: made.translate([picture(8, 8)]))


def test_maps_whose_values_are_no_class():
    def game(classes):
        return gans.pix2pix(nets.from_linen(Map()), nets.from_linen(MapCritic()), classes=classes)

    class Map(Local):
        pass

    class MapCritic(nn.Module):
        @nn.compact
        def __call__(self, image, source, *, train):
            return nn.Conv(1, (3, 3))(jnp.concatenate([image, source], -1))[..., 0]

    maps = np.random.default_rng(0).integers(0, 4, (6, 8, 8), np.int32)
    maps[2, 3, 3] = 3
    source = data.Arrays("pairs", {"a": maps, "b": np.zeros((6, 8, 8, 3), np.uint8)})
    held_out = {"conditions": lambda: data.renamed(source, inputs="a", target="b")}
    options = {"preview": runtime.image_grid, "seed": 0, "batch_size": 2, "steps": 2, **held_out}
    made = runtime.Experiment(game=game(4), source=lambda: source, **options)
    made.open_source()
    flipped = data.transformed(source, data.flip())
    for few in (source, flipped):
        wrong = runtime.Experiment(game=game(3), source=lambda few=few: few, **options)
        refused(r"pairs: example \d of 'a' has values from 0 to 3, but the game has classes=3", wrong.open_source)
    mesh = runtime.make_mesh(jax.devices()[:1])
    batch = {name: jnp.zeros((2, *x.shape), x.dtype) for name, x in source.spec.items()}
    with jax.set_mesh(mesh):
        state = jax.jit(made.game.init)(jax.random.key(0), batch)
    last = runtime.Trained(made, state, 0, mesh, (), source.spec)
    assert last.translator().classes == 4 and last.translate([maps[0][..., None]])[0].shape == (8, 8, 3)
    for value in (4, -1):
        bad = np.where(maps[0] == maps[0].max(), value, maps[0])[..., None]
        refused(rf"values from .*{value}.*: this game has classes from 0 to 3", lambda bad=bad: last.translate([bad]))


def test_directions():
    assert translation.translating(trained().experiment.game) == "sample"
    there_and_back = GAMES["cyclegan"][0]()
    assert translation.translating(there_and_back) == "translate"
    assert translation.translating(there_and_back, "BtoA") == "translate_back"
    refused("draws its samples from a prior", lambda: translation.translating(GAMES["dcgan"][0]()))


def test_the_way_back_is_that_of_the_game():
    game, source = GAMES["cyclegan"][0](), GAMES["cyclegan"][1]
    made = runtime.Experiment(
        game=game, source=lambda: source, preview=runtime.image_grid, seed=0, batch_size=2, steps=2,
        conditions=lambda: data.renamed(source, inputs="a"),
    )  # fmt: skip
    mesh = runtime.make_mesh(jax.devices()[:1])
    batch = {name: jnp.zeros((2, *x.shape), x.dtype) for name, x in source.spec.items()}
    with jax.set_mesh(mesh):
        state = jax.jit(game.init)(jax.random.key(0), batch)
    trained = runtime.Trained(made, state, 0, mesh, (), source.spec)
    images = np.stack([picture(8, 8, seed=i) for i in range(2)])
    for direction, function in (("AtoB", "translate"), ("BtoA", "translate_back")):
        with jax.set_mesh(mesh):
            expected = [game.functions[function](state, jax.random.key(0), x[None])[0] for x in images]
        np.testing.assert_allclose(trained.translate(images, direction=direction), np.stack(expected), atol=1e-6)


def refused(message, call):
    with pytest.raises(InvalidInputError, match=message):
        call()


def test_what_cannot_be_translated_is_told():
    made = trained(Halving)
    refused("direction='BtoA': this game translates in one direction", lambda: made.translator(direction="BtoA"))
    refused("direction='back': expected AtoB or BtoA", lambda: made.translator(direction="back"))
    refused("tile=10: expected a multiple of 4, as this network needs, such as 12", lambda: made.translator(tile=10))
    refused("tile=-4: expected", lambda: made.translator(tile=-4))
    refused(r"overlap=9: expected at least 0.* at most half a tile \(8\)", lambda: made.translator(tile=16, overlap=9))
    refused("overlap=-1: expected", lambda: made.translator(overlap=-1))
    refused("takes 8x12 alone", lambda: trained(Fixed).translator(tile=16))
    refused(r"shape \(8, 8, 3\): expected \[h, w, 1\]", lambda: made.translate([picture(8, 8, 3)]))
    refused(r"shape \(0, 8, 1\)", lambda: made.translate([picture(0, 8)]))
