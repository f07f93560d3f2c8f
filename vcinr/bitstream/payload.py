"""A codec's streams ↔ payload bytes. Generic over `vcinr.codec.Codec`; integers only, exact on every machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vcinr.bitstream.container import BitstreamError
from vcinr.bitstream.limits import DEFAULT_LIMITS, Limits
from vcinr.codec import STREAM_WORK, Code, Codec, num_samples
from vcinr.entropy.range_coder import Decoder, Encoder, SymbolModel, Table, model_count, symbol_bits
from vcinr.signals.signal import Grid
from vcinr.stage import Params

SYMBOLS_PER_SAMPLE = 4
"""Symbols of each sample in whole patches that are decoded in any case."""
MAX_METAS = 16
"""Different metas of the signals of a file that needs no model: each is a network, and a program that a reader compiles."""


def encode_payload(codec: Codec, params: Params, point: int, grids: Sequence[Grid], codes: Sequence[Code]) -> bytes:
    """All streams of all signals as one range-coded payload.

    grids, codes: one per signal. Stream by stream in the codec's order; within a stream, consecutive signals that share
    their tables are coded in one call, as one long array. Raises CodingError on symbols that their model cannot code,
    ValueError for more than `MAX_METAS` networks in a file that needs no model.
    """
    _check_metas(codec, [code.meta for code in codes])
    encoder = Encoder()
    decoded: list[dict[str, np.ndarray]] = [{} for _ in codes]
    metas = [code.meta for code in codes]
    known = [code.known_models() for code in codes]
    for name in codec.streams:
        arrays = [np.asarray(code.streams[name]) for code in codes]
        start = 0
        for models in _joint(_models(codec, params, point, grids, metas, decoded, name, known)):
            symbols = arrays[start : start + len(models)]
            for model, part in zip(models, symbols, strict=True):
                if part.shape != (model_count(model),):
                    raise ValueError(f"stream {name!r} has shape {part.shape}, its model is for {model_count(model)} symbols")
            encoder.encode(np.concatenate(symbols), _merged(models))
            start += len(models)
        for signal, array in zip(decoded, arrays, strict=True):
            signal[name] = array
    return encoder.finish()


def decode_payload(
    codec: Codec,
    params: Params,
    point: int,
    grids: Sequence[Grid],
    metas: Sequence[Mapping[str, int | float]],
    payload: bytes,
    limits: Limits = DEFAULT_LIMITS,
) -> list[Code]:
    """Codes of all signals from a payload; the inverse of `encode_payload`.

    limits: of work, and of symbols of all signals and streams together; but `SYMBOLS_PER_SAMPLE` are always taken. A payload
        may be short for many symbols, so this is what bounds memory.
    Raises BitstreamError beyond the limits, on bytes that `encode_payload` does not write for these grids and metas, and where
    the codec's `symbol_model` refuses (ValueError) what has been decoded. A payload damaged into another valid one is told by
    the container's checksum only.
    """
    decoded: list[dict[str, np.ndarray]] = [{} for _ in grids]
    limit = left = max(limits.max_symbols, SYMBOLS_PER_SAMPLE * sum(map(num_samples, grids)))

    def counted(models: Iterator[SymbolModel]) -> Iterator[SymbolModel]:
        nonlocal left
        for model in models:
            left -= model_count(model)
            if left < 0:
                mend = "if it is to be trusted, raise max_pixels (--max-pixels)"
                raise ValueError(f"it asks for more than {limit} symbols; {mend}")
            yield model

    try:
        _check_metas(codec, metas)
        setting_up = STREAM_WORK * len(codec.streams) * len(grids)
        limits.check_work(_decoding_work(codec, grids, metas), setting_up, len(payload))
        decoder = Decoder(payload)
        for name in codec.streams:
            signals = iter(list(decoded))
            for models in _joint(counted(_models(codec, params, point, grids, metas, decoded, name))):
                ends = np.cumsum([model_count(model) for model in models])[:-1]
                for part in np.split(decoder.decode(_merged(models)), ends):
                    next(signals)[name] = part
        decoder.finish()
    except BitstreamError:
        raise
    except ValueError as error:
        raise BitstreamError(f"the payload does not decode, the file is damaged or made with another model: {error}") from error
    return [Code(streams, dict(meta)) for streams, meta in zip(decoded, metas, strict=True)]


def stream_bits(codec: Codec, params: Params, point: int, grid: Grid, code: Code) -> dict[str, float]:
    """Ideal code length in bits of each stream of one signal under the model that codes it."""
    found, decoded = {}, {}
    for name in codec.streams:
        model = codec.symbol_model(params, point, grid, code.meta, dict(decoded), name)
        found[name] = float(symbol_bits(model, code.streams[name]).sum())
        decoded[name] = code.streams[name]
    return found


def estimated_bits(codec: Codec, params: Params, point: int, grid: Grid, code: Code) -> float:
    """The sum of `stream_bits`."""
    return sum(stream_bits(codec, params, point, grid, code).values())


def ordered_streams(codec: Codec, codes: Sequence[Code]) -> Iterator[np.ndarray]:
    """Every signal's streams in coding order, the order in which the container's checksum covers them."""
    return (code.streams[name] for name in codec.streams for code in codes)


def _models(
    codec: Codec,
    params: Params,
    point: int,
    grids: Sequence[Grid],
    metas: Sequence[Mapping[str, int | float]],
    decoded: Sequence[Mapping[str, np.ndarray]],
    name: str,
    known: Sequence[Mapping[str, SymbolModel]] | None = None,
) -> Iterator[SymbolModel]:
    """The model of stream `name` of each signal: known already, or from copies of the streams before it, as at the other end."""
    for grid, meta, before, found in zip(grids, metas, decoded, known or [{}] * len(grids), strict=True):
        yield found[name] if name in found else codec.symbol_model(params, point, grid, meta, dict(before), name)


def _check_metas(codec: Codec, metas: Sequence[Mapping[str, int | float]]) -> None:
    if not codec.needs_model and (found := len({tuple(meta.items()) for meta in metas})) > MAX_METAS:
        raise ValueError(f"the signals are of {found} different networks; a file holds at most {MAX_METAS}: use several files")


def _decoding_work(codec: Codec, grids: Sequence[Grid], metas: Sequence[Mapping[str, int | float]]) -> int:
    """Of all signals; once for those that are alike, for a file may hold many."""
    alike = Counter((grid, tuple(meta.items())) for grid, meta in zip(grids, metas, strict=True))
    return sum(count * codec.decoding_work(grid, dict(meta)) for (grid, meta), count in alike.items())


def _joint(models: Iterable[SymbolModel]) -> list[list[SymbolModel]]:
    """Runs of consecutive models that are coded in one call: tables of equal content, and every other model alone."""
    runs: list[list[SymbolModel]] = []
    for model in models:
        last = runs[-1][-1] if runs else None
        if isinstance(model, Table) and isinstance(last, Table) and model.tables == last.tables:
            runs[-1].append(model)
        else:
            runs.append([model])
    return runs


def _merged(models: Sequence[Any]) -> SymbolModel:
    if len(models) == 1:
        return models[0]
    offset = None
    if any(model.offset is not None for model in models):
        offset = np.concatenate([np.zeros_like(model.index) if model.offset is None else model.offset for model in models])
    return Table(models[0].tables, np.concatenate([model.index for model in models]), offset)
