"""Decisions made in the process, and how their calls are closed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costd_client.decision import Decision, Source
from costd_client.facts import set_amounts
from costd_client.pb import admission_pb2 as pb
from costd_client.requests import build_draw_settlement

if TYPE_CHECKING:
    from costd_client.allowance import Allowance
    from costd_client.facts import Facts
    from costd_client.requests import Closing


class Drawn(Decision):
    """One call admitted from an allowance.

    Shape:   made by `Allowance.draw` without `__init__`, since every call pays for it; its id,
             its ask and its message are written when somebody looks at them. `hold_nusd` and
             `tokens_count` grow with extensions, `end` is set once by `Allowance.close_draw`.
    """

    __slots__ = (
        "allowance",
        "cost_nusd",
        "drawn_ns",
        "end",
        "facts",
        "hold_nusd",
        "number",
        "output_tokens",
        "prompt_tokens",
        "tokens_count",
    )

    allowance: Allowance
    facts: Facts
    number: int
    hold_nusd: int
    tokens_count: int
    prompt_tokens: int | None
    output_tokens: int | None
    cost_nusd: int | None
    drawn_ns: int
    end: pb.DrawSettlement | None

    @property
    def shared(self) -> pb.Decision:
        """The allowance's decision."""
        return self.allowance.decision

    @property
    def source(self) -> str:
        """Where the decision was made."""
        return Source.ALLOWANCE

    @property
    def ask_id(self) -> str:
        """An id that no other ask has: the session, the allowance and the draw in it."""
        return f"{self.allowance.prefix}{self.number:x}"

    @property
    def ask(self) -> pb.AdmitRequest:
        """What was asked, as it would have been sent."""
        try:
            return self._ask
        except AttributeError:
            ask = pb.AdmitRequest()
            ask.CopyFrom(self.facts.typical)
            ask.ask_id = self.ask_id
            set_amounts(ask, self.prompt_tokens, self.output_tokens, self.cost_nusd)
            self._ask = ask
            return ask

    @property
    def wire(self) -> pb.Decision:
        """The allowance's decision with what is this call's own."""
        wire = pb.Decision()
        wire.CopyFrom(self.allowance.decision)
        wire.ask_id = self.ask_id
        wire.hold_nusd = self.hold_nusd
        wire.expires_ns = self.expires_ns
        wire.source = Source.ALLOWANCE
        wire.ClearField("ceiling_nusd")
        if self.cost_nusd is None and self.output_tokens is not None:
            wire.ceiling_nusd = self.hold_nusd
        return wire

    @property
    def expires_ns(self) -> int:
        """When the daemon charges the hold, in Unix time, unless the call was closed before."""
        return self.drawn_ns + self.allowance.expiry_ns

    @property
    def max_output_tokens(self) -> int | None:
        """Write at most this many tokens: what was asked for, or less; None if nobody said."""
        directives = self.allowance.decision.directives
        if not directives.HasField("max_output_tokens"):
            return self.output_tokens
        if self.output_tokens is None:
            return directives.max_output_tokens
        return min(self.output_tokens, directives.max_output_tokens)


def build_end(drawn: Drawn, closing: Closing | None, settled_ns: int) -> pb.DrawSettlement:
    """Say how a drawn call ended; without `closing` it never left.

    Errors:  InvalidAsk for what no message can carry.
    """
    fields: dict[str, Any] = {
        "allowance_id": drawn.allowance.allowance_id,
        "ask_id": drawn.ask_id,
        "hold_nusd": drawn.hold_nusd,
        "tokens_count": drawn.tokens_count,
    }
    if closing is None:
        return pb.DrawSettlement(voided=True, **fields)
    fields |= {
        "cost_kind": drawn.facts.typical.cost_kind,
        "prompt_tokens": drawn.prompt_tokens,
        "max_output_tokens": drawn.output_tokens,
        "settled_ns": settled_ns,
    }
    return build_draw_settlement(fields, closing)


def same_end(one: pb.DrawSettlement, other: pb.DrawSettlement) -> bool:
    """Tell whether two ends of one call say the same about what it cost."""
    return all(
        getattr(one, name) == getattr(other, name) and _has(one, name) == _has(other, name)
        for name in ("voided", "usage", "cost_nusd", "provider", "model")
    )


def _has(end: pb.DrawSettlement, name: str) -> bool:
    return end.HasField(name) if name in {"usage", "cost_nusd"} else True
