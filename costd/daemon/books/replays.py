"""What is asked, settled or recorded again: the same gets the same answer, another is refused."""

from costd.engine.admit import differing_field
from costd.errors import IdReused, ReservationClosed
from costd.model.ask import Ask
from costd.model.reservation import Reservation


def check_same_ask(stored: Reservation, ask: Ask, *, id_field: str = "ask_id") -> None:
    """Refuse another ask under an id that was used.

    Errors:  IdReused naming the field that differs.
    """
    field = differing_field(stored, ask)
    if field is not None:
        raise IdReused(
            f"{id_field} {ask.ask_id!r} was used by this caller with another {field}; "
            f"make a new id for every {id_field.removesuffix('_id')}"
        )


def check_same_settle(settled: Reservation, cost_nusd: int) -> None:
    """Refuse to settle at another cost what is settled.

    Errors:  ReservationClosed.
    """
    if cost_nusd != settled.cost_nusd:
        raise ReservationClosed(
            f"reservation {settled.reservation_id.hex()} was settled at {settled.cost_nusd} "
            f"nano-USD; this settle says {cost_nusd}"
        )


def check_same_record(recorded: Reservation, cost_nusd: int) -> None:
    """Refuse to record at another cost what is recorded.

    Errors:  IdReused.
    """
    if cost_nusd != recorded.cost_nusd:
        raise IdReused(
            f"record_id {recorded.ask.ask_id!r} was recorded before at {recorded.cost_nusd} "
            f"nano-USD; this record says {cost_nusd}"
        )
