"""Hostile bytes: whatever is decoded is a file that an encoder wrote, and everything else is one error."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.conftest import smooth_picture
from vcinr.bitstream import container
from vcinr.bitstream import payload as payload_coding
from vcinr.bitstream.container import CHECKSUM_SIZE, BitstreamError
from vcinr.model.finding import load
from vcinr.signals.signal import Grid

MAX_PIXELS = 2000
SIZES = [(5, 7), (1, 17), (16, 8)]
HEAD = 8
"""Bytes of a header before its varints."""


@pytest.fixture(scope="module")
def model(klt_model_dir):
    return load(klt_model_dir)


@pytest.fixture(scope="module")
def originals(model):
    """(file, what it decodes to): one picture per point and size, and containers of unequal and equal ones."""
    pictures = [smooth_picture(*size, seed=i) for i, size in enumerate(SIZES)]
    files = [model.encode(picture, point) for point in range(3) for picture in pictures]
    files += [model.encode_together(pictures, point) for point in range(3)]
    files += [model.encode_together(pictures[:1] * 3, 1)]
    return [(data, model.decode_together(data)) for data in files]


@st.composite
def places(draw, size):
    """A place in a file of this size: half of them in its header."""
    return draw(st.integers(0, min(16, size - 1)) | st.integers(0, size - 1))


@st.composite
def varints(draw):
    """The bytes of a number, canonical or padded, of any size."""
    value, out = draw(st.integers(0, 300) | st.integers(0, 2**40)), bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    if draw(st.booleans()):
        out[-1] |= 0x80
        out += b"\x80" * draw(st.integers(0, 5)) + b"\0"
    return bytes(out)


@st.composite
def mutations(draw, data, others):
    """`data` with one to three changes of the kinds that transmission, disks and enemies make."""
    for _ in range(draw(st.integers(1, 3))):
        if not data:
            break
        at = draw(places(len(data)))
        until = min(len(data), at + draw(st.integers(1, 8) | st.integers(1, len(data))))
        kind = draw(st.sampled_from(["flip", "cut", "insert", "delete", "overwrite", "splice", "varint", "repeat", "swap"]))
        if kind == "flip":
            data = data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]
        elif kind == "cut":
            data = data[:at]
        elif kind == "insert":
            data = data[:at] + draw(st.binary(min_size=1, max_size=8)) + data[at:]
        elif kind == "delete":
            data = data[:at] + data[until:]
        elif kind == "overwrite":
            junk = draw(st.binary(min_size=1, max_size=8) | st.sampled_from([b"\0" * 8, b"\xff" * 8]))
            data = data[:at] + junk + data[at + len(junk) :]
        elif kind == "splice":
            data = data[:at] + draw(st.sampled_from(others))[at:]
        elif kind == "varint":
            at = draw(st.integers(HEAD, HEAD + 6))
            data = data[:at] + draw(varints()) + data[at + draw(st.integers(0, 3)) :]
        elif kind == "repeat":
            data = data[:until] + data[at:until] * draw(st.integers(1, 3)) + data[until:]
        else:
            data = data[:at] + data[until:] + data[at:until]
    return data


@settings(max_examples=2500)
@given(st.data())
def test_a_mutated_file_is_refused_or_is_the_file(model, originals, data):
    known = dict(originals)
    mutated = data.draw(mutations(data.draw(st.sampled_from(list(known))), list(known)))
    if mutated not in known:
        for decode in (model.decode_together, model.decode):
            with pytest.raises(BitstreamError) as caught:
                decode(mutated, max_pixels=MAX_PIXELS)
            assert len(str(caught.value).splitlines()) == 1
        return
    # Changes may cancel, and a splice may make another one of the originals.
    decoded = model.decode_together(mutated, max_pixels=MAX_PIXELS)
    for one, other in zip(decoded, known[mutated], strict=True):
        np.testing.assert_array_equal(one, other)
    if len(decoded) == 1:
        np.testing.assert_array_equal(model.decode(mutated, max_pixels=MAX_PIXELS), decoded[0])


@settings(max_examples=200)
@given(
    st.integers(0, 2),
    st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=3),
    st.binary(max_size=40),
    st.none() | st.integers(0, 2**32 - 1),
)
@example(0, [(8, 8)], b"", None)
@example(2, [(20, 20)] * 3, b"\xff" * 40, None)
def test_a_forged_checksum_gets_a_picture_of_the_headers_shape_or_an_error(model, point, shapes, payload, checksum):
    """An enemy who knows the model can write any payload with a checksum that fits it; it is a picture, or it is refused."""
    head = container.head_bytes(bytes.fromhex(model.points[point]["fingerprint"]), shapes, [{}] * len(shapes), {})
    grids = [Grid(shape, (8, 8)) for shape in shapes]
    try:
        codes = payload_coding.decode_payload(model.codec, model.params, point, grids, [{}] * len(shapes), payload)
    except BitstreamError:
        codes = []
    forged = container.checksum(head, payload_coding.ordered_streams(model.codec, codes)) if checksum is None else checksum
    data = container.write(head, payload, forged)
    try:
        decoded = model.decode_together(data)
    except BitstreamError:
        assert not codes or forged != container.checksum(head, payload_coding.ordered_streams(model.codec, codes))
        return
    assert [picture.shape for picture in decoded] == [(*shape, 3) for shape in shapes]
    # And it is a file as good as any other: the encoder writes the same bytes for its symbols.
    assert model.write_codes(point, codes, grids) == data


def test_every_flipped_bit_and_every_cut_is_refused(model, originals):
    """Exhaustively, for the smallest file and the smallest container."""
    files = sorted((data for data, _ in originals), key=len)
    container = next(data for data in files if len(model.decode_together(data)) > 1)
    for data in (files[0], container):
        assert len(data) > HEAD + CHECKSUM_SIZE
        for position in range(len(data)):
            for bit in range(8):
                with pytest.raises(BitstreamError):
                    model.decode_together(data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :], MAX_PIXELS)
            with pytest.raises(BitstreamError):
                model.decode_together(data[:position], MAX_PIXELS)


@pytest.mark.parametrize("start", [b"", container.MAGIC, container.MAGIC + b"\1"])
@settings(max_examples=200)
@given(junk=st.binary(max_size=64))
def test_random_bytes_are_refused(model, start, junk):
    with pytest.raises(BitstreamError):
        model.decode(start + junk, MAX_PIXELS)
