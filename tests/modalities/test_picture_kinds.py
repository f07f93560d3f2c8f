"""Grey and 16-bit pictures: every bit in and out, and one clear error for a file of another kind."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.modalities.test_picture_files import png, random, saved
from vcinr.modalities import MODALITIES
from vcinr.modalities.files.deep_picture import png_bytes
from vcinr.modalities.files.picture import read_image

GREY, DEEP, DEEP_GREY = (MODALITIES[name] for name in ("grey_picture", "deep_picture", "deep_grey_picture"))
ROWS = (GREY, DEEP, DEEP_GREY)


def pixels(row, height=7, width=5, seed=0):
    return random((height, width, row.channels), np.dtype(row.sample_type).type, seed)


def filtered(values, kinds):
    """The raw bytes of a 16-bit PNG whose row i has the filter kinds[i], by the letter of the specification."""
    rows = values.astype(">u2").reshape(len(values), -1).view(np.uint8).astype(int)
    size = 2 * values.shape[-1]
    out = b""
    for y, kind in enumerate(kinds):
        line = []
        for i, value in enumerate(rows[y]):
            a = rows[y, i - size] if i >= size else 0
            b = rows[y - 1, i] if y else 0
            c = rows[y - 1, i - size] if y and i >= size else 0
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            line.append((value - (0, a, b, (a + b) // 2, paeth)[kind]) % 256)
        out += bytes([kind, *line])
    return out


def tiff(values, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, values, metadata=None, **options)
    return io.BytesIO(file.getvalue())


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".PNG"])
@pytest.mark.parametrize("shape", [(7, 5), (1, 1), (1, 9), (9, 1)])
def test_what_is_written_is_read_back(row, suffix, shape, tmp_path):
    raw = pixels(row, *shape)
    row.write(tmp_path / f"a{suffix}", raw)
    for source in (tmp_path / f"a{suffix}", io.BytesIO((tmp_path / f"a{suffix}").read_bytes())):
        found = row.read(source)
        assert found.dtype.name == row.sample_type
        np.testing.assert_array_equal(found, raw)
    np.testing.assert_array_equal(row.from_bytes(row.to_bytes(raw)), raw)


@pytest.mark.parametrize("row", ROWS)
def test_every_value_returns_from_normalised_units_and_the_ends_are_exact(row):
    raw = np.arange(row.peak + 1, dtype=row.sample_type).reshape(-1, 16, 1).repeat(row.channels, axis=-1)
    values = row.normalise(raw)
    assert (values.min(), values.max()) == (0, 1)
    np.testing.assert_array_equal(row.denormalise(values), raw)
    off = raw.copy()
    off[off > 0] -= 1
    count = np.count_nonzero(raw) / raw.size
    assert row.metrics(raw, off)["psnr_db"] == pytest.approx(20 * np.log10(row.peak) - 10 * np.log10(count))


def test_files_are_what_other_programs_read(tmp_path):
    raw = pixels(DEEP)
    DEEP.write(tmp_path / "a.tif", raw)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), raw)
    grey = pixels(DEEP_GREY)
    for suffix in (".png", ".tif"):
        DEEP_GREY.write(tmp_path / f"grey{suffix}", grey)
        np.testing.assert_array_equal(np.array(Image.open(tmp_path / f"grey{suffix}")), grey[..., 0])
    # Of 16-bit colour Pillow reads the upper bytes.
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(png_bytes(raw)))), raw >> 8)
    eight = pixels(GREY)
    GREY.write(tmp_path / "eight.png", eight)
    assert Image.open(tmp_path / "eight.png").mode == "L"


def test_another_reader_finds_the_same_16_bits():
    av = pytest.importorskip("av", reason="FFmpeg's reader of PNG: pip install 'vcinr[video]'")
    raw = pixels(DEEP, 20, 30)
    with av.open(io.BytesIO(png_bytes(raw)), format="png_pipe") as file:
        np.testing.assert_array_equal(next(file.decode(video=0)).to_ndarray(format="rgb48le"), raw)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kinds", [[0] * 5, [1] * 5, [2] * 5, [3] * 5, [4] * 5, [4, 3, 2, 1, 0], [1, 4, 0, 3, 4]])
def test_all_filters_of_png_are_undone(kinds, channels):
    row = DEEP if channels == 3 else DEEP_GREY
    for seed, values in enumerate([pixels(row, 5, 6), np.sort(pixels(row, 5, 6), axis=1)]):
        file = png(6, 5, 16, {1: 0, 3: 2}[channels], filtered(values, kinds))
        np.testing.assert_array_equal(row.read(file), values, err_msg=f"{seed}")


def test_opaque_alpha_is_dropped_and_another_refused():
    for row, colour in ((DEEP_GREY, 4), (DEEP, 6)):
        values = np.concatenate([pixels(row), np.full((7, 5, 1), 65535, np.uint16)], axis=-1)
        np.testing.assert_array_equal(row.read(png(5, 7, 16, colour, filtered(values, [0] * 7))), values[..., :-1])
        values[3, 2, -1] = 65534
        with pytest.raises(ValueError, match="transparent pixels; composite it"):
            row.read(png(5, 7, 16, colour, filtered(values, [0] * 7)))
    values = np.concatenate([pixels(DEEP), np.full((7, 5, 1), 65535, np.uint16)], axis=-1)
    options = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    np.testing.assert_array_equal(DEEP.read(tiff(values, **options)), values[..., :3])


def test_a_transparent_colour_is_refused_where_a_pixel_has_it():
    raw = pixels(DEEP)
    data = png_bytes(raw)
    for key, wrong in ((raw[2, 3], True), (raw[2, 3] ^ 1, False)):
        content = key.astype(">u2").tobytes()
        chunk = struct.pack(">I", 6) + b"tRNS" + content + struct.pack(">I", zlib.crc32(b"tRNS" + content))
        file = io.BytesIO(data[:33] + chunk + data[33:])
        if wrong:
            with pytest.raises(ValueError, match="has a transparent colour; make it opaque"):
                DEEP.read(file)
        else:
            np.testing.assert_array_equal(DEEP.read(file), raw)


LAYOUTS = (
    *({"byteorder": ">"}, {"compression": "zlib"}, {"compression": "zlib", "predictor": True}),
    *({"tile": (16, 16)}, {"rowsperstrip": 2}),
)


@pytest.mark.parametrize("options", LAYOUTS)
def test_tiff_of_every_layout(options):
    grey, colour = pixels(DEEP_GREY, 21, 18), pixels(DEEP, 21, 18)
    np.testing.assert_array_equal(DEEP_GREY.read(tiff(grey[..., 0], photometric="minisblack", **options)), grey)
    np.testing.assert_array_equal(DEEP.read(tiff(colour, photometric="rgb", **options)), colour)
    planes = tiff(np.moveaxis(colour, -1, 0), photometric="rgb", planarconfig="separate", **options)
    np.testing.assert_array_equal(DEEP.read(planes), colour)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("row", ROWS)
def test_exif_orientation_is_applied_as_to_colour_pictures(row, orientation):
    raw = pixels(row)
    exif = Image.Exif()
    exif[0x0112] = orientation
    chunk = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(chunk)) + b"eXIf" + chunk + struct.pack(">I", zlib.crc32(b"eXIf" + chunk))

    def turned(data):
        return io.BytesIO(data[:33] + chunk + data[33:])

    colour = np.repeat((raw >> 8 if row.peak > 255 else raw)[..., :1].astype(np.uint8), 3, axis=-1)
    wanted = read_image(turned(saved(Image.fromarray(colour)).getvalue()))
    found = row.read(turned(row.to_bytes(raw)))
    np.testing.assert_array_equal((found >> 8 if row.peak > 255 else found)[..., 0], wanted[..., 0])


def other_kinds():
    grey16, grey8, colour8 = Image.fromarray(random((4, 5), np.uint16)), Image.new("L", (4, 5)), Image.new("RGB", (4, 5), "red")
    return {
        "deep grey of 16-bit colour": (
            DEEP_GREY,
            io.BytesIO(png_bytes(pixels(DEEP))),
            "has colour; read it with --modality deep_picture",
        ),
        "deep of 16-bit grey": (DEEP, saved(grey16), "is grey; read it with --modality deep_grey_picture"),
        "deep of 8-bit colour": (DEEP, saved(colour8), "8 bits per channel or fewer; read it with --modality picture"),
        "deep of 8-bit grey": (DEEP_GREY, saved(grey8), "8 bits per channel or fewer; read it with --modality grey_picture"),
        "deep of JPEG": (DEEP, saved(colour8, "JPEG"), "read it with --modality picture"),
        "deep of floats": (DEEP_GREY, saved(Image.new("F", (4, 5)), "TIFF"), "holds F of"),
        "deep of 32 bits": (DEEP_GREY, saved(Image.new("I", (4, 5)), "TIFF"), "holds I of 32 bits"),
        "deep of PGM": (DEEP_GREY, saved(grey16, "PPM"), "read from PNG and TIFF files, not PPM; convert it to PNG"),
        "deep of inverted grey": (DEEP_GREY, tiff(random((4, 5), np.uint16), photometric="miniswhite"), "MINISWHITE, not grey"),
        "grey of colour": (GREY, saved(colour8), "has colour; read it with --modality picture"),
        "grey of 16 bits": (GREY, saved(grey16), "pass --eight-bit"),
        "grey of CMYK": (GREY, saved(Image.new("CMYK", (4, 4)), "JPEG"), "is CMYK; convert it"),
        "interlaced": (DEEP, io.BytesIO(interlaced(png_bytes(pixels(DEEP)))), "is interlaced"),
        "no picture": (DEEP, io.BytesIO(b"hello"), "not a picture"),
    }


def interlaced(data):
    header = data[12:28] + b"\x01"
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


@pytest.mark.parametrize("kind", other_kinds())
def test_a_file_of_another_kind_is_refused_with_the_mend(kind, tmp_path):
    row, file, message = other_kinds()[kind]
    (tmp_path / "odd").write_bytes(file.getvalue())
    with pytest.raises(ValueError, match=rf"odd: .*{message}"):
        row.read(tmp_path / "odd")


def test_grey_is_grey_however_it_is_stored():
    raw = pixels(GREY)
    image = Image.fromarray(raw[..., 0])
    for file in (saved(image), saved(image.convert("RGB")), saved(image.convert("P")), saved(image, "TIFF"), saved(image, "PPM")):
        np.testing.assert_array_equal(GREY.read(file), raw)
    deep = random((4, 5), np.uint16)
    found = GREY.read(saved(Image.fromarray(deep)), eight_bit=True)
    np.testing.assert_array_equal(found[..., 0], np.round(deep / 257))


@pytest.mark.parametrize(
    ("row", "array", "mend"),
    [
        (GREY, np.zeros((4, 5), np.uint8), r"grey\[..., None\]"),
        (GREY, np.zeros((4, 5, 3), np.uint8), "three channels it is a picture"),
        (GREY, np.zeros((4, 5, 1), np.uint16), r"scale it to 0\.\.255"),
        (DEEP_GREY, np.zeros((4, 5, 3), np.uint16), "three channels it is a deep_picture"),
        (DEEP, np.zeros((4, 5), np.uint16), "one channel it is a deep_grey_picture"),
        (DEEP, np.zeros((4, 5, 1), np.uint16), "one channel it is a deep_grey_picture"),
        (DEEP, np.zeros((4, 5, 4), np.uint16), "without alpha"),
        (DEEP, np.zeros((2, 4, 5, 3), np.uint16), "one picture"),
        (DEEP, np.zeros((0, 5, 3), np.uint16), "no pixels"),
        (DEEP, np.zeros((4, 5, 3), np.uint8), r"scale it to 0\.\.65535"),
        (DEEP, np.zeros((4, 5, 3)), r"astype\(np.uint16\)"),
        (DEEP, [[[0, 0, 0]]], "np.asarray"),
    ],
)
def test_a_wrong_array_is_refused_with_the_mend(row, array, mend, tmp_path):
    with pytest.raises(ValueError, match=mend):
        row.check(array)
    with pytest.raises(ValueError, match=mend):
        row.write(tmp_path / "a.png", array)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("name", ["a.jpg", "a", "a.webp", "a.bmp"])
def test_formats_that_change_values_are_not_written(row, name, tmp_path):
    with pytest.raises(ValueError, match=r"written as one of .png, .tif, .tiff"):
        row.write(tmp_path / name, pixels(row))


@pytest.mark.parametrize("row", ROWS)
def test_the_limit_is_checked_before_decoding(row, tmp_path):
    bits, colour = (16 if row.peak > 255 else 8), {1: 0, 3: 2}[row.channels]
    # No pixel data at all: decoding would say so.
    with pytest.raises(ValueError, match="3000x2000 pixels are more than the limit of 1000000"):
        row.read(png(3000, 2000, bits, colour), max_samples=10**6)
    assert row.read(io.BytesIO(row.to_bytes(pixels(row))), max_samples=35).shape == (7, 5, row.channels)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_and_truncated_files_give_a_picture_or_the_one_error(kind):
    raw = pixels(DEEP, 16, 16)
    data = png_bytes(raw) if kind == "PNG" else tiff(raw, photometric="rgb", compression="zlib").getvalue()
    rng = np.random.default_rng(0)
    for length in range(0, len(data) * 3 // 4, len(data) // 15):
        with pytest.raises(ValueError, match="the file: "):
            DEEP.read(io.BytesIO(data[:length]))
    for _ in range(100):
        damaged = bytearray(data)
        for position in rng.integers(len(data), size=3):
            damaged[position] = rng.integers(256)
        try:
            DEEP.check(DEEP.read(io.BytesIO(bytes(damaged)), max_samples=10**6))
        except ValueError:
            continue
