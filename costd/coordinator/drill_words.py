"""What replicas tell each other of a drill: that one begins, who listens where, who has heard."""

import json
from collections.abc import Mapping
from typing import Final

import msgspec

from costd.wire.pb import fleet_pb2 as pb

WORD_BYTES_MAX: Final = 7_800
"""A notification takes less than 8,000 bytes, its topic among them."""


class DrillCall(msgspec.Struct, frozen=True, kw_only=True, tag="call"):
    """Every other replica is to drill its daemons, and to tell the one that asks."""

    drill_id: str
    from_id: str
    """The instance that asks."""
    timeout_ns: int


class DrillRoll(msgspec.Struct, frozen=True, kw_only=True, tag="roll"):
    """Who listens at one replica, or a slice of them."""

    drill_id: str
    to_id: str
    from_id: str
    slice_number: int
    """1, 2, 3, …"""
    slices_count: int
    names: dict[str, str]
    """What people call them, by daemon."""


class DrillHeard(msgspec.Struct, frozen=True, kw_only=True, tag="heard"):
    """What a daemon of another replica confirmed; the fields are `DrillConfirmation`'s."""

    drill_id: str
    to_id: str
    daemon_id: str
    clients_count: int = 0
    unconfirmed_count: int = 0
    slowest_ns: int = 0
    finished: bool = False


DrillWord = DrillCall | DrillRoll | DrillHeard


def word_text(word: DrillWord) -> str:
    """Write what `read_word` reads.

    Shape:   ASCII, whatever people call their daemons, so that every database carries it.
    """
    return _text(msgspec.to_builtins(word))


def read_word(text: str) -> DrillWord | None:
    """Read a word; None for what is none, or is none that this release knows."""
    try:
        word: DrillWord = msgspec.json.decode(text, type=DrillWord)
    except msgspec.DecodeError:
        return None
    return word


def roll_of(names: Mapping[str, str], call: DrillCall, from_id: str) -> list[DrillRoll]:
    """Answer a call with who listens here, in few words; where nobody does, in one.

    Shape:   `names` by daemon. A name that fits in no word is left out, and so is a daemon whose
             id does: it is counted among those that nobody called.
    """
    slices: list[dict[str, str]] = [{}]
    frame = _bytes(_roll(call, from_id, {}, 10**9, 10**9))
    room = left = WORD_BYTES_MAX - frame
    for daemon_id, name in names.items():
        entry = {daemon_id: name}
        if _bytes(entry) > room:
            entry = {daemon_id: ""}
        size = _bytes(entry)
        if size > room:
            continue
        if size > left:
            slices.append({})
            left = room
        slices[-1].update(entry)
        left -= size
    return [
        _roll(call, from_id, each, number, len(slices)) for number, each in enumerate(slices, 1)
    ]


def heard_from(daemon_id: str, message: pb.DrillConfirmation, to_id: str) -> DrillHeard:
    """Write for another replica what a daemon confirmed."""
    return DrillHeard(
        drill_id=message.drill_id,
        to_id=to_id,
        daemon_id=daemon_id,
        clients_count=message.clients_count,
        unconfirmed_count=message.unconfirmed_count,
        slowest_ns=message.slowest.ToNanoseconds(),
        finished=message.finished,
    )


def confirmation_of(word: DrillHeard) -> pb.DrillConfirmation:
    """Read what a daemon of another replica confirmed."""
    message = pb.DrillConfirmation(
        drill_id=word.drill_id,
        clients_count=word.clients_count,
        unconfirmed_count=word.unconfirmed_count,
        finished=word.finished,
    )
    message.slowest.FromNanoseconds(word.slowest_ns)
    return message


def _roll(
    call: DrillCall, from_id: str, names: dict[str, str], slice_number: int, slices_count: int
) -> DrillRoll:
    return DrillRoll(
        drill_id=call.drill_id,
        to_id=call.from_id,
        from_id=from_id,
        slice_number=slice_number,
        slices_count=slices_count,
        names=names,
    )


def _bytes(value: object) -> int:
    """Measure a value as it is written."""
    return len(_text(msgspec.to_builtins(value)))


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
