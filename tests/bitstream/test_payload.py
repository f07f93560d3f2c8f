"""Streams of a codec to payload bytes and back, with a small codec whose tables depend on symbols decoded before."""

import dataclasses
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcinr.bitstream import container
from vcinr.bitstream.container import BitstreamError
from vcinr.bitstream.fingerprint import fingerprint
from vcinr.bitstream.limits import LEAST_MAX_SYMBOLS, WORK_PER_BYTE, Limits
from vcinr.bitstream.payload import (
    MAX_METAS,
    decode_payload,
    encode_payload,
    estimated_bits,
    ordered_streams,
)
from vcinr.codec import STREAM_WORK, Code, Codec
from vcinr.entropy.range_coder import CodingError, RawBits, Table
from vcinr.entropy.tables import Tables
from vcinr.signals.signal import Grid

DOCS = Path(__file__).parents[2] / "docs"
TABLES = Tables(np.array([-1, 0]), np.array([4, 2]), np.array([16384, 32768, 16000, 384, 65535, 1]))
INT32 = st.integers(-(2**31), 2**31 - 1)


@dataclasses.dataclass
class TwoStreams(Codec):
    """A patch has a mode, four raw bits, and two latents; modes under 8 use table 0, the others table 1."""

    name: str = "two_streams"
    config: object = None
    modality: str = "picture"
    patch: tuple[int, ...] = (1, 3)
    streams: tuple[str, ...] = ("mode", "latent")
    continuous: bool = True
    needs_model: bool = True
    seen: list = dataclasses.field(default_factory=list)

    @property
    def meta_types(self):
        return {"offset": "int", "scale": "float32"}

    def symbol_model(self, params, point, grid, meta, decoded, name):
        self.seen.append((name, sorted(decoded)))
        if name == "mode":
            return RawBits(4, grid.num_patches)
        # A new object each time: coding may depend on what tables say, never on which object says it.
        tables = Tables.from_arrays(params["tables"].to_arrays())
        return Table(tables, np.repeat(decoded["mode"] // 8, 2))

    def decoder_config(self):
        return {"latents": 2}

    def decoder_arrays(self, params, point):
        return params["tables"].to_arrays()


PARAMS = {"tables": TABLES}


def signal(modes, latents):
    modes = np.array(modes, np.int32)
    return Grid((modes.size, 3), (1, 3)), Code(
        {"mode": modes, "latent": np.array(latents, np.int32)}, {"offset": -3, "scale": 0.5}
    )


def random_signals(rng, count, patches):
    modes = [rng.integers(0, 16, patches) for _ in range(count)]
    return zip(*(signal(m, np.where(np.repeat(m, 2) < 8, rng.integers(-1, 2, 2 * patches), 0)) for m in modes), strict=True)


def assert_equal_codes(decoded, expected):
    for got, code in zip(decoded, expected, strict=True):
        assert list(got.streams) == list(code.streams)
        for name in code.streams:
            assert got.streams[name].dtype == np.int32
            np.testing.assert_array_equal(got.streams[name], code.streams[name])
        assert dict(got.meta) == dict(code.meta)


@settings(max_examples=40)
@given(st.lists(st.lists(st.tuples(st.integers(0, 15), INT32, INT32), min_size=1, max_size=6), min_size=1, max_size=4))
def test_streams_round_trip(signals):
    codec = TwoStreams()
    grids, codes = zip(*(signal([m for m, *_ in rows], [x for _, *pair in rows for x in pair]) for rows in signals), strict=True)
    payload = encode_payload(codec, PARAMS, 0, grids, codes)
    assert_equal_codes(decode_payload(codec, PARAMS, 0, grids, [code.meta for code in codes], payload), codes)


def test_signals_are_joined_by_what_their_tables_say_not_by_which_object_says_it():
    class OneObject(TwoStreams):
        def symbol_model(self, params, point, grid, meta, decoded, name):
            model = super().symbol_model(params, point, grid, meta, decoded, name)
            return model if name == "mode" else Table(params["tables"], model.index)

    grids, codes = random_signals(np.random.default_rng(5), 3, 6)
    payload = encode_payload(OneObject(), PARAMS, 0, grids, codes)
    assert encode_payload(TwoStreams(), PARAMS, 0, grids, codes) == payload
    assert_equal_codes(decode_payload(TwoStreams(), PARAMS, 0, grids, [code.meta for code in codes], payload), codes)


def test_signals_with_and_without_offsets_are_joined():
    class Offset(TwoStreams):
        """As `TwoStreams`, but latents are counted from their patch's mode, where that is 8 or more."""

        def symbol_model(self, params, point, grid, meta, decoded, name):
            model = super().symbol_model(params, point, grid, meta, decoded, name)
            if name == "mode" or not (decoded["mode"] >= 8).any():
                return model
            return Table(model.tables, model.index, np.repeat(np.where(decoded["mode"] < 8, 0, decoded["mode"]), 2))

    rows = [([9, 3], [9, 9, 0, -1]), ([2, 3], [1, 0, 0, -1]), ([15], [15, 70_000])]
    grids, codes = zip(*(signal(*row) for row in rows), strict=True)
    payload = encode_payload(Offset(), PARAMS, 0, grids, codes)
    assert_equal_codes(decode_payload(Offset(), PARAMS, 0, grids, [code.meta for code in codes], payload), codes)
    # They are one array: the bytes are those of what is left of each symbol, without any offsets.
    left = [signal([9, 3], [0, 0, 0, -1])[1], codes[1], signal([15], [0, 69_985])[1]]
    assert payload == encode_payload(TwoStreams(), PARAMS, 0, grids, left)


def test_a_model_sees_only_the_streams_before_its_own():
    codec = TwoStreams()
    grids, codes = random_signals(np.random.default_rng(0), 2, 3)
    payload = encode_payload(codec, PARAMS, 0, grids, codes)
    encoder_saw, codec.seen = codec.seen, []
    decode_payload(codec, PARAMS, 0, grids, [code.meta for code in codes], payload)
    assert encoder_saw == codec.seen == [("mode", [])] * 2 + [("latent", ["mode"])] * 2


def test_the_estimate_is_the_tables_entropy_and_the_payload_keeps_to_it():
    codec = TwoStreams()
    grid, code = signal([9, 3], [0, 0, -1, 1])
    expected = 2 * 4 + 2 * np.log2(65536 / 65535) + 2 + np.log2(65536 / 16000)
    assert estimated_bits(codec, PARAMS, 0, grid, code) == pytest.approx(expected)
    grids, codes = random_signals(np.random.default_rng(1), 200, 250)
    total = sum(estimated_bits(codec, PARAMS, 0, grid, code) for grid, code in zip(grids, codes, strict=True))
    assert sum(code.streams[name].size for code in codes for name in codec.streams) >= 100_000
    assert 8 * len(encode_payload(codec, PARAMS, 0, grids, codes)) / total == pytest.approx(1, abs=0.005)


def test_signals_that_share_a_stream_cost_less_than_streams_of_their_own():
    codec = TwoStreams()
    grids, codes = random_signals(np.random.default_rng(2), 64, 4)
    alone = sum(len(encode_payload(codec, PARAMS, 0, [grid], [code])) for grid, code in zip(grids, codes, strict=True))
    together = len(encode_payload(codec, PARAMS, 0, grids, codes))
    total = sum(estimated_bits(codec, PARAMS, 0, grid, code) for grid, code in zip(grids, codes, strict=True))
    assert together < alone
    assert 8 * together < total + 16


def example():
    """The file of the worked example in docs/bitstream.md."""
    codec = TwoStreams()
    grid, code = signal([9, 3], [0, 0, 5, -1])
    head = container.head_bytes(bytes.fromhex("a1b2c3d4"), [grid.shape], [code.meta], codec.meta_types)
    payload = encode_payload(codec, PARAMS, 0, [grid], [code])
    return container.write(head, payload, container.checksum(head, ordered_streams(codec, [code])))


def test_golden_file_is_the_one_in_the_documentation():
    data = example()
    assert data.hex(" ") == "d6 c3 01 a1 b2 c3 d4 02 02 03 05 00 00 00 3f 93 fe d4 da 4e 14 62"
    shown = re.search(r"<!-- example -->\s*```\n(.*?)```", (DOCS / "bitstream.md").read_text(encoding="utf-8"), re.DOTALL)
    assert bytes.fromhex("".join(line.split("|")[0] for line in shown[1].splitlines())) == data


def test_the_documented_file_decodes():
    codec, data = TwoStreams(), example()
    frame = container.read(data, codec.meta_types)
    codes = decode_payload(codec, PARAMS, 0, [Grid(frame.shapes[0], codec.patch)], frame.metas, frame.payload)
    container.check(frame, ordered_streams(codec, codes))
    np.testing.assert_array_equal(codes[0].streams["mode"], [9, 3])
    np.testing.assert_array_equal(codes[0].streams["latent"], [0, 0, 5, -1])


@settings(max_examples=300)
@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=6), st.integers(0, 3))
def test_a_damaged_payload_never_passes_for_the_truth(place, junk, kind):
    codec = TwoStreams()
    grids, codes = random_signals(np.random.default_rng(3), 2, 8)
    head = container.head_bytes(bytes(4), [grid.shape for grid in grids], [code.meta for code in codes], codec.meta_types)
    payload = encode_payload(codec, PARAMS, 0, grids, codes)
    crc = container.checksum(head, ordered_streams(codec, codes))
    place %= len(payload)
    damaged = {
        0: payload[:place] + bytes([payload[place] ^ (junk[0] or 1)]) + payload[place + 1 :],
        1: payload[:place],
        2: payload[:place] + junk + payload[place:],
        3: payload + junk,
    }[kind]
    frame = container.read(container.write(head, damaged, crc), codec.meta_types)
    try:
        decoded = decode_payload(codec, PARAMS, 0, grids, frame.metas, frame.payload)
        container.check(frame, ordered_streams(codec, decoded))
    except BitstreamError:
        return
    assert damaged == payload


def test_a_symbol_model_that_refuses_what_was_decoded_is_a_bitstream_error():
    class Refusing(TwoStreams):
        def symbol_model(self, params, point, grid, meta, decoded, name):
            if name == "latent" and decoded["mode"].max() > 8:
                raise ValueError("no such mode")
            return super().symbol_model(params, point, grid, meta, decoded, name)

    grid, code = signal([9], [0, 0])
    payload = encode_payload(TwoStreams(), PARAMS, 0, [grid], [code])
    with pytest.raises(BitstreamError, match=r"does not decode, .*: no such mode"):
        decode_payload(Refusing(), PARAMS, 0, [grid], [code.meta], payload)


class ManySymbols(TwoStreams):
    """Symbols of no bits: any number of them in no bytes."""

    def symbol_model(self, params, point, grid, meta, decoded, name):
        return RawBits(0, meta["offset"])


def test_symbols_are_limited_over_all_signals_and_streams_before_they_take_memory(monkeypatch):
    codec, grid = ManySymbols(), Grid((1, 3), (1, 3))

    def decode(counts, **limit):
        metas = [{"offset": count, "scale": 0.0} for count in counts]
        return decode_payload(codec, PARAMS, 0, [grid] * len(counts), metas, b"", **limit)

    tracemalloc.start()
    try:
        with pytest.raises(BitstreamError, match=f"more than {LEAST_MAX_SYMBOLS} symbols"):
            decode([2**20] * 40)
        assert tracemalloc.get_traced_memory()[1] < 2**18
    finally:
        tracemalloc.stop()
    assert Limits(max_pixels=6 * LEAST_MAX_SYMBOLS).max_symbols == 3 * LEAST_MAX_SYMBOLS
    monkeypatch.setattr("vcinr.bitstream.limits.LEAST_MAX_SYMBOLS", 0)
    # Half a symbol for each pixel of the limit, and two streams each.
    half = Limits(max_pixels=2000)
    assert sum(code.streams[name].size for code in decode([250, 250], limits=half) for name in codec.streams) == 1000
    for counts in ([250, 251], [501], [0, 600]):
        with pytest.raises(BitstreamError, match="asks for more than 1000 symbols; if it is to be trusted, raise max_pixels"):
            decode(counts, limits=half)
    # Four for each sample in any case.
    assert len(decode([6, 6], limits=Limits(0))) == 2
    with pytest.raises(BitstreamError, match="more than 24 symbols"):
        decode([6, 7], limits=Limits(0))


def test_work_is_limited_over_all_signals_and_streams_before_anything_is_decoded():
    class Working(TwoStreams):
        def decoding_work(self, grid, meta):
            return super().decoding_work(grid, meta) + 10 * meta["offset"] + grid.shape[1]

    grids, codes = [Grid((1, n), (1, 3)) for n in (3, 6, 3)], [Code({}, {"offset": k, "scale": 0.0}) for k in (1, 2, 1)]
    with pytest.raises(BitstreamError, match=r"takes 52 multiplications; the limit is 51: .*--max-work") as caught:
        decode_payload(Working(), PARAMS, 0, grids, [code.meta for code in codes], b"no payload", Limits(max_work=51))
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(BitstreamError, match="does not decode"):
        decode_payload(Working(), PARAMS, 0, grids, [code.meta for code in codes], b"no payload", Limits(max_work=52))
    # Setting up streams counts where the payload's bytes do not pay for it.
    assert TwoStreams().decoding_work(grids[0], codes[0].meta) == 2 * STREAM_WORK
    with pytest.raises(BitstreamError, match=rf"takes {6 * STREAM_WORK - WORK_PER_BYTE} multiplications"):
        decode_payload(TwoStreams(), PARAMS, 0, grids, [code.meta for code in codes], b"n", Limits(max_work=1))


def test_networks_that_files_bring_along_are_limited():
    metas = [{"offset": i % (MAX_METAS + 1), "scale": 0.0} for i in range(40)]
    grids, codes = random_signals(np.random.default_rng(4), 40, 2)
    codes = [Code(code.streams, meta) for code, meta in zip(codes, metas, strict=True)]
    payload = encode_payload(TwoStreams(), PARAMS, 0, grids, codes)
    assert_equal_codes(decode_payload(TwoStreams(), PARAMS, 0, grids, metas, payload), codes)
    alone = TwoStreams(needs_model=False)
    with pytest.raises(ValueError, match="17 different networks; a file holds at most 16: use several files"):
        encode_payload(alone, PARAMS, 0, grids, codes)
    with pytest.raises(BitstreamError, match="17 different networks"):
        decode_payload(alone, PARAMS, 0, grids, metas, payload)
    payload = encode_payload(alone, PARAMS, 0, grids[:MAX_METAS], codes[:MAX_METAS])
    assert_equal_codes(decode_payload(alone, PARAMS, 0, grids[:MAX_METAS], metas[:MAX_METAS], payload), codes[:MAX_METAS])


def test_streams_that_do_not_fit_their_model_are_refused():
    codec = TwoStreams()
    grid, code = signal([9, 3], [0, 0, 5])
    with pytest.raises(ValueError, match=r"'latent' has shape \(3,\), its model is for 4"):
        encode_payload(codec, PARAMS, 0, [grid], [code])
    grid, code = signal([16], [0, 0])
    with pytest.raises(CodingError, match=r"0\.\.15"):
        encode_payload(codec, PARAMS, 0, [grid], [code])


def test_fingerprints_cover_what_decoding_uses_and_nothing_else():
    codec = TwoStreams()
    base = fingerprint(codec, PARAMS, 0)
    assert base.hex() == "9ecce479"
    assert fingerprint(codec, {**PARAMS, "training": np.zeros(3)}, 0) == base
    other_tables = Tables(TABLES.first, TABLES.sizes, np.array([16384, 32768, 16001, 383, 65535, 1]))
    variants = [
        fingerprint(codec, {"tables": other_tables}, 0),
        fingerprint(dataclasses.replace(codec, name="other"), PARAMS, 0),
        fingerprint(dataclasses.replace(codec, modality="other"), PARAMS, 0),
        fingerprint(dataclasses.replace(codec, patch=(3, 1)), PARAMS, 0),
    ]

    class OtherConfig(TwoStreams):
        def decoder_config(self):
            return {"latents": 3}

    class OtherArrays(TwoStreams):
        def decoder_arrays(self, params, point):
            return {name: array[:, None] for name, array in super().decoder_arrays(params, point).items()}

    variants += [fingerprint(OtherConfig(), PARAMS, 0), fingerprint(OtherArrays(), PARAMS, 0)]
    assert len({base, *variants}) == 7


def test_a_big_endian_array_has_the_same_fingerprint():
    class BigEndian(TwoStreams):
        def decoder_arrays(self, params, point):
            return {name: array.astype(">i4") for name, array in super().decoder_arrays(params, point).items()}

    assert fingerprint(BigEndian(), PARAMS, 0) == fingerprint(TwoStreams(), PARAMS, 0)


def test_another_process_decodes_the_documented_payload(tmp_path):
    data = example()
    (tmp_path / "file").write_bytes(data)
    np.savez(tmp_path / "tables.npz", **TABLES.to_arrays())
    script = """
import sys, pathlib, numpy as np
from vcinr.bitstream import container
from vcinr.entropy.range_coder import Decoder, Table, RawBits
from vcinr.entropy.tables import Tables
folder = pathlib.Path(sys.argv[1])
frame = container.read((folder / "file").read_bytes(), {"offset": "int", "scale": "float32"})
decoder = Decoder(frame.payload)
mode = decoder.decode(RawBits(4, 2))
latent = decoder.decode(Table(Tables.from_arrays(dict(np.load(folder / "tables.npz"))), np.repeat(mode // 8, 2)))
decoder.finish()
container.check(frame, [mode, latent])
print(mode.tolist(), latent.tolist())
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[9, 3] [0, 0, 5, -1]"
