"""Envoy's rate-limit service: an HTTP request through Envoy is a call that is asked for here.

One request to this service is one call, whatever the number of its descriptors: what they say is
put together (`costd.wire.envoy`) and decided as one ask. docs/operating/envoy.md has the whole.
"""

import uuid
from collections.abc import Coroutine
from functools import partial
from types import CoroutineType
from typing import Any, Final

from costd.daemon.admission import AdmissionService, Reply
from costd.daemon.books.ledger import Admitted, Ledger
from costd.engine import keys
from costd.engine.resolve import Report
from costd.engine.rules import FULL_BP, BudgetRule, Rules
from costd.errors import (
    CostdError,
    IdReused,
    InvalidAsk,
    NotPermitted,
    Overloaded,
    ReservationClosed,
)
from costd.model.ask import Ask
from costd.model.decision import Binding, Decision, Reason, Verdict
from costd.model.policy import Unit
from costd.model.reservation import ReservationState
from costd.model.time import NS_PER_S
from costd.model.usage import Usage
from costd.telemetry.logs import Log, Seldom
from costd.wire import envoy as wire
from costd.wire.pb import ratelimit_pb2 as pb
from costd.wire.status import details_of, status_of

CALLER: Final = "envoy"
"""Whose asks these are where neither a rule nor the call's metadata says."""

FAULTS: Final = (InvalidAsk, NotPermitted, IdReused, ReservationClosed, Overloaded)
"""Answered by a refusal: after a gRPC error Envoy may let the request pass, by its failure mode,
so that whoever sends nonsense would buy an unmetered call."""


class EnvoyService:
    """Answers Envoy by the `envoy` rules of the policy in force.

    Errors:  InvalidAsk for a request that no rule could read; StoreUnavailable and the like, where
             nothing was decided and Envoy's failure mode decides.
    """

    def __init__(self, ledger: Ledger, admission: AdmissionService, log: Log) -> None:
        self._ledger = ledger
        self._log = log
        self._refused_ends = Seldom(NS_PER_S)
        self._admission = admission
        self._rules: Rules | None = None
        self._budgets: dict[str, BudgetRule] = {}

    def ShouldRateLimit(self, request: pb.RateLimitRequest, caller: str) -> Reply:  # noqa: N802
        """Decide the call that a request's descriptors ask for, or settle the one that ended."""
        wire.check(request)
        try:
            reply = self._decide(request, caller)
        except FAULTS as error:
            return _fault(request, error)
        return _later(request, reply) if isinstance(reply, CoroutineType) else reply

    def _decide(self, request: pb.RateLimitRequest, caller: str) -> Reply:
        policy = self._ledger.rules.policy
        try:
            said = wire.gather(policy.envoy, request)
        except InvalidAsk as error:
            if wire.is_end(policy.envoy, request):
                self._warn(details_of(error))
            raise
        if said.unmatched and not policy.unmatched_allow:
            message = _unmatched(request, said.unmatched)
            if said.settles:
                self._warn(message)
            return wire.refused(request, Reason.NO_BUDGET.name, message, said.unmatched)
        if len(said.unmatched) == len(request.descriptors):
            return wire.passed(request)
        caller = said.fields.get("caller") or caller or CALLER
        if not said.settles:
            return self._ask(request, said, caller)
        try:
            self._settle(said, caller)
        except FAULTS as error:
            self._warn(details_of(error))
            raise
        return wire.passed(request)

    def _ask(self, request: pb.RateLimitRequest, said: wire.Said, caller: str) -> Reply:
        request_id = said.fields.get("request_id", "")
        ask = _ask_of(said, request_id or str(uuid.uuid4()), said.fields.get("override_grant", ""))
        return self._admission.decide(
            ask,
            caller=caller,
            grant=said.fields.get("override_grant", ""),
            tell=partial(self._tell, request, ends_at_once=not request_id),
        )

    def _tell(
        self, request: pb.RateLimitRequest, admitted: Admitted, *, ends_at_once: bool
    ) -> pb.RateLimitResponse:
        decision = admitted.decision
        if admitted.replayed and admitted.state is not ReservationState.HELD:
            raise IdReused(
                f"request id {decision.ask_id[:80]!r} is that of a call that has ended; have Envoy "
                "make one for every request, as policies/envoy/envoy.yaml does"
            )
        if ends_at_once and decision.verdict is not Verdict.DENY:
            # Nobody will tell how it ended, so it is charged what it held.
            self._ledger.settle(decision.reservation_id, cost_nusd=decision.hold_nusd)
        now = self._ledger.clock.now()
        return wire.decided(request, decision, self._standing(decision), now_ns=now.wall_ns)

    def _settle(self, said: wire.Said, caller: str) -> None:
        """Charge what an ended call cost, by the request id it has in common with its ask.

        A call that was not asked for, because Envoy let it pass while no decision could be had, is
        recorded; one that was refused has used nothing and is left alone.
        """
        request_id = said.fields.get("request_id", "")
        if not request_id:
            raise InvalidAsk("a descriptor that settles has no request id; nothing was charged")
        held = self._ledger.find_reservation(keys.reservation_id(caller, request_id))
        usage = _usage_of(said)
        cost = said.counts.get("cost_nusd")
        if usage is None and cost is None:
            if held is not None and held.state is ReservationState.HELD:
                # Nobody knows what it cost: what it held is the most that was expected.
                self._ledger.settle(held.reservation_id, cost_nusd=held.hold_nusd)
            return
        provider, model = _model_of(said)
        report = Report(cost_nusd=cost or 0, usage=usage, provider=provider, model=model)
        if held is not None:
            self._ledger.settle(held.reservation_id, usage=usage, cost_nusd=cost, report=report)
            return
        self._ledger.record(
            _ask_of(said, request_id, "", estimates=False),
            report,
            caller=caller,
            cost_known=cost is not None,
        )

    def _warn(self, problem: str) -> None:
        """Log an end that cannot be charged: Envoy does not read what it is answered."""
        if self._refused_ends.passes():
            self._log.warning("envoy_end_refused", problem=problem)

    def _standing(self, decision: Decision) -> wire.Standing | None:
        """Find what there is to tell of limits: of the rule that decided, or the tightest budget.

        Shape:   of an admitted ask, what remains is a share of the limit to a hundredth of a
                 percent, as the decision tells it.
        """
        if decision.binding is not None and decision.binding.limit:
            return self._bound(decision.binding)
        rule = self._budget(decision.tightest_budget)
        if rule is None or not rule.limit:
            return None
        _, end_ns = rule.window(self._ledger.clock.now().wall_ns)
        left = rule.limit * max(0, FULL_BP - decision.utilisation_bp) // FULL_BP
        scale = wire.NUSD_PER_MICROUSD if rule.budget.unit is Unit.NUSD else 1
        return wire.Standing(
            name=rule.budget.budget_id,
            limit=rule.limit // scale,
            remaining=left // scale,
            window=rule.budget.window.kind,
            resets_ns=end_ns,
        )

    def _bound(self, binding: Binding) -> wire.Standing:
        rule = self._budget(binding.rule) if binding.kind == "budget" else None
        scale = wire.NUSD_PER_MICROUSD if binding.unit == Unit.NUSD else 1
        limit = binding.limit or 0
        return wire.Standing(
            name=binding.rule,
            limit=limit // scale,
            remaining=max(0, limit - binding.used) // scale,
            window=rule.budget.window.kind if rule else None,
            resets_ns=binding.resets_ns,
        )

    def _budget(self, budget_id: str) -> BudgetRule | None:
        rules = self._ledger.rules
        if rules is not self._rules:
            self._budgets = {rule.budget.budget_id: rule for rule in rules.budgets.values()}
            self._rules = rules
        return self._budgets.get(budget_id)


async def _later(
    request: pb.RateLimitRequest, reply: Coroutine[Any, Any, Any]
) -> pb.RateLimitResponse:
    try:
        answer: pb.RateLimitResponse = await reply
    except FAULTS as error:
        return _fault(request, error)
    return answer


def _unmatched(request: pb.RateLimitRequest, unmatched: list[int]) -> str:
    entries = request.descriptors[unmatched[0]].entries
    keys_shown = ", ".join(entry.key[:80] for entry in entries)
    return (
        f"descriptors[{unmatched[0]}] ({keys_shown[:400]}) of domain {request.domain[:80]!r} "
        "matches no rule of the policy's envoy section; add one, or say unmatched: allow"
    )


def _fault(request: pb.RateLimitRequest, error: CostdError) -> pb.RateLimitResponse:
    return wire.refused(request, status_of(error).name, details_of(error))


def _ask_of(said: wire.Said, ask_id: str, grant: str, *, estimates: bool = True) -> Ask:
    provider, model = _model_of(said)
    counts = said.counts if estimates else {}
    return Ask(
        ask_id=ask_id,
        task_class=said.fields.get("task_class", ""),
        labels=said.labels,
        estimated_cost_nusd=counts.get("cost_nusd"),
        prompt_tokens=counts.get("prompt_tokens"),
        max_output_tokens=counts.get("output_tokens"),
        provider=provider,
        model=model,
        tier=said.fields.get("tier", ""),
        grant_digest=keys.digest(grant).hex() if grant else "",
    )


def _model_of(said: wire.Said) -> tuple[str, str]:
    """Read whose model it is: `provider/model`, unless the provider is told apart."""
    provider, model = said.fields.get("provider", ""), said.fields.get("model", "")
    if not provider and "/" in model:
        provider, _, model = model.partition("/")
    return provider, model


def _usage_of(said: wire.Said) -> Usage | None:
    names = ("prompt_tokens", "cached_tokens", "output_tokens")
    found = {name: said.counts[name] for name in names if name in said.counts}
    return Usage(**found) if found else None  # type: ignore[arg-type]  # counts only
