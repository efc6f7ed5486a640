"""The default optimisers of each game, which are those of its paper."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import core, gans
from gan_jax.types import Game
from tests.conformance.games import GAMES
from tests.gans import test_adversarial, test_cut, test_cyclegan, test_pix2pix, test_stylegan2
from tests.gans.test_adversarial import KEY, PRIOR, V, W, X

PIXELS = jnp.zeros((4, 1, 1, 1))


def simple(make, **options):
    """Returns the initial state of a game with a linear generator and critic."""
    generator, critic = test_adversarial.linear(V), test_adversarial.linear(W)
    batch = {"real": X} | ({"label": jnp.zeros(4, jnp.int32)} if "num_classes" in options else {})
    return make(generator, critic, PRIOR, **options).init(KEY, batch)


def cyclegan():
    networks = test_cyclegan.scaling(1.0, 1.0), test_cyclegan.scaling(1.0, 1.0)
    return gans.cyclegan(*networks).init(KEY, {"a": test_cyclegan.A, "b": test_cyclegan.B})


def cut():
    return gans.cut(test_cut.generator(1.0), test_cut.critic(1.0), test_cut.unit()).init(KEY, test_cut.BATCH)


def pix2pix():
    networks = test_pix2pix.scaling(1.0), test_pix2pix.critic(1.0, 1.0)
    return gans.pix2pix(*networks).init(KEY, test_pix2pix.BATCH)


def stylegan2():
    """Returns the initial state of StyleGAN2 without its lazy phases, which would change both optimisers."""
    this = test_stylegan2
    game = gans.stylegan2(this.MAPPING, this.SYNTHESIS, this.CRITIC, this.FIXED, path_length_weight=None, penalties=())
    return game.init(KEY, {"real": PIXELS})


def of_the_suite(name):
    """Returns the initial state of a game of the conformance suite."""
    make, source = GAMES[name]
    batch = {key: jnp.zeros((2, *x.shape), x.dtype) for key, x in source.spec.items()}
    return make().init(KEY, batch)


# For each game: a function that returns its initial state, and the learning rate and two betas of Adam.
DEFAULTS = {
    # The papers (arXiv:1411.1784, 1406.2661) use SGD with momentum; here both games use DCGAN's Adam.
    "cgan": (lambda: simple(gans.cgan, num_classes=3), (2e-4, 0.5, 0.999)),
    "vanilla": (lambda: simple(gans.vanilla), (2e-4, 0.5, 0.999)),
    "dcgan": (lambda: simple(gans.dcgan), (2e-4, 0.5, 0.999)),  # arXiv:1511.06434, section 4
    "wgan_gp": (lambda: simple(gans.wgan_gp), (1e-4, 0.0, 0.9)),  # arXiv:1704.00028, algorithm 1
    "cyclegan": (cyclegan, (2e-4, 0.5, 0.999)),  # arXiv:1703.10593, section 4; betas of the authors' code
    "cut": (cut, (2e-4, 0.5, 0.999)),  # arXiv:2007.15651, appendix C
    "mocogan": (lambda: of_the_suite("mocogan"), (2e-4, 0.5, 0.999)),  # arXiv:1707.04993, the authors' code
    "vae": (lambda: of_the_suite("vae"), (1e-3, 0.9, 0.999)),  # arXiv:1312.6114 has Adagrad; here Adam's own betas
    "vae_gan": (lambda: of_the_suite("vae_gan"), (3e-4, 0.5, 0.999)),  # arXiv:1512.09300 has RMSProp of that rate
    "pix2pix": (pix2pix, (2e-4, 0.5, 0.999)),  # arXiv:1611.07004, section 3.3
    "sngan": (lambda: simple(gans.sngan), (2e-4, 0.0, 0.9)),  # arXiv:1802.05957, with residual networks
    "r3gan": (lambda: simple(gans.r3gan, gamma=(1.0, 0.1)), (2e-4, 0.0, 0.9)),  # arXiv:2501.05441, at the start
    "stylegan2": (stylegan2, (2e-3, 0.0, 0.99)),  # arXiv:1912.04958
}


def test_every_game_with_a_paper_is_here():
    exported = {name: getattr(gans, name) for name in gans.__all__}
    games = {
        name
        for name, value in exported.items()
        if inspect.isfunction(value) and inspect.signature(value).return_annotation is Game
    }
    assert set(DEFAULTS) == games - {"adversarial", "standard_game", "tokenizer"}, "which have no defaults, or recipes"


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_both_players_have_the_papers_adam(name):
    begin, expected = DEFAULTS[name]
    hparams = core.get_hparams(begin())
    for player in {name.partition("/")[0] for name in hparams if "/" in name}:
        found = [float(hparams[f"{player}/{which}"]) for which in ("learning_rate", "b1", "b2")]
        np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=player)
