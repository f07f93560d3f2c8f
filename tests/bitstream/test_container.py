"""The container: golden bytes, one spelling a file, and every malformed header as one clear error."""

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcinr.bitstream.container import (
    CHECKSUM_SIZE,
    MAX_SIGNALS,
    BitstreamError,
    check,
    checksum,
    head_bytes,
    peek,
    read,
    write,
)

FINGERPRINT = bytes.fromhex("a1b2c3d4")
TYPES = {"offset": "int", "scale": "float32"}
START = bytes.fromhex("d6c3 01 a1b2c3d4")


def file(rest, payload=b"\x05", types=None):
    """A file whose header goes on after the fingerprint with the bytes `rest` (hexadecimal)."""
    return START + bytes.fromhex(rest) + payload + b"\0\0\0\0"


def test_golden_bytes_of_one_signal():
    head = head_bytes(FINGERPRINT, [(2, 300)], [{"offset": -3, "scale": 0.5}], TYPES)
    assert head == START + bytes.fromhex("02  02 ac02  05 0000003f")
    streams = [np.array([1, -1], np.int32), np.array([70000], np.int32)]
    crc = checksum(head, streams)
    assert crc == zlib.crc32(head + bytes.fromhex("01000000 ffffffff 70110100"))
    data = write(head, b"\x93\x35", crc)
    assert data == head + b"\x93\x35" + struct.pack("<I", crc)
    frame = read(data, TYPES)
    assert (frame.fingerprint, frame.shapes, frame.payload, frame.head) == (FINGERPRINT, ((2, 300),), b"\x93\x35", head)
    assert frame.metas == ({"offset": -3, "scale": 0.5},)
    check(frame, streams)


def test_golden_bytes_of_many_signals():
    equal = head_bytes(FINGERPRINT, [(4, 5)] * 300, [{}] * 300, {})
    assert equal == START + bytes.fromhex("0a ac02 04 05")
    assert read(write(equal, b"", 0), {}).shapes == ((4, 5),) * 300
    differ = head_bytes(FINGERPRINT, [(4, 5), (1, 128)], [{"offset": 0}, {"offset": 64}], {"offset": "int"})
    assert differ == START + bytes.fromhex("1a 02 04 05 01 8001 00 8001")
    frame = read(write(differ, b"\x07", 1), {"offset": "int"})
    assert frame.shapes == ((4, 5), (1, 128))
    assert frame.metas == ({"offset": 0}, {"offset": 64})


def test_a_small_picture_pays_ten_bytes_besides_the_checksum():
    data = write(head_bytes(FINGERPRINT, [(32, 32)], [{}], {}), b"", 0)
    assert len(data) - CHECKSUM_SIZE == 10


@given(
    st.lists(st.tuples(st.integers(1, 2**12), st.integers(1, 2**12)), min_size=1, max_size=5),
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=5, max_size=5),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.binary(max_size=20),
)
def test_any_header_round_trips(shapes, offsets, scale, payload):
    metas = [{"offset": offsets[i], "scale": scale} for i in range(len(shapes))]
    head = head_bytes(FINGERPRINT, shapes, metas, TYPES)
    frame = read(write(head, payload, 2**32 - 1), TYPES)
    assert frame.shapes == tuple(shapes) == peek(write(head, payload, 0)).shapes
    assert list(frame.metas) == metas
    assert (frame.payload, frame.checksum) == (payload, 2**32 - 1)


@settings(max_examples=500)
@given(st.integers(0, 3), st.binary(min_size=1, max_size=12), st.integers(0, 30), st.integers(0, 3))
def test_mutated_files_are_read_in_their_one_spelling_or_refused(kind, junk, place, which):
    shapes = [[(32, 32)], [(4, 5)] * 3, [(4, 5), (3, 300)], [(1, 200)]][which]
    metas = [{"offset": -70000, "scale": 0.1}] * len(shapes)
    data = bytearray(write(head_bytes(FINGERPRINT, shapes, metas, TYPES), b"\x01\x02\x03", 5))
    place %= len(data)
    if kind == 0:
        data[place] ^= junk[0] or 1
    elif kind == 1:
        del data[place:]
    elif kind == 2:
        data[place:place] = junk
    else:
        data[place : place + len(junk)] = junk
    try:
        frame = read(bytes(data), TYPES)
    except BitstreamError:
        return
    assert head_bytes(frame.fingerprint, frame.shapes, frame.metas, TYPES) == frame.head
    assert write(frame.head, frame.payload, frame.checksum) == bytes(data)
    assert peek(bytes(data)).shapes == frame.shapes


@given(st.binary(max_size=60))
def test_random_bytes_after_the_magic_never_crash(junk):
    try:
        frame = read(b"\xd6\xc3\x01" + junk, TYPES)
    except BitstreamError:
        return
    assert head_bytes(frame.fingerprint, frame.shapes, frame.metas, TYPES) == frame.head


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "not a vcinr file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "not a vcinr file"),
        (b"\xd6", "ends inside its header"),
        (b"\xd6\xc3\x01", "ends inside its header"),
        (b"\xd6\xc3\x02" + bytes(40), "format version 2; this vcinr reads version 1"),
        (START, "ends inside its header"),
        (file("02 20", payload=b""), "ends inside its header"),
        (file("02 a0", payload=b""), "ends inside its header"),
        (file("22 20 20"), "flags 0x22 have no meaning"),
        (file("42 20 20"), "flags 0x42 have no meaning"),
        (file("82 20 20"), "flags 0x82 have no meaning"),
        (file("00 20 20"), "flags 0x00 have no meaning"),
        (file("12 20 20"), "flags 0x12 have no meaning"),
        (file("02 20 00"), "axis of length 0"),
        (file("02 20 a000"), "padded with zeros"),
        (file("02 20 8080808000"), "padded with zeros"),
        (file("02 ffffffff7f 01"), "larger than 2147483647"),
        (file("02 808080808001 01"), "larger than 2147483647"),
        (file("02 ffffffffffffffffffffff 01"), "larger than 2147483647"),
        (
            file("02 ffffffff07 ffffffff07"),
            r"asks for 4611686014132420609 samples or more; the limit \(max_pixels\) is 67108864",
        ),
        (file("0a 00 01 01"), "counts 0"),
        (file("0a 01 01 01"), "counts 1"),
        (file("0a 808004 808002 01"), "asks for 2147483648 samples"),
        (file("0a 818004 01 01"), f"number of signals is larger than {MAX_SIGNALS}"),
        (file("1a 808004 01 01"), "ends before the shapes of its 65536 signals"),
        (file("1a 02 04 05 04 05"), "all equal"),
        (file("1a 02 808001 808001 01 01"), "asks for 268435456 samples or more"),
    ],
)
def test_malformed_headers_are_one_clear_error(data, match):
    for parse in (lambda: peek(data), lambda: read(data, {})):
        with pytest.raises(BitstreamError, match=match) as caught:
            parse()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rest", "types", "match"),
    [
        ("02 20 20", {"a": "int", "b": "int"}, "before the meta of its 1 signals"),
        ("02 20 20 80", {"a": "int"}, "ends inside its header"),
        ("02 20 20 8000", {"a": "int"}, "meta a is padded"),
        ("02 20 20 ffffffff1f", {"a": "int"}, "meta a is larger than 4294967295"),
        ("02 20 20 0000", {"b": "float32"}, "ends inside its header"),
        ("02 20 20 0000c07f", {"b": "float32"}, "meta b in the header is not finite"),
        ("02 20 20 000080ff", {"b": "float32"}, "meta b in the header is not finite"),
        ("0a 808004 01 01", {"a": "int"}, "before the meta of its 65536 signals"),
        ("02 20 20 05 01020304", {"b": "bytes"}, "ends inside its header"),
        ("02 20 20 81808001", {"b": "bytes"}, "length of meta b is larger than 1048576"),
        ("02 20 20 8000", {"b": "bytes"}, "length of meta b is padded"),
    ],
)
def test_malformed_meta_is_one_clear_error(rest, types, match):
    with pytest.raises(BitstreamError, match=match):
        read(START + bytes.fromhex(rest) + (b"\x05" if "a" in types and len(types) == 2 else b"") + bytes(4), types)


def test_the_limit_on_samples_is_inclusive_and_over_all_signals():
    data = write(head_bytes(FINGERPRINT, [(10, 10), (10, 5)], [{}, {}], {}), b"", 0)
    assert len(read(data, {}, max_pixels=150).shapes) == 2
    for parse in (lambda: read(data, {}, max_pixels=149), lambda: peek(data, max_pixels=149)):
        with pytest.raises(BitstreamError, match="asks for 150 samples"):
            parse()


def test_no_header_makes_the_parser_take_much_memory():
    worst = file("0a 808004 8001 01")  # the most signals that a header may announce, all alike
    tracemalloc.start()
    try:
        read(worst, {})
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
        tracemalloc.reset_peak()
        with pytest.raises(BitstreamError):
            read(file("1a 808004 8001 01"), {})
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_every_bit_of_head_symbols_and_checksum_is_vouched_for():
    head = head_bytes(FINGERPRINT, [(32, 33)], [{"offset": 1, "scale": 2.0}], TYPES)
    symbols = np.arange(-5, 5, dtype=np.int32)
    data = write(head, b"\x01", checksum(head, [symbols]))
    check(read(data, TYPES), [symbols[:3], symbols[3:]])
    for bit in range(8 * len(head)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BitstreamError):
            check(read(bytes(flipped), TYPES), [symbols])
    for other in (symbols + 1, symbols[::-1], symbols[:-1], np.append(symbols, 0)):
        with pytest.raises(BitstreamError, match="checksum does not match"):
            check(read(data, TYPES), [other])
    with pytest.raises(BitstreamError, match="checksum does not match"):
        check(read(data[:-1] + bytes([data[-1] ^ 1]), TYPES), [symbols])


@pytest.mark.parametrize(
    ("shapes", "metas", "types", "match"),
    [
        ([], [], {}, "1 to 65536 signals, got 0"),
        ([(1, 2)], [], {}, "1 shapes but 0 metas"),
        ([(1, 2), (1,)], [{}, {}], {}, "one rank"),
        ([()], [{}], {}, "one rank"),
        ([(1,) * 8], [{}], {}, "one rank"),
        ([(0, 2)], [{}], {}, "every axis"),
        ([(2**31, 2)], [{}], {}, "every axis"),
        ([(1, 2)], [{"a": 1}], {}, "types are declared for"),
        ([(1, 2)], [{}], {"a": "int"}, "types are declared for"),
        ([(1, 2)], [{"a": 2**31}], {"a": "int"}, "fits int32"),
        ([(1, 2)], [{"a": 0.5}], {"a": "int"}, "fits int32"),
        ([(1, 2)], [{"a": True}], {"a": "int"}, "fits int32"),
        ([(1, 2)], [{"a": float("nan")}], {"a": "float32"}, "finite"),
        ([(1, 2)], [{"a": 1e39}], {"a": "float32"}, "finite"),
        ([(1, 2)], [{"a": 3}], {"a": "bytes"}, "at most 1048576 bytes, got int"),
        ([(1, 2)], [{"a": bytes(2**20 + 1)}], {"a": "bytes"}, "at most 1048576 bytes, got 1048577"),
    ],
)
def test_what_the_format_cannot_hold_is_refused_when_writing(shapes, metas, types, match):
    with pytest.raises(ValueError, match=match):
        head_bytes(FINGERPRINT, shapes, metas, types)


def test_a_fingerprint_has_four_bytes():
    with pytest.raises(ValueError, match="4 bytes"):
        head_bytes(b"abc", [(1, 2)], [{}], {})


def test_floats_are_stored_as_the_nearest_float32():
    head = head_bytes(FINGERPRINT, [(1, 1)], [{"offset": 0, "scale": 0.1}], TYPES)
    assert read(write(head, b"", 0), TYPES).metas[0]["scale"] == float(np.float32(0.1))


def test_bytes_are_their_length_and_they():
    types = {"a": "bytes", "b": "int", "c": "bytes"}
    metas = [{"a": b"", "b": 5, "c": b"xyz"}, {"a": bytes(300), "b": -5, "c": b""}]
    head = head_bytes(FINGERPRINT, [(4,)] * 2, metas, types)
    assert head.endswith(bytes.fromhex("00 0a 03 78797a ac02") + bytes(300) + bytes.fromhex("09 00"))
    assert list(read(write(head, b"", 0), types).metas) == metas
