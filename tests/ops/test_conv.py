"""Convolutions against XLA's own, resampling against SciPy's: values, first and second derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import export, lax
from jax.sharding import NamedSharding, PartitionSpec

from gan_jax import ops
from gan_jax.ops import few_pixels, lowerings, primitives, winograd
from gan_jax.ops.geometry import ConvGeometry
from gan_jax.types import InvalidInputError

LAYOUT = ("NHWC", "HWIO", "NHWC")


def reference(x, kernel, *, stride, padding, groups=1):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), ((padding, padding),) * 2, dimension_numbers=LAYOUT, feature_group_count=groups
    )


def reference_transpose(x, kernel, *, stride, padding, groups=1):
    """Applies `lax.conv_transpose` to each group, with the kernel turned by 180 degrees, and crops `padding`."""
    parts = [
        lax.conv_transpose(part, k[::-1, ::-1], (stride, stride), "VALID", dimension_numbers=LAYOUT)
        for part, k in zip(jnp.split(x, groups, -1), jnp.split(kernel, groups, -1), strict=True)
    ]
    out = jnp.concatenate(parts, -1)
    h, w = ((n - 1) * stride + k - padding for n, k in zip(x.shape[1:3], kernel.shape[:2], strict=True))
    return lax.slice_in_dim(lax.slice_in_dim(out, padding, h, axis=1), padding, w, axis=2)


# XLA's simplifier aborts on some second derivatives of XLA's own convolutions, so references are compiled without it.
UNSIMPLIFIED = {"xla_disable_hlo_passes": "algsimp"}


def derivatives(op, **compiler_options):
    """Returns a function for the value, first derivatives, second ones in reverse mode, and forward over reverse."""

    def loss(x, kernel):
        return jnp.sum(jnp.sin(op(x, kernel)))

    def length(x, kernel):
        return sum(jnp.sum(jnp.cos(g)) for g in jax.grad(loss, (0, 1))(x, kernel))

    @functools.partial(jax.jit, compiler_options=compiler_options)
    def all_of_them(x, kernel):
        first = jax.grad(loss, (0, 1))
        forwards = jax.jvp(first, (x, kernel), (jnp.cos(x), jnp.sin(kernel)))[1]
        return op(x, kernel), first(x, kernel), jax.grad(length, (0, 1))(x, kernel), forwards

    return all_of_them


@st.composite
def cases(draw):
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    padding, groups, transpose = draw(st.integers(0, 2)), draw(st.integers(1, 3)), draw(st.booleans())
    stride = draw(st.integers(1, 2))
    missing = [2 * padding + 1 - n if transpose else n - 2 * padding - 1 for n in kernel]
    least = [1 + max(0, -(-n // stride) if transpose else n) for n in missing]  # for a result of one pixel
    size = [n + draw(st.integers(0, 6)) for n in least]
    channels = draw(st.integers(1, 6)), draw(st.integers(1, 6))  # up to four channels have forms of their own
    return kernel, size, channels, {"stride": stride, "padding": padding, "groups": groups}, transpose


@settings(max_examples=12, deadline=None, derandomize=True)
@given(cases())
def test_equals_lax(case):
    kernel_size, size, channels, options, transpose = case
    ours, theirs = (ops.conv_transpose, reference_transpose) if transpose else (ops.conv, reference)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, channels[0] * options["groups"]))
    kernel = rng.normal(size=(*kernel_size, channels[0], channels[1] * options["groups"]))
    wanted = derivatives(functools.partial(theirs, **options), **UNSIMPLIFIED)
    for dtype, tolerance in ((jnp.float64, 1e-12), (jnp.float32, 2e-4)):
        with jax.enable_x64(True):
            arguments = jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)
            expected = wanted(*map(jnp.float64, arguments))
            found = derivatives(functools.partial(ours, **options))(*arguments)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            assert a.dtype == dtype
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1.0, float(np.abs(b).max())))


def arguments(*lead, size=8, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (*lead, 8, size, size, 3))
    return x.astype(dtype), jax.random.normal(keys[1], (*lead, 4, 4, 3, 5)).astype(dtype)


OPTIONS = {"stride": 2, "padding": 1}
PAIRS = {"conv": (ops.conv, reference), "conv_transpose": (ops.conv_transpose, reference_transpose)}
FORMS = {  # implementations of the three maps: for accelerators, and for CPUs
    "forward": (lowerings.forward_xla, lowerings.forward_cpu),
    "input_gradient": (lowerings.input_gradient_xla, lowerings.input_gradient_cpu),
    "kernel_gradient": (lowerings.kernel_gradient_xla, lowerings.kernel_gradient_cpu),
}
WINDOWS = {
    "few channels": (ConvGeometry(2, 1, (9, 8), (4, 3)), (3, 5)),
    "stride 1": (ConvGeometry(1, 1, (8, 7), (3, 3)), (6, 5)),
    "one pixel": (ConvGeometry(1, 0, (8, 7), (1, 1)), (6, 5)),
    "stride 2": (ConvGeometry(2, 1, (14, 12), (4, 4)), (6, 5)),
    "stride 2, odd": (ConvGeometry(2, 1, (13, 15), (4, 3)), (6, 5)),
    "stride 3": (ConvGeometry(3, 2, (17, 20), (4, 5)), (6, 5)),
    "few pixels": (ConvGeometry(2, 1, (5, 4), (4, 4)), (26, 25)),  # fewer, in 6 images, than channels
    "few pixels, stride 1": (ConvGeometry(1, 1, (3, 2), (4, 3)), (25, 26)),
    "few pixels, a kernel below its stride": (ConvGeometry(3, 0, (5, 6), (2, 2)), (25, 30)),
    "a kernel below its stride": (ConvGeometry(3, 0, (17, 20), (2, 2)), (6, 5)),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("geometry", ["few channels", "stride 1", "stride 2", "few pixels"])
def test_a_kernel_with_swapped_channels(name, geometry):
    """All forms take it as it is stored, or return it so; the members that `vmap` makes of it too."""
    which, (i, o) = WINDOWS[geometry]
    assert few_pixels.pays(which, 6, i, o) == geometry.startswith("few pixels")
    left, right = operands_of(name, 3, 6, which, i, o)
    swapped, is_gradient = which._replace(swapped=True), name == "kernel_gradient"
    stored = right if is_gradient else right.swapaxes(3, 4)
    bind = getattr(primitives, name)
    expected = FORMS[name][0](left, right, which)
    expected = expected.swapaxes(3, 4) if is_gradient else expected
    forms = [FORMS[name][0](left, stored, swapped), FORMS[name][1](left, stored, swapped, local=True)]
    forms.append(TPU[name](left, stored, swapped, devices=1))
    for found in (*forms, jax.jit(lambda a, b: bind(a, b, swapped))(left, stored)):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)

    def one(a, b):
        return bind(a[None], b[None], swapped)[0]

    np.testing.assert_allclose(jax.vmap(one)(left, stored), expected, rtol=1e-4, atol=1e-4)
    for axes, pair in (((0, None), (left, stored[0])), ((None, 0), (left[0], stored))):
        own = [one(*(x[m] if dim == 0 else x for x, dim in zip(pair, axes, strict=True))) for m in range(3)]
        np.testing.assert_allclose(jax.vmap(one, axes)(*pair), np.stack(own), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("geometry", WINDOWS)
@pytest.mark.parametrize("name", FORMS)
def test_the_forms_of_all_platforms_agree(name, geometry, groups, local, monkeypatch):
    """The forms for accelerators run here too, and give the same values as the forms for CPUs."""
    monkeypatch.setattr(lowerings, "_CACHE", 0)  # the gradient by the kernel takes few images at a time, as if large
    monkeypatch.setattr(lowerings, "_PIXELS", 100)
    geometry, (i, o) = WINDOWS[geometry]
    rng = np.random.default_rng(0)
    shapes = {"x": (6, *geometry.image, i), "k": (*geometry.kernel, i, o), "y": (6, *geometry.result, o)}
    x, k, y = (jnp.asarray(rng.normal(size=(groups, *shapes[name])), jnp.float32) for name in "xky")
    operands = {"forward": (x, k), "input_gradient": (y, k), "kernel_gradient": (x, y)}[name]
    reference, form = FORMS[name]
    found, expected = form(*operands, geometry, local=local), reference(*operands, geometry)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


TPU = {
    "forward": lowerings.forward_tpu,
    "input_gradient": lowerings.input_gradient_tpu,
    "kernel_gradient": lowerings.kernel_gradient_tpu,
}


def operands_of(name, groups, batch, geometry, i, o):
    rng = np.random.default_rng(0)
    shapes = {"x": (batch, *geometry.image, i), "k": (*geometry.kernel, i, o), "y": (batch, *geometry.result, o)}
    x, k, y = (jnp.asarray(rng.normal(size=(groups, *shapes[name])), jnp.float32) for name in "xky")
    return {"forward": (x, k), "input_gradient": (y, k), "kernel_gradient": (x, y)}[name]


@pytest.mark.parametrize(("groups", "i", "o", "joined"), [(6, 3, 5, 6), (8, 32, 16, 4), (6, 100, 5, 1)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", FORMS)
def test_joined_groups_equal_groups(name, stride, groups, i, o, joined, monkeypatch):
    """On TPUs, where the images have enough pixels on each device; with too few, the groups are left as they are."""
    geometry = ConvGeometry(stride, 1, (8, 7), (3, 4))
    operands = operands_of(name, groups, 4, geometry, i, o)
    counts = []
    make = lowerings._forward_joined
    monkeypatch.setattr(lowerings, "_LEAST_PIXELS", 4 * 8 * 7 // 2)
    monkeypatch.setattr(lowerings, "_forward_joined", lambda *a, count: counts.append(count) or make(*a, count=count))
    expected = FORMS[name][0](*operands, geometry)
    scale = float(jnp.abs(expected).max())
    for devices in (2, 3, 0):  # the third time, the groups are members of a population
        found = TPU[name](*operands, geometry, devices=devices)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * scale)
    assert set(counts) == ({joined} if joined > 1 else set()) and len(counts) <= 2


@pytest.mark.parametrize("name", FORMS)
def test_groups_are_split_over_devices_without_gathering_the_batch(name):
    """On GPUs: there XLA's own partitioner makes every device gather and compute the whole batch."""
    geometry, mesh = ConvGeometry(1, 1, (8, 8), (3, 3)), jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
    form, operands = FORMS[name][0], operands_of(name, 4, 16, geometry, 3, 5)
    by_hand = primitives._split_by_hand(form, mesh.abstract_mesh, sums=name == "kernel_gradient")
    both = name == "kernel_gradient"
    split, whole = NamedSharding(mesh, PartitionSpec(None, "data")), NamedSharding(mesh, PartitionSpec())
    with jax.set_mesh(mesh):
        lowered = jax.jit(
            lambda left, right: by_hand(left, right, geometry),
            in_shardings=(split, split if both else whole),
            out_shardings=whole if both else split,
        ).lower(*operands)
        compiled = lowered.compile()
        np.testing.assert_allclose(compiled(*operands), form(*operands, geometry), rtol=1e-4, atol=1e-3)
    text = compiled.as_text()
    assert not any(word in text for word in ("all-gather", "all-to-all", "collective-permute"))
    assert ("all-reduce" in text) == both


FAST = {  # geometries for Winograd's algorithm: images with and without whole tiles
    "3x3": ConvGeometry(1, 1, (8, 8), (3, 3)),
    "3x3, odd": ConvGeometry(1, 0, (9, 11), (3, 3)),
    "4x4": ConvGeometry(2, 1, (16, 8), (4, 4)),
    "4x4, odd": ConvGeometry(2, 1, (13, 15), (4, 4)),
    "4x4, a row unseen": ConvGeometry(2, 0, (17, 12), (4, 4)),
}


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("geometry", FAST)
@pytest.mark.parametrize("name", FORMS)
def test_winograds_algorithm_is_exact(name, geometry, groups):
    geometry, rng = FAST[geometry], np.random.default_rng(0)
    with jax.enable_x64(True):
        x = jnp.asarray(rng.normal(size=(groups, 3, *geometry.image, 6)))
        k = jnp.asarray(rng.normal(size=(groups, *geometry.kernel, 6, 5)))
        y = jnp.asarray(rng.normal(size=(groups, 3, *geometry.result, 5)))
        operands = {"forward": (x, k), "input_gradient": (y, k), "kernel_gradient": (x, y)}[name]
        found = jax.jit(getattr(winograd, name), static_argnums=2)(*operands, geometry)
        expected = FORMS[name][0](*operands, geometry)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12 * float(np.abs(expected).max()))


@pytest.mark.parametrize("kernel", [(3, 1), (4, 2)])
@pytest.mark.parametrize("name", PAIRS)
def test_winograds_algorithm_at_every_order_of_derivative(name, kernel, monkeypatch):
    """Ours is float32, in the shapes of real networks except for the batch; the reference is float64."""
    taken = []
    monkeypatch.setattr(winograd, "pays", lambda *arguments: taken.append(arguments) or True)
    (size, stride), (op, theirs), rng = kernel, PAIRS[name], np.random.default_rng(0)
    x, k = rng.normal(size=(3, 8, 8, 32)), rng.normal(size=(size, size, 32, 32)) / size
    options = {"stride": stride, "padding": 1}
    found = derivatives(functools.partial(op, **options))(jnp.float32(x), jnp.float32(k))
    with jax.enable_x64(True):
        expected = derivatives(functools.partial(theirs, **options), **UNSIMPLIFIED)(jnp.float64(x), jnp.float64(k))
    assert taken
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(np.abs(b).max()))


def test_where_winograds_algorithm_pays():
    wide, strided = ConvGeometry(1, 1, (16, 16), (3, 3)), ConvGeometry(2, 1, (16, 16), (4, 4))
    assert winograd.pays(wide, 64, 64, 64, jnp.float32) and winograd.pays(strided, 64, 64, 128, jnp.float64)
    assert not winograd.pays(wide, 64, 64, 64, jnp.bfloat16), "rounding"
    assert not winograd.pays(wide, 64, 8, 8, jnp.float32), "transforms cost more than they save"
    assert not winograd.pays(wide._replace(image=(2, 2)), 64, 64, 64, jnp.float32), "tiles are mostly empty"
    assert not winograd.pays(wide._replace(kernel=(5, 5), padding=2), 64, 64, 64, jnp.float32)


def test_winograds_algorithm_is_not_for_kernels_larger_than_their_images():
    """As measured: of the U-Net with 8 images, the layers from 8 pixels down; of CycleGAN's networks with one."""
    down, block = ConvGeometry(2, 1, (8, 8), (4, 4)), ConvGeometry(1, 0, (18, 18), (3, 3))
    assert not winograd.pays(down, 8, 256, 512, jnp.float32) and winograd.pays(down, 64, 256, 512, jnp.float32)
    assert winograd.pays(down._replace(image=(16, 16)), 8, 128, 256, jnp.float32)
    assert not winograd.pays(down._replace(image=(16, 16)), 1, 128, 256, jnp.float32)
    assert winograd.pays(block, 1, 256, 256, jnp.float32)
    [batch] = export.symbolic_shape("b")
    assert winograd.pays(down, batch, 256, 512, jnp.float32), "an exported program is for batches of any size"


@pytest.mark.parametrize("mapped", [(0, None), (None, 0), (0, 0)])
@pytest.mark.parametrize("name", PAIRS)
def test_vmap_equals_a_loop(name, mapped):
    """Members of a population have their own kernels, their own images, or both; gradients are compared too."""
    op = functools.partial(PAIRS[name][0], **OPTIONS)
    x, kernel = arguments(3)
    x, kernel = (a if dim == 0 else a[0] for a, dim in zip((x, kernel), mapped, strict=True))
    one = derivatives(op)
    together = jax.vmap(one, mapped)(x, kernel)
    for member in range(3):
        own = one(*(a[member] if dim == 0 else a for a, dim in zip((x, kernel), mapped, strict=True)))
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(own), strict=True):
            np.testing.assert_allclose(a[member], b, rtol=1e-4, atol=1e-5 * float(jnp.abs(b).max()))


@pytest.mark.parametrize("name", PAIRS)
def test_bfloat16_sums_in_float32(name):
    op, theirs = (functools.partial(f, **OPTIONS) for f in PAIRS[name])
    x, kernel = arguments(dtype=jnp.bfloat16)
    for a, b in zip(
        jax.tree.leaves(derivatives(op)(x, kernel)[:2]),
        jax.tree.leaves(derivatives(theirs)(x.astype(jnp.float32), kernel.astype(jnp.float32))[:2]),
        strict=True,
    ):
        assert a.dtype == jnp.bfloat16
        # The sine is applied to an output that is rounded to 8 bits, which affects the derivatives too.
        np.testing.assert_allclose(a.astype(jnp.float32), b, atol=0.03 * float(jnp.abs(b).max()))


@pytest.mark.parametrize("name", PAIRS)
def test_eight_devices_equal_one(name):
    """In the global view, sharded batches need one all-reduce, of the kernel's gradient; `shard_map` agrees."""
    op = functools.partial(PAIRS[name][0], **OPTIONS)
    x, kernel = arguments()

    def gradients(x, kernel):
        return jax.grad(lambda x, k: jnp.sum(jnp.sin(op(x, k))), (0, 1))(x, kernel)

    expected = jax.jit(gradients)(x, kernel)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    program = jax.jit(gradients, in_shardings=(split, whole), out_shardings=(split, whole))
    mapped = jax.shard_map(
        gradients,
        mesh=mesh,
        in_specs=(PartitionSpec("data"), PartitionSpec()),
        out_specs=(PartitionSpec("data"), PartitionSpec()),
    )
    for found in (program(x, kernel), jax.jit(mapped)(x, kernel)):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    text = program.lower(x, kernel).compile().as_text()
    assert text.count(" all-reduce(") == 1
    assert not any(word in text for word in ("all-gather", "all-to-all", "collective-permute"))


@pytest.mark.parametrize("name", PAIRS)
def test_a_kernel_wider_than_the_image(name):
    op, theirs = PAIRS[name]
    x, kernel = arguments(size=3)
    for options in ({"stride": 2, "padding": 1}, {"stride": 1, "padding": 2}):
        np.testing.assert_allclose(op(x, kernel, **options), theirs(x, kernel, **options), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", PAIRS)
def test_runs_outside_jit(name):
    op, theirs = PAIRS[name]
    x, kernel = arguments()
    np.testing.assert_allclose(op(x, kernel, **OPTIONS), theirs(x, kernel, **OPTIONS), rtol=1e-4, atol=1e-4)


def test_conv_transpose_undoes_the_shape_of_conv():
    x = jnp.ones((1, 28, 28, 3))
    down = ops.conv(x, jnp.ones((4, 4, 3, 8)), stride=2, padding=1)
    assert down.shape == (1, 14, 14, 8)
    assert ops.conv_transpose(down, jnp.ones((4, 4, 8, 3)), stride=2, padding=1).shape == x.shape


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, k: ops.conv(x, k[..., :2, :]), "in / groups"),
        (lambda x, k: ops.conv(x[0], k), r"expected \[b, h, w, in\]"),
        (lambda x, k: ops.conv(x[:, :2], k), "larger than x"),
        (lambda x, k: ops.conv(x, k, stride=0), "stride=0"),
        (lambda x, k: ops.conv_transpose(x[:, :1, :1], k, padding=3), "leaves nothing"),
        (lambda x, k: ops.upfirdn(x[:, :2], (1, 1, 1)), "does not fit"),
        (lambda x, k: ops.upfirdn(x, (1, 1), up=0), "up=0"),
        (lambda x, k: ops.blur_pool(x, (1, -1)), "sum is 0"),
        (lambda x, k: ops.pad(x, 1, "wrap"), "mode='wrap'"),
        (lambda x, k: ops.pad(x, -1), "padding=-1"),
        (lambda x, k: ops.conv(x[:, :3], k, padding=3, mode="reflect"), "padding=3 by reflection"),
    ],
)
def test_refuses_what_does_not_fit(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call(*arguments())


@pytest.mark.parametrize(("size", "padding"), [(1, 0), (2, 0), (3, 0), (3, 1), (3, 2), (4, 1), (5, 2)])
def test_with_resampling_equals_one_after_the_other(size, padding):
    x = jax.random.normal(jax.random.key(0), (2, 6, 7, 3))
    kernel = jax.random.normal(jax.random.key(1), (size, size, 3, 5))
    plain = functools.partial(ops.conv, padding=padding)

    def halved(x, kernel):
        y = plain(x, kernel)
        h, w = y.shape[1] // 2, y.shape[2] // 2
        return y[:, : 2 * h, : 2 * w].reshape(2, h, 2, w, 2, 5).mean((2, 4))

    pairs = {
        ops.doubled_conv: lambda x, kernel: plain(x.repeat(2, 1).repeat(2, 2), kernel),
        ops.conv_halved: halved,
    }
    for op, reference in pairs.items():
        found = derivatives(functools.partial(op, padding=padding))(x, kernel)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(derivatives(reference)(x, kernel)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * float(jnp.abs(b).max()))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(1, 3), st.integers(1, 3), st.lists(st.integers(-3, 3), min_size=1, max_size=5), st.integers(5, 8))
def test_upfirdn_is_scipys(up, down, taps, size):
    """SciPy filters the whole image, with n - 1 zeros on both sides; up - 1 zeros at the end come from upsampling."""
    x = np.random.default_rng(0).normal(size=(2, size, size + 1, 2)).astype(np.float32)
    expected = x
    for axis in (1, 2):
        expected = scipy.signal.upfirdn(np.asarray(taps, np.float32), expected, up, down, axis=axis)
    found = ops.upfirdn(jnp.asarray(x), taps, up=up, down=down, padding=(len(taps) - 1, len(taps) - 1))
    found = found[:, : expected.shape[1], : expected.shape[2]]  # SciPy stops where only zeros follow
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("taps", [(1, 1), (1, 2, 1), (1, 3, 3, 1)])
def test_resampling_keeps_constants_inside_and_sizes(taps):
    x = jnp.full((1, 8, 8, 2), 0.7)
    for out, size in ((ops.blur_pool(x, taps), 4), (ops.upsample(x, taps), 16), (ops.blur_pool(x, taps, factor=1), 8)):
        assert out.shape == (1, size, size, 2)
        np.testing.assert_allclose(out[:, 2:-2, 2:-2], 0.7 if size != 4 else out[:, 2:-2, 2:-2], rtol=1e-6)
        np.testing.assert_allclose(out[:, 1 : size - 1, 1 : size - 1][:, 1:-1, 1:-1], 0.7, rtol=1e-6)


def test_upsample_by_two_ones_repeats_pixels():
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 1))
    np.testing.assert_array_equal(ops.upsample(x, (1, 1)), x.repeat(2, 1).repeat(2, 2))


def test_upsample_is_the_transpose_of_blur_pool():
    """This holds for a symmetric filter, up to a gain of the squared factor."""
    x = jax.random.normal(jax.random.key(0), (1, 4, 4, 2))
    (transposed,) = jax.linear_transpose(ops.blur_pool, jax.ShapeDtypeStruct((1, 8, 8, 2), jnp.float32))(x)
    np.testing.assert_allclose(4 * transposed, ops.upsample(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["reflect", "edge"])
@pytest.mark.parametrize("stride", [1, 2])
def test_padding_with_the_images_own_pixels(mode, stride):
    """`conv` with a mode equals numpy's padding followed by a convolution without padding, and so do its gradients."""
    x, kernel = arguments()
    padded = jnp.asarray(np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode))
    np.testing.assert_array_equal(ops.pad(x, 2, mode), padded)
    ours, slope = jax.value_and_grad(lambda x: jnp.sum(ops.conv(x, kernel, padding=2, stride=stride, mode=mode) ** 2))(
        x
    )
    theirs, wide = jax.value_and_grad(lambda x: jnp.sum(ops.conv(x, kernel, stride=stride) ** 2))(padded)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    # Each pixel gets the gradient of itself and of its copies.
    places = np.pad(np.arange(x.shape[1] * x.shape[2]).reshape(x.shape[1:3]), 2, mode)
    expected = np.zeros((x.shape[0], x.shape[1] * x.shape[2], x.shape[3]))
    for b in range(x.shape[0]):
        np.add.at(expected[b], places.ravel(), np.asarray(wide[b]).reshape(-1, x.shape[3]))
    np.testing.assert_allclose(slope, expected.reshape(x.shape), rtol=1e-4, atol=1e-3)
