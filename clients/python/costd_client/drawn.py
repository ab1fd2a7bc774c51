"""Decisions made in the process, and how their calls are closed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from costd_client.decision import Decision, Outcome, Source
from costd_client.errors import InvalidAsk
from costd_client.facts import set_amounts
from costd_client.pb import admission_pb2 as pb
from costd_client.requests import build_draw_settlement

if TYPE_CHECKING:
    from costd_client.allowance import Allowance
    from costd_client.facts import Facts
    from costd_client.requests import Closing


OUTCOMES = frozenset(Outcome)
RETRY_COUNT_MAX = 2**31 - 1
DURATION_NS_MAX = 2**62
COST_NUSD_MAX = 2**63 - 1


class End(NamedTuple):
    """How a drawn call ended: by what is known of it, or None if it never left."""

    closing: Closing | None
    settled_ns: int


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
    end: End | None

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


def check_end(closing: Closing) -> None:
    """Refuse at once what no message can carry; messages are written when a report is.

    Errors:  InvalidAsk.
    """
    if closing.outcome not in OUTCOMES:
        raise InvalidAsk(f"outcome must be one of {', '.join(Outcome.__members__)}")
    usual = (
        type(closing.retry_count) is int
        and 0 <= closing.retry_count <= RETRY_COUNT_MAX
        and type(closing.duration_ns) is int
        and 0 <= closing.duration_ns <= DURATION_NS_MAX
        and (closing.cost_nusd is None or closing.cost_nusd <= COST_NUSD_MAX)
        and not closing.provider
        and not closing.model
    )
    if not usual:
        build_draw_settlement({}, closing)


def write_end(drawn: Drawn, end: End) -> pb.DrawSettlement:
    """Write how a drawn call ended; without `closing` it never left."""
    fields: dict[str, Any] = {
        "allowance_id": drawn.allowance.allowance_id,
        "ask_id": drawn.ask_id,
        "hold_nusd": drawn.hold_nusd,
        "tokens_count": drawn.tokens_count,
    }
    if end.closing is None:
        return pb.DrawSettlement(voided=True, **fields)
    fields |= {
        "cost_kind": drawn.facts.typical.cost_kind,
        "prompt_tokens": drawn.prompt_tokens,
        "max_output_tokens": drawn.output_tokens,
        "settled_ns": end.settled_ns,
    }
    return build_draw_settlement(fields, end.closing)


def write_alone(drawn: Drawn, end: End) -> pb.Report:
    """Write the same as a report of one settlement that has no number yet."""
    report = pb.Report(settlements=[write_end(drawn, end)])
    if drawn.facts.rest:
        report.labels.add(labels=dict(drawn.facts.rest))
        report.settlements[0].labels_index = 1
    return report


def same_end(one: End, other: End) -> bool:
    """Tell whether two ends of one call say the same about what it cost."""
    first, second = one.closing, other.closing
    if first is None or second is None:
        return first is second
    return (first.usage, first.cost_nusd, first.provider, first.model) == (
        second.usage,
        second.cost_nusd,
        second.provider,
        second.model,
    )
