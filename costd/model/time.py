"""The two times every rule is given."""

import msgspec

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
NEVER_NS = 2**63 - 1
"""An end that does not come: total and run windows."""


class Now(msgspec.Struct, frozen=True):
    """The moment of a decision, as `costd.clock` read it.

    `wall_ns` is Unix time and may jump; windows and price dates use it.
    `steady_ns` never runs backwards and never jumps, not even over a restart (at most it stands
    still); refills, expiries and automatic releases use it.
    """

    wall_ns: int
    steady_ns: int
