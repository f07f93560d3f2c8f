"""What holds for every kind of signal: files come back, hostile metadata are refused, fields are asked between samples."""

import dataclasses

import numpy as np
import pytest

from vcinr.bitstream import container
from vcinr.bitstream import payload as payload_coding
from vcinr.bitstream.container import BitstreamError
from vcinr.codecs import make_codec
from vcinr.modalities import MODALITIES
from vcinr.modalities.climate import ClimateField
from vcinr.model.model import make_model

SHAPES = {1: (23,), 2: (6, 9), 3: (3, 5, 7)}


def field(latitudes, longitudes):
    values = np.add.outer(np.sin(latitudes / 30), np.cos(longitudes / 50)).astype(np.float32) * 20 + 280
    values[1, 2:4] = np.nan
    return ClimateField(values, latitudes, longitudes, name="t2m", units="K", attributes={"long_name": "temperature"})


def example(name):
    """A small raw signal with as many kinds of metadata as it can have."""
    row = MODALITIES[name]
    if name == "climate":
        return field(np.linspace(90, -90, 6), np.arange(9) * 40.0)
    if name == "climate_region":
        return field(np.array([50.0, 49.5, 48.75, 48.0, 47.1, 46.0]), np.linspace(5, 9, 9))
    samples = np.random.default_rng(0).random((*SHAPES[row.rank], row.channels), np.float32)
    return row.pack(row.denormalise(samples), row.example_metadata)


def metadata_of(row, raw):
    return row.unpack(raw)[1]


@pytest.fixture(params=MODALITIES)
def name(request):
    return request.param


@pytest.fixture
def model(name):
    try:
        codec = make_codec("coin", {"modality": name, "architectures": ((1, 4),), "num_steps": 2})
    except ValueError as error:
        pytest.skip(f"COIN has no {name}: {error}")
    return make_model(codec, codec.init(), {})


def test_a_file_gives_back_shape_type_and_metadata(name, model):
    row, raw = MODALITIES[name], example(name)
    back = model.decode(model.encode(raw))
    (samples, metadata), (decoded, again) = row.unpack(raw), row.unpack(back)
    assert (decoded.shape, decoded.dtype) == (samples.shape, samples.dtype)
    # Decoded values have a range of their own, and so another scale where that is the signal's.
    own = {key for key, kind in row.meta_types.items() if kind == "float32"}
    assert {k: v for k, v in again.items() if k not in own} == {k: v for k, v in metadata.items() if k not in own}
    quality = row.metrics(raw, back)
    assert {"psnr_db"} <= set(quality) and all(isinstance(value, float) for value in quality.values())


MESHES = (".off",)
"""Formats of surfaces: what is read from them are samples inside, on a grid of the reader's."""


def test_prepared_sets_and_every_format_keep_every_value(name, tmp_path):
    row, raw = MODALITIES[name], example(name)
    samples, metadata = row.unpack(raw)
    found, again = row.unpack(row.from_bytes(row.to_bytes(raw)))
    np.testing.assert_array_equal(found, samples)
    assert again == metadata
    for suffix in set(row.write_suffixes) & set(row.read_suffixes) - set(MESHES):
        read = raw
        for turn in range(2):
            path = tmp_path / f"signal_{turn}{suffix}"
            row.write(path, read)
            read = row.read(path)
            found, again = row.unpack(read)
            np.testing.assert_array_equal(found, samples)
            # A format may say more than the signal had to say, such as where it lies; then it says so again.
            assert turn == 0 or again == metadata
            metadata = again
        metadata = row.unpack(raw)[1]


def test_a_finer_grid_has_metadata_of_its_own(name, model):
    row, raw = MODALITIES[name], example(name)
    data = model.encode(raw)
    finer = model.decode_at(data, scale=2)
    samples, metadata = row.unpack(finer)
    assert samples.shape[:-1] == tuple(2 * n for n in row.unpack(raw)[0].shape[:-1])
    row.check_metadata(metadata, samples.shape[:-1])


def hostile(rng, kind, value):
    """Another value of a meta's type: near, small, extreme; bytes with bits flipped, cut, repeated, or of noise."""
    if kind == "int":
        numbers = [value + 1, value - 1, 0, -1, 1, 2**31 - 1, -(2**31), int(rng.integers(-(2**31), 2**31))]
        return int(np.clip(rng.choice(numbers), -(2**31), 2**31 - 1))
    if kind == "float32":
        numbers = [0.0, -0.0, -1.0, 1e-45, 3e38, -3e38, float(value) * 2, float(rng.normal())]
        return float(np.float32(np.clip(rng.choice(numbers), -3e38, 3e38)))
    out = bytearray(value)
    choice = rng.integers(5)
    if choice == 0 and out:
        out[rng.integers(len(out))] ^= 1 << rng.integers(8)
    elif choice == 1:
        del out[rng.integers(len(out) + 1) :]
    elif choice == 2:
        out += out + rng.bytes(3)
    elif choice == 3:
        out = bytearray(rng.bytes(int(rng.integers(0, 40))))
    else:
        out = bytearray(rng.integers(0, 3, int(rng.integers(0, 20)), np.uint8).tobytes())
    return bytes(out)


@pytest.mark.parametrize("seed", range(3))
def test_signed_files_with_hostile_metadata_are_refused_or_decode(name, model, seed):
    row = MODALITIES[name]
    if not row.meta_types:
        pytest.skip("this kind of signal has no metadata")
    codes, grids = model.make_codes([example(name)], 0)
    payload = payload_coding.encode_payload(model.codec, model.params, 0, grids, codes)
    rng, outcomes = np.random.default_rng(seed), {"refused": 0, "decoded": 0}
    for _ in range(80):
        metadata = dict(codes[0].metadata)
        for key in rng.choice(list(metadata), size=rng.integers(1, 3)):
            metadata[key] = hostile(rng, row.meta_types[key], metadata[key])
        meta = {**metadata, **codes[0].meta}
        shapes = [grid.shape for grid in grids]
        head = container.head_bytes(bytes.fromhex(model.points[0]["fingerprint"]), shapes, [meta], model.meta_types)
        data = container.write(head, payload, container.checksum(head, payload_coding.ordered_streams(model.codec, codes)))
        try:
            decoded = model.decode(data)
        except BitstreamError:
            outcomes["refused"] += 1
        else:
            row.unpack(decoded)  # What decodes is a signal.
            outcomes["decoded"] += 1
    assert outcomes["refused"] > 0, outcomes


def test_raw_signals_of_another_kind_are_one_clear_error(name, model):
    for other in (None, [1, 2], np.zeros(3), np.zeros((2, 2, 2, 2, 2)), "text", np.array(["a"]), {"a": 1}):
        with pytest.raises((ValueError, TypeError)) as caught:
            model.encode(other)
        assert len(str(caught.value)) > 20 and "\n" not in str(caught.value)


def test_rows_have_names_of_their_own_and_say_what_they_are(name):
    row = MODALITIES[name]
    assert row.name == name
    assert set(row.example_metadata) == set(row.meta_types)
    assert dataclasses.replace(row).rank == row.rank
    assert row.coordinates(SHAPES[row.rank]).dtype == np.float32
