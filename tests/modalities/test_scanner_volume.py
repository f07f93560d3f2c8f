"""Scanner volumes: values and headers of NIfTI files return as nibabel reads them, whatever their type; hostile ones do not."""

import builtins
import gzip
import io

import nibabel
import numpy as np
import pytest

from vcinr.bitstream import container
from vcinr.modalities import MODALITIES
from vcinr.modalities.files.scanner import nifti_bytes, read_volume, write_volume
from vcinr.modalities.scanner_volume import VOXEL_TYPES, Header, Volume, header_bytes, parse_header

ROW = MODALITIES["scanner_volume"]
AFFINE = np.array([[0.9, 0.1, 0, -80], [-0.1, 1.2, 0.2, -110.5], [0, -0.2, 2.5, 7], [0, 0, 0, 1]])
FULL = Header(0.5, -1024.0, tuple(np.float32(AFFINE[:3]).ravel().tolist()), 2, 1, 10, (-100.0, 300.0), b"a head")


def voxels(dtype, shape=(4, 5, 6), seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 1000, (*shape, 1)).astype(dtype)
    limits = np.iinfo(dtype)
    low, high = max(limits.min, -(2**23)), min(limits.max, 2**23)
    return rng.integers(low, high, (*shape, 1), endpoint=True).astype(dtype)


def nifti(array, affine=AFFINE, kind=nibabel.Nifti1Image, slope=(1, 0), units=("mm", "sec"), codes=(2, 2), **fields):
    """A file as nibabel makes it, of an array [x, y, z] of stored voxels."""
    image = kind(array, affine, dtype=array.dtype)
    image.header.set_slope_inter(*slope)
    image.header.set_xyzt_units(*units)
    image.set_sform(affine, codes[0])
    image.set_qform(affine, codes[1])
    for name, value in fields.items():
        image.header[name] = value
    return image.to_bytes()


def read(data, **options):
    return read_volume(io.BytesIO(data), **options)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("dtype", sorted(VOXEL_TYPES.values()))
def test_every_type_is_read_and_written_as_nibabel_does(dtype, kind):
    stored = voxels(dtype)
    data = nifti(stored[..., 0].T, kind=kind, slope=(2, -3), descrip=b"text", cal_min=1, cal_max=9)
    volume = read(data)
    assert volume.voxels.dtype == dtype
    np.testing.assert_array_equal(volume.voxels, stored)
    theirs = nibabel.Nifti1Image.from_bytes(nifti_bytes(volume))
    np.testing.assert_array_equal(theirs.dataobj.get_unscaled(), stored[..., 0].T)
    np.testing.assert_allclose(np.asarray(theirs.dataobj), stored[..., 0].T * 2.0 - 3.0)
    np.testing.assert_allclose(theirs.affine, AFFINE, rtol=1e-6)
    assert theirs.get_data_dtype() == dtype
    assert theirs.header.get_xyzt_units() == ("mm", "sec")
    assert int(theirs.header["sform_code"]) == 2
    assert (float(theirs.header["cal_min"]), float(theirs.header["cal_max"])) == (1, 9)
    assert bytes(theirs.header["descrip"]).rstrip(b"\0") == b"text"


def read_affine(volume):
    return np.reshape(volume.header.affine, (3, 4)).astype(np.float64)


def test_other_byte_orders_and_gzip_are_the_same_volume(tmp_path):
    stored = voxels("int16")
    little = nifti(stored[..., 0].T)
    image = nibabel.Nifti1Image.from_bytes(little)
    big = nibabel.Nifti1Image(image.get_fdata().astype(">i2"), AFFINE, image.header.as_byteswapped(">")).to_bytes()
    assert big[:4] == b"\0\0\x01\x5c"
    for data in (big, gzip.compress(little)):
        np.testing.assert_array_equal(read(data).voxels, stored)
        assert read(data).voxels.dtype == np.int16
        assert read(data).voxels.dtype.isnative
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(little))
    np.testing.assert_array_equal(ROW.read(tmp_path / "a.nii.gz").voxels, stored)


@pytest.mark.parametrize("codes", [(0, 0), (0, 1), (3, 0), (4, 1)])
def test_both_forms_of_the_affine_return_with_their_codes(codes):
    # Without shear, which a qform does not hold.
    affine = np.diag([-2.0, 1.5, 3.0, 1.0])
    affine[:3, 3] = (50, -60, 70)
    data = nifti(voxels("uint8")[..., 0].T, affine, codes=codes)
    volume = read(data)
    before, after = (nibabel.Nifti1Image.from_bytes(each) for each in (data, nifti_bytes(volume)))
    np.testing.assert_allclose(after.affine, before.affine, atol=1e-4)
    np.testing.assert_allclose(after.header.get_zooms(), before.header.get_zooms(), rtol=1e-6)
    assert (int(after.header["sform_code"]), int(after.header["qform_code"])) == codes


def test_a_qform_that_differs_is_dropped():
    data = nifti(voxels("uint8")[..., 0].T, np.diag([1.0, 1, 1, 1]))
    image = nibabel.Nifti1Image.from_bytes(data)
    image.header.set_qform(np.diag([2.0, 2, 2, 1]), 1)
    volume = read(nibabel.Nifti1Image(np.asarray(image.dataobj), None, image.header).to_bytes())
    assert (volume.header.sform_code, volume.header.qform_code) == (2, 0)
    np.testing.assert_array_equal(read_affine(volume)[:, :3], np.eye(3))


@pytest.mark.parametrize("dtype", sorted(VOXEL_TYPES.values()))
def test_samples_fill_the_unit_range_and_return(dtype):
    volume = Volume(voxels(dtype), FULL)
    samples, metadata = ROW.unpack(volume)
    assert samples.dtype == np.float32
    assert (samples.min(), samples.max()) == (0, 1)
    ROW.check_metadata(metadata, samples.shape[:-1])
    back = ROW.pack(samples, metadata)
    assert back.voxels.dtype == dtype
    assert back.header == FULL
    if np.dtype(dtype).itemsize <= 2:
        np.testing.assert_array_equal(back.voxels, volume.voxels)
    else:
        # 24 bits of the range, either way.
        np.testing.assert_allclose(
            back.voxels.astype(float), volume.voxels, rtol=0, atol=1.5 * 2.0**-24 * metadata["range"] + 0.5
        )
    # Packed, it keeps its range, though a lossy codec has not reached its ends.
    again, same = ROW.unpack(ROW.pack(samples * np.float32(0.5) + np.float32(0.2), metadata))
    assert same == metadata
    np.testing.assert_allclose(again, samples * 0.5 + 0.2, atol=0.51 / metadata["range"] + 1e-6)


def test_a_constant_volume_returns():
    for value in (0, -7, 300):
        volume = Volume(np.full((2, 3, 4, 1), value, np.int16))
        samples, metadata = ROW.unpack(volume)
        ROW.check_metadata(metadata, (2, 3, 4))
        np.testing.assert_array_equal(samples, 0)
        np.testing.assert_array_equal(ROW.pack(samples, metadata).voxels, volume.voxels)
        assert ROW.metrics(volume, volume) == {"psnr_db": np.inf, "max_error": 0}


def test_quality_is_of_the_original_range_and_in_its_intensities():
    original = np.array([0, 100, 200, 1000], np.int16).reshape(1, 1, 4, 1)
    decoded = original + np.array([0, 10, -10, 0], np.int16).reshape(1, 1, 4, 1)
    header = Header(slope=-2.0)
    found = ROW.metrics(Volume(original, header), Volume(decoded, header, (0.0, 1000.0)))
    assert found == {"psnr_db": pytest.approx(10 * np.log10(1000**2 / 50)), "max_error": 20}
    with pytest.raises(ValueError, match="different shapes"):
        ROW.metrics(original, decoded[:, :, :3])


@pytest.mark.parametrize(
    ("raw", "mend"),
    [
        ([[[[0]]]], "np.asarray"),
        (np.zeros((2, 2, 2), np.int16), r"voxels\[\.\.\., None\]"),
        (np.zeros((2, 2, 2, 2), np.int16), "one at a time"),
        (np.zeros((2, 0, 2, 1), np.int16), "one at a time"),
        (np.zeros((2, 2, 2, 1), np.int64), "convert it to int16"),
        (np.zeros((2, 2, 2, 1), complex), "convert it to int16"),
        (np.full((2, 2, 2, 1), 2**23 + 1, np.int32), "convert them to float32"),
        (np.full((2, 2, 2, 1), np.nan, np.float32), "8 of 8 voxels are NaN"),
        (np.array([[[[-3e38], [3e38]]]], np.float32), "scale or clip"),
        (np.full((2, 2, 2, 1), 1e300), "scale or clip"),
        (Volume(np.full((2, 2, 2, 1), 9, np.int16), span=(0.0, 8.0)), "not within the range 0 to 8"),
        (Volume(np.zeros((2, 2, 2, 1), np.int16), Header(slope=0.0)), "no slope"),
        (Volume(np.zeros((2, 2, 2, 1), np.int16), Header(slope=1e300)), "holds float32"),
        (Volume(np.zeros((2, 2, 2, 1), np.int16), Header(affine=(0.0,) * 12)), "singular"),
        (Volume(np.zeros((2, 2, 2, 1), np.int16), FULL._replace(sform_code=17)), "codes from 0 to 5"),
        (Volume(np.zeros((2, 2, 2, 1), np.int16), Header(description=b"x" * 81)), "at most 80"),
    ],
)
def test_what_is_no_volume_is_refused_with_the_mend(raw, mend):
    with pytest.raises(ValueError, match=mend):
        ROW.unpack(raw)


def test_golden_bytes_of_a_header():
    affine = (1.0, 0.0, 0.0, -2.0, 0.0, 1.0, 0.0, -3.0, 0.0, 0.0, 2.0, -4.0)
    one, zero = "0000803f", "00000000"
    rows = one + zero + zero + "000000c0" + zero + one + zero + "000040c0" + zero + zero + "00000040" + "000080c0"
    header = Header(2.0, -1.0, affine, 2, 1, 10, (0.0, 1.0), b"hi")
    assert header_bytes(header).hex() == "070a" + "00000040000080bf" + rows + "12" + zero + one + "6869"
    assert header_bytes(Header()) == b""
    assert header_bytes(Header(units=2)).hex() == "0002"
    for each in (header, Header(), Header(units=2), Header(description=b"x"), FULL):
        assert parse_header(header_bytes(each)) == each


def test_a_plain_volume_pays_eleven_bytes_besides_its_samples():
    _, metadata = ROW.unpack(np.array([-5, 250], np.int16).reshape(1, 1, 2, 1))
    bare = container.head_bytes(bytes(4), [(1, 1, 2)], [{}], {})
    head = container.head_bytes(bytes(4), [(1, 1, 2)], [metadata], ROW.meta_types)
    assert head == bare + bytes.fromhex("08" + "0000a0c0" + "00007f43" + "00")


@pytest.mark.parametrize(
    "changed",
    [
        {"voxel_type": 1024},
        {"voxel_type": -1},
        {"range": -1.0},
        {"range": 0.5},
        {"lowest": 0.5},
        {"lowest": -40000.0},
        {"range": 40000.0},
        {"voxel_type": 16, "lowest": 3e38, "range": 3e38},
        {"voxel_type": 8, "range": 2.0**24},
        {"voxel_type": 2, "lowest": -1.0},
    ],
)
def test_metadata_of_no_volume_are_refused(changed):
    metadata = {"voxel_type": 4, "lowest": 0.0, "range": 100.0, "header": b""}
    ROW.check_metadata(metadata, (2, 2, 2))
    with pytest.raises(ValueError, match="range over|none of a scanner volume"):
        ROW.check_metadata({**metadata, **changed}, (2, 2, 2))


def test_hostile_headers_are_refused_or_can_be_written():
    whole = header_bytes(FULL)
    for length in range(1, len(whole) - len(FULL.description)):
        with pytest.raises(ValueError, match="too soon|finite|singular"):
            parse_header(whole[:length])
    rng = np.random.default_rng(0)
    accepted = 0
    for _ in range(400):
        damaged = bytearray(whole)
        for position in rng.integers(len(damaged), size=2):
            damaged[position] = rng.integers(256)
        try:
            header = parse_header(bytes(damaged))
        except ValueError:
            continue
        accepted += 1
        with np.errstate(all="ignore"):
            written = nifti_bytes(Volume(np.zeros((1, 2, 3, 1), np.int16), header))
        assert len(written) == 352 + 12
    assert accepted > 20
    for data in (b"\x08\0", b"\0\x40", b"\0\x07", b"\0\0a\0", b"\0\0" + b"x" * 81, b"\1\0" + bytes(8)):
        with pytest.raises(ValueError, match="scanner volume"):
            parse_header(data)


def test_a_file_of_several_volumes_asks_which():
    stored = voxels("int16", (3, 4, 5, 2))[..., 0]
    data = nifti(np.moveaxis(stored, -1, 0).T)
    with pytest.raises(ValueError, match=r"holds 2 volumes: choose one, volume=INDEX \(--volume\), from 0 to 1"):
        read(data)
    for index in (0, "1"):
        for file in (data, gzip.compress(data)):
            np.testing.assert_array_equal(read(file, volume=index).voxels[..., 0], stored[..., int(index)])
    # The limit is on the one that is read.
    assert read(data, volume=1, max_samples=60).voxels.size == 60
    with pytest.raises(ValueError, match="more than the limit of 59"):
        read(data, volume=1, max_samples=59)
    for index in (2, "-1", "one"):
        with pytest.raises(ValueError, match="there is no volume"):
            read(data, volume=index)
    single = nifti(stored[..., :1].transpose(2, 1, 0, 3)[:5].reshape(5, 4, 3, 1))
    assert read(single).voxels.shape == (3, 4, 5, 1)


def test_slices_are_volumes_of_one_slice():
    assert read(nifti(np.arange(12, dtype=np.int16).reshape(4, 3))).voxels.shape == (1, 3, 4, 1)


def test_nan_is_an_error_or_the_number_that_is_given():
    stored = voxels("float32")
    stored[0, 0, 0], stored[1, 1, 1] = np.nan, -np.inf
    data = nifti(stored[..., 0].T)
    with pytest.raises(ValueError, match=r"2 of 120 voxels are NaN or infinite.*--nan 0"):
        read(data)
    filled = read(data, nan="-5").voxels
    assert filled[0, 0, 0, 0] == filled[1, 1, 1, 0] == -5
    assert np.count_nonzero(filled != stored) == 2
    for wrong in ("nan", "many", np.inf):
        with pytest.raises(ValueError, match="takes its place"):
            read(data, nan=wrong)
    plain = voxels("int16")
    np.testing.assert_array_equal(read(nifti(plain[..., 0].T), nan=0).voxels, plain)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".npz"])
def test_written_files_read_back_equal(suffix, tmp_path):
    for dtype in ("uint8", "int16", "float64"):
        volume = Volume(voxels(dtype), FULL)
        write_volume(tmp_path / f"a{suffix}", volume)
        back = ROW.read(tmp_path / f"a{suffix}")
        np.testing.assert_array_equal(back.voxels, volume.voxels)
        # A qform holds no shear, so that of this affine is dropped where it went through NIfTI.
        assert back.header == (FULL if suffix == ".npz" else FULL._replace(qform_code=0))
    first = (tmp_path / f"a{suffix}").read_bytes()
    ROW.write(tmp_path / f"a{suffix}", volume)
    if suffix != ".npz":
        assert (tmp_path / f"a{suffix}").read_bytes() == first
    with pytest.raises(ValueError, match=r"\.nii\.gz, \.nii"):
        ROW.write(tmp_path / "a.img", volume)


def test_prepared_bytes_keep_voxels_header_and_span():
    for volume in (Volume(voxels("int16"), FULL), Volume(voxels("uint8"), span=(-1.0, 300.0)), Volume(voxels("float64"))):
        back = ROW.from_bytes(ROW.to_bytes(volume))
        np.testing.assert_array_equal(back.voxels, volume.voxels)
        assert back.voxels.dtype == volume.voxels.dtype
        assert back[1:] == volume[1:]


def test_plain_arrays_are_read_from_npz():
    stored = voxels("int16")
    for array in (stored, stored[..., 0]):
        file = io.BytesIO()
        np.savez(file, arr=array)
        np.testing.assert_array_equal(read(file.getvalue()).voxels, stored)
    for arrays, message in (
        ({"a": np.zeros((2, 2, 2), np.int64)}, "convert it to int16"),
        ({"a": np.zeros((2, 2))}, "3 or 4 axes"),
        ({"voxels": stored, "header": np.zeros(3)}, "as this program writes"),
        ({"voxels": stored, "header": np.array([8, 0], np.uint8)}, "unknown flags"),
        ({"voxels": stored, "span": np.zeros(3)}, "as this program writes"),
    ):
        file = io.BytesIO()
        np.savez(file, **arrays)
        with pytest.raises(ValueError, match=message):
            read(file.getvalue())


def test_a_new_grid_covers_the_same_space():
    _, metadata = ROW.unpack(Volume(voxels("int16"), FULL))
    old = np.reshape(FULL.affine, (3, 4))
    found = parse_header(ROW.resampled_metadata(metadata, (4, 5, 6), (8, 5, 3))["header"])
    new = np.reshape(found.affine, (3, 4))
    for corner in ((0, 0, 0), (1, 0, 1), (1, 1, 1)):
        # Voxels reach half a voxel beyond their centres; x, y, z.
        ends = [np.array(corner) * shape - 0.5 for shape in ((6, 5, 4), (3, 5, 8))]
        np.testing.assert_allclose(new @ [*ends[1], 1], old @ [*ends[0], 1], rtol=1e-5)
    bare = ROW.unpack(voxels("int16"))[1]
    assert ROW.resampled_metadata(bare, (4, 5, 6), (8, 5, 3)) == bare


def changed(data, position, value):
    return data[:position] + value + data[position + len(value) :]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"", "not a scanner volume"),
        (lambda data: b"hello", "not a scanner volume"),
        (lambda data: bytes(400), "not a scanner volume"),
        (lambda data: data[:300], "not a scanner volume"),
        (lambda data: data[:-1], "ends inside"),
        (lambda data: gzip.compress(data)[:-30], "damaged"),
        (lambda data: b"\x1f\x8b" + data, "damaged"),
        (lambda data: changed(data, 344, b"ni1"), "pair of files"),
        (lambda data: changed(data, 70, b"\x20\0"), "type 32"),
        (lambda data: changed(data, 40, b"\x09\0"), "not a scanner volume"),
        (lambda data: changed(data, 40, b"\xff\xff"), "not a scanner volume"),
        (lambda data: changed(data, 42, b"\0\0"), "no voxels"),
        (lambda data: changed(data, 42, b"\xff\x7f\xff\x7f\xff\x7f"), "the limit"),
        (lambda data: changed(data, 108, np.float32(np.nan).tobytes()), "damaged"),
        (lambda data: changed(data, 108, np.float32(4).tobytes()), "begin at byte 4"),
        (lambda data: changed(data, 108, np.float32(1e30).tobytes()), "damaged"),
        (lambda data: changed(data, 116, np.float32(np.inf).tobytes()), "damaged"),
        (lambda data: changed(data, 280, np.float32(np.nan).tobytes()), "finite|damaged|singular"),
        (lambda data: changed(data, 254, b"\x63"), "codes"),
    ],
)
def test_damaged_files_are_refused(change, message, tmp_path):
    data = nifti(voxels("int16")[..., 0].T, slope=(2, 1))
    (tmp_path / "a.nii").write_bytes(change(data))
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=rf"a\.nii: .*({message})"):
        read_volume(tmp_path / "a.nii", max_samples=10**6)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_any_damage_gives_a_volume_or_the_one_error():
    data = nifti(voxels("int16", (2, 3, 4))[..., 0].T)
    rng = np.random.default_rng(0)
    for _ in range(400):
        damaged = bytearray(data)
        for position in rng.integers(352, size=4):
            damaged[position] = rng.integers(256)
        try:
            volume = read(bytes(damaged), max_samples=10**4)
        except ValueError:
            continue
        assert volume.voxels.size <= 10**4


def test_nibabel_is_asked_for_by_name(monkeypatch):
    data = nifti(voxels("int16")[..., 0].T)
    real = builtins.__import__

    def without(name, *rest):
        if name == "nibabel":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    for call in (lambda: read(data), lambda: nifti_bytes(Volume(voxels("int16")))):
        with pytest.raises(ValueError, match=r"needs nibabel: pip install 'vcinr\[scanner\]'"):
            call()
