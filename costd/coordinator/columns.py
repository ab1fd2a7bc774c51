"""Values of the coordinator ↔ rows of its tables."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from costd.coordinator.rows import Daemon, Share
from costd.model.events import Alert, AuditRecord
from costd.model.kill import KillSwitch
from costd.model.labels import Selector
from costd.model.lease import Pool, Stand

Value = TypeVar("Value", bound=msgspec.Struct)

_STAND_COUNT: Final = len(Stand.__struct_fields__)
_STAND_COLUMNS: Final = tuple(
    "late_stated" if name == "late" else name for name in Stand.__struct_fields__
)
"""A share has `late` twice: what the daemon states, and what the coordinator found."""
SHARE_COLUMNS: Final = (*_STAND_COLUMNS, "epoch", "is_reclaimed", "lost", "reserve_lost", "late")


def clean(text: str) -> str:
    """Replace the one character that a label may hold and PostgreSQL's text may not."""
    return text.replace("\0", "\ufffd") if "\0" in text else text


def from_row(kind: type[Value], row: Sequence[Any]) -> Value:
    """Make a value from columns that stand in the order of its fields."""
    return kind(**dict(zip(kind.__struct_fields__, row, strict=True)))


def arrays(kind: type[msgspec.Struct], values: Sequence[msgspec.Struct]) -> dict[str, list[Any]]:
    """Turn values into one list per column."""
    return {name: _column(values, name) for name in kind.__struct_fields__}


def _column(values: Iterable[msgspec.Struct], name: str) -> list[Any]:
    column = [getattr(value, name) for value in values]
    return [clean(each) for each in column] if column and isinstance(column[0], str) else column


def share_from_row(row: Sequence[Any]) -> Share:
    """Make a share from `SHARE_COLUMNS`."""
    epoch, is_reclaimed, lost, reserve_lost, late = row[_STAND_COUNT:]
    return Share(
        stand=Stand(*row[:_STAND_COUNT]),
        epoch=epoch,
        is_reclaimed=is_reclaimed,
        lost=lost,
        reserve_lost=reserve_lost,
        late=late,
    )


def share_arrays(written: Sequence[tuple[tuple[bytes, str], Share]]) -> dict[str, list[Any]]:
    """Turn shares into one list per column, keys included."""
    stands = [share.stand for _, share in written]
    columns: dict[str, list[Any]] = {
        "counter_key": [key for (key, _), _ in written],
        "daemon_id": [daemon_id for (_, daemon_id), _ in written],
    }
    for column, field in zip(_STAND_COLUMNS, Stand.__struct_fields__, strict=True):
        columns[column] = [getattr(stand, field) for stand in stands]
    for column in SHARE_COLUMNS[_STAND_COUNT:]:
        columns[column] = [getattr(share, column) for _, share in written]
    return columns


def daemon_from_row(row: Sequence[Any]) -> Daemon:
    """Make a daemon from its columns."""
    return from_row(Daemon, row)


def pool_from_row(row: Sequence[Any]) -> tuple[bytes, Pool]:
    """Make a counter from its key and columns."""
    return bytes(row[0]), from_row(Pool, row[1:])


def alert_from_row(row: Sequence[Any]) -> tuple[int, Alert]:
    """Make an alert from its sequence and columns."""
    return row[0], from_row(Alert, row[1:])


def audit_from_row(row: Sequence[Any]) -> tuple[int, AuditRecord]:
    """Make an audit record from its sequence and columns."""
    return row[0], from_row(AuditRecord, row[1:])


def kill_row(kill: KillSwitch) -> dict[str, Any]:
    """Turn a kill switch into its columns."""
    row = {name: getattr(kill, name) for name in KillSwitch.__struct_fields__}
    row = {name: clean(value) if isinstance(value, str) else value for name, value in row.items()}
    row["mode"] = kill.mode.value
    # JSON spells the character so, and cannot have been meant to hold these six.
    scope = msgspec.json.encode(kill.scope, order="deterministic").decode()
    row["scope"] = scope.replace("\\u0000", "\\ufffd")
    return row


def kill_from_row(row: Sequence[Any]) -> KillSwitch:
    """Make a kill switch from its columns, as `list_kills` names them."""
    kill_id, scope, *rest = row
    named = dict(zip(_KILL_COLUMNS, rest, strict=True))
    return msgspec.convert(
        {"kill_id": kill_id, "scope": msgspec.convert(scope, Selector), **named}, KillSwitch
    )


_KILL_COLUMNS: Final = (
    "mode",
    "reason",
    "actor",
    "engaged_ns",
    "max_tier",
    "releases_ns",
    "releases_steady_ns",
    "released_ns",
    "released_by",
)
