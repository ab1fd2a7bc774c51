"""What the rules do with calls that were drawn from an allowance: close them, enlarge them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from costd_client.decision import Settlement
from costd_client.drawn import Drawn, End, check_end
from costd_client.errors import CostdError, OutboxFull
from costd_client.pb import admission_pb2 as pb
from costd_client.requests import Closing
from costd_client.steps import Sleep, Steps

if TYPE_CHECKING:
    from costd_client.attached import Attached
    from costd_client.rules import Settings

NS_PER_S = 1_000_000_000
FULL_WAIT_S = 0.01


class Desk(TypedDict):
    """What closing a drawn call needs."""

    attached: Attached
    settings: Settings


def end(
    drawn: Drawn, closing: Closing | None, *, attached: Attached, settings: Settings
) -> Settlement | None:
    """Close a drawn call in the next report; without `closing` it never left.

    Shape:   None, and nothing is closed, while too many ended calls are unheard of.
    Errors:  InvalidAsk; as `Attached.end` otherwise.
    """
    if closing is not None:
        check_end(closing)
    if attached.is_full and drawn.end is None:
        return None
    attached.end(drawn, End(closing, settings.clock.wall_ns()))
    return Settlement(pb.Settlement(hold_nusd=drawn.hold_nusd), queued=True)


def settle(
    drawn: Drawn, closing: Closing | None, *, attached: Attached, settings: Settings
) -> Steps[Settlement]:
    """Close a drawn call as `end` does, and wait where that has to.

    Errors:  OutboxFull if that lasts longer than a request may take.
    """
    until_ns = settings.clock.monotonic_ns() + round(settings.timeout_s * NS_PER_S)
    while (settlement := end(drawn, closing, attached=attached, settings=settings)) is None:
        if settings.clock.monotonic_ns() >= until_ns:
            raise OutboxFull(
                f"{drawn.ask_id} could not be settled: the daemon has yet to hear of too many "
                "calls; settle it again later, or it is charged at its hold"
            )
        yield Sleep(FULL_WAIT_S)
    return settlement


def settle_later(drawn: Drawn, closing: Closing, *, attached: Attached, settings: Settings) -> None:
    """Close a drawn call where nothing may block."""
    check_end(closing)
    attached.end(drawn, End(closing, settings.clock.wall_ns()))


def leave(drawn: Drawn, closing: Closing, *, attached: Attached, settings: Settings) -> None:
    """Leave a call whose end nobody knows: charged at its hold, or at what is known if more."""
    if closing.usage is None or not _exceeds(drawn, closing.usage):
        return
    settle_later(drawn, closing, attached=attached, settings=settings)


def extend(drawn: Drawn, request: pb.ExtendRequest, attached: Attached) -> pb.Extension:
    """Enlarge a hold from the same allowance, if it has room.

    Shape:   how long the money is held was fixed with the allowance; a call that outlives it is
             charged at its hold until it is settled, so a longer time is granted by not asking.
    Errors:  ReservationNotFound if another process drew it.
    """
    attached.check_home(drawn)
    tokens = request.additional_output_tokens
    amount = request.additional_cost_nusd
    if tokens < 0 or amount < 0:
        raise CostdError("a hold can be enlarged, not made smaller")
    allowance = drawn.allowance
    if tokens and not amount:
        amount = _more(drawn, tokens)
    fits = amount >= 0 and allowance.draw_more(drawn, amount, tokens) if amount or tokens else True
    extension = pb.Extension(
        reservation_id=drawn.reservation_id,
        extended=fits,
        reason=pb.REASON_OK if fits else pb.REASON_BUDGET_EXHAUSTED,
        hold_nusd=drawn.hold_nusd,
        expires_ns=drawn.expires_ns,
    )
    if not fits:
        extension.directives.stop = True
    return extension


def _more(drawn: Drawn, output_tokens: int) -> int:
    """Price output beyond what was drawn; -1 where the allowance prices no tokens."""
    allowance = drawn.allowance
    price, prompt = allowance.price, drawn.prompt_tokens
    if price.scale < 0 or prompt is None:
        return -1
    before = max(drawn.tokens_count - prompt, 0)
    return price.cost_nusd(prompt, before + output_tokens) - price.cost_nusd(prompt, before)


def _exceeds(drawn: Drawn, usage: pb.Usage) -> bool:
    """Tell whether usage is known to cost more than is held."""
    price = drawn.allowance.price
    if price.scale < 0:
        return usage.prompt_tokens + usage.output_tokens > drawn.tokens_count > 0
    # What was read from a cache may cost next to nothing.
    prompt = max(usage.prompt_tokens - usage.cached_tokens, 0)
    return price.cost_nusd(prompt, usage.output_tokens) > drawn.hold_nusd
