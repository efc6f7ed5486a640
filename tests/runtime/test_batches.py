"""What games read of their batches, and what they are told when the data has something else."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gan_jax import core, data, runtime
from gan_jax.runtime.batches import init
from gan_jax.runtime.program import abstract_state
from gan_jax.types import Game, InvalidInputError, LossOutput, Phase
from tests.conformance.games import BATCH, GAMES

NAMES = ("real", "target", "mask", "image", "a")
KEY = jax.random.key(0)


def start(game, source):
    run = runtime.Experiment(
        game=game, source=lambda: source, preview=runtime.image_grid, seed=0, batch_size=BATCH, steps=4, sample_every=0
    )
    mesh = runtime.make_mesh(jax.devices()[:1])
    with jax.set_mesh(mesh):
        return runtime.build_start(run, source.spec, mesh)


def source_of(names, shape=(2, 2, 1)):
    return data.Arrays("arrays", {name: np.zeros((32, *shape), np.uint8) for name in names})


def reading(names, *, shapes=(), remember=False):
    """A game of one number whose loss has the values of some arrays, and the sizes of others."""
    optimizer = optax.sgd(0.1)

    def begin(key, batch):
        aux = {"last": jax.tree.map(jnp.zeros_like, batch)} if remember else {}
        return core.create_state(key, {"one": core.create_player(jnp.ones(()), {}, optimizer)}, aux=aux)

    def loss(params, state, batch, key):
        size = sum((batch[name].size for name in shapes), 1)
        aux = {"last": jax.tree.map(lambda old, new: old + new, state.aux["last"], batch)} if remember else {}
        value = sum((jnp.mean(batch[name]) for name in names), jnp.float32(size)) * params
        return value, LossOutput({}, None, aux)

    return Game(begin, (Phase("one", "one", loss),), (), {})


@settings(max_examples=30, deadline=None)
@given(st.sets(st.sampled_from(NAMES), min_size=1), st.sets(st.sampled_from(NAMES), min_size=1))
def test_the_game_reads_what_the_data_delivers_or_both_are_named(reads, delivered):
    game, source = reading(sorted(reads)), source_of(sorted(delivered))
    if reads == delivered:
        assert "state" in start(game, source).abstract
        return
    with pytest.raises(InvalidInputError, match=r"data\.renamed") as error:
        start(game, source)
    told = str(error.value)
    assert all(repr(name) in told for name in delivered)
    missing, ignored = sorted(reads - delivered), delivered - reads
    assert repr(missing[0]) in told if missing else all(repr(name) in told for name in (*reads, *ignored))


def test_a_game_that_takes_only_the_size_of_its_batch_is_no_error():
    start(reading([], shapes=["real"]), source_of(["real"]))


def test_batches_are_plain_dicts():
    """So that a game can keep one, and map two together."""
    abstract = start(reading(["real"], remember=True), source_of(["real"])).abstract["state"]
    assert type(abstract.aux["last"]) is dict


def test_a_keyerror_of_something_else_stays_one():
    def begin(key, batch):
        return {}["real" if "image" in batch else "mapping"]

    for names in (["real"], ["image"]):
        with pytest.raises(KeyError):
            start(reading(["real"])._replace(init=begin), source_of(names))


@pytest.mark.parametrize("name", GAMES)
def test_every_game_says_what_it_reads(name):
    build, source = GAMES[name]
    rest = {key: key for key in source.spec if key in ("b", "label")}
    with pytest.raises(InvalidInputError, match=r"reads 'real' .* delivers 'image'|takes (the images )?'a' and 'b'"):
        start(build(), data.renamed(source, image=next(iter(source.spec)), **rest))


def test_more_than_the_game_reads_is_no_longer_ignored():
    build, source = GAMES["vanilla"]
    with pytest.raises(InvalidInputError, match=r"reads 'real' and ignores 'mask'.*renamed\(source, real='real'\)"):
        start(build(), data.renamed(source, real="real", mask="real"))


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([jnp.mean, jnp.max, lambda x: jnp.sum(x[:1] ** 2), lambda x: x[0, 0, 0, 0]]), st.booleans())
def test_an_init_that_looks_at_the_data_is_refused(function, in_aux):
    def begin(key, batch):
        state, value = reading(["real"]).init(key, batch), function(batch["real"])
        return state.replace(aux={"scale": value}) if in_aux else state.replace(hparams={"scale": value})

    with pytest.raises(InvalidInputError, match=r"values of batch\['real'\].*shapes and dtypes.*source\.read"):
        start(reading(["real"])._replace(init=begin), source_of(["real"]))


@pytest.mark.parametrize("look", [np.asarray, lambda x: float(jnp.mean(x)), lambda x: 1 if jnp.any(x > 0) else 2])
def test_an_init_that_looks_at_the_data_in_python_is_refused(look):
    def begin(key, batch):
        look(batch["real"])
        return reading(["real"]).init(key, batch)

    with pytest.raises(InvalidInputError, match=r"in Python .*test_batches\.py, line \d+\).*source\.read"):
        start(reading(["real"])._replace(init=begin), source_of(["real"]))


def test_a_run_of_such_an_init_can_still_be_loaded():
    def begin(key, batch):
        return reading(["real"]).init(key, batch).replace(aux={"scale": jnp.mean(batch["real"])})

    source, mesh = source_of(["real"]), runtime.make_mesh(jax.devices()[:1])
    run = runtime.Experiment(
        game=reading(["real"])._replace(init=begin), source=lambda: source, preview=runtime.image_grid,
        seed=0, batch_size=BATCH, steps=4, sample_every=0,
    )  # fmt: skip
    with jax.set_mesh(mesh):
        assert abstract_state(run, source.spec, mesh).aux["scale"].shape == ()


def test_an_init_gets_shapes_and_dtypes():
    batch = {"real": jnp.zeros((BATCH, 2, 2, 1), jnp.float32), "label": jnp.zeros(BATCH, jnp.int32)}
    found = init(lambda key, batch: jax.tree.map(lambda x: jnp.zeros((3, *x.shape), x.dtype), batch), KEY, batch)
    assert found["real"].shape == (3, BATCH, 2, 2, 1) and found["label"].dtype == jnp.int32
