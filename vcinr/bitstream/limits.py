"""What decoding a file may take before it is refused: a few bytes can ask for hours."""

from __future__ import annotations

import dataclasses

from vcinr.bitstream.container import DEFAULT_MAX_PIXELS, BitstreamError

DEFAULT_MAX_WORK = 2**39
"""Some ten seconds on two CPU cores."""
WORK_PER_BYTE = 2**26
"""Of setting up signals and streams: an ordinary picture has more than the eight bytes that its thirty streams then need."""
MAX_BYTES = 2**30
"""Memory that decoding may take with `DEFAULT_MAX_PIXELS`, where a codec says what a sample takes; in proportion with others."""
LEAST_MAX_SYMBOLS = 2**25


@dataclasses.dataclass(frozen=True)
class Limits:
    """Of one file, all its signals together. Memory is bounded by how decoding goes about it, not by a limit.

    max_pixels: samples, in whole patches.
    max_work: multiplications that evaluating the networks takes which the file itself holds, and what setting up signals and
        streams counts for (`vcinr.codec.Codec.decoding_work`). A model's own networks are bounded by ``max_pixels``.
    """

    max_pixels: int = DEFAULT_MAX_PIXELS
    max_work: int = DEFAULT_MAX_WORK

    @property
    def max_symbols(self) -> int:
        """Symbols of all streams that are decoded in any case."""
        return max(LEAST_MAX_SYMBOLS, self.max_pixels // 2)

    def check_work(self, work: int, setting_up: int = 0, num_bytes: int = 0) -> None:
        """BitstreamError for more than ``max_work``.

        setting_up: the part of ``work`` that signals and streams count for; it is free as far as the payload's bytes pay for it
            at `WORK_PER_BYTE`, so that an ordinary container of thousands of signals is read.   num_bytes: of the payload.
        """
        work -= min(setting_up, WORK_PER_BYTE * num_bytes)
        if work > self.max_work:
            raise BitstreamError(
                f"decoding it takes {work} multiplications; the limit is {self.max_work}: if the file is to be trusted, raise "
                "max_work (--max-work)"
            )


DEFAULT_LIMITS = Limits()
NO_LIMIT = 2**63
"""For files that were just written, or whose symbols alone are read."""
