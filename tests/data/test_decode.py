"""Images of every mode of Pillow, every depth and every format that is read."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image, TiffImagePlugin

from gan_jax import data
from gan_jax.data import decode
from gan_jax.types import InvalidInputError

# Bytes of one pixel, of all modes that Pillow has.
MODES = {
    "1": 1, "L": 1, "P": 1, "LA": 2, "La": 2, "PA": 2, "RGB": 3, "RGBA": 4, "RGBa": 4, "RGBX": 4, "CMYK": 4, "YCbCr": 3,
    "LAB": 3, "HSV": 3, "I": 4, "F": 4, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2,
}  # fmt: skip
DEEP = {"I", "F", "I;16", "I;16L", "I;16B", "I;16N"}


def test_every_mode_is_tried():
    assert set(MODES) == set(Image.MODES)


def random_picture(mode, size, seed):
    values = np.random.default_rng(seed)
    if mode == "F":
        content = values.random((size[1], size[0]), np.float32).tobytes()
    elif mode == "I":
        content = values.integers(0, 2**20, (size[1], size[0]), np.int32).tobytes()
    else:
        content = values.bytes((-(-size[0] // 8) if mode == "1" else size[0] * MODES[mode]) * size[1])
    picture = Image.frombytes(mode, size, content)
    if mode in ("P", "PA"):
        picture.putpalette(values.bytes(768))
    return picture


@settings(max_examples=150, deadline=None)
@given(
    mode=st.sampled_from(sorted(MODES)),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 2**20),
)
def test_every_mode_is_decided(mode, size, channels, seed):
    """Transparency is blended, deep values are scaled or refused, and all else is Pillow's own conversion to RGB."""
    picture = random_picture(mode, size, seed)
    if mode in ("I", "F"):
        with pytest.raises(InvalidInputError, match=r"x has values from .* value_range="):
            decode.Decoder(channels).pixels(picture, "x")
    ends = {"I": (0, 2**20 - 1), "F": (0.0, 1.0)}.get(mode)
    made = decode.Decoder(channels, "#204060", ends).pixels(picture, "x")
    assert made.shape == (size[1], size[0], channels) and made.dtype == np.uint8
    if mode in DEEP:
        low, high = ends or (0, 2**16 - 1)
        scaled = np.minimum(np.floor((np.asarray(picture, np.float64) - low) / (high - low) * 256), 255)
        expected = np.broadcast_to(scaled[..., None], made.shape)
    else:
        clear = picture.convert("LA") if mode == "La" else picture
        rgba = np.asarray(clear.convert("RGBA") if clear.has_transparency_data else clear.convert("RGB"), np.float64)
        alpha = rgba[..., 3:] / 255 if rgba.shape[-1] == 4 else np.ones((*rgba.shape[:2], 1))
        rgb = alpha * rgba[..., :3] + (1 - alpha) * np.array([0x20, 0x40, 0x60])
        expected = rgb if channels == 3 else (rgb @ np.array([0.299, 0.587, 0.114]))[..., None]
    assert np.abs(made - expected).max() <= (0 if mode in DEEP else 1.5)


def saved(picture, **options):
    buffer = io.BytesIO()
    picture.save(buffer, **options)
    return io.BytesIO(buffer.getvalue())


def decoded(file, name="x.png", **options):
    with decode.open_picture(file, name) as picture:
        return decode.Decoder(**({"channels": 3} | options)).pixels(picture, name)


@pytest.mark.parametrize(
    "options",
    [{"format": "PNG"}, {"format": "WEBP", "lossless": True, "exact": True}, {"format": "TIFF"}, {"format": "TGA"}],
    ids=lambda options: options["format"],
)
@pytest.mark.parametrize("background", ["white", "#00ff0000"])
def test_hidden_colours_are_not_seen(options, background):
    picture = Image.new("RGBA", (4, 4), (255, 0, 0, 0))  # red, and wholly transparent
    picture.paste((0, 0, 255, 255), (0, 0, 2, 4))
    image = decoded(saved(picture, **options), f"x.{options['format'].lower()}", background=background)
    ground = {"white": (255, 255, 255), "#00ff0000": (0, 255, 0)}[background]
    assert (image[:, :2] == (0, 0, 255)).all() and (image[:, 2:] == ground).all()


def test_a_transparent_colour_is_not_seen():
    """Of palettes, of grey and of RGB, and of grey with 16 bits."""
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    deep = Image.fromarray(np.array([[40_000, 0]], np.uint16))
    for picture, transparency, kept in (
        (palette, 0, (0, 0, 255)),
        (palette, bytes([0, 255]), (0, 0, 255)),
        (Image.fromarray(np.array([[9, 200]], np.uint8)), 9, (200, 200, 200)),
        (Image.fromarray(np.array([[[9, 9, 8], [1, 2, 3]]], np.uint8)), (9, 9, 8), (1, 2, 3)),
        (deep, 40_000, (0, 0, 0)),
    ):
        image = decoded(saved(picture, format="PNG", transparency=transparency))
        assert image[0].tolist() == [[255, 255, 255], list(kept)], picture.mode


def png16(values, *extra):
    """Makes a PNG with 16 bits for each colour, which Pillow cannot write."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    kinds = {2: 4, 3: 2, 4: 6}
    header = struct.pack(">IIBBBBB", width, height, 16, kinds[channels], 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(x)) + name + x + struct.pack(">I", zlib.crc32(name + x)) for name, x in chunks]
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def test_colours_of_16_bits(tmp_path):
    """Pillow reads their upper 8 bits: those of 12 bits in 16 would be black, and no range could be chosen."""
    bright = np.arange(16 * 16 * 3, dtype=np.uint16).reshape(16, 16, 3) * 85
    image = decoded(png16(bright))
    np.testing.assert_array_equal(image, bright >> 8)
    with pytest.raises(InvalidInputError, match=r"colours of 16 bits.*leave value_range out"):
        decoded(png16(bright), value_range=(0, 4095))
    hidden = bright[0, 1].astype(">u2").tobytes()
    image = decoded(png16(bright, (b"tRNS", hidden)))
    assert image[0, 1].tolist() == [255, 255, 255] and image[8, 8].tolist() == (bright[8, 8] >> 8).tolist()
    (tmp_path / "0.png").write_bytes(png16(bright // 16).getvalue())
    with pytest.raises(InvalidInputError, match=r"colours of 16 bits use less than a quarter.*convert"):
        data.image_folder(str(tmp_path), image_size=16, labels=False)
    (tmp_path / "1.png").write_bytes(png16(bright).getvalue())
    source = data.image_folder(str(tmp_path), image_size=16, labels=False)
    assert "2 of more than 8 bits, scaled to 8" in source.summary()


def tiff(values, **tags):
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        info[int(tag[1:])] = value
    return saved(Image.fromarray(values), format="TIFF", tiffinfo=info)


def test_depths():
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[None]
    grey = np.arange(256)[None]
    np.testing.assert_allclose(decoded(tiff(ramp), channels=1, value_range=(0, 1))[..., 0], grey, atol=1)
    twelve = (grey * 16).astype(np.uint16)
    np.testing.assert_array_equal(decoded(tiff(twelve), channels=1, value_range=(0, 4095))[..., 0], grey)
    sixteen = (grey * 256).astype(np.uint16)
    np.testing.assert_array_equal(decoded(tiff(sixteen, t262=0), channels=1)[..., 0], 255 - grey)  # white is zero
    window = decoded(tiff(ramp * 10 - 5), channels=1, value_range=(-1, 1))  # beyond it: black or white
    assert window.min() == 0 and window.max() == 255 and (np.diff(window[0, :, 0].astype(int)) >= 0).all()
    pgm = b"P5 4 1 1023 " + np.array([0, 256, 512, 1023], ">u2").tobytes()
    np.testing.assert_allclose(decoded(io.BytesIO(pgm), "x.pgm", channels=1)[0, :, 0], [0, 64, 128, 255], atol=1)
    pgm = b"P5 4 1 4095 " + np.array([0, 1024, 2048, 4095], ">u2").tobytes()  # names its range itself
    image = decoded(io.BytesIO(pgm), "x.pgm", channels=1, value_range=(0, 4095))
    np.testing.assert_allclose(image[0, :, 0], [0, 64, 128, 255], atol=1)
    wide = (grey.astype(np.int64) << 24).astype(np.uint32)
    signed, unsigned = (struct.pack("<HHIHH", 339, 3, 1, kind, 0) for kind in (2, 1))  # the tag of the sample format
    content = tiff(wide.view(np.int32)).getvalue()
    assert content.count(signed) == 1
    image = decoded(io.BytesIO(content.replace(signed, unsigned)), channels=1, value_range=(0, 2**32))
    np.testing.assert_array_equal(image[..., 0], grey)
    with pytest.raises(InvalidInputError, match=r"corrupt.*not finite"):
        decoded(tiff(ramp * np.nan), value_range=(0, 1))
    with pytest.raises(InvalidInputError, match="signed values of 8 bits"):
        decoded(tiff(grey.astype(np.uint8), t339=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"background": "nocolour"}, "background='nocolour': expected the name of a colour"),
        ({"background": 255}, "background=255"),
        ({"value_range": (1, 1)}, r"value_range=\(1, 1\): expected two different numbers"),
        ({"value_range": (0, float("inf"))}, "value_range="),
        ({"value_range": 255}, "value_range=255: expected two"),
        ({"value_range": ("0", "1")}, "value_range="),
        ({"value_range": (0, 1, 2)}, "value_range="),
        ({"channels": 4}, "channels=4"),
    ],
)
def test_options_that_are_refused(options, message):
    with pytest.raises(InvalidInputError, match=message):
        decode.Decoder(**({"channels": 3} | options))


def folder_of(root, images):
    for index, values in enumerate(images):
        (root / f"{index}.tif").write_bytes(tiff(values).getvalue())
    return str(root)


def test_a_folder_whose_values_are_not_those_of_its_type(tmp_path):
    dark = np.full((8, 8), 100, np.uint16)
    path = folder_of(tmp_path, [dark, dark + 3000])
    with pytest.raises(InvalidInputError, match=r"up to 3100.*12 bits, set value_range=\(0, 4095\)"):
        data.image_folder(path, image_size=8, labels=False)
    source = data.image_folder(path, image_size=8, labels=False, channels=1, value_range=(0, 4095))
    assert source.arrays["real"].max() == 3100 // 16 and "2 of more than 8 bits, scaled to 8" in source.summary()
    folder_of(tmp_path, [dark, dark + 60_000])  # one bright image is enough: the dark one is meant to be dark
    assert data.image_folder(path, image_size=8, labels=False).arrays["real"].max() == 60_100 // 256
    for index, values in enumerate([dark, dark + 3000]):
        (tmp_path / f"{index}.tif").write_bytes(tiff(values, t262=0).getvalue())  # white is zero
    with pytest.raises(InvalidInputError, match=r"nearly white.*value_range=\(4095, 0\).*value_range=\(65535, 0\)"):
        data.image_folder(path, image_size=8, labels=False)
    folder_of(tmp_path, [np.full((8, 8), 7.0, np.float32)] * 2)
    with pytest.raises(InvalidInputError, match=r"value_range=\(BLACK, WHITE\)"):
        data.image_folder(path, image_size=8, labels=False)
    folder_of(tmp_path, [np.full((8, 8), np.nan, np.float32)] * 2)
    with pytest.raises(InvalidInputError, match="not finite"):
        data.image_folder(path, image_size=8, labels=False)
    folder_of(tmp_path, [np.zeros((8, 8), np.float32), np.full((8, 8), 2.5, np.float32)])
    with pytest.raises(InvalidInputError, match=r"values from 0 to 2.5 .*value_range=\(0, 2.5\)"):
        data.image_folder(path, image_size=8, labels=False)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) show\n%%EOF\n"


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tga", "x.webp"])
def test_postscript_is_never_interpreted(name, tmp_path, monkeypatch):
    def started(*arguments, **options):
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    (tmp_path / name).write_bytes(POSTSCRIPT)
    Image.open(tmp_path / name).close()  # Pillow alone would take it
    with pytest.raises(InvalidInputError, match=f"{name} is not an image that can be opened"):
        data.image_folder(str(tmp_path), image_size=8, labels=False)


def test_formats_are_those_that_pillow_decodes_itself():
    Image.init()
    expected = {".jfif", ".avif", ".pgm", ".tga", ".jp2", ".png", ".jpeg", ".tif", ".gif", ".webp", ".mpo"}
    assert expected & {*Image.registered_extensions(), ".mpo"} <= set(decode.endings())  # old Pillows have no AVIF
    assert not {"EPS", "WMF", "MPEG", "HDF5", "GRIB", "BUFR", "PDF"} & set(decode.endings().values())
    picture = Image.fromarray(np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3))
    for ending, name in decode.endings().items():
        if name in Image.SAVE:
            assert decoded(saved(picture, format=name), f"x{ending}").shape[-1] == 3


def test_files_are_read_by_content_not_by_ending():
    picture = Image.new("RGB", (4, 4), (10, 20, 30))
    assert decoded(saved(picture, format="BMP"), "x.jpg")[0, 0].tolist() == [10, 20, 30]
    with pytest.raises(InvalidInputError, match="is not an image"):
        decoded(saved(picture, format="TGA"), "x.jpg")  # nearly any bytes would pass for a TGA
