"""A model in hand: what it encodes it decodes, and what is wrong with arrays and files is said."""

import dataclasses
import subprocess
import sys
import tracemalloc

import jax
import numpy as np
import pytest

import vcinr
from tests.conftest import smooth_picture
from tests.tiny import hand_made, psnr
from vcinr.bitstream import container
from vcinr.bitstream.container import MAGIC, BitstreamError
from vcinr.codec import Code
from vcinr.codecs.klt import KLT
from vcinr.model.finding import load
from vcinr.signals.signal import Grid

SIZES = [(1, 1), (1, 1000), (1000, 1), (37, 50), (50, 37), (8, 8), (16, 9)]


@pytest.fixture(scope="module")
def model(klt_model_dir):
    return load(klt_model_dir)


# Golden: whatever changes, these bytes are these two pictures. The first symbols of patches are grey levels in steps of 2,
# the second what is left of them less what is right; 7 and -300 are escapes.
GOLDEN = bytes.fromhex("d6c301209e6c7f1a02020201035c1c86c070a03bb27683")
GOLDEN_SHAPES = [(2, 2), (1, 3)]
GOLDEN_SYMBOLS = [[-1, 0], [1, -1, 7, -300]]
GOLDEN_PICTURES = [[[126, 126], [126, 126]], [[128, 132, 0]]]


def test_golden_container_decodes_forever():
    model = hand_made()
    codes = [Code({"coefficients": np.array(symbols, np.int32)}) for symbols in GOLDEN_SYMBOLS]
    assert model.write_codes(0, codes, [Grid(shape, (2, 2)) for shape in GOLDEN_SHAPES]).hex() == GOLDEN.hex()
    _, read, grids = model.read_codes(GOLDEN)
    assert [code.streams["coefficients"].tolist() for code in read] == GOLDEN_SYMBOLS
    assert [grid.shape for grid in grids] == GOLDEN_SHAPES
    pictures = model.decode_together(GOLDEN)
    assert [picture[..., 0].tolist() for picture in pictures] == GOLDEN_PICTURES
    assert all(np.ptp(picture, axis=-1).max() == 0 for picture in pictures)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_any_size_comes_back(model, size):
    picture = smooth_picture(*size, seed=3)
    for point, quality in enumerate([18, 24, 31]):
        decoded = model.decode(model.encode(picture, point))
        assert decoded.dtype == np.uint8
        assert decoded.shape == picture.shape
        assert psnr(picture, decoded) > quality


def test_batches_and_containers_hold_the_same_pictures_in_order(model):
    pictures = [smooth_picture(*size, seed=i) for i, size in enumerate(SIZES)]
    files = model.encode_batch(pictures, 1)
    container = model.encode_together(pictures, 1)
    assert len(container) < sum(map(len, files))
    alone, together = model.decode_batch(files), model.decode_together(container)
    for picture, one, other in zip(pictures, alone, together, strict=True):
        assert one.shape == other.shape == picture.shape
        assert np.abs(one.astype(int) - other).max() <= 1
        assert psnr(picture, one) > 24
    assert model.encode_batch([]) == model.decode_batch([]) == []
    with pytest.raises(ValueError, match="1 to 65536 signals, got 0"):
        model.encode_together([])
    assert len(model.decode_together(files[0])) == 1


def test_decoded_values_are_neither_clipped_nor_rounded(model, picture):
    (values,) = model.decode_values_batch([model.encode(picture, 2)])
    assert values.dtype == np.float32
    decoded = model.decode(model.encode(picture, 2))
    np.testing.assert_array_equal(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8), decoded)
    assert np.abs(values * 255 - np.rint(values * 255)).max() > 0.4


def test_what_a_file_says_it_costs(model, picture):
    data = model.encode(picture, 1)
    # 8 bytes of magic, version, fingerprint and flags, two varints, the checksum.
    assert model.payload_bytes(data) == len(data) - 14
    assert abs(model.estimated_bits(data) - 8 * model.payload_bytes(data)) < 16


def test_files_join_to_the_container_of_their_signals(klt_model_dir, picture):
    model = load(klt_model_dir)
    pictures = [picture, picture[:9, :20], picture[::-1].copy()]
    files = model.encode_batch(pictures, 1)
    container = model.join(files)
    np.testing.assert_array_equal(model.decode_together(container)[1], model.decode(files[1]))
    assert container == model.encode_together(pictures, 1)
    assert model.join([container, files[0]]) == model.join([*files, files[0]])
    with pytest.raises(ValueError, match="one operating point"):
        model.join([files[0], model.encode(picture, 0)])


def test_pictures_of_five_sizes_compile_once(klt_model_dir):
    about = load(klt_model_dir)
    # A config of its own, so that no other test has compiled for it.
    codec = KLT(dataclasses.replace(about.codec.config, num_patches=1999))
    model = vcinr.Model(codec, about.params, about.points, {}, "float32")
    pictures = [smooth_picture(*size) for size in [(8, 8), (37, 50), (50, 37), (1, 300), (90, 70)]]
    compiled = []

    def count(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        files = model.encode_batch(pictures, 0) + model.encode_batch(pictures[1:], 1)
        assert len(compiled) == 1
        model.decode_batch(files)
        assert len(compiled) == 2
        # One at a time, there are two more programs each way at most: of 1 and of 8 patches.
        for picture in pictures:
            model.decode(model.encode(picture, 1))
        assert len(compiled) <= 6
    finally:
        jax.monitoring.unregister_event_duration_listener(count)


@pytest.mark.parametrize(
    ("array", "mend"),
    [
        (np.zeros((4, 4), np.uint8), "repeat the grey channel"),
        (np.zeros((4, 4, 4), np.uint8), "composite it"),
        (np.zeros((3, 4, 5), np.uint8), "channels last"),
        (np.zeros((2, 4, 4, 3), np.uint8), "one at a time"),
        (np.zeros((4, 4, 3), np.float32), "scale it to 0..255"),
        (np.zeros((4, 4, 3), np.int64), "scale it to 0..255"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros(3, np.uint8), "three axes"),
    ],
)
def test_a_wrong_array_is_an_error_with_its_mend(model, array, mend):
    with pytest.raises(ValueError, match=mend):
        model.encode(array)


@pytest.mark.parametrize("point", [-1, 3])
def test_a_point_that_does_not_exist_is_an_error(model, picture, point):
    with pytest.raises(ValueError, match="has points 0 to 2"):
        model.encode(picture, point)


def test_a_point_is_chosen_by_the_size_and_quality_of_whole_files(model, picture):
    rows = []
    for point in range(3):
        data = model.encode(picture, point)
        rows.append((8 * len(data) / (37 * 50), psnr(picture, model.decode(data))))
    (low, _), (middle, quality), (high, best) = rows
    assert low < middle < high
    assert model.choose_point(picture, bpp=middle) == 1
    assert model.choose_point(picture, bpp=middle - 1e-9) == 0
    assert model.choose_point(picture, bpp=100.0) == 2
    assert model.choose_point(picture, psnr_db=quality - 1e-9) == 1
    assert model.choose_point(picture, psnr_db=quality + 1e-6) == 2
    with pytest.raises(ValueError, match=f"fits 0.01 bpp; the cheapest takes {low:.4f}"):
        model.choose_point(picture, bpp=0.01)
    with pytest.raises(ValueError, match=f"reaches 90 dB; the best has {best:.2f}"):
        model.choose_point(picture, psnr_db=90.0)
    for wrong in ({}, {"bpp": 1.0, "psnr_db": 30.0}):
        with pytest.raises(ValueError, match="one of the two"):
            model.choose_point(picture, **wrong)


def test_encoding_takes_the_middle_point_or_the_one_wished_for(model, picture):
    files = [model.encode(picture, point) for point in range(3)]
    rates = [8 * len(data) / (37 * 50) for data in files]
    quality = psnr(picture, model.decode(files[1]))
    assert model.default_point == 1
    for wish, point in [({}, 1), ({"point": 0}, 0), ({"bpp": rates[0]}, 0), ({"psnr_db": quality + 1e-6}, 2)]:
        assert model.encode(picture, **wish) == files[point]
        assert model.encode_batch([picture], **wish) == [files[point]]
        assert model.encode_together([picture], **wish) == files[point]
    for two in ({"point": 0, "bpp": 1.0}, {"bpp": 1.0, "psnr_db": 30.0}, {"point": 0, "psnr_db": 30.0}):
        for encode in (model.encode, lambda each, **wish: model.encode_together([each], **wish)):
            with pytest.raises(ValueError, match="one of the three at most"):
                encode(picture, **two)


def test_a_batch_chooses_for_each_signal_and_a_container_for_all(model):
    rich = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    pictures = [rich, smooth_picture(24, 24), rich[:, ::-1].copy()]
    rate = max(8 * len(model.encode(each, 0)) / 576 for each in pictures)
    points = [model.choose_point(each, bpp=rate) for each in pictures]
    assert points == [0, 2, 0]
    files = model.encode_batch(pictures, bpp=rate)
    assert [model.read_codes(data)[0] for data in files] == points
    assert [psnr(model.decode(data), each) > 30 for data, each in zip(files, pictures, strict=True)] == [False, True, False]
    for point in range(3):
        container = model.encode_together(pictures, point)
        assert model.encode_together(pictures, bpp=8 * len(container) / (3 * 576)) == container
        mean = np.mean([psnr(*pair) for pair in zip(model.decode_together(container), pictures, strict=True)])
        assert model.encode_together(pictures, psnr_db=mean - 1e-6) == container


def test_networks_are_not_chosen_for_who_does_not():
    coin, flat = load("coin"), np.full((2, 2, 3), 77, np.uint8)
    for encode in (coin.encode, lambda each: coin.encode_batch([each]), lambda each: coin.encode_together([each])):
        with pytest.raises(ValueError, match=f"which of {len(coin.points)} networks. give bpp, psnr_db or point"):
            encode(flat)


def test_a_lossless_point_has_infinite_quality():
    flat = np.full((2, 2, 3), 128, np.uint8)
    assert hand_made().choose_point(flat, psnr_db=200.0) == 0


# Files that are not this model's.


def test_a_file_of_another_model_is_refused(model):
    foreign = hand_made()
    data = foreign.encode(np.full((4, 4, 3), 100, np.uint8))
    with pytest.raises(BitstreamError, match=f"another model: its fingerprint {foreign.points[0]['fingerprint']} is none"):
        model.decode(data)


def test_a_file_of_many_signals_is_not_decoded_as_one(model, picture):
    with pytest.raises(BitstreamError, match="holds 2 signals: use Model.decode_together"):
        model.decode(model.encode_together([picture, picture]))


def test_the_broken_file_of_a_batch_is_named(model, picture):
    data = model.encode(picture)
    with pytest.raises(BitstreamError, match="^file 1 of 0 to 2: "):
        model.decode_batch([data, data[:-1], data])


def test_bytes_after_the_end_are_refused(model, picture):
    data = model.encode(picture)
    for more in (b"\0", b"\0\0\0\0", data):
        with pytest.raises(BitstreamError):
            model.decode(data + more)


def test_samples_are_limited_with_their_padding(model):
    wide = model.encode(np.zeros((1, 1000, 3), np.uint8))
    with pytest.raises(BitstreamError, match="asks for 1000 samples"):
        model.decode(wide, max_pixels=999)
    with pytest.raises(BitstreamError, match="patches of 8×8 hold 8000 samples; the limit is 7999"):
        model.decode(wide, max_pixels=7999)
    assert model.decode(wide, max_pixels=8000).shape == (1, 1000, 3)
    assert model.decode(model.encode(np.zeros((1, 1, 3), np.uint8)), max_pixels=1).shape == (1, 1, 3)


@pytest.mark.parametrize(
    "rest",
    [
        "02 8080808008 02",  # 2^31 × 2
        "02 808004 808004",  # 2^16 × 2^16
        "02 ffffffff07 ffffffff07",
        "0a 808004 808002 01",  # 2^16 signals of 2^15 × 1
        "03 8010 8010 8010",  # 2^11 × 2^11 × 2^11
    ],
)
def test_a_header_that_asks_for_billions_takes_no_memory(model, rest):
    data = MAGIC + b"\1" + bytes.fromhex(model.points[0]["fingerprint"] + rest) + bytes(60)
    tracemalloc.start()
    try:
        with pytest.raises(BitstreamError, match="the limit|larger than"):
            model.decode(data)
        with pytest.raises(BitstreamError):
            model.decode_together(data)
        assert tracemalloc.get_traced_memory()[1] < 2**18
    finally:
        tracemalloc.stop()


def test_a_file_of_another_rank_is_refused(model):
    head = container.head_bytes(bytes.fromhex(model.points[0]["fingerprint"]), [(2, 2, 2)], [{}], {})
    with pytest.raises(BitstreamError, match=r"shape \(2, 2, 2\) does not fit"):
        model.decode(container.write(head, b"", 0))


def test_symbols_that_no_encoder_writes_are_refused():
    model = hand_made(step=1e37)
    data = model.write_codes(0, [Code({"coefficients": np.array([2**31 - 1, 0], np.int32)})], [Grid((2, 2), (2, 2))])
    with pytest.raises(BitstreamError, match="not finite"):
        model.decode(data)


def test_another_process_decodes_from_file_and_folder_alone(klt_model_dir, model, picture, tmp_path):
    (tmp_path / "file").write_bytes(model.encode_together([picture, picture[:9]], 2))
    program = """
import sys, numpy as np, vcinr
model, data = vcinr.load(sys.argv[1]), open(sys.argv[2], "rb").read()
_, codes, _ = model.read_codes(data)
first, second = model.decode_together(data)
np.savez(sys.argv[3], *[code.streams["coefficients"] for code in codes], first=first, second=second)
"""
    command = [sys.executable, "-c", program, str(klt_model_dir), str(tmp_path / "file"), str(tmp_path / "out.npz")]
    subprocess.run(command, check=True, timeout=300)
    other = np.load(tmp_path / "out.npz")
    codes, _ = model.make_codes([picture, picture[:9]], 2)
    for i, code in enumerate(codes):
        np.testing.assert_array_equal(other[f"arr_{i}"], code.streams["coefficients"])
    for name, mine in zip(("first", "second"), model.decode_together((tmp_path / "file").read_bytes()), strict=True):
        assert np.abs(other[name].astype(int) - mine).max() <= 1
