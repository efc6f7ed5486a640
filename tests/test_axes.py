"""Arrays that are no images `[n, h, w, c]`, where images are expected: what they are is said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gan_jax import gans, nets, runtime
from gan_jax.types import InvalidInputError, axes_of
from tests.conformance.games import BATCH, GAMES, Z, conv, conv_critic

SIZES = st.integers(1, 12)
WRONG = {
    "channels first": ((1, 8, 8), "channels first.*transpose"),
    "video": ((5, 8, 8, 1), r"a video \[t, h, w, c\]"),
    "no channels": ((8, 8), r"without an axis of channels.*\[\.\.\., None\]"),
    "points": ((2,), "a vector"),
}


@settings(max_examples=60, deadline=None)
@given(st.lists(SIZES, min_size=0, max_size=6).map(tuple))
def test_a_grid_draws_images_and_says_what_else_it_was_given(shape):
    samples = np.zeros((3, *shape), np.float32)
    if axes_of(shape):
        with pytest.raises(InvalidInputError, match=r"samples \(3.*expected images \[b, h, w, c\].*looks like"):
            runtime.image_grid(samples, 2)
    else:
        assert len(shape) == 3 and runtime.image_grid(samples, 2).size[0] > 2 * shape[1]


@pytest.mark.parametrize("kind", WRONG)
def test_what_a_shape_looks_like(kind):
    shape, match = WRONG[kind]
    with pytest.raises(InvalidInputError, match=match):
        runtime.image_grid(np.zeros((3, *shape), np.float32), 2)


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (4, 4, 8), (32, 32, 3), (64, 64, 12), (3, 64, 3), (3, 3, 9)])
def test_images_of_any_number_of_channels_stay_images(shape):
    assert axes_of(shape) == ""


def test_a_scatter_plot_draws_points_alone():
    with pytest.raises(InvalidInputError, match=r"samples \(3, 8, 8, 1\): scatter draws points"):
        runtime.scatter(np.zeros((3, 8, 8, 1), np.float32), 2)


def init(game, shape, **more):
    return jax.eval_shape(lambda: game.init(jax.random.key(0), {"real": jnp.zeros((BATCH, *shape)), **more}))


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("name", ["adversarial", "dcgan", "r3gan", "stylegan2", "sngan", "wgan_gp"])
def test_games_of_images_say_what_the_data_looks_like(name, kind):
    shape, match = WRONG[kind]
    game = GAMES[name][0]()
    labels = {} if game.num_classes is None else {"label": jnp.zeros(BATCH, jnp.int32)}
    with pytest.raises(InvalidInputError, match=match) as error:
        init(game, shape, **labels)
    assert "resize" not in str(error.value)


def test_other_sizes_are_still_resized():
    with pytest.raises(InvalidInputError, match="resize the data in its source"):
        init(gans.dcgan(conv(), conv_critic(), Z), (16, 16, 1))


@pytest.mark.parametrize("critic", ["DCGANDiscriminator", "ResNetDiscriminator", "StyleGAN2Discriminator", "R3GAN"])
def test_discriminators_of_images_refuse_other_arrays(critic):
    """In a game that has no generator of samples, such as CycleGAN, they see the data first."""
    make = {"R3GAN": lambda: nets.R3GANDiscriminator((8, 8), (2, 2))}.get(critic, lambda: getattr(nets, critic)(8))
    network = nets.from_linen(make())
    for shape, match in WRONG.values():
        with pytest.raises(InvalidInputError, match=match):
            jax.eval_shape(lambda shape=shape: network.init(jax.random.key(0), jnp.zeros((2, *shape))))
