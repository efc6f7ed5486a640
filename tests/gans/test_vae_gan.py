"""VAE-GAN: which gradient reaches which network, players that rest, and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gan_jax import core, gans, losses, nets
from gan_jax.gans.vae_gan import AUTHORS_LOSS, resting
from gan_jax.types import InvalidInputError, Network, Term, Value

KEY = jax.random.key(0)
X = jax.random.uniform(jax.random.key(1), (6, 8, 8, 1), minval=-1.0)
BATCH = {"real": X}
ENCODER = nets.from_linen(nets.MLPEncoder(3, (8,)))
DECODER = nets.from_linen(nets.MLPGenerator((8, 8, 1), (8,)))
CRITIC = nets.from_linen(nets.MLPDiscriminator((8,), feature_layer=0))
GAMMA = 0.3
# keeps the latents that the update drew
WATCH = tuple(
    Term("watch", who, None, lambda view, key, who=who: Value(jnp.zeros(()), aux={who: view.inputs[0]}),
         {who: jnp.zeros((6, 3))})
    for who in ("generator", "discriminator")
)  # fmt: skip


def certain(network):
    """Makes an encoder without noise: its posterior's variance is e^-30."""

    def apply(params, state, x, *, train, key=None):
        (mean, log_variance), state = network.apply(params, state, x, train=train, key=key)
        return (mean, -30.0 + 0.0 * log_variance), state

    return Network(network.init, apply)


def equal(a, b, tolerance=1e-5):
    largest = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(b))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=tolerance * largest), a, b)


@pytest.mark.parametrize("judged", [True, False])
@pytest.mark.parametrize("loss", [AUTHORS_LOSS, losses.non_saturating], ids=["authors", "today"])
def test_which_gradient_reaches_which_network(loss, judged):
    """The gradients of the two phases are those of the equations, written here with one loss per network."""
    game = gans.vae_gan(
        certain(ENCODER), DECODER, CRITIC, 3, loss=loss, gamma=GAMMA, beta=0.5, judge_reconstructions=judged,
        terms=WATCH,
    )  # fmt: skip
    state = game.init(KEY, BATCH)
    of_critic, of_generator = game.phases
    both, critic = (state.players[name].params for name in ("generator", "discriminator"))
    (_, out), found = jax.value_and_grad(of_generator.loss, has_aux=True)(both, state, BATCH, KEY)
    z_prior = out.aux["generator"]

    def encode(p):
        return ENCODER.apply(p, {}, X, train=True)[0][0]

    def decode(p, z):
        return DECODER.apply(p, {}, z, train=True)[0]

    def judge(p, x):
        return CRITIC.apply(p, {}, x, train=True)[0]

    def similarity(enc, dec):
        pair = [judge(critic, x)["features"] for x in (X, decode(dec, encode(enc)))]
        return 0.5 * jnp.mean(jnp.sum((pair[0] - pair[1]) ** 2, axis=1))

    def of_encoder(enc):
        mean = encode(enc)
        kl = losses.gaussian_kl(mean, jnp.full(mean.shape, -30.0))
        return 0.5 * jnp.mean(kl) + similarity(enc, both["decoder"])

    def fakes(dec):
        made = [decode(dec, z_prior)]
        return [*made, decode(dec, encode(both["encoder"]))] if judged else made

    def of_decoder(dec):
        real = judge(critic, X)["logits"]
        lost = sum(jnp.mean(loss.generator(real, judge(critic, x)["logits"])) for x in fakes(dec))
        return GAMMA * similarity(both["encoder"], dec) + (1 - GAMMA) * lost

    equal(found["encoder"], jax.grad(of_encoder)(both["encoder"]))
    equal(found["decoder"], jax.grad(of_decoder)(both["decoder"]))
    slope, out = jax.grad(of_critic.loss, has_aux=True)(critic, state, BATCH, KEY)

    def expected(critic):
        real, rebuilt, prior = (
            judge(critic, x)["logits"]
            for x in (
                X,
                decode(both["decoder"], encode(both["encoder"])),
                decode(both["decoder"], out.aux["discriminator"]),
            )
        )
        others = [prior, rebuilt] if judged else [prior]
        return sum(jnp.mean(loss.discriminator(real, other)) for other in others) / len(others)

    equal(slope, jax.grad(expected)(critic))


def constant_critic(real, fake):
    """Makes a critic whose logit is a number for the data, another for everything else, times one parameter."""

    def apply(params, state, x, *, train, key=None):
        mine = jnp.all(jnp.abs(x - X) < 1e-6, axis=(1, 2, 3))
        drift = 1e-3 * jnp.mean(x, axis=(1, 2, 3))
        return {"logits": params["scale"] * jnp.where(mine, real, fake + drift), "features": x}, state

    return Network(lambda key, x: ({"scale": jnp.ones(())}, {}), apply)


@pytest.mark.parametrize(
    ("logits", "critic_moves", "decoder_moves"),
    [
        ((0.0, 0.0), True, True),
        ((5.0, -5.0), False, True),  # the critic is too good
        ((-2.0, 2.0), True, False),  # too bad
        ((2.0, 2.0), True, True),  # both would rest: too good for reals, too bad for fakes
    ],
)
def test_players_rest_outside_the_margin(logits, critic_moves, decoder_moves):
    game = gans.vae_gan(
        ENCODER, DECODER, constant_critic(*logits), 3, **gans.VAE_GAN_AUTHORS,
        generator_optimizer=core.adam(1e-2), discriminator_optimizer=core.adam(1e-2),
    )  # fmt: skip
    state = game.init(KEY, BATCH)
    after, found = jax.jit(core.make_step(game, core.simultaneous))(state, {"real": X[None]})
    means = core.accumulator_means(found)
    changed = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), state.players, after.players)
    moved = {name: any(jax.tree.leaves(changed["generator"].params[name])) for name in ("encoder", "decoder")}
    assert moved == {"encoder": True, "decoder": decoder_moves}
    assert changed["discriminator"].params["scale"] == critic_moves
    assert (means["discriminator/moves"], means["generator/moves"]) == (critic_moves, decoder_moves)
    assert means["generator/real_cost"] == pytest.approx(np.log1p(np.exp(-logits[0])), rel=1e-3)


def test_what_rests_keeps_its_moments():
    rule = resting(core.adam(0.1), ("a", "b"))
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    state = rule.init(params)
    _, state = rule.update({"a": jnp.ones(2), "b": jnp.ones(2)}, state, params)
    updates, after = rule.update({"a": jnp.zeros(2), "b": jnp.ones(2)}, state, params)
    np.testing.assert_array_equal(updates["a"], 0)
    assert float(jnp.abs(updates["b"]).min()) > 0
    before, now = (optax.tree_utils.tree_get(x, "mu") for x in (state, after))
    np.testing.assert_array_equal(before["a"], now["a"])
    assert bool(jnp.all(before["b"] != now["b"]))


def test_the_authors_loss():
    r, f = jnp.array([0.3]), jnp.array([-1.2])
    d = [1 / (1 + np.exp(-x)) for x in (0.3, -1.2)]
    np.testing.assert_allclose(
        AUTHORS_LOSS.discriminator(r, f), -np.log(d[0] + 1e-3) - np.log(1 - d[1] + 1e-3), rtol=1e-5
    )
    np.testing.assert_allclose(AUTHORS_LOSS.generator(r, f), np.log(1 - d[1] + 1e-3), rtol=1e-5)


def test_it_learns_to_reconstruct():
    game = gans.vae_gan(ENCODER, DECODER, CRITIC, 3, gamma=0.5, learning_rate=1e-2, ema_halflife_images=30)
    kinds = jnp.sign(jax.random.normal(jax.random.key(4), (2, 8, 8, 1)))
    x = 0.8 * kinds[jnp.arange(6) % 2]
    step, log = jax.jit(core.make_step(game)), []
    state = game.init(KEY, {"real": x})
    for _ in range(200):
        state, found = step(state, {"real": x[None]})
        log.append(core.accumulator_means(found))
    assert log[-1]["generator/mse"] < 0.2 * log[0]["generator/mse"]
    rebuilt = game.functions["reconstruct"](state, KEY, x)
    assert float(jnp.mean((rebuilt - x) ** 2)) < 0.2 * log[0]["generator/mse"]
    assert game.functions["logits"](state, rebuilt).shape == (6,)
    assert {"similarity", "kl", "adversarial", "active_units"} <= {
        name.removeprefix("generator/") for name in log[0] if name.startswith("generator/")
    }


def test_what_does_not_fit_is_refused():
    for options in ({"gamma": 1.5}, {"gamma": -0.1}, {"beta": -1.0}, {"margin": 0.0}, {"margin": 0.7}):
        with pytest.raises(InvalidInputError, match="expected gamma from 0 to 1"):
            gans.vae_gan(ENCODER, DECODER, CRITIC, 3, **options)
    with pytest.raises(InvalidInputError, match="latents=2, but the encoder"):
        gans.vae_gan(ENCODER, DECODER, CRITIC, 2).init(KEY, BATCH)
    plain = gans.vae_gan(ENCODER, DECODER, nets.from_linen(nets.MLPDiscriminator((8,))), 3)
    with pytest.raises(InvalidInputError, match="needs 'features'"):
        core.make_step(plain)(plain.init(KEY, BATCH), {"real": X[None]})
    with pytest.raises(InvalidInputError, match="feature_layer=1: this network has layers 0 to 0"):
        nets.from_linen(nets.MLPDiscriminator((8,), feature_layer=1)).init(KEY, X)
