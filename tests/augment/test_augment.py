"""The effects of the augmentations, their probabilities, and that p = 0 changes not a single bit."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import augment
from gan_jax.augment.geometry import BLIT, GEOMETRY, SYM6, _draw_blit, _draw_geometry, resample
from gan_jax.augment.pipeline import OPERATIONS, SYM2
from gan_jax.types import InvalidInputError

KEY = jax.random.key(0)
FUNCTIONS = {
    name: getattr(augment, name)
    for name in ("blit", "color", "corrupt", "cutout", "filter_bands", "geometry", "transform_color", "translation")
} | {"diff_augment": augment.diff_augment(), "ada_pipeline": augment.ada_pipeline(augment.OPERATIONS)}
FUNCTIONS = {name: jax.jit(function) for name, function in FUNCTIONS.items()}
EACH = pytest.mark.parametrize("name", sorted(FUNCTIONS))


def pictures(n=4, size=16, channels=3):
    """Returns images that are smooth in space: sums of a few waves."""
    grid = jnp.linspace(0, 2 * math.pi, size)
    phase = jax.random.uniform(KEY, (n, 1, 1, channels), maxval=6.0)
    return 0.5 * jnp.sin(grid[:, None, None] + phase) + 0.4 * jnp.cos(grid[None, :, None] - phase)


@EACH
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_identity_at_p_0(name, dtype):
    images = pictures().astype(dtype)
    np.testing.assert_array_equal(FUNCTIONS[name](KEY, images, 0.0), images)


@EACH
def test_p_moves_without_a_compile_and_decides_how_many_change(name):
    traces = []

    @jax.jit
    def run(key, images, p):
        traces.append(p)
        return FUNCTIONS[name](key, images, p)

    images = pictures(200, 8)
    changed = [
        float(jnp.mean(jnp.any(run(KEY, images, jnp.float32(p)) != images, axis=(1, 2, 3)))) for p in (0.0, 0.2, 1.0)
    ]
    assert len(traces) == 1 and changed[0] == 0.0 and 0.05 < changed[1] < changed[2] and changed[2] > 0.6, changed


@EACH
def test_examples_differ_and_keys_matter(name):
    images = jnp.broadcast_to(pictures(1), (8, 16, 16, 3))
    one, two = FUNCTIONS[name](KEY, images, 1.0), FUNCTIONS[name](jax.random.key(1), images, 1.0)
    assert len(np.unique(np.asarray(one).reshape(8, -1), axis=0)) > 4
    assert not np.array_equal(one, two)


@EACH
def test_gradients_flow_to_every_picture(name):
    images = pictures()
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(FUNCTIONS[name](KEY, x, 1.0) ** 2)))(images)
    assert bool(jnp.all(jnp.isfinite(gradient))) and bool(jnp.all(jnp.any(gradient != 0, axis=(1, 2, 3))))


def test_there_are_eighteen_operations():
    assert len(augment.OPERATIONS) == len(set(augment.OPERATIONS)) == 18


@pytest.mark.parametrize("shape", [(12, 12), (9, 14), (1, 5)])
def test_blits_take_whole_pixels(shape):
    images = jnp.arange(math.prod(shape), dtype=jnp.float32).reshape(1, *shape, 1)
    many = jnp.broadcast_to(images, (64, *shape, 1))
    out = np.asarray(jax.jit(augment.blit)(KEY, many, 1.0))
    assert set(np.unique(out)) <= set(np.arange(math.prod(shape)))
    turn = jax.jit(functools.partial(augment.blit, operations=["x_flip", "rotate_90"]))
    turned = np.unique(np.asarray(turn(KEY, many, 1.0)), axis=0)
    picture = np.asarray(images[0])
    turns = range(4) if shape[0] == shape[1] else (0, 2)
    expected = np.unique([np.rot90(p, k) for p in (picture, picture[:, ::-1]) for k in turns], axis=0)
    np.testing.assert_array_equal(turned, expected)


def test_integer_translation_reflects():
    row = jnp.arange(16.0).reshape(1, 1, 16, 1)
    out = np.asarray(augment.blit(KEY, jnp.broadcast_to(row, (200, 1, 16, 1)), 1.0, operations=["integer_translation"]))
    found = np.unique(out[:, 0, :, 0], axis=0)
    padded = np.pad(np.arange(16), 2, mode="reflect")  # moves by up to 2 pixels, an eighth of 16
    np.testing.assert_array_equal(found, np.unique([padded[i : i + 16] for i in range(5)], axis=0))


@pytest.mark.parametrize("taps", [SYM2, SYM6])
def test_wavelet_filters_are_orthonormal_and_have_their_vanishing_moments(taps):
    n = len(taps)
    for shift in range(0, n, 2):
        np.testing.assert_allclose(taps[shift:] @ taps[: n - shift], 1.0 if shift == 0 else 0.0, atol=1e-10)
    high = taps[::-1] * (-1) ** np.arange(n)
    for moment in range(n // 2):
        np.testing.assert_allclose(high @ np.arange(n, dtype=float) ** moment, 0.0, atol=1e-4 * n**moment)


@pytest.mark.parametrize("shape", [(12, 12), (9, 16)])
def test_resampling_by_nothing_and_by_whole_pixels_is_exact_inside(shape):
    images = jax.random.normal(KEY, (2, *shape, 3))
    identity = jnp.broadcast_to(jnp.eye(2), (2, 2, 2))
    still = resample(images, identity, jnp.zeros((2, 2)))
    np.testing.assert_allclose(still, images, atol=1e-5)  # also at the borders
    moved = resample(images, identity, jnp.array([[-1.0, 1.0]] * 2))
    np.testing.assert_allclose(moved[:, 4:-3, 3:-4], images[:, 3:-4, 4:-3], atol=1e-5)


def papers_code(image, inverse, origin):
    """The steps of the authors' code for one image in float64: pad, upsample, interpolate, downsample.

    Only the filter's centre is its centre of mass, as the docstring says.
    """
    taps, pad = SYM6 / SYM6.sum(), 4 * max(image.shape)
    delay = np.arange(12) @ taps
    fine = np.pad(image, pad, mode="reflect")
    for axis in (0, 1):
        zeros = np.zeros([2 * n if i == axis else n for i, n in enumerate(fine.shape)])
        zeros[(slice(None),) * axis + (slice(None, None, 2),)] = fine
        fine = np.apply_along_axis(np.convolve, axis, zeros, 2 * taps)
    size = np.array(image.shape)
    grid = np.stack(np.meshgrid(*((np.arange(2 * n + 10) - delay) / 2 - (n - 1) / 2 for n in size), indexing="ij"), -1)
    source = 2 * (grid @ inverse.T + origin + (size - 1) / 2 + pad) + delay
    low = np.floor(source).astype(int)
    part = source - low
    total = sum(
        fine[low[..., 0] + i, low[..., 1] + j] * abs(1 - i - part[..., 0]) * abs(1 - j - part[..., 1])
        for i in (0, 1)
        for j in (0, 1)
    )
    for axis in (0, 1):
        total = np.apply_along_axis(lambda x: np.correlate(x, taps, "valid")[::2], axis, total)
    return total


@pytest.mark.parametrize("shape", [(12, 12), (9, 16), (2, 5)])
def test_moved_images_are_resampled_once_as_by_the_papers_code(shape):
    """Flips, turns and whole pixels, then scales, turns and moves: one map of the image and its reflections."""
    images = jnp.broadcast_to(jax.random.normal(KEY, (1, *shape, 1)), (12, *shape, 1))
    operations = (*BLIT, *GEOMETRY)
    stages = jax.random.split(KEY, 5)
    out = augment.ada_pipeline(operations)(KEY, images, 0.7)
    turn, shift = _draw_blit(stages[0], (12, *shape), 0.7, operations)
    active, inverse, origin = _draw_geometry(stages[1], (12, *shape), 0.7, operations)
    assert bool(jnp.any(active & jnp.any(shift != 0, axis=1) & jnp.any(turn != jnp.eye(2), axis=(1, 2)))) or 2 in shape
    for i, image in enumerate(np.asarray(out[..., 0], np.float64)):
        t, m = np.asarray(turn[i], np.float64), np.asarray(inverse[i], np.float64)
        point = t @ (np.asarray(origin[i], np.float64) - np.asarray(shift[i]))
        expected = papers_code(np.asarray(images[i, ..., 0], np.float64), t @ m, point)
        np.testing.assert_allclose(image, expected, atol=3e-4, err_msg=str(i))


def test_scaling_down_an_image_moved_by_whole_pixels_shows_what_the_move_had_cut():
    """A column that a move puts outside comes back in, where a cropped image would show its reflection."""
    image = jnp.zeros((1, 32, 32, 1)).at[:, :, 0].set(1.0)
    shift = jnp.array([[0.0, -2.0]])
    half = 2.0 * jnp.eye(2)[None]
    out = resample(image, half, -shift)[0, 16, :, 0]
    columns = 2.0 * (np.arange(32) - 15.5) + 15.5 + 2.0  # of the image, each result
    edges = np.min(np.abs((columns[:, None] + 62) % 62 - [0, 62]), axis=1) < 1
    assert float(out[~edges].max()) < 0.2 < float(out[edges].min())


def test_resampling_a_known_picture():
    """A plane wave, rotated by 30 degrees and enlarged by a factor of 1.25, against the formula."""
    size, angle, scale = 48, math.pi / 6, 1.25
    grid = np.arange(size) - (size - 1) / 2
    y, x = np.meshgrid(grid, grid, indexing="ij")
    wave = lambda y, x: np.sin(0.35 * x + 0.2 * y)  # noqa: E731
    inverse = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / scale
    source_y, source_x = (inverse[i, 0] * y + inverse[i, 1] * x for i in (0, 1))
    image = jnp.asarray(wave(y, x), jnp.float32)[None, :, :, None]
    out = resample(image, jnp.asarray(inverse, jnp.float32)[None], jnp.zeros((1, 2)))[0, :, :, 0]
    inside = (np.abs(source_y) < 16) & (np.abs(source_x) < 16) & (np.abs(y) < 18) & (np.abs(x) < 18)
    assert inside.sum() > 300
    np.testing.assert_allclose(np.asarray(out)[inside], wave(source_y, source_x)[inside], atol=0.02)


def test_scales_and_shifts_have_the_papers_spread():
    """Measured on a linear ramp along x: its slope becomes 1 / s, and its value at the centre -move / s."""
    size, n = 32, 400
    ramp = jnp.broadcast_to((jnp.arange(size) - (size - 1) / 2)[None, None, :, None], (n, size, size, 1))

    def middle(operation):
        out = augment.geometry(KEY, ramp, 1.0, operations=[operation])[:, 12:20, 12:20, 0]
        return np.diff(out, axis=2).mean((1, 2)), out.mean((1, 2))

    slope, _ = middle("isotropic_scaling")
    assert np.log2(slope).std() == pytest.approx(0.2, rel=0.15)
    slope, _ = middle("rotation")
    assert np.mean(slope < 0) == pytest.approx(0.5, abs=0.1)  # rotated by more than a right angle
    _, center = middle("fractional_translation")
    assert np.median(np.abs(center)) == pytest.approx(0.6745 * size / 8, rel=0.15)


def test_band_filters_add_up_to_the_identity_and_split_frequencies():
    filters = augment.band_filters()
    total = np.zeros(43)
    response = []
    frequencies = np.linspace(0, np.pi, 65)
    for taps in filters:
        half = len(taps) // 2
        total[21 - half : 22 + half] += taps
        np.testing.assert_allclose(taps, taps[::-1], atol=1e-12)
        response.append([np.sum(taps * np.cos(w * np.arange(-half, half + 1))) for w in frequencies])
    np.testing.assert_allclose(total, np.eye(43)[21], atol=1e-12)
    response = np.array(response)
    assert np.all(response > -1e-9) and np.all(response < 1 + 1e-9)
    strongest = response.argmax(0)
    edges = [frequencies[np.argmax(strongest == band)] / np.pi for band in (1, 2, 3)]
    np.testing.assert_allclose(edges, [0.125, 0.25, 0.5], atol=0.03)


def test_filters_keep_the_expected_power():
    """For an image in the lowest band alone, the gain t / sqrt((10 t^2 + 3) / 13) has an upper bound."""
    images = jnp.ones((300, 16, 16, 1))  # entirely in the lowest band
    gain = augment.filter_bands(KEY, images, 1.0, operations=["band_1"])[:, 8, 8, 0] ** 0.5  # filters rows and columns
    t = np.exp2(np.linspace(-4, 4, 100))
    bound = (t / np.sqrt((10 * t**2 + 3) / 13)).max()
    assert float(gain.max()) <= bound + 1e-4 and float(gain.min()) > 0


def test_colours():
    images = pictures(200, 4)
    mean = images.mean(-1)
    bright = augment.transform_color(KEY, images, 1.0, operations=["brightness"]) - images
    assert float(jnp.std(bright, axis=(1, 2, 3)).max()) < 1e-5
    assert float(jnp.std(bright[:, 0, 0, 0])) == pytest.approx(0.2, rel=0.2)
    contrast = augment.transform_color(KEY, images, 1.0, operations=["contrast"]) / images
    assert float(jnp.std(jnp.log2(contrast[:, 0, 0, 0]))) == pytest.approx(0.5, rel=0.2)
    hue = augment.transform_color(KEY, images, 1.0, operations=["hue_rotation"])
    np.testing.assert_allclose(hue.mean(-1), mean, atol=1e-5)
    np.testing.assert_allclose(jnp.sum(hue**2, -1), jnp.sum(images**2, -1), rtol=1e-4, atol=1e-5)
    flipped = augment.transform_color(KEY, images, 1.0, operations=["luma_flip"])
    which = np.asarray(jnp.all(jnp.abs(flipped.mean(-1) + mean) < 1e-5, axis=(1, 2)))
    assert 0.35 < which.mean() < 0.65
    np.testing.assert_allclose(flipped - flipped.mean(-1, keepdims=True), images - mean[..., None], atol=1e-5)
    saturated = augment.transform_color(KEY, images, 1.0, operations=["saturation"])
    np.testing.assert_allclose(saturated.mean(-1), mean, atol=1e-5)


def test_grey_images_are_what_three_equal_channels_would_give_on_average():
    grey = pictures(16, 4, 1)
    one = augment.transform_color(KEY, grey, 1.0)
    three = augment.transform_color(KEY, jnp.broadcast_to(grey, (16, 4, 4, 3)), 1.0)
    np.testing.assert_allclose(one[..., 0], three.mean(-1), atol=1e-5)


def spread(operation, measure, n=2000, **options):
    """Applies an operation to `n` copies of one image; returns the copies, and a measurement of each changed one."""
    images = jnp.broadcast_to(pictures(1, **options), (n, *pictures(1, **options).shape[1:]))
    return images, np.asarray(measure(augment.ada_pipeline([operation])(KEY, images, 1.0), images))


def test_amounts_have_the_papers_spread():
    def across(x):
        return jnp.sqrt(jnp.sum((x - x.mean(-1, keepdims=True)) ** 2, axis=(1, 2, 3)))

    _, saturation = spread("saturation", lambda x, old: jnp.log2(across(x) / across(old)), size=4)
    assert saturation.std() == pytest.approx(1.0, rel=0.1)
    _, hue = spread("hue_rotation", lambda x, old: jnp.sum((x - x.mean(-1, keepdims=True)) * old, (1, 2, 3)), size=4)
    assert np.mean(hue < 0) == pytest.approx(0.5, abs=0.05)  # rotated by more than a right angle
    _, noise = spread("noise", lambda x, old: jnp.std(x - old, axis=(1, 2, 3)), size=16)
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(0.1, rel=0.1)
    waves = jnp.broadcast_to(jnp.cos(jnp.pi * jnp.arange(16.0))[:, None, None], (2000, 16, 16, 1))  # the highest band
    out = augment.filter_bands(KEY, waves, 1.0, operations=["band_4"])[:, 8, 8, 0]  # along x it is in the lowest
    t = np.exp2(np.random.default_rng(0).normal(size=100_000))
    expected = t / ((12 + t**2) / 13)
    np.testing.assert_allclose(np.quantile(out, [0.1, 0.5, 0.9]), np.quantile(expected, [0.1, 0.5, 0.9]), rtol=0.1)


def test_stretching_keeps_the_area_and_scaling_does_not():
    size, n = 32, 300
    offsets = jnp.arange(size) - (size - 1) / 2
    plane = jnp.stack(jnp.meshgrid(offsets, offsets, indexing="ij"), -1)  # each pixel holds its position
    images = jnp.broadcast_to(plane, (n, size, size, 2))

    def determinants(operation):
        middle = np.asarray(augment.geometry(KEY, images, 1.0, operations=[operation])[:, 14:18, 14:18])
        down, right = np.diff(middle, axis=1).mean((1, 2)), np.diff(middle, axis=2).mean((1, 2))
        return down[:, 0] * right[:, 1] - down[:, 1] * right[:, 0], right[:, 1]

    areas, stretch = determinants("anisotropic_scaling")
    np.testing.assert_allclose(areas, 1.0, rtol=0.02)
    assert np.log2(stretch).std() == pytest.approx(0.2, rel=0.15)
    areas, _ = determinants("isotropic_scaling")
    assert np.log2(areas).std() == pytest.approx(0.4, rel=0.15)
    areas, _ = determinants("rotation")
    np.testing.assert_allclose(areas, 1.0, rtol=0.02)


SHARES = {  # share of the drawn images that change: these operations may draw the identity
    "x_flip": 1 / 2, "rotate_90": 3 / 4, "integer_translation": 3 / 4, "luma_flip": 1 / 2
}  # fmt: skip


@pytest.mark.parametrize("name", augment.OPERATIONS)
def test_each_operation_is_drawn_with_probability_p(name):
    images = jnp.broadcast_to(jax.random.normal(KEY, (1, 8, 8, 3)), (3000, 8, 8, 3))
    p = 0.3
    changed = jnp.any(jax.jit(augment.ada_pipeline([name]))(KEY, images, p) != images, axis=(1, 2, 3))
    assert float(jnp.mean(changed)) == pytest.approx(p * SHARES.get(name, 1.0), abs=0.03)


def test_diffaugs_colour_by_hand():
    """The draws are recovered from an image of two colours: u1 - 1/2, 2 u2 and u3 + 1/2 are uniform."""
    picture = jnp.array([[[0.5, -0.5, 0.0]], [[-0.1, 0.3, 0.1]]])  # channel means 0 and 0.1, image mean 0.05
    out = np.asarray(augment.color(KEY, jnp.broadcast_to(picture, (4000, *picture.shape)), 1.0))
    pixel_means = out.mean(-1)[:, :, 0]
    brightness = pixel_means.mean(1) - 0.05
    contrast = (pixel_means[:, 1] - pixel_means[:, 0]) / 0.1
    saturation = (out[:, 0, 0, 0] - out[:, 0, 0, 1]) / contrast
    for values, low, high in ((brightness, -0.5, 0.5), (saturation, 0.0, 2.0), (contrast, 0.5, 1.5)):
        assert values.min() >= low - 1e-4 and values.max() <= high + 1e-4
        np.testing.assert_allclose(
            np.quantile(values, [0.25, 0.75]), low + (high - low) * np.array([0.25, 0.75]), atol=0.06
        )


def test_cutout_cuts_half_of_each_side():
    cut = augment.cutout(KEY, jnp.ones((300, 16, 16, 1)), 1.0)[..., 0] == 0
    sides = np.asarray(cut.any(2).sum(1))
    assert sides.max() == 8 and sides.min() >= 4  # fewer where the square extends beyond the image


def test_translation_moves_at_most_an_eighth_and_fills_with_zero():
    images = jnp.ones((300, 16, 16, 1))
    empty = np.asarray(augment.translation(KEY, images, 1.0)[..., 0] == 0)
    rows = empty.all(2).sum(1)
    assert set(rows) == {0, 1, 2}


@pytest.mark.parametrize("function", [augment.translation, augment.cutout])
def test_moves_and_cuts_are_drawn_apart_for_height_and_width(function):
    """The centre of what remains of a white image moves up as often as down, whether it moves left or right."""
    left = np.asarray(function(KEY, jnp.ones((1000, 16, 16, 1)), 1.0)[..., 0])
    down, right = (left.mean(axis) @ (np.arange(16) - 7.5) for axis in (2, 1))
    assert down.std() > 0.1 and right.std() > 0.1
    assert abs(np.corrcoef(down, right)[0, 1]) < 0.15  # its deviation is 0.03 for 1,000 independent draws


def test_the_controller_finds_its_target():
    """For a discriminator whose mean sign is 1 - p, p settles where the mean sign is 0.6."""
    state, batch = augment.init_ada(), 64

    @jax.jit
    def step(state, key):
        reals = jnp.where(jax.random.uniform(key, (batch,)) < 1 - 0.5 * state.p, 1.0, -1.0)  # mean sign 1 - p
        return augment.control(augment.observe(state, reals), batch, target=0.6, speed_images=10_000)

    ps = []
    for i in range(600):
        state = step(state, jax.random.fold_in(KEY, i))
        ps.append(float(state.p))
    assert np.mean(ps[-200:]) == pytest.approx(0.4, abs=0.05)
    np.testing.assert_allclose(ps[9], 10 * 64 / 10_000, rtol=1e-5)


def test_the_controller_stays_in_range_and_needs_observations():
    assert float(augment.control(augment.init_ada(0.3), 1e9).p) == pytest.approx(0.3)
    high = augment.control(augment.observe(augment.init_ada(0.9), jnp.ones(4)), 1e9)
    low = augment.control(augment.observe(high, -jnp.ones(4)), 1e9)
    assert (float(high.p), float(high.seen), float(low.p)) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: augment.diff_augment(["colour"]), "policies=\\['colour'\\]: expected some of color"),
        (lambda: augment.diff_augment([]), "policies=\\[\\]"),
        (lambda: augment.ada_pipeline(["rotate"]), "operations=\\['rotate'\\]: expected some of x_flip"),
        (lambda: augment.ada_pipeline([]), "at least one"),
        (lambda: augment.blit(KEY, pictures(), 0.5, operations=["rotation"]), "operations=\\['rotation'\\]"),
        (lambda: augment.transform_color(KEY, pictures(channels=2), 0.5), "images of 2 channels"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()


def test_operations_have_probabilities_of_their_own():
    """A factor multiplies p: 0 means never, 2 at p = 1/2 always; a factor of 1 changes no draw."""
    x = jax.random.normal(KEY, (64, 8, 8, 3))
    names = [name for name in OPERATIONS if not name.startswith("band")]
    never = augment.ada_pipeline(dict.fromkeys(names, 0.0))
    np.testing.assert_array_equal(never(KEY, x, 1.0), x)
    plain, ones = augment.ada_pipeline(names), augment.ada_pipeline(dict.fromkeys(names, 1.0))
    np.testing.assert_array_equal(plain(KEY, x, 0.5), ones(KEY, x, 0.5))
    hue, half = augment.ada_pipeline({"hue_rotation": 2.0}), augment.ada_pipeline({"hue_rotation": 0.5})
    changed = [float(jnp.mean(jnp.any(f(KEY, x, 0.5) != x, axis=(1, 2, 3)))) for f in (hue, half)]
    assert changed[0] == 1.0 and 0.1 < changed[1] < 0.45
