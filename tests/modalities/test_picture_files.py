"""Every kind of picture file: one documented conversion, or one clear error that names the mend."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from vcinr.modalities.files.picture import LOSSLESS_SUFFIXES, ImageError, read_image, write_image


def random(shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def saved(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return io.BytesIO(file.getvalue())


def png(width, height, bits, colour_type, raw=b""):
    """A PNG file by hand: for headers that Pillow would not write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + body)


def assert_grey(read, grey):
    np.testing.assert_array_equal(read, np.repeat(grey[..., None], 3, axis=-1))


def test_rgb_is_read_as_it_is_from_path_and_file(tmp_path):
    colour = random((4, 5, 3))
    Image.fromarray(colour).save(tmp_path / "a.png")
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), saved(Image.fromarray(colour))):
        read = read_image(source)
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, colour)


def test_grey_and_bilevel_become_three_equal_channels():
    grey = random((4, 5))
    assert_grey(read_image(saved(Image.fromarray(grey))), grey)
    assert_grey(read_image(saved(Image.fromarray(grey > 127))), np.where(grey > 127, 255, 0))


def test_palette_gives_its_colours():
    image = Image.fromarray(random((6, 6, 3))).quantize(8)
    np.testing.assert_array_equal(read_image(saved(image)), np.array(image.convert("RGB")))


def test_opaque_alpha_is_dropped():
    colour = random((4, 5, 3))
    rgba = np.concatenate([colour, np.full((4, 5, 1), 255, np.uint8)], axis=-1)
    np.testing.assert_array_equal(read_image(saved(Image.fromarray(rgba))), colour)
    la = Image.merge("LA", [Image.fromarray(colour[..., 0]), Image.new("L", (5, 4), 255)])
    assert_grey(read_image(saved(la)), colour[..., 0])


def translucent():
    rgba = random((4, 5, 4))
    rgba[0, 0, 3], rgba[0, 1, 3] = 0, 255
    palette = Image.fromarray(random((4, 5, 3))).quantize(4)
    palette.info["transparency"] = 0
    keyed = Image.fromarray(random((4, 5, 3)))
    key = keyed.getpixel((0, 0))
    return {
        "RGBA": saved(Image.fromarray(rgba)),
        "LA": saved(Image.fromarray(rgba).convert("LA")),
        "palette": saved(palette, transparency=0),
        "palette alphas": saved(palette, transparency=bytes([255, 128, 0, 255])),
        "colour key": saved(keyed, transparency=key),
        "webp": saved(Image.fromarray(rgba), "WEBP", lossless=True, exact=True),
        "gif": saved(palette, "GIF", transparency=0),
    }


@pytest.mark.parametrize("kind", translucent())
def test_transparency_needs_a_background(kind):
    with pytest.raises(ImageError, match=r"transparent pixels; pass --background '#ffffff'"):
        read_image(translucent()[kind])
    file = translucent()[kind]
    rgba = np.array(Image.open(file).convert("RGBA")).astype(float)
    alpha = rgba[..., 3:] / 255
    expected = alpha * rgba[..., :3] + (1 - alpha) * np.array([10, 200, 30])
    assert np.abs(read_image(file, background="#0ac81e") - expected).max() <= 0.5 + 1e-9


def test_background_ends_are_exact():
    rgba = random((1, 2, 4))
    rgba[0, :, 3] = 0, 255
    read = read_image(saved(Image.fromarray(rgba)), background="white")
    np.testing.assert_array_equal(read[0], [[255, 255, 255], rgba[0, 1, :3]])


@pytest.mark.parametrize("colour", ["", "nonsense", "#12", "#11223344", "rgba(1,2,3,4)"])
def test_a_background_that_is_no_opaque_colour_is_refused(colour):
    with pytest.raises(ImageError, match="not an opaque colour"):
        read_image(saved(Image.new("RGB", (2, 2))), background=colour)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_needs_leave_and_is_rounded(kind):
    deep = random((5, 6), np.uint16)
    deep[0, :4] = 0, 128, 129, 65535
    image = Image.fromarray(deep)
    with pytest.raises(ImageError, match="has 16 bits per channel; pass --eight-bit"):
        read_image(saved(image, kind))
    assert_grey(read_image(saved(image, kind), eight_bit=True), np.round(deep / 257).astype(np.uint8))


def test_16_bit_colour_needs_leave_too():
    deep = random((3, 4, 3), np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    with pytest.raises(ImageError, match="16 bits per channel; pass --eight-bit"):
        read_image(png(4, 3, 16, 2, rows))
    np.testing.assert_array_equal(read_image(png(4, 3, 16, 2, rows), eight_bit=True), deep >> 8)
    ppm = b"P6 4 3 65535\n" + deep.astype(">u2").tobytes()
    with pytest.raises(ImageError, match="16 bits per channel; pass --eight-bit"):
        read_image(io.BytesIO(ppm))


def test_16_bits_a_pixel_are_not_16_bits_a_channel():
    """BMP's 5-5-5 and TGA's 16-bit pixels are 8-bit pictures to us."""
    header = b"BM" + struct.pack("<IHHI", 54 + 8, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 16, 0, 8, 0, 0, 0, 0)
    assert read_image(io.BytesIO(header + bytes(8))).shape == (2, 2, 3)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
@pytest.mark.parametrize("eight_bit", [False, True])
def test_32_bit_values_are_refused(dtype, eight_bit):
    with pytest.raises(ImageError, match=r"scale them to 0\.\.255"):
        read_image(saved(Image.fromarray(np.full((3, 3), 70000, dtype)), "TIFF"), eight_bit=eight_bit)


@pytest.mark.parametrize(("mode", "kind"), [("CMYK", "JPEG"), ("CMYK", "TIFF"), ("LAB", "TIFF")])
def test_colours_that_need_a_profile_are_refused(mode, kind):
    with pytest.raises(ImageError, match=f"is {mode}; convert it to RGB"):
        read_image(saved(Image.new(mode, (4, 4)), kind))


def test_ycbcr_is_converted():
    image = Image.new("RGB", (4, 4), (200, 30, 60)).convert("YCbCr")
    assert np.abs(read_image(saved(image, "TIFF")).astype(int) - [200, 30, 60]).max() <= 2


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].swapaxes(0, 1)),
        (8, lambda a: np.rot90(a)),
    ],
)
def test_exif_orientation_is_applied(orientation, upright):
    colour = random((4, 6, 3))
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(read_image(saved(Image.fromarray(colour), exif=exif)), upright(colour))


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_several_frames_are_refused_and_one_is_read(kind):
    frames = [Image.fromarray(random((4, 5, 3), seed=i)) for i in range(3)]
    with pytest.raises(ImageError, match="has 3 frames; extract"):
        read_image(saved(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert read_image(saved(frames[0], kind, save_all=True)).shape == (4, 5, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "PPM"])
def test_truncated_files_are_refused(kind, tmp_path):
    data = saved(Image.fromarray(random((32, 32, 3))), kind).getvalue()
    for length in range(0, len(data) * 3 // 4, max(1, len(data) // 20)):
        path = tmp_path / "cut"
        path.write_bytes(data[:length])
        with pytest.raises(ImageError, match="cut: "):
            read_image(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "GIF"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_files_give_a_picture_or_the_one_error(kind):
    data = saved(Image.fromarray(random((16, 16, 3))), kind).getvalue()
    rng = np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(data)
        for position in rng.integers(len(data), size=3):
            damaged[position] = rng.integers(256)
        try:
            read = read_image(io.BytesIO(bytes(damaged)), eight_bit=True, background="black", max_pixels=10**6)
        except ImageError:
            continue
        assert read.dtype == np.uint8
        assert read.ndim == 3
        assert read.shape[-1] == 3


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", bytes(1000)])
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(ImageError, match=r"not a picture|damaged"):
        read_image(io.BytesIO(data))


def test_a_file_that_is_not_there_says_so(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_pixel_limit_is_checked_before_decoding():
    # No pixel data at all: decoding would say "truncated", so this can only come from the header.
    with pytest.raises(ImageError, match="10000x9000 pixels are more than the limit of 1000000"):
        read_image(png(10000, 9000, 8, 2), max_pixels=10**6)
    with pytest.raises(ImageError, match=r"MAX_IMAGE_PIXELS"):
        read_image(png(2**30, 2**30, 8, 2))
    small = Image.fromarray(random((4, 5, 3)))
    assert read_image(saved(small), max_pixels=20).shape == (4, 5, 3)
    with pytest.raises(ImageError, match="limit of 19"):
        read_image(saved(small), max_pixels=19)


@pytest.mark.parametrize(("width", "height"), [(0, 4), (4, 0), (0, 0)])
def test_a_picture_without_pixels_is_refused(width, height):
    with pytest.raises(ImageError):
        read_image(png(width, height, 8, 2))


@pytest.mark.parametrize("suffix", [*LOSSLESS_SUFFIXES, ".PNG"])
def test_what_is_written_is_read_back(suffix, tmp_path):
    colour = random((7, 5, 3))
    write_image(tmp_path / f"out{suffix}", colour)
    np.testing.assert_array_equal(read_image(tmp_path / f"out{suffix}"), colour)


@pytest.mark.parametrize("name", ["out.jpg", "out", "out.webp"])
def test_formats_that_change_values_are_not_written(name, tmp_path):
    with pytest.raises(ImageError, match=r"\.png"):
        write_image(tmp_path / name, random((4, 4, 3)))
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("array", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)])
def test_arrays_that_are_no_picture_are_not_written(array, tmp_path):
    with pytest.raises(ImageError, match="uint8"):
        write_image(tmp_path / "out.png", array)
