"""What decoding a file may take before it is refused: a few bytes can ask for hours."""

from __future__ import annotations

import dataclasses

from vcinr.bitstream.container import DEFAULT_MAX_PIXELS, BitstreamError

DEFAULT_MAX_WORK = 2**39
"""Some ten seconds on two CPU cores."""
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

    def check_work(self, work: int) -> None:
        """BitstreamError for more than ``max_work``."""
        if work > self.max_work:
            raise BitstreamError(
                f"decoding it takes {work} multiplications; the limit is {self.max_work}: if the file is to be trusted, raise "
                "max_work (--max-work)"
            )


DEFAULT_LIMITS = Limits()
NO_LIMIT = 2**63
"""For files that were just written, or whose symbols alone are read."""
