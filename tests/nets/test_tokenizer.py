"""Networks of tokenizers: shapes, the round trip of ids, start and restarts of codebooks, and the discriminators."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import nets
from gan_jax.nets.tokenizer import ResidualBlock, last_kernel, last_layer
from gan_jax.nets.tokenizer_critics import LocalBatchNorm
from gan_jax.types import InvalidInputError
from tests.conformance.games import SmallDecoder, SmallEncoder

KEY = jax.random.key(2)
IMAGES = jax.random.normal(KEY, (4, 8, 8, 1))
SIZES = {"widths": (4, 8), "blocks": 1, "groups": 2}
BOTTLENECKS = {
    "gradients": nets.VectorQuantizer(6, 3),
    "running": nets.VectorQuantizer(6, 3, decay=0.9, normalize=True, temperature=0.1),
    "plain": nets.VectorQuantizer(6, 3, kmeans=0, normalize=True),
    "fsq": nets.FiniteScalarQuantizer((5, 3)),
    "lfq": nets.LookupFreeQuantizer(5),
    "gaussian": nets.GaussianBottleneck(3),
}


@functools.cache
def small(name):
    """Returns a small tokenizer, its parameters, and its model state and outputs in two training passes."""
    network = nets.from_linen(nets.Tokenizer(SmallEncoder(), BOTTLENECKS[name], SmallDecoder()))
    params, state = network.init(KEY, IMAGES)
    run = jax.jit(lambda state, x, key: network.apply(params, state, x, train=True, key=key))
    one, first = run(state, IMAGES, jax.random.key(0))
    two, second = run(first, jnp.cos(IMAGES), jax.random.key(1))
    return network, params, (state, first, second), (one, two)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("fsq", "gaussian", "lfq", "plain")]


@pytest.mark.parametrize("name", ["gradients", "running", *SLOW])
def test_codes_and_ids_decode_to_the_reconstruction(name):
    network, params, states, _ = small(name)
    run = jax.jit(functools.partial(network.apply, train=False))
    made = run(params, states[-1], IMAGES)[0]
    np.testing.assert_array_equal(run(params, states[-1], None, made["codes"])[0]["images"], made["images"])
    if name == "gaussian":
        assert "ids" not in made
        with pytest.raises(InvalidInputError, match="no ids"):
            run(params, states[-1], None, None, jnp.zeros((1, 4, 4), jnp.int32))
        return
    assert made["ids"].shape == (4, 4, 4) and int(made["ids"].max()) < BOTTLENECKS[name].num_codes
    np.testing.assert_allclose(run(params, states[-1], None, None, made["ids"])[0]["images"], made["images"], atol=1e-6)
    shown = last_layer(last_kernel(params), made["hidden"]) + params["decoder"]["output"]["bias"]
    np.testing.assert_allclose(shown, made["images"], atol=1e-6)


@pytest.mark.parametrize("name", ["gradients", "running"])
def test_the_first_training_pass_starts_the_codes_at_clusters_of_its_outputs(name):
    _, params, states, (one, two) = small(name)
    started = [int(state["codebook"]["bottleneck"]["started"]) for state in states]
    assert started == [0, 1, 1]
    assert len(np.unique(one["ids"])) == 6  # all codes are in use at once
    if name == "gradients":
        centres = [state["codebook"]["bottleneck"]["centres"] for state in states]
        assert not np.allclose(centres[0], centres[1])
        np.testing.assert_array_equal(centres[1], centres[2])
        np.testing.assert_array_equal(params["bottleneck"]["codes"], 0.0)
        assert set(one["losses"]) == {"codebook", "commitment"}
    else:
        assert not np.allclose(*(state["codebook"]["bottleneck"]["running"]["codes"] for state in states[1:]))
        assert set(two["losses"]) == {"commitment", "entropy"}
        np.testing.assert_allclose(jnp.linalg.norm(two["codes"], axis=-1), 1.0, rtol=1e-5)


def test_evaluation_leaves_the_codebook_alone():
    network, params, states, _ = small("running")
    _, after = network.apply(params, states[-1], IMAGES, train=False)
    jax.tree.map(np.testing.assert_array_equal, after, states[-1])


@pytest.mark.slow
def test_the_networks_of_vqgan():
    network = nets.Tokenizer(
        nets.TokenizerEncoder(dtype="bfloat16", **SIZES), BOTTLENECKS["fsq"],
        nets.TokenizerDecoder(channels=1, dtype="bfloat16", shortcut_of_output=True, **SIZES),
    )  # fmt: skip
    made = jax.eval_shape(lambda: nets.from_linen(network).init(KEY, IMAGES))[0]
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(made))
    assert set(made) == {"encoder", "decoder", "to_codes"} and "attention" in made["encoder"]
    variables = jax.jit(functools.partial(network.init, train=True))(KEY, IMAGES)
    found = jax.jit(functools.partial(network.apply, train=False))(variables, IMAGES)
    assert found["images"].shape == IMAGES.shape and found["codes"].shape == (4, 4, 4, 2)
    assert found["images"].dtype == found["hidden"].dtype == jnp.float32 and bool(
        jnp.all(jnp.isfinite(found["images"]))
    )
    for wrong, message in (({"groups": 3}, "groups=3"), ({"widths": (4, 8, 8, 8, 8)}, "multiples of 16")):
        with pytest.raises(InvalidInputError, match=message):
            nets.TokenizerEncoder(**SIZES | wrong).init(KEY, IMAGES, train=True)
    with pytest.raises(InvalidInputError, match="exactly one"):
        network.apply(variables, None, train=False)


def test_maskgit_s_shortcut_loses_the_input():
    """With zeros in the last convolution of the block, the block's output is its biases alone."""
    for of_output in (True, False):
        block = ResidualBlock(4, 1, of_output)
        variables = block.init(KEY, IMAGES)
        params = variables["params"] | {"conv_1": jax.tree.map(jnp.zeros_like, variables["params"]["conv_1"])}
        outputs = block.apply({"params": params}, IMAGES)
        assert bool(jnp.all(outputs == 0)) == of_output


def test_blurred_patches_judge_images_one_by_one():
    critic = nets.BlurPatchDiscriminator(4, 1, 2, pool=2)
    variables = critic.init(KEY, IMAGES, train=True)
    run = jax.jit(functools.partial(critic.apply, variables, train=True))
    logits = run(IMAGES)
    assert logits.shape == (4, 2, 2)
    np.testing.assert_allclose(run(IMAGES[::-1])[::-1], logits, atol=1e-6)
    np.testing.assert_allclose(run(IMAGES.at[1:].set(0.0))[0], logits[0], atol=1e-6)
    with pytest.raises(InvalidInputError, match="multiples of 16"):
        nets.BlurPatchDiscriminator(4, 4, 2).init(KEY, IMAGES, train=True)
    with pytest.raises(InvalidInputError, match="pool=3"):
        nets.BlurPatchDiscriminator(4, 1, 2, pool=3).init(KEY, jnp.zeros((1, 20, 20, 1)), train=True)


@pytest.mark.slow
def test_heads_on_features():
    heads = nets.feature_heads(2, 6, group_size=2)
    levels = [jax.random.normal(key, (4, 9, 6)) for key in jax.random.split(KEY)]
    params, state = heads.init(KEY, IMAGES)  # images, or anything else
    run = jax.jit(functools.partial(heads.apply, train=True))
    logits, new = run(params, state, levels)
    assert logits.shape == (4, 18)
    # groups of two images share statistics, others do not
    changed = run(params, state, [x.at[3].set(0.0) for x in levels])[0]
    np.testing.assert_allclose(changed[:2], logits[:2], atol=1e-6)
    assert not np.allclose(changed[2], logits[2])
    for _ in range(20):  # power iterations
        _, new = run(params, new, levels)
    kernel = params["head_0"]["conv_1"]["kernel"].reshape(-1, 6)
    stored = [x for path, x in jax.tree_util.tree_leaves_with_path(new) if "sigma" in jax.tree_util.keystr(path)]
    largest = np.linalg.svd(kernel, compute_uv=False)[0]
    assert any(np.isclose(float(x), largest, rtol=0.02) for x in stored), (largest, stored)
    with pytest.raises(InvalidInputError, match="multiple of group_size=3"):
        LocalBatchNorm(3).init(KEY, levels[0])
