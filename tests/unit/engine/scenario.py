"""Plays tables of scenarios over the real ledger, a memory store and a fake clock.

    play("t=0 admit r1 team=a 15 -> allow / t=1 settle r1 13 -> ok / t=1 void r1 -> closed:settled")

A line is `[t=TIME] COMMAND ARGUMENTS -> EXPECTED`, at most eight columns beside the arrow; lines
end with a slash or a newline, `#` begins a comment. Amounts are dollars, times seconds (or 5m,
2h, 3d) since the start, which is midnight UTC on Sunday, 1 March 2026. What is expected is a word
and what must hold beside it (`deny:BUDGET_EXHAUSTED by=team`). After every line the books must
add up: invariants I1 and I2, and totals equal to a recount.

    admit ID [$] [label=value …] [class= model= tier= in= out= ttl= accept= grant= caller= batch=]
    explain …                       as admit, consuming nothing
    settle ID [$] [in= out= cached= model=]      void ID      extend ID [$] [tokens= ttl= in= out=]
    record ID [$] [label=value …] [in= out= model= at=TIME]
    sweep      wall SECONDS         policy NAME               restart      kill ID mode= for= …
    release ID show BUDGET[/KEY][@ended]         alerts       audit        kills    grant ID
    lease BUDGET[/KEY] $ [reserve=$ limit=$ others=$ …]       tenure SECONDS     exhausted BUDGET

With `wait`, an admit or extend may say what it wants lent: `wants b=5,c/user=ann=7!` (critical);
with `grant-wait`, an admit may say what it wants of its grant: `wants g=1,g=5`, a use and $5.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from policy_parts import selector

from costd.daemon.books.asking import Trust
from costd.daemon.books.ledger import Ledger
from costd.daemon.sweeper import Retention, Sweeper
from costd.engine import keys
from costd.engine.changes import Family
from costd.engine.invariants import books_problems
from costd.engine.resolve import Report
from costd.errors import CostdError, ReservationClosed
from costd.grants import GrantClaims, issue
from costd.grants.keys import public_text
from costd.model.ask import Ask
from costd.model.decision import Decision, Reason, Verdict
from costd.model.grant import GrantRefusal
from costd.model.kill import KillMode, KillSwitch
from costd.model.lease import Lease, Wanting
from costd.model.money import usd_to_nusd
from costd.model.policy import GrantKey, PolicySet
from costd.model.reservation import ReservationState
from costd.model.time import NS_PER_S
from costd.model.usage import Usage
from costd.store.memory import MemoryStore
from costd.testing import FakeClock

COLUMNS_MAX = 8
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_FIELDS = {"class": "task_class", "tier": "tier", "in": "prompt_tokens", "out": "max_output_tokens"}
_SIGNER = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
GRANT_KEYS = (GrantKey(key_id="k1", public_key=public_text(_SIGNER)),)
ADMIN_KEYS = (GrantKey(key_id="k1", public_key=public_text(_SIGNER), admin=True),)

_LEASED = {
    "reserve": "reserve_amount",
    "limit": "limit",
    "kept": "reserve",
    "others": "others_used",
    "others_reserve": "others_reserve_used",
}
Said = tuple[str, dict[str, str]]


def play(table: str, policy: PolicySet, **options: Any) -> "World":
    """Play a table from a new store; returns the world as it ended, for more questions."""
    return World(policy, **options).play(table)


def ask_id(name: str) -> str:
    """Make an ask id of a short name."""
    return name.ljust(16, ".")


def usd(nusd: int) -> str:
    """Write nano-USD the way tables do: 13, 0.5."""
    return f"{(Decimal(nusd) / 10**9).normalize():f}"


def token(grant_id: str, amount: str = "100", uses: int = 1, **claims: Any) -> str:
    """Sign a grant that is good for reviews of everything all day, unless told otherwise."""
    start_s = FakeClock().wall_ns // NS_PER_S
    fields: dict[str, Any] = {
        "jti": grant_id,
        "iss": "lead",
        "sub": "ann",
        "aud": ("costd",),
        "nbf": start_s,
        "iat": start_s,
        "exp": start_s + 86_400,
        "reason": "release night",
        "scope": {},
        "task_classes": ("review",),
        "amount_nusd": usd_to_nusd(amount),
        "uses": uses,
        "passes_kill": False,
    }
    return issue(_SIGNER, "k1", GrantClaims(**(fields | claims)))


class World:
    """A ledger over a memory store on a fake clock, and everything a table may name."""

    def __init__(
        self,
        policy: PolicySet,
        *,
        policies: dict[str, PolicySet] | None = None,
        grants: dict[str, str] | None = None,
        trust: Trust | None = None,
        retention: Retention | None = None,
        store: MemoryStore | None = None,
        in_fleet: bool = False,
    ) -> None:
        self.clock = FakeClock()
        self.start_ns = self.clock.wall_ns
        self.store = store or MemoryStore()
        self.policy, self.policies, self.grants = policy, policies or {}, grants or {}
        self.trust = trust or Trust(claims=frozenset({"*"}))
        self.retention = retention
        self.in_fleet = in_fleet
        self.ids: dict[str, bytes] = {}
        self.decision: Decision | None = None
        self._seen = {Family.ALERTS: 0, Family.AUDIT: 0}
        self.open()

    def open(self) -> None:
        """Open the ledger, as a start of the daemon does."""
        self.ledger = Ledger(
            self.store, self.policy, self.clock, trust=self.trust, in_fleet=self.in_fleet
        )
        self.sweeper = Sweeper(self.ledger, self.retention)

    def play(self, table: str) -> "World":
        """Play a table from here on."""
        lines = [line.split("#")[0].strip() for line in table.replace(" / ", "\n").splitlines()]
        for line in filter(None, lines):
            self._line(line)
        return self

    def _line(self, line: str) -> None:
        asked, _, expected = (part.strip() for part in line.partition("->"))
        words, wanted = asked.split(), expected.split()
        assert len(words) + len(wanted) <= COLUMNS_MAX, f"more than eight columns: {line}"
        if words[0].startswith("t="):
            passed_ns = seconds(words.pop(0)[2:]) * NS_PER_S - self.clock.steady_ns
            assert passed_ns >= 0, f"time runs backwards: {line}"
            self.clock.wall_ns += passed_ns
            self.clock.steady_ns += passed_ns
        command: Callable[..., Said] = getattr(self, f"_{words[0]}")
        before = {family: dict(self.store.scan(family)) for family in Family}
        try:
            word, facts = command(*words[1:])
        except CostdError as error:
            word, facts = self._error(error, words)
            after = {family: dict(self.store.scan(family)) for family in Family}
            assert after == before, f"{line}: an error wrote something"
        self._compare(line, wanted, word, facts)
        self.check(line)

    @staticmethod
    def _compare(line: str, wanted: list[str], word: str, facts: dict[str, str]) -> None:
        for want in wanted:
            name, is_fact, value = want.partition("=")
            is_fact = is_fact and name.isidentifier()
            if not is_fact:
                assert word == want, f"{line}: it was {word} {facts}"
            elif name == "says":
                assert value in facts.get("says", ""), f"{line}: it was {word} {facts}"
            else:
                assert facts.get(name) == value, f"{line}: {name} was {facts.get(name)}; {facts}"

    def _error(self, error: CostdError, words: list[str]) -> Said:
        facts = {"says": str(error).replace(" ", "_")}
        if isinstance(error, ReservationClosed):
            held = self.ledger.find_reservation(self.ids[words[1]])
            assert held is not None
            return f"closed:{held.state.name.lower()}", facts
        return f"error:{type(error).__name__}", facts

    def check(self, line: str = "") -> None:
        """Check that the books add up."""
        reservations = [held for _, held in self.store.scan(Family.RESERVATIONS)]
        problems = books_problems(self.store.scan(Family.COUNTERS), reservations)
        assert not problems, f"{line}: {problems}"
        held = [each for each in reservations if each.state is ReservationState.HELD]
        totals = self.ledger.totals
        assert totals.open_count == len(held), line
        assert totals.reserved_nusd == sum(each.hold_nusd for each in held), line
        known = [each for each in held if each.ceiling_nusd is not None]
        assert totals.unknown_ceiling_count == len(held) - len(known), line
        assert totals.exposure_nusd == sum(e.ceiling_nusd - e.hold_nusd for e in known), line

    # ---- agents -------------------------------------------------------------------------------

    def _admit(self, name: str, *words: str) -> Said:
        waits = {"may_wait": "wait" in words, "grant_may_wait": "grant-wait" in words}
        words = tuple(word for word in words if word not in {"wait", "grant-wait"})
        ask, caller, grant = self.ask(name, *words)
        admitted = self.ledger.admit(ask, caller=caller, grant=grant, **waits)
        if isinstance(admitted, Wanting):
            return "wants", {"lent": self._wanted(admitted)}
        self.ids.setdefault(name, keys.reservation_id(caller, ask.ask_id))
        facts = self._facts(admitted.decision)
        if admitted.state is not None:
            facts["state"] = admitted.state.name.lower()
        if admitted.replayed:
            facts["replayed"] = "yes"
        return self._word(admitted.decision), facts

    def _wanted(self, wanting: Wanting) -> str:
        """Write what must be lent: `b=5,c/user=ann=7!`, the mark for critical classes."""
        told = []
        for short in wanting.shortages:
            _, _, per = keys.split_counter_key(short.key)
            rule = self.ledger.rules.budget_of(short.key)
            assert rule is not None
            budget, per = rule.budget, "" if keys.is_grants(short.key) else per
            amount = usd(short.amount_min) if budget.unit == "nusd" else str(short.amount_min)
            name = budget.budget_id + (f"/{keys.shown(per)}" if per else "")
            told.append(f"{name}={amount}{'!' if short.critical else ''}")
        return ",".join(sorted(told))

    def _explain(self, name: str, *words: str) -> Said:
        ask, caller, grant = self.ask(name, *words)
        before = {family: dict(self.store.scan(family)) for family in Family}
        self.explanation = self.ledger.explain(ask, caller=caller, grant=grant)
        assert before == {family: dict(self.store.scan(family)) for family in Family}
        facts = self._facts(self.explanation.decision)
        facts["tried"] = ",".join(
            f"{report.model or report.tier}:{report.outcome}"
            for report in self.explanation.candidates
        )
        return self._word(self.explanation.decision), facts

    def ask(self, name: str, *words: str) -> tuple[Ask, str, str]:
        """Read an ask as tables write it."""
        fields: dict[str, Any] = {"labels": {}}
        caller, grant = "", ""
        for word in words:
            key, is_field, value = word.partition("=")
            if not is_field:
                fields["estimated_cost_nusd"] = usd_to_nusd(word)
            elif key in _FIELDS:
                fields[_FIELDS[key]] = int(value) if key in {"in", "out"} else value
            elif key == "model":
                fields["provider"], _, fields["model"] = value.rpartition("/")
            elif key == "provider":
                fields["provider"] = value
            elif key == "accept":
                fields["acceptable_models"] = tuple(value.split(","))
            elif key == "ttl":
                fields["ttl_ns"] = seconds(value) * NS_PER_S
            elif key == "batch":
                fields["batch"] = True
            elif key == "units":
                fields["units"] = {"requests": int(value)}
            elif key == "caller":
                caller = value
            elif key == "grant":
                grant = self.grants[value]
                fields["grant_digest"] = keys.digest(grant).hex()
            else:
                fields["labels"][key] = value
        return Ask(ask_id=ask_id(name), **fields), caller, grant

    @staticmethod
    def _word(decision: Decision) -> str:
        verdict = decision.verdict.name.lower()
        if decision.verdict is Verdict.ALLOW and decision.reason is Reason.OK:
            return verdict
        return f"{verdict}:{decision.reason.name}"

    def _facts(self, decision: Decision) -> dict[str, str]:
        """Every field of a decision that a table may ask for."""
        self.decision = decision
        directives = decision.directives
        facts = {
            "tier": decision.tier,
            "model": decision.model,
            "asked": decision.asked_tier,
            "hold": usd(decision.hold_nusd),
            "ceiling": "-" if decision.ceiling_nusd is None else usd(decision.ceiling_nusd),
            "tightest": decision.tightest_budget,
            "at": f"{decision.utilisation_bp / 100:g}",
            "crossed": f"{decision.threshold_bp / 100:g}",
            "grant": GrantRefusal(decision.grant_refusal).name if decision.grant_refusal else "-",
            "granted": decision.grant_id,
            "assumed": "yes" if decision.price and decision.price.assumed else "no",
            "retries": str(directives.max_retries),
            "output": str(directives.max_output_tokens),
            "do": ",".join(n for n in ("compression", "cache", "batch") if getattr(directives, n)),
            "offers": ",".join(offer.model or offer.tier for offer in decision.would_pass),
            "says": decision.message.replace(" ", "_"),
            "upgrade": decision.upgrade_text,
        }
        if decision.shadow_verdict:
            facts["shadow"] = (
                f"{Verdict(decision.shadow_verdict).name.lower()}:"
                f"{Reason(decision.shadow_reason).name}"
            )
        amounts = [o.amount_nusd for o in decision.would_pass if o.amount_nusd is not None]
        facts["most"] = usd(amounts[0]) if amounts else "-"
        binding = decision.binding
        facts["by"] = "-"
        if binding is not None:
            facts |= {"by": binding.rule, "key": binding.key, "unit": binding.unit}
            is_money = binding.unit == "nusd"
            for name in ("limit", "used"):
                value = getattr(binding, name)
                facts[name] = usd(value) if is_money and value is not None else str(value)
            resets_ns = binding.resets_ns - self.start_ns
            facts["resets"] = f"{resets_ns / NS_PER_S:g}" if binding.resets_ns else "never"
        return facts

    def _settle(self, name: str, *words: str) -> Said:
        cost, usage, fields = _used(words)
        report = Report(cost_nusd=0, **fields)
        closed = self.ledger.settle(self.ids[name], usage=usage, cost_nusd=cost, report=report)
        facts = {"cost": usd(closed.reservation.cost_nusd)}
        return ("late" if closed.late else "replayed" if closed.replayed else "ok"), facts

    def _void(self, name: str) -> Said:
        return ("replayed" if self.ledger.void(self.ids[name]).replayed else "ok"), {}

    def _extend(self, name: str, *words: str) -> Said:
        may_wait, words = "wait" in words, tuple(word for word in words if word != "wait")
        rest = [word for word in words if not word.startswith(("tokens=", "ttl="))]
        named = dict(word.split("=") for word in words if word not in rest)
        cost, usage, _ = _used(rest)
        extended = self.ledger.extend(
            self.ids[name],
            additional_cost_nusd=cost or 0,
            additional_output_tokens=int(named.get("tokens", 0)),
            ttl_ns=seconds(named.get("ttl", "0")) * NS_PER_S,
            usage_so_far=usage,
            may_wait=may_wait,
        )
        if isinstance(extended, Wanting):
            return "wants", {"lent": self._wanted(extended)}
        held = extended.reservation
        expires_s = (held.due_ns - FakeClock().steady_ns) / NS_PER_S
        facts = {
            "hold": usd(held.hold_nusd),
            "reported": usd(held.reported_nusd),
            "expires": f"{expires_s:g}",
            "ceiling": "-" if held.ceiling_nusd is None else usd(held.ceiling_nusd),
        }
        return ("ok" if extended.reason is Reason.OK else f"stop:{extended.reason.name}"), facts

    def _record(self, name: str, *words: str) -> Said:
        at = [word for word in words if word.startswith("at=")]
        used = [w for w in words if "=" not in w or w.split("=")[0] in {"in", "out", "cached"}]
        rest = [word for word in words if word not in at and word not in used]
        cost, usage, _ = _used(used)
        ask, caller, _ = self.ask(name, *rest)
        report = Report(cost_nusd=cost or 0, usage=usage, provider=ask.provider, model=ask.model)
        closed = self.ledger.record(
            ask,
            report,
            caller=caller,
            happened_ns=self.start_ns + seconds(at[0][3:]) * NS_PER_S if at else 0,
            cost_known=cost is not None,
        )
        self.ids.setdefault(name, closed.reservation.reservation_id)
        facts = {"cost": usd(closed.reservation.cost_nusd)}
        return ("late" if closed.late else "replayed" if closed.replayed else "ok"), facts

    # ---- operators, time ----------------------------------------------------------------------

    def _sweep(self) -> Said:
        return f"{self.sweeper.sweep()}", {}

    def _wall(self, by: str) -> Said:
        self.clock.jump_wall(seconds(by))
        return "ok", {}

    def _policy(self, name: str) -> Said:
        self.policy = self.policies[name]
        self.ledger.swap_policy(self.policy)
        return "ok", {}

    def _restart(self) -> Said:
        self.open()
        return "ok", {}

    def _kill(self, name: str, *words: str) -> Said:
        named = dict(word.split("=", 1) for word in words)
        mode, _, max_tier = named.pop("mode", "deny_all").partition(":")
        after_ns, now = seconds(named.pop("for", "0")) * NS_PER_S, self.clock.now()
        switch = KillSwitch(
            kill_id=name,
            scope=selector(named),
            mode=KillMode(mode),
            max_tier=max_tier,
            reason="drill",
            actor="ops",
            engaged_ns=now.wall_ns,
            releases_ns=now.wall_ns + after_ns if after_ns else 0,
            releases_steady_ns=now.steady_ns + after_ns if after_ns else 0,
        )
        self.ledger.put_kill(switch, action="kill_engaged", actor="ops", detail="drill")
        return "ok", {}

    def _release(self, name: str) -> Said:
        found = [kill for kill in self.ledger.kills if kill.kill_id.startswith(name)]
        for switch in found:
            released = msgspec.structs.replace(
                switch, released_ns=self.clock.wall_ns, released_by="ops"
            )
            self.ledger.put_kill(released, action="kill_released", actor="ops", detail="")
        return f"{len(found)}", {}

    # ---- the fleet ----------------------------------------------------------------------------

    def key_of(self, name: str) -> bytes:
        """Make the key of the counter in force that tables call `BUDGET/KEY`."""
        budget_id, _, per = name.partition("/")
        rules = self.ledger.rules.budgets.values()
        rule = next(rule for rule in rules if rule.budget.budget_id == budget_id)
        prefix = rule.counter_key({}, self.clock.wall_ns)[: 8 + keys.TAG_BYTES]
        return prefix + per.encode()

    def _lease(self, name: str, amount: str, *words: str) -> Said:
        key = self.key_of(name)
        rule = self.ledger.rules.budgets[keys.tag_of(key)]
        read = usd_to_nusd if rule.budget.unit == "nusd" else int
        named = {_LEASED[n]: read(v) for n, v in (word.split("=") for word in words)}
        terms = {"limit": rule.budget.limit, "reserve": rule.budget.reserve}
        self.ledger.set_leases({key: Lease(amount=read(amount), **(terms | named))})
        return "ok", {}

    def _tenure(self, lasts: str) -> Said:
        self.ledger.state.leases_until_ns = self.clock.steady_ns + seconds(lasts) * NS_PER_S
        return "ok", {}

    def _exhausted(self, *names: str) -> Said:
        self.ledger.state.exhausted = {self.key_of(name) for name in names}
        return "ok", {}

    # ---- looking ------------------------------------------------------------------------------

    def _show(self, name: str) -> Said:
        name, _, ended = name.partition("@")
        budget_id, _, key = name.partition("/")
        rule = next(
            rule
            for rule in self.ledger.rules.budgets.values()
            if rule.budget.budget_id == budget_id
        )
        live, past = {}, {}
        for raw, counter in self.store.scan(Family.COUNTERS):
            end_ns, tag, per = keys.split_counter_key(raw)
            if tag == rule.tag and keys.shown(per).replace(", ", ",") == key:
                (live if counter.start_ns <= self.clock.wall_ns < end_ns else past)[end_ns] = (
                    counter
                )
        found = past if ended else live
        if not found:
            return "none", {}
        counter = found[max(found)]
        is_money = rule.budget.unit == "nusd"
        columns = {name: getattr(counter, name) for name in counter.__struct_fields__[:-1]}
        lent = {
            f"lent_{name}": getattr(counter.lease, name)
            for name in ("amount", "reserve_amount")
            if counter.lease is not None
        }
        columns |= lent or {"lent_amount": 0}
        return "", {
            name: usd(value) if is_money and not name.endswith(("_bp", "_ns")) else str(value)
            for name, value in columns.items()
        } | {"reserve_used": usd(counter.reserve_used)}

    def _alerts(self) -> Said:
        alerts = self._newest(Family.ALERTS)
        told = {
            "threshold": lambda a: f"{a.rule}@{a.threshold_bp / 100:g}",
            "burn_rate": lambda a: f"{a.rule}@x{a.threshold_bp / 10_000:g}",
            "overrun": lambda a: f"overrun:{usd(a.amount_nusd)}",
            "kill_engaged": lambda a: f"kill:{a.rule}",
            "grant_redeemed": lambda a: f"grant:{a.rule}",
        }
        return ",".join(told[alert.kind](alert) for alert in alerts) or "none", {}

    def _audit(self) -> Said:
        return ",".join(record.action for record in self._newest(Family.AUDIT)) or "none", {}

    def _newest(self, family: Family) -> list[Any]:
        end = (2**56).to_bytes(8, "big")
        rows = list(
            self.store.scan(family, start=keys.sequence_key(self._seen[family] + 1), end=end)
        )
        self._seen[family] += len(rows)
        return [row for _, row in rows]

    def _kills(self) -> Said:
        steady_ns = self.clock.steady_ns
        names = [kill.kill_id for kill in self.ledger.kills if kill.engaged(steady_ns)]
        return ",".join(names) or "none", {}

    def _grant(self, name: str) -> Said:
        use = self.store.get(Family.GRANTS, name.encode())
        if use is None:
            return "unused", {}
        return "", {"uses": str(use.uses_count), "used": usd(use.used_nusd)}


def seconds(text: str) -> int:
    """Read 90, 5m, 2h, 3d."""
    if text[-1] in _SECONDS:
        return int(text[:-1]) * _SECONDS[text[-1]]
    return int(text)


def _used(words: list[str] | tuple[str, ...]) -> tuple[int | None, Usage | None, dict[str, str]]:
    """Read a cost, or usage and the model that answered."""
    cost = next((usd_to_nusd(word) for word in words if "=" not in word), None)
    named = dict(word.split("=") for word in words if "=" in word)
    fields: dict[str, str] = {}
    if "model" in named:
        fields["provider"], _, fields["model"] = named.pop("model").rpartition("/")
    usage = None
    if named:
        usage = Usage(
            prompt_tokens=int(named["in"]) if "in" in named else None,
            output_tokens=int(named["out"]) if "out" in named else None,
            cached_tokens=int(named["cached"]) if "cached" in named else None,
        )
    return cost, usage, fields
