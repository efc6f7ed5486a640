"""MoCoGAN: what holds content and motion, which frames the critics see, and clips that are refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import core, gans, losses, nets
from gan_jax.types import InvalidInputError

SIZES = {"content": 3, "motion": 2}
KEY = jax.random.key(0)
CLIPS = jax.random.uniform(KEY, (4, 7, 8, 8, 1), minval=-1.0)


def made(**options):
    generator = nets.from_linen(nets.MoCoGANGenerator(8, 1, 4, categories=2, **SIZES, **options))
    critic = nets.from_linen(nets.MoCoGANDiscriminator(4, 2, 0.0))
    return gans.mocogan(generator, critic, frames=7, categories=2, **SIZES)


@pytest.fixture(scope="module")
def game():
    return made()


@pytest.fixture(scope="module")
def state(game):
    return jax.jit(game.init)(KEY, {"real": CLIPS})


def test_rows_have_one_content_and_columns_one_motion_and_category(game, state):
    content, motion = jax.random.split(KEY)
    z, label = game.functions["clip_latents"](content, motion, 3, 4)
    assert label is None and z.shape == (12, 3 + 2 + 2 * 8)
    parts = nets.split_latents(z.reshape(3, 4, -1)[0], 3, 2, 2)
    held = z.reshape(3, 4, -1)
    assert (held[:, :, :3] == held[:, :1, :3]).all() and (held[:, :, 3:] == held[:1, :, 3:]).all()
    np.testing.assert_array_equal(jnp.argmax(parts.category, -1), [0, 1, 0, 1])
    assert not np.array_equal(held[0, 0, :3], held[1, 0, :3]) and not np.array_equal(held[0, 0], held[0, 2])
    again, _ = game.functions["clip_latents"](content, jax.random.key(9), 3, 4)
    np.testing.assert_array_equal(again[:, :3], z[:, :3])
    clips = jax.jit(functools.partial(game.functions["matrix"], n=6))(state, KEY)
    assert clips.shape == (6, 7, 8, 8, 1)


def test_longer_clips_begin_like_shorter_ones(game, state):
    content, motion = jax.random.split(KEY)
    sample = jax.jit(lambda z: game.sample(state, KEY, 4, inputs=z))
    short, long = (sample(game.functions["clip_latents"](content, motion, 2, 2, frames)[0]) for frames in (7, 12))
    assert long.shape == (4, 12, 8, 8, 1)
    np.testing.assert_allclose(long[:, :7], short, atol=1e-6)


def test_without_the_gru_frames_have_no_order(game):
    """Exchanging the noise of two frames then exchanges the frames; with the GRU it changes all frames in between."""
    z = jax.random.normal(KEY, (2, 3 + 2 + 2 * 8))
    swapped = jnp.concatenate([z[:, :7], z[:, 19:21], z[:, 9:19], z[:, 7:9]], axis=1)
    for recurrent in (True, False):
        module = nets.MoCoGANGenerator(8, 1, 4, categories=2, recurrent=recurrent, **SIZES)
        params, stats = nets.from_linen(module).init(KEY, z)
        one, other = (nets.from_linen(module).apply(params, stats, x, train=False)[0] for x in (z, swapped))
        same = np.isclose(one[:, 1:-1], other[:, 1:-1], atol=1e-6).all()
        assert same != recurrent and (recurrent or np.allclose(one[:, 0], other[:, -1], atol=1e-6))


def test_categories_are_equally_likely(game):
    z = game.prior.sample(KEY, 4000)
    share = float(jnp.mean(jnp.argmax(z[:, 3:5], -1)))
    assert abs(share - 0.5) < 0.03


def test_the_image_critic_sees_one_frame_of_each_clip(state):
    network = nets.from_linen(nets.MoCoGANDiscriminator(4, 2, 0.0))
    player = state.players["discriminator"]
    apply = functools.partial(network.apply, player.params, player.model_state)
    run = jax.jit(lambda x, key: apply(x, train=False, key=key)[0])
    every = jax.jit(lambda x: apply(x, train=False)[0])(CLIPS)
    assert every["logits"]["image"].shape == (4, 7) and every["classes"].shape == (4, 2)
    seen = set()
    for seed in range(20):
        one = run(CLIPS, jax.random.key(seed))["logits"]["image"]
        match = np.isclose(one[:, None], every["logits"]["image"], atol=1e-6)
        assert (match.sum(1) == 1).all()
        seen |= set(map(int, match.argmax(1)))
    assert seen == set(range(7))


def test_the_discriminators_loss_is_the_sum_over_critics_and_categories(game, state):
    [discriminator] = [phase for phase in game.phases if phase.name == "discriminator"]
    params = state.players["discriminator"].params

    @jax.jit
    def loss(weight):
        other = core.set_hparams(state, {"information_weight": weight})
        return discriminator.loss(params, other, {"real": CLIPS}, KEY)

    (with_head, out), (without, _) = loss(1.0), loss(0.0)
    assert float(with_head - without) == pytest.approx(float(out.metrics["information"]), rel=1e-5)
    # both critics are untrained: each is at about 2 log 2
    assert 0.5 < float(without) / (4 * np.log(2)) < 2
    hparams = core.get_hparams(state)
    assert hparams["generator/weight_decay"] == np.float32(1e-5)
    assert hparams["discriminator/learning_rate"] == np.float32(2e-4)


def test_three_frames_are_drawn_in_order_and_the_critic_knows_their_distance():
    module = nets.FramesDiscriminator(width=4, joined_size=4)
    network = nets.from_linen(module)
    clips = jnp.broadcast_to(jnp.linspace(-1, 1, 7)[None, :, None, None, None], (64, 7, 8, 8, 1))
    params, stats = network.init(KEY, clips)
    run = jax.jit(lambda x, key: network.apply(params, stats, x, train=True, key=key)[0]["logits"])
    constant = jnp.ones((64, 7, 8, 8, 1))
    few = np.unique(np.round(run(constant, KEY), 5))
    assert 5 < len(few) <= 15  # pairs of distances of three of seven frames
    np.testing.assert_array_equal(run(clips, KEY), run(clips, KEY))
    with pytest.raises(InvalidInputError, match="clips of 2 frames: this critic sees 3 frames"):
        network.init(KEY, clips[:, :2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gans.mocogan(None, None, frames=7, categories=2, num_classes=3), "categories=2, num_classes=3"),
        (lambda: gans.mocogan(None, None, frames=0), "frames=0"),
        (lambda: made().init(KEY, {"real": CLIPS[:, :6]}), "clips .t, h, w, c. of t = frames = 7"),
        (lambda: made().init(KEY, {"real": CLIPS[:, 0]}), "expected|this game takes clips"),
        (lambda: nets.from_linen(nets.MoCoGANCritic(width=4)).init(KEY, CLIPS[:, :6]), "needs 7 frames"),
        (lambda: nets.split_latents(jnp.zeros((1, 8)), 3, 2, 2), "motion"),
        (lambda: nets.from_linen(nets.MoCoGANGenerator(12, 1, 4)).init(KEY, jnp.zeros((1, 80))), "image_size=12"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()


def test_other_losses_need_a_batch_of_their_own():
    relativistic = gans.mocogan(
        nets.from_linen(nets.MoCoGANGenerator(8, 1, 4, **SIZES)), nets.from_linen(nets.MoCoGANDiscriminator(4)),
        frames=7, loss=losses.relativistic_pairing, **SIZES,
    )  # fmt: skip
    assert core.batches_per_iteration(relativistic) == 2
