"""The conformance suite of all public functions of the pure packages. It fails for one without a case."""

import contextlib
import functools
import inspect

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from gan_jax import augment, losses, ops, regularizers
from gan_jax.types import InvalidInputError
from tests.conformance.functions import BATCH, BOTTLENECKS, CASES, KEY

PACKAGES = {"augment": augment, "losses": losses, "regularizers": regularizers}
PUBLIC = {f"{package}.{name}": getattr(module, name) for package, module in PACKAGES.items() for name in module.__all__}
PUBLIC |= {f"ops.{name}": getattr(ops, name) for name in BOTTLENECKS}
EACH = pytest.mark.parametrize("name", sorted(CASES))


@functools.cache
def compiled(name):
    """Returns a case's function, compiled once for all tests; a test of its own compares it with the eager one."""
    return jax.jit(CASES[name].function)


@functools.cache
def slopes(name):
    """Returns the gradient of the summed values by all floating-point arguments, compiled once for all tests."""
    case = CASES[name]
    total = lambda *x: jnp.sum(case.function(*x).astype(jnp.float32))  # noqa: E731
    return jax.jit(jax.grad(total, floats(jax.eval_shape(case.arguments, KEY))))


def floats(arguments):
    return tuple(i for i, x in enumerate(arguments) if jnp.issubdtype(x.dtype, jnp.floating))


def cast(arguments, dtype):
    return tuple(x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x for x in arguments)


def mesh():
    return jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))


@contextlib.contextmanager
def jaxtyping_off():
    """Disables the checks of annotations, as for users."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def finite(*trees):
    return all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(trees))


def test_every_public_function_has_a_case():
    covered = {name for case in CASES.values() for name in case.of.split()}
    assert covered == set(PUBLIC) - {"losses.GANLoss", "augment.band_filters"}  # a type, and constants


@pytest.mark.parametrize("name", sorted(set(PUBLIC) - {"augment.OPERATIONS"}))
def test_documented(name):
    text = PUBLIC[name].__doc__
    if inspect.isclass(PUBLIC[name]):
        assert "Attributes:" in text
        return
    parts = ["Returns:", "Example:", ">>>"]
    if not name.split(".")[1].startswith(("init_", "count_", "band_filters")):  # states and constants cite no paper
        parts += ["Args:", "References:", "arXiv:"]
    assert [part for part in parts if part not in text] == []


@EACH
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_shape_and_dtype(name, dtype):
    case = CASES[name]
    arguments = cast(case.arguments(KEY), dtype)
    value = compiled(name)(*arguments)
    assert value.shape == {"elementwise": arguments[0].shape, "example": (BATCH,), "scalar": ()}[case.output]
    # a reduction may return a wider dtype, an element-wise function may not
    assert value.dtype == dtype or (case.output != "elementwise" and value.dtype == jnp.float32)
    exact = np.asarray(compiled(name)(*case.arguments(KEY)), np.float32)
    np.testing.assert_allclose(np.asarray(value, np.float32), exact, rtol=0.1, atol=0.1 * np.abs(exact).max() + 1e-3)


@EACH
def test_jit_is_eager(name):
    case = CASES[name]
    arguments = case.arguments(KEY)
    np.testing.assert_allclose(compiled(name)(*arguments), case.function(*arguments), rtol=1e-5, atol=1e-5)


@EACH
def test_vmap_is_a_loop(name):
    case = CASES[name]
    sets = [case.arguments(key) for key in jax.random.split(KEY, 3)]
    loop = jnp.stack([compiled(name)(*arguments) for arguments in sets])
    together = jax.jit(jax.vmap(case.function))(*(jnp.stack(x) for x in zip(*sets, strict=True)))
    np.testing.assert_allclose(together, loop, rtol=1e-5, atol=1e-5)


@EACH
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_extremes_are_finite_with_finite_gradients(name, dtype):
    """Tests 1e4 and -1e4, if the formula is finite there, and always 0, where norms and quotients break."""
    case = CASES[name]
    arguments = cast(case.arguments(KEY), dtype)
    points = [tuple(x if x.dtype != dtype else jnp.zeros_like(x) for x in arguments)]
    if case.extremes and dtype != jnp.float16:  # float16 ends at 65504
        points.append(tuple(x if x.dtype != dtype else jnp.where(x > 0, 1e4, -1e4).astype(dtype) for x in arguments))
        first, second = (jnp.where(jnp.arange(BATCH) % 2 == i, 1e4, -1e4).astype(dtype) for i in range(2))
        if all(x.shape == (BATCH,) for x in arguments) and len(arguments) == 2:
            points += [(first, first), (first, second), (first, 0 * first), (0 * first, first)]
    for point in points:
        assert finite(compiled(name)(*point)), point
        if dtype != jnp.float16:  # a steep but correct gradient, as mode_seeking's at equal samples, overflows there
            assert finite(slopes(name)(*point)), point


@pytest.mark.parametrize("name", sorted(name for name, case in CASES.items() if not case.stopped))
def test_first_and_second_derivatives_match_finite_differences(name):
    """Tests a random weighting of the values along a random direction, in float64."""
    case = CASES[name]
    with jax.enable_x64(True):
        arguments = cast(case.arguments(KEY), jnp.float64)
        which = [i for i in floats(arguments) if case.signs[i : i + 1] != (0,)]
        keys = iter(jax.random.split(jax.random.key(3), 2 * len(arguments) + 1))
        weights = jax.random.normal(next(keys), jax.eval_shape(case.function, *arguments).shape, jnp.float64)
        direction = [jax.random.normal(next(keys), arguments[i].shape, jnp.float64) for i in which]
        other = [jax.random.normal(next(keys), arguments[i].shape, jnp.float64) for i in which]

        def value(t, s=0.0):
            moved = list(arguments)
            for i, d, o in zip(which, direction, other, strict=True):
                moved[i] = moved[i] + t * d + s * o
            return jnp.sum(weights * case.function(*moved))

        def slope(t):
            return jax.jvp(lambda s: value(t, s), (0.0,), (1.0,))[1]

        h = 1e-5
        both = jax.jit(lambda t: (jax.value_and_grad(value)(t), jax.value_and_grad(slope)(t)))
        at, above, below = both(0.0), both(h), both(-h)
        for order, tolerance in ((0, 1e-6), (1, 1e-5)):
            difference = (above[order][0] - below[order][0]) / (2 * h)
            np.testing.assert_allclose(at[order][1], difference, rtol=tolerance, atol=tolerance / 10)


@pytest.mark.parametrize("name", sorted(name for name, case in CASES.items() if case.signs))
def test_the_gradient_has_the_right_sign(name):
    """For example, a higher D(fake) lowers the generator's loss. The sign is 0 where no gradient may flow."""
    case = CASES[name]
    arguments = case.arguments(KEY)
    if case.coupled and "relativistic" in name:
        arguments = tuple(jnp.broadcast_to(jnp.mean(x), x.shape) for x in arguments)
    gradients = slopes(name)(*arguments)
    for gradient, sign in zip(gradients, case.signs, strict=False):
        if sign is not None:
            np.testing.assert_array_equal(np.sign(gradient), np.full(gradient.shape, sign))


@pytest.mark.parametrize("name", sorted(name for name, c in CASES.items() if c.batched and not c.random))
def test_the_order_of_examples_does_not_matter(name):
    case = CASES[name]
    order = jnp.array([3, 1, 5, 0, 7, 2, 4, 6])
    arguments = case.arguments(KEY)
    value = compiled(name)(*arguments)
    permuted = compiled(name)(*(x[order] if i < case.batched else x for i, x in enumerate(arguments)))
    np.testing.assert_allclose(permuted, value if case.output == "scalar" else value[order], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", sorted(name for name, c in CASES.items() if c.batched))
def test_sharded_over_eight_devices(name):
    """In the global view, batch statistics are those of the global batch; gradients agree too."""
    case, devices = CASES[name], mesh()
    arguments = case.arguments(KEY)
    sharded = tuple(
        jax.device_put(x, NamedSharding(devices, P("data") if i < case.batched else P()))
        for i, x in enumerate(arguments)
    )
    both = jax.jit(jax.value_and_grad(lambda *x: jnp.sum(jnp.sin(case.function(*x))), floats(arguments)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), both(*sharded), both(*arguments))


@pytest.mark.parametrize(
    "name", sorted(name for name, c in CASES.items() if c.batched and not c.coupled and not c.random)
)
def test_inside_shard_map(name):
    case = CASES[name]
    arguments = case.arguments(KEY)
    specs = tuple(P("data") if i < case.batched else P() for i in range(len(arguments)))
    value = jax.jit(jax.shard_map(case.function, mesh=mesh(), in_specs=specs, out_specs=P("data")))(*arguments)
    np.testing.assert_allclose(value, compiled(name)(*arguments), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", sorted(name for name, c in CASES.items() if c.batched == 2 and not c.random))
def test_shapes_that_would_broadcast_are_refused(name):
    """[b, 1] beside [b] is the classic mistake: it would broadcast to [b, b] losses."""
    case = CASES[name]
    arguments = case.arguments(KEY)
    if not all(jnp.issubdtype(x.dtype, jnp.floating) for x in arguments) or case.of in ("losses.adaptive_weight",):
        pytest.skip("labels are checked in tests/losses; gradients are any two trees")
    wrong = (arguments[0], arguments[1][..., None] if arguments[1].ndim == 1 else arguments[1][..., :1])
    with jaxtyping_off(), pytest.raises((InvalidInputError, TypeError)):
        case.function(*wrong)


@pytest.mark.parametrize("name", ["color", "interpolated_penalty_two_sided"])
def test_a_key_for_every_shard(name):
    """Shards draw differently if users fold in the shard's index, as docs/losses.md says."""
    same = jnp.broadcast_to(jax.random.normal(KEY, (1, 6, 6, 3)), (8, 6, 6, 3))

    def local(x):
        key = jax.random.fold_in(KEY, jax.lax.axis_index("data"))
        if name == "color":
            return augment.color(key, x, 1.0)
        return regularizers.interpolated_penalty(lambda x: jnp.sum(x**4, (1, 2, 3)), x, 2 * x, key)

    value = jax.shard_map(local, mesh=mesh(), in_specs=P("data"), out_specs=P("data"))(same)
    assert len(np.unique(np.asarray(value).reshape(8, -1), axis=0)) == 8


EXACT = ("conditional_contrastive", "data_to_data_cross_entropy", "energy_distance", "maximum_mean_discrepancy",
         "geometry", "transform_color", "filter_bands", "orthogonal", "vector_quantize", "lookup_free_quantize_losses",
         "update_codebook", "kmeans", "patch_nce")  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_matrix_products_are_asked_for_in_full_precision(name):
    """Otherwise GPUs would round them to TF32, and TPUs to bfloat16, which is too coarse for their differences."""
    case = CASES[name]
    products = [
        equation.params["precision"]
        for equation in equations(jax.make_jaxpr(case.function)(*case.arguments(KEY)).jaxpr)
        if equation.primitive.name == "dot_general"
    ]
    highest = jax.lax.Precision.HIGHEST
    assert products and all(precision == (highest, highest) for precision in products)


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "jaxpr")):
            if hasattr(inner, "jaxpr"):
                yield from equations(inner.jaxpr)


@pytest.mark.parametrize("name", sorted(name for name in CASES if name.startswith("relativistic_average")))
def test_the_global_mean_inside_shard_map_by_gathering(name):
    """Inside `shard_map`, users gather the logits before the loss, as the module's documentation says."""
    case = CASES[name]
    arguments = case.arguments(KEY)

    def local(r, f):
        r, f = (jax.lax.all_gather(x, "data", tiled=True) for x in (r, f))
        own = jax.lax.axis_index("data")
        return jax.lax.dynamic_slice_in_dim(case.function(r, f), own, BATCH // 8)

    value = jax.shard_map(local, mesh=mesh(), in_specs=P("data"), out_specs=P("data"))(*arguments)
    np.testing.assert_allclose(value, case.function(*arguments), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(name for name in CASES if name.endswith((".discriminator", ".generator"))))
@pytest.mark.parametrize("shape", [(5, 1), (3, 4, 4), (2, 3, 4, 4, 1)])
def test_logits_of_any_shape(name, shape):
    """Maps of patches and of video frames are accepted, and each place has a loss of its own."""
    loss = compiled(name)
    r, f = (jax.random.uniform(key, shape) for key in jax.random.split(KEY))
    value = loss(r, f)
    assert value.shape == shape
    flat = [x.reshape(shape[0], -1) for x in (r, f, value)]
    for place in range(flat[0].shape[1]):
        np.testing.assert_allclose(loss(flat[0][:, place], flat[1][:, place]), flat[2][:, place], rtol=1e-5)
