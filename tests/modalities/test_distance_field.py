"""Distance fields: the exact transform against shapes whose distance is known, bounds, files."""

import io

import numpy as np
import pytest

from vcinr.bitstream import container
from vcinr.modalities import MODALITIES
from vcinr.modalities.distance_field import DistanceField, Distances, signed_distance

ROW = MODALITIES["distance_field"]
FLAT = MODALITIES["distance_field_2d"]


def ball(radius=5.0, size=15, axes=3):
    centre = np.indices((size,) * axes) - (size - 1) / 2
    return np.sqrt((centre**2).sum(0)) - radius


def field(shape=(4, 5, 6), seed=0):
    return np.random.default_rng(seed).normal(size=(*shape, 1)).astype(np.float32)


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return io.BytesIO(file.getvalue())


def test_a_half_space_is_exact():
    inside = np.zeros((3, 10), bool)
    inside[:, 4:] = True
    np.testing.assert_array_equal(signed_distance(inside), np.tile(3.5 - np.arange(10), (3, 1)))


def test_a_single_sample_is_known_everywhere():
    inside = np.zeros((7, 7, 7), bool)
    inside[2, 3, 4] = True
    away = np.sqrt(((np.indices(inside.shape) - np.array([2, 3, 4]).reshape(3, 1, 1, 1)) ** 2).sum(0))
    expected = np.where(inside, -0.5, away - 0.5)
    np.testing.assert_allclose(signed_distance(inside), expected, rtol=1e-6)
    np.testing.assert_array_equal(signed_distance(~inside), -signed_distance(inside))


@pytest.mark.parametrize("axes", [2, 3])
def test_a_ball_is_within_a_sample_of_its_distance_and_right_in_sign(axes):
    exact = ball(9.0, 31, axes)
    found = signed_distance(exact < 0)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found < 0, exact < 0)
    assert np.abs(found - exact).max() < 1
    # No distance grows faster than the way to the next sample.
    assert max(np.abs(np.diff(found, axis=axis)).max() for axis in range(axes)) <= 1 + 1e-5


@pytest.mark.parametrize("full", [False, True])
def test_what_has_no_surface_is_refused(full):
    with pytest.raises(ValueError, match="has no surface: drop it"):
        signed_distance(np.full((3, 3), full))


@pytest.mark.parametrize("bound", [None, 7.0])
def test_distances_return_and_the_surface_is_one_half(bound):
    raw = Distances(field(), bound)
    samples, metadata = ROW.unpack(raw)
    assert samples.dtype == np.float32
    assert 0 <= samples.min() and samples.max() <= 1
    np.testing.assert_array_equal(samples < 0.5, raw.values < 0)
    assert metadata["bound"] == (bound or np.abs(raw.values).max())
    back = ROW.pack(samples, metadata)
    np.testing.assert_allclose(back.values, raw.values, atol=1e-6 * metadata["bound"])
    # Packed, it keeps its bound, whatever its values are.
    again, same = ROW.unpack(back)
    np.testing.assert_allclose(again, samples, atol=1e-6)
    assert same == metadata
    np.testing.assert_array_equal(ROW.unpack(raw.values)[0], ROW.unpack(Distances(raw.values))[0])


def test_the_ends_of_a_truncated_field_are_zero_and_one():
    values = np.array([-2, -0.1, 0, 0.1, 2], np.float32).clip(-0.1, 0.1).reshape(1, 5, 1)
    samples, metadata = FLAT.unpack(Distances(values, 0.1))
    np.testing.assert_array_equal(samples.ravel(), [0, 0, 0.5, 1, 1])
    np.testing.assert_array_equal(FLAT.pack(samples, metadata).values, values)


@pytest.mark.parametrize(
    ("raw", "mend"),
    [
        (np.zeros((2, 2, 2, 1)), "float32"),
        (np.zeros((2, 2, 2), np.float32), "n0, n1, n2, 1"),
        (np.zeros((2, 0, 2, 1), np.float32), "n0, n1, n2, 1"),
        (np.full((2, 2, 2, 1), np.inf, np.float32), "np.clip"),
        (np.full((2, 2, 2, 1), np.nan, np.float32), "np.clip"),
        (np.zeros((2, 2, 2, 1), np.float32), "positive bound"),
        (Distances(np.ones((2, 2, 2, 1), np.float32), 0.5), "positive bound"),
        (Distances(np.ones((2, 2, 2, 1), np.float32), np.nan), "positive bound"),
        (Distances(np.ones((2, 2, 2, 1), np.float32), -1.0), "positive bound"),
        (Distances(np.ones((2, 2, 2, 1), np.float32), 1e300), "positive bound"),
        ([[[[0.0]]]], "not list"),
    ],
)
def test_what_is_no_field_is_refused_with_the_mend(raw, mend):
    with np.errstate(over="ignore"), pytest.raises(ValueError, match=mend):
        ROW.unpack(raw)


def test_the_bound_is_four_bytes_of_a_file_and_a_hostile_one_is_refused():
    _, metadata = ROW.unpack(Distances(field(), 8.0))
    bare = container.head_bytes(bytes(4), [(4, 5, 6)], [{}], {})
    head = container.head_bytes(bytes(4), [(4, 5, 6)], [metadata], ROW.meta_types)
    assert head == bare + bytes.fromhex("00000041")
    ROW.check_metadata(metadata, (4, 5, 6))
    for bound in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="is positive"):
            ROW.check_metadata({"bound": bound}, (4, 5, 6))
    # The largest that a file can hold neither overflows nor turns to NaN.
    assert np.isfinite(ROW.pack(np.ones((1, 1, 1, 1), np.float32), {"bound": float(np.finfo(np.float32).max)}).values).all()


def test_quality_is_that_of_the_distances():
    original = Distances(np.array([-2, -1, 1, 2], np.float32).reshape(1, 4, 1), 4.0)
    decoded = Distances(np.array([-2, 1, 1, 2], np.float32).reshape(1, 4, 1), 4.0)
    found = FLAT.metrics(original, decoded)
    assert found["mse"] == 1
    assert found["sign_accuracy"] == 0.75
    assert found["psnr_db"] == pytest.approx(10 * np.log10(64))
    # The original's bound is the measure, however the decoded one is held.
    assert FLAT.metrics(original, decoded.values) == found
    assert FLAT.metrics(original, original)["psnr_db"] == np.inf
    with pytest.raises(ValueError, match="different shapes"):
        FLAT.metrics(original, decoded.values[:, :3])


@pytest.mark.parametrize(("row", "shape"), [(ROW, (4, 5, 6)), (FLAT, (7, 3)), (ROW, (1, 1, 1))])
def test_files_and_prepared_bytes_keep_every_bit(row, shape, tmp_path):
    for raw in (Distances(field(shape), 9.0), Distances(field(shape))):
        bound = 9.0 if raw.bound else float(np.abs(raw.values).max())
        row.write(tmp_path / "a.npz", raw)
        for back in (row.read(tmp_path / "a.npz"), row.from_bytes(row.to_bytes(raw))):
            np.testing.assert_array_equal(back.values, raw.values)
            assert back.values.dtype == np.float32
            assert back.values.flags.writeable
            assert back.bound == bound


def test_prepared_bytes_of_a_shape_are_few_and_damaged_ones_refused():
    grid = signed_distance(ball(size=30) < 0)[..., None]
    data = ROW.to_bytes(grid)
    assert len(data) < grid.nbytes / 10
    for damaged in (b"", data[:10], data[:-9], data[:4] + bytes(12) + data[16:], data[:4] + b"\xff" * 12 + data[16:]):
        with pytest.raises(ValueError, match="not a distance_field of a prepared set"):
            ROW.from_bytes(damaged)


def test_plain_arrays_are_read_and_others_say_what_to_write():
    values = field()
    for array in (values, values[..., 0], values.astype(np.float64)):
        np.testing.assert_array_equal(ROW.read(npz(any=array)).values, values)
    for arrays, message in (
        ({"a": values[0, ..., 0]}, "3 or 4 axes"),
        ({"a": np.repeat(values, 2, axis=-1)}, "array of floats"),
        ({"a": np.zeros((2, 2, 2), np.int32)}, "array of floats"),
        ({"distances": values, "bound": np.array([1.0, 2.0])}, "one float"),
        ({"distances": values, "bound": np.array(0.1)}, "positive bound"),
        ({"a": np.full((2, 2, 2), np.nan)}, "np.clip"),
    ):
        with pytest.raises(ValueError, match=message):
            ROW.read(npz(**arrays))
    with pytest.raises(ValueError, match="not an .npz file"):
        ROW.read(io.BytesIO(b"hello"))


def test_a_row_of_other_axes_is_one_line():
    row = DistanceField(name="profile", coord_dim=1, mirrored_axes=())
    np.testing.assert_array_equal(row.from_bytes(row.to_bytes(field((9,)))).values, field((9,)))
