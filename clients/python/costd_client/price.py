"""How an allowance prices a draw that states tokens."""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING, NamedTuple, Self

from costd_client.requests import COUNT_MAX

if TYPE_CHECKING:
    from costd_client.pb import admission_pb2 as pb

NEVER = -1


class PriceLine(NamedTuple):
    """(per_request + prompt × input + output × output) ÷ scale, rounded up.

    Shape:   `input` and `output` hold for prompts of up to `first_below` tokens, `bands` for
             the longer ones, highest first; where nothing can be priced `scale` is negative.
    Units:   nano-USD per `scale` tokens or requests.
    """

    scale: int
    per_request: int
    input: int
    output: int
    first_below: int
    bands: tuple[tuple[int, int, int], ...]

    @classmethod
    def read(cls, granted: pb.Allowance) -> Self:
        """Read an allowance's price table; one that makes no sense prices nothing."""
        table = granted.price_table
        bands = [(band.above_tokens, band.input, band.output) for band in table.bands]
        starts = [above for above, _, _ in bands]
        sensible = (
            granted.HasField("price_table")
            and table.scale > 0
            and table.per_request >= 0
            and bool(bands)
            and starts == sorted(set(starts))
            and starts[0] == 0
            and all(rate_in >= 0 and rate_out >= 0 for _, rate_in, rate_out in bands)
        )
        if not sensible:
            return cls(NEVER, 0, 0, 0, NEVER, ())
        # Whatever divides all of it changes no price, and smaller numbers are faster.
        common = gcd(table.scale, table.per_request, *(rate for band in bands for rate in band[1:]))
        bands = [(above, of_in // common, of_out // common) for above, of_in, of_out in bands]
        _, rate_in, rate_out = bands[0]
        below = starts[1] if len(starts) > 1 else COUNT_MAX
        scale, per_request = table.scale // common, table.per_request // common
        return cls(scale, per_request, rate_in, rate_out, below, tuple(bands[::-1]))

    def cost_nusd(self, prompt_tokens: int, output_tokens: int) -> int:
        """Price one call by the highest band that starts below its prompt."""
        for above, rate_in, rate_out in self.bands:
            if prompt_tokens > above or above == 0:
                total = self.per_request + prompt_tokens * rate_in + output_tokens * rate_out
                return -(-total // self.scale)
        raise ValueError("this allowance prices no tokens")
