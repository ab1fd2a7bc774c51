"""Finds the scope of a call, and draws; scopes bound once for hot loops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costd_client.context import ambient
from costd_client.errors import InvalidAsk
from costd_client.facts import AMOUNTS, Facts
from costd_client.requests import COUNT_MAX, Defaults, build_ask
from costd_client.session import NO_STOCK
from costd_client.steps import Rpc, adrive, drive
from costd_client.stock import Stated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from google.protobuf.message import Message

    from costd_client.attached import Attached
    from costd_client.decision import Decision
    from costd_client.drawn import Drawn
    from costd_client.rules import Rules

FACTS_COUNT_MAX = 1_024
AMOUNT_MAX = 2**63 - 1
SHARED = frozenset(
    {"task_class", "model", "provider", "tier", "acceptable_models", "batch", "cost_kind"}
)
"""Fields that are the same for all calls of a scope."""

COMMON = ("task_class", "model", "provider", "tier", "labels", *AMOUNTS)
"""Fields that `admit` and `Scopes.draw` take one by one."""

Key = tuple[object, ...]


class Scopes:
    """Which facts belong to which keyword arguments, remembered.

    Shape:   thread-safe; bounded, and begun anew when full.
    """

    def __init__(self, defaults: Defaults, attached: Attached) -> None:
        self._defaults = defaults
        self._attached = attached
        self._facts: dict[Key, Facts] = {}

    def draw_ask(self, ask: Mapping[str, Any]) -> Drawn | None:
        """Admit a call whose fields are in a mapping, as `draw` does."""
        common = {name: value for name, value in ask.items() if name in COMMON}
        rare = {name: value for name, value in ask.items() if name not in COMMON}
        return self.draw(**common, rare=rare)

    def draw(
        self,
        *,
        task_class: str = "",
        model: str = "",
        provider: str = "",
        tier: str = "",
        labels: Mapping[str, Any] | None = None,
        prompt_tokens: int | None = None,
        max_output_tokens: int | None = None,
        estimated_cost_nusd: int | None = None,
        rare: Mapping[str, Any],
    ) -> Drawn | None:
        """Admit a call in the process; None where the daemon has to be asked.

        Shape:   whatever is wrong with the ask is left to the daemon's path to say.
        """
        try:
            key: Key
            if labels:
                names, values = labels, labels.values()
                key = (ambient().key, task_class, model, provider, tier, *names, *values)
            else:
                key = (ambient().key, task_class, model, provider, tier)
            if rare:
                key = (key, _key_of(rare))
            facts = self._facts.get(key)
        except (TypeError, AttributeError, InvalidAsk):
            return None
        if facts is not None:
            allowance = facts.stock.current
            if allowance is not None:
                drawn = allowance.draw(facts, prompt_tokens, max_output_tokens, estimated_cost_nusd)
                if drawn is not None:
                    return drawn
        stated = Stated(prompt_tokens, max_output_tokens, estimated_cost_nusd)
        kind: dict[str, Any] = {
            "task_class": task_class,
            "model": model,
            "provider": provider,
            "tier": tier,
        }
        texts = {name: str(value) for name, value in labels.items()} if labels else labels
        if texts != labels:
            # 1, 1.0 and True make the same key and other labels, so that only text is remembered.
            return self.draw(**kind, **stated._asdict(), labels=texts, rare=rare)
        ask = {**kind, **rare, "labels": labels}
        return self.draw_slowly(ask, stated, facts_of=self._facts, key=key)

    def draw_slowly(
        self, ask: Mapping[str, Any], stated: Stated, *, facts_of: dict[Key, Facts], key: Key
    ) -> Drawn | None:
        """Find the facts, and draw where the quick draw did not; `facts_of` remembers them."""
        attached = self._attached
        if attached.is_resting or not _drawable(stated):
            return None
        facts = facts_of.get(key)
        if facts is None or facts.epoch is not attached.session.epoch:
            facts = self._resolve(ask)
            if facts is None:
                return None
            if len(facts_of) >= FACTS_COUNT_MAX:
                facts_of.clear()
            facts_of[key] = facts
        return attached.draw(facts, stated)

    def _resolve(self, ask: Mapping[str, Any]) -> Facts | None:
        """Build what such calls share; None for what only the daemon can decide."""
        fields = {name: value for name, value in ask.items() if name not in AMOUNTS}
        try:
            typical = build_ask(self._defaults, fields)
        except InvalidAsk:
            return None
        if typical.override_grant or typical.units or typical.HasField("ttl"):
            return None
        typical.ClearField("ask_id")
        return Facts(typical, NO_STOCK)


class BoundScope:
    """What calls of one kind have in common, bound once."""

    def __init__(self, rules: Rules, fields: Mapping[str, Any]) -> None:
        self._rules = rules
        self._fields = fields
        self._facts: dict[Key, Facts] = {}
        build_ask(rules.settings.defaults, fields)  # says at once what is wrong with them

    def _draw_slowly(self, stated: Stated) -> Drawn | None:
        scopes = self._rules.scopes
        if scopes is None:
            return None
        return scopes.draw_slowly(self._fields, stated, facts_of=self._facts, key=ambient().key)

    def _ask(self, stated: Stated) -> dict[str, Any]:
        return {**self._fields, **dict(zip(AMOUNTS, stated, strict=True))}


class Scope(BoundScope):
    """Admits calls of one kind; from `Client.scope`."""

    def __init__(
        self, rules: Rules, fields: Mapping[str, Any], send: Callable[[Rpc], Message]
    ) -> None:
        super().__init__(rules, fields)
        self._send = send

    def admit(
        self,
        *,
        prompt_tokens: int | None = None,
        max_output_tokens: int | None = None,
        estimated_cost_nusd: int | None = None,
    ) -> Decision:
        """Ask whether a call may happen; as `Client.admit`, and faster."""
        facts = self._facts.get(ambient().key)
        if facts is not None:
            allowance = facts.stock.current
            if allowance is not None:
                drawn = allowance.draw(facts, prompt_tokens, max_output_tokens, estimated_cost_nusd)
                if drawn is not None:
                    return drawn
        stated = Stated(prompt_tokens, max_output_tokens, estimated_cost_nusd)
        slowly = self._draw_slowly(stated)
        if slowly is not None:
            return slowly
        return drive(self._rules.ask(self._ask(stated)), self._send)


class AsyncScope(BoundScope):
    """Admits calls of one kind; from `AsyncClient.scope`."""

    def __init__(
        self, rules: Rules, fields: Mapping[str, Any], send: Callable[[Rpc], Awaitable[Message]]
    ) -> None:
        super().__init__(rules, fields)
        self._send = send

    async def admit(
        self,
        *,
        prompt_tokens: int | None = None,
        max_output_tokens: int | None = None,
        estimated_cost_nusd: int | None = None,
    ) -> Decision:
        """Ask whether a call may happen; waits only where the daemon has to be asked."""
        facts = self._facts.get(ambient().key)
        if facts is not None:
            allowance = facts.stock.current
            if allowance is not None:
                drawn = allowance.draw(facts, prompt_tokens, max_output_tokens, estimated_cost_nusd)
                if drawn is not None:
                    return drawn
        stated = Stated(prompt_tokens, max_output_tokens, estimated_cost_nusd)
        slowly = self._draw_slowly(stated)
        if slowly is not None:
            return slowly
        return await adrive(self._rules.ask(self._ask(stated)), self._send)


def scope_fields(labels: Mapping[str, str] | None, fields: dict[str, Any]) -> dict[str, Any]:
    """Tell the fields of an ask from labels that were written as keywords."""
    more = {name: value for name, value in fields.items() if name not in SHARED}
    values = {key: str(value) for key, value in {**(labels or {}), **more}.items()}
    shared = {name: value for name, value in fields.items() if name in SHARED}
    return {**shared, "labels": values}


def _key_of(rare: Mapping[str, Any]) -> tuple[object, ...]:
    """Return the fields that few calls have.

    Errors:  InvalidAsk where only the daemon can heed them.
    """
    models = rare.get("acceptable_models") or ()
    if any(value for name, value in rare.items() if name not in SHARED):
        raise InvalidAsk("only the daemon can heed these")
    models = (models,) if isinstance(models, str) else tuple(models)
    return (models, rare.get("batch"), rare.get("cost_kind"))


def _drawable(stated: Stated) -> bool:
    """Whether these are amounts that an allowance can be drawn by."""
    prompt, output, cost = stated
    if cost is None and prompt is None:
        return False
    for value, most in ((prompt, COUNT_MAX), (output, COUNT_MAX), (cost, AMOUNT_MAX)):
        if value is not None and (type(value) is not int or not 0 <= value <= most):
            return False
    return True
