"""Override grants: what a verified one permits, and what has been used of it."""

from enum import IntEnum

import msgspec

from costd.model.labels import Selector


class GrantRefusal(IntEnum):
    """Why a grant changed nothing. Numbers are those of `costd.v1.GrantRefusal`."""

    MALFORMED = 1
    BAD_SIGNATURE = 2
    EXPIRED = 3
    NOT_YET_VALID = 4
    WRONG_AUDIENCE = 5
    WRONG_SCOPE = 6
    WRONG_CLASS = 7
    USED_UP = 8
    AMOUNT_EXCEEDED = 9
    KILL_SWITCH = 10
    NOT_NEEDED = 11
    HARD_RULE = 12
    NO_LEASE = 13


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """A signed permission whose signature, audience and dates have been checked.

    `any_class` is set when an admin's key signed it; otherwise only critical classes redeem it.
    `is_offline` tells whether this daemon is in its audience, and so may redeem it by itself.
    """

    grant_id: str
    issuer: str
    subject: str
    reason: str
    scope: Selector
    task_classes: frozenset[str]
    amount_nusd: int
    uses_max_count: int
    expires_ns: int
    passes_kill: bool = False
    any_class: bool = False
    is_offline: bool = True


class GrantUse(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What has been used of one grant at this daemon."""

    grant_id: str
    issuer: str
    subject: str
    uses_count: int = 0
    used_nusd: int = 0
    uses_max_count: int = 0
    amount_nusd: int = 0
    expires_ns: int = 0
    passes_kill: bool = False
    is_offline: bool = True
    """Whether this daemon may redeem it where nobody lends it."""
