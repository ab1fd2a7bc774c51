"""Where things stand in the store: big-endian keys that begin with what they are deleted by."""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Final, NamedTuple

from costd.model.grant import Grant
from costd.model.labels import NO_LABEL
from costd.model.money import AMOUNT_MAX
from costd.model.policy import Budget, Rate, Unit
from costd.model.time import NEVER_NS

TAG_BYTES = 8
SEQUENCES_END_NS = 2**56
"""In a log, sequence numbers lie below and hours (of denial counts) above; 1972, in ns."""
SEPARATOR = "\x1f"
_ENDLESS = NEVER_NS.to_bytes(8, "big")


def reservation_id(caller: str, ask_id: str) -> bytes:
    """Derive a reservation's id: the same ask of the same caller is the same reservation."""
    return blake2b(f"{caller}\0{ask_id}".encode(), digest_size=16).digest()


def budget_tag(budget: Budget) -> bytes:
    """Identify a budget's counters: its id, window, unit and per, not its limit or steps.

    A budget that was renamed goes on under the id it had, as long as `was` names it.
    """
    window = budget.window
    return _tag(
        "budget",
        budget.was or budget.budget_id,
        window.kind,
        window.time_zone,
        str(window.week_starts),
        budget.unit,
        *budget.per,
    )


def rate_tag(rate: Rate) -> bytes:
    """Identify a rate's buckets: its id, unit, per and refill; another refill starts full."""
    refill = f"{rate.amount}/{rate.interval_ns}"
    return _tag("rate", rate.rate_id, rate.unit, refill, *rate.per)


def _tag(*parts: str) -> bytes:
    return blake2b("\0".join(parts).encode(), digest_size=TAG_BYTES).digest()


class GrantCounter(NamedTuple):
    """What the key of an override grant's counter says."""

    unit: Unit
    limit: int
    grant_id: str


def grant_keys(grant: Grant) -> tuple[bytes, bytes]:
    """Make the keys of a grant's counters in a fleet: of its uses, and of its amount.

    Ensures: whoever signs the same id with another limit or expiry makes another counter, so that a
             key alone says what may be lent of it, and until when.
    """
    uses, amount = GRANT_TAGS
    return (
        _grant_key(grant, uses, grant.uses_max_count),
        _grant_key(grant, amount, grant.amount_nusd),
    )


def _grant_key(grant: Grant, tag: bytes, limit: int) -> bytes:
    return window_prefix(grant.expires_ns, tag) + f"{limit}{SEPARATOR}{grant.grant_id}".encode()


def is_grants(key: bytes) -> bool:
    """Tell whether a counter is an override grant's."""
    return tag_of(key) in GRANT_TAGS


def grant_counter(key: bytes) -> GrantCounter | None:
    """Read what an override grant's counter is of; None where it is another one, or nonsense."""
    unit = GRANT_TAGS.get(tag_of(key))
    limit, separator, grant_id = key[8 + TAG_BYTES :].decode(errors="replace").partition(SEPARATOR)
    if unit is None or not separator or not (limit.isascii() and limit.isdigit()):
        return None
    return GrantCounter(unit, min(int(limit[:_DIGITS_MAX]), AMOUNT_MAX), grant_id)


def per_key(per: tuple[str, ...], facts: Mapping[str, str]) -> str:
    """Write the `per` values of an ask: `user=ann`, joined by a separator labels cannot hold."""
    if len(per) == 1:
        name = per[0]
        return f"{name}={facts.get(name, NO_LABEL)}"
    return SEPARATOR.join(f"{name}={facts.get(name, NO_LABEL)}" for name in per)


def share_key(bucket_key: bytes) -> bytes:
    """Make the key of this daemon's share of a fleet's rate; it stands among endless windows."""
    return _ENDLESS + bucket_key


def bucket_key(share_key: bytes) -> bytes:
    """Find the bucket that a share is of."""
    return share_key[len(_ENDLESS) :]


def shown(key: str) -> str:
    """Write a per key for people."""
    return key.replace(SEPARATOR, ", ")


def window_prefix(end_ns: int, tag: bytes) -> bytes:
    """Begin a counter's key; window end first, so that ended windows leave by range."""
    return end_ns.to_bytes(8, "big") + tag


def split_counter_key(key: bytes) -> tuple[int, bytes, str]:
    """Take a counter's key apart into window end, budget tag and per key."""
    return int.from_bytes(key[:8], "big"), key[8:16], key[16:].decode()


def tag_of(key: bytes) -> bytes:
    """Read which budget a counter's key belongs to."""
    return key[8 : 8 + TAG_BYTES]


def due_key(due_ns: int, identity: bytes) -> bytes:
    """Order reservations by when the sweeper must look at them."""
    return min(due_ns, NEVER_NS).to_bytes(8, "big") + identity


def sequence_key(sequence: int) -> bytes:
    """Order appended records."""
    return sequence.to_bytes(8, "big")


def digest(text: str) -> bytes:
    """Shorten a text to eight bytes that stand for it in a key."""
    return blake2b(text.encode(), digest_size=TAG_BYTES).digest()


GRANT_TAGS: Final = {_tag("grant", unit): unit for unit in (Unit.CALLS, Unit.NUSD)}
"""Of an override grant's counters: of its uses, and of its amount."""
_DIGITS_MAX: Final = 19
"""No amount has more."""
