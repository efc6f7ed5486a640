"""Under `jax_enable_x64` everything works, and float32 stays float32: by tracing alone, which compiles nothing."""

import jax
import jax.numpy as jnp
import pytest

from gan_jax import core
from tests.conformance.functions import CASES, KEY
from tests.conformance.games import BATCH, GAMES

ALWAYS_FLOAT32 = {"ada_controller", "codes_of_ids"}  # of signs, and of integers


@pytest.mark.parametrize("name", sorted(CASES))
def test_functions_keep_their_dtype(name):
    case = CASES[name]
    with jax.enable_x64(True):
        arguments = jax.eval_shape(case.arguments, KEY)
        for dtype in (jnp.float32, jnp.float64):
            cast = [x.update(dtype=dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x for x in arguments]
            expected = jnp.float32 if name in ALWAYS_FLOAT32 else dtype
            assert jax.eval_shape(case.function, *cast).dtype == expected


QUICK = {"cyclegan", "stylegan2"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in sorted(GAMES)]
)
def test_games_train_in_float32(name):
    """An iteration returns the dtypes that it takes, and none of them is wide."""
    build, source = GAMES[name]
    with jax.enable_x64(True):
        game = build()
        feed = source.feed(0, core.batches_per_iteration(game), BATCH, range(BATCH))
        batches = feed.fetch(feed.data, jax.tree.map(lambda x: x[0], next(feed.stream(0, 1))), 0)
        first = jax.tree.map(lambda x: x[0], batches)
        start = jax.eval_shape(game.init, jax.random.key(0), first)
        after, means = jax.eval_shape(core.make_step(game), start, batches)
    assert jax.tree.map(lambda x: x.dtype, after) == jax.tree.map(lambda x: x.dtype, start)
    assert not [x for x in jax.tree.leaves((after, means)) if x.dtype in (jnp.float64, jnp.int64)]
