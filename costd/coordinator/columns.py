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


def rows_json(rows: Sequence[Any]) -> dict[str, str]:
    """Write rows as the one parameter of a statement over many: `json_to_recordset` reads it.

    One text is ten times cheaper than a list for every column. Keys travel as base64.
    """
    return {"rows": json_text(rows)}


def json_text(value: Any) -> str:
    """Write JSON that PostgreSQL takes: it knows no NUL, not even escaped."""
    written = msgspec.json.encode(value)
    if b"\\u0000" in written:
        written = written.replace(b"\\u0000", b"\\ufffd")
    return written.decode()


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


def share_rows(written: Iterable[tuple[tuple[bytes, str], Share]]) -> list[dict[str, Any]]:
    """Turn shares into rows, keys included."""
    return [
        {
            "counter_key": key,
            "daemon_id": daemon_id,
            **dict(zip(_STAND_COLUMNS, msgspec.to_builtins(share.stand), strict=True)),
            "epoch": share.epoch,
            "is_reclaimed": share.is_reclaimed,
            "lost": share.lost,
            "reserve_lost": share.reserve_lost,
            "late": share.late,
        }
        for (key, daemon_id), share in written
    ]


def pool_rows(written: Iterable[tuple[bytes, Pool]]) -> list[dict[str, Any]]:
    """Turn counters into rows, keys included."""
    return [{"counter_key": key, **msgspec.to_builtins(pool)} for key, pool in written]


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
    row["scope"] = json_text(kill.scope)
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
