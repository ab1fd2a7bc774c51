"""Whatever agents, operators and clocks do, the books add up; checked against plain sums."""

from dataclasses import dataclass, field

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from policy_parts import budget, policy, rate, step
from scenario import GRANT_KEYS, World, ask_id, token

from costd.daemon.sweeper import Retention
from costd.engine import keys
from costd.engine.changes import Family
from costd.engine.resolve import Report
from costd.errors import ReservationClosed
from costd.model.ask import Ask
from costd.model.decision import Decision, Reason, Verdict
from costd.model.kill import KillMode, KillSwitch
from costd.model.labels import Match, Selector
from costd.model.policy import PolicySet
from costd.model.reservation import Excuse, Reservation, ReservationState
from costd.model.time import NS_PER_S
from costd.model.usage import Usage

CENT = 10_000_000
KEEP = Retention(counters_s=10**9, usage_s=10**9, alerts_s=10**9, audit_s=10**9)
LONG_NS = 10 * 365 * 86_400 * NS_PER_S


def version(*rules, **fields) -> PolicySet:
    return policy(*rules, grant_keys=GRANT_KEYS, late_settle_ns=LONG_NS, **fields)


LADDER = [
    step(40, max_retries=1, max_output_tokens=60),
    step(70, tiers_down=1, cache=True),
    step(burn=4, switch_provider=True),
]
PER_USER = budget("team", "20", match={"team": "a"}, per=("user",))
TOKENS = budget("tok", 2000, unit="tokens", window="hour")
CALLS = budget("calls", 12, unit="calls", match={"team": "b"})
POLICIES = [
    version(budget("all", "50", reserve="10", steps=LADDER), PER_USER, TOKENS, CALLS),
    version(budget("all", "12", reserve="4", steps=LADDER), PER_USER, TOKENS),
    version(budget("all"), CALLS, unmatched_allow=True),
    version(budget("all", "30", shadow=True, reserve="6"), budget("x", active=False), PER_USER),
    version(
        budget("all", "50", steps=[step(60, halt=True)], active=False),
        budget("squad", "8", match={"team": "a"}, per=("user",), was="team"),
        TOKENS,
    ),
    version(budget("all", "5", reserve="5"), PER_USER, TOKENS, CALLS, shadow=True),
    version(
        budget("all", "40", window="month", steps=[step(80, halt=True)]),
        PER_USER,
        rate("r", 4, per=("user",)),
        rate("spend", 9_000_000_000, "nusd", every_s=600),
    ),
    version(budget("all", "50", match={"tier": "premium"}), budget("rest", "9"), TOKENS),
]


@dataclass
class Call:
    """What the plain model knows of one call: which budgets count it, and how much by unit."""

    tags: set[bytes]
    held: dict[str, int] = field(default_factory=dict)
    charged: dict[str, int] = field(default_factory=dict)
    reported: dict[str, int] = field(default_factory=dict)
    state: ReservationState = ReservationState.HELD
    beyond: str = "overrun"
    """The column that explains what was charged beyond the hold."""


amounts = st.sampled_from([0, 1, CENT, 50 * CENT, 100 * CENT, 333_333_333, 700 * CENT, 2000 * CENT])
tokens = st.integers(0, 250)
teams = st.sampled_from(["a", "b"])
users = st.sampled_from(["ann", "bob", ""])
classes = st.sampled_from(["draft", "review", "audit"])


class Books(RuleBasedStateMachine):
    """Drives the ledger and a plain model side by side."""

    @initialize(index=st.sampled_from([0, 0, 1, 1, 1, *range(2, len(POLICIES))]))
    def open(self, index: int) -> None:
        grants = {f"g{n}": token(f"g{n}", "9", uses=2, passes_kill=n == 1) for n in range(2)}
        self.world = World(POLICIES[index], grants=grants, retention=KEEP)
        self.world.ledger.closed_keep_ns = LONG_NS
        self.calls: dict[bytes, Call] = {}
        self.asks: dict[bytes, tuple[Ask, str, Decision]] = {}
        self.count = 0

    # ---- agents -------------------------------------------------------------------------------

    @rule(
        team=teams,
        user=users,
        task_class=classes,
        amount=st.one_of(st.none(), amounts),
        prompt=tokens,
        output=tokens,
        tier=st.sampled_from(["", "", "standard"]),
        ttl_s=st.sampled_from([0, 30, 5000]),
        grant=st.sampled_from(["", "", "g0", "g1"]),
    )
    def admit(self, team, user, task_class, amount, prompt, output, tier, ttl_s, grant) -> None:
        self._admit(team, user, task_class, amount, (prompt, output), tier, ttl_s, grant)

    @rule(
        team=teams,
        user=users,
        task_class=classes,
        amount=st.sampled_from([50 * CENT, 160 * CENT, 333_333_333, 700 * CENT]),
        used=st.tuples(tokens, tokens),
        grant=st.sampled_from(["", "", "g0", "g1"]),
    )
    def fill(self, team, user, task_class, amount, used, grant) -> None:
        """Ask for the same again and again until it is refused."""
        for _ in range(12):
            if not self._admit(team, user, task_class, amount, used, "", 0, grant):
                return

    def _admit(self, team, user, task_class, amount, used, tier, ttl_s, grant) -> bool:
        self.count += 1
        prompt, output = used
        ask = Ask(
            ask_id=ask_id(f"a{self.count}"),
            labels={"team": team} | ({"user": user} if user else {}),
            task_class=task_class,
            estimated_cost_nusd=amount,
            prompt_tokens=prompt,
            max_output_tokens=output,
            tier=tier,
            ttl_ns=ttl_s * NS_PER_S,
            grant_digest=grant,
        )
        ledger, signed = self.world.ledger, self.world.grants.get(grant, "")
        before = self._state()
        explained = ledger.explain(ask, grant=signed).decision
        assert before == self._state()
        used = self._sums()
        decision = ledger.admit(ask, grant=signed).decision
        assert decision == explained
        if decision.verdict is Verdict.DENY:
            after = self._state()
            del before[Family.AUDIT], after[Family.AUDIT], before[Family.META], after[Family.META]
            assert before == after
            self._check_offer(ask, decision)
            return False
        held = ledger.find_reservation(decision.reservation_id)
        assert held is not None
        self._check_room(held, used)
        call = Call(self._tags(ask, decision.tier))
        assert {line.key[8:16] for line in held.counters} == call.tags
        call.held = {"nusd": decision.hold_nusd, "calls": 1, "tokens": _held_tokens(held)}
        self.calls[held.reservation_id] = call
        self.asks[held.reservation_id] = ask, signed, decision
        return True

    def _check_offer(self, ask: Ask, decision: Decision) -> None:
        """An amount that is said to pass does pass."""
        offered = [o.amount_nusd for o in decision.would_pass if o.amount_nusd is not None]
        if not offered or ask.estimated_cost_nusd is None:
            return
        smaller = Ask(
            **{name: getattr(ask, name) for name in ask.__struct_fields__}
            | {"estimated_cost_nusd": offered[0]}
        )
        verdict = self.world.ledger.explain(smaller).decision.verdict
        assert verdict is not Verdict.DENY

    def _check_room(self, held: Reservation, used: dict[bytes, int]) -> None:
        """Nothing was admitted past a limit, unless a grant or the shadow excuses it."""
        for line in held.counters:
            found = self.world.ledger.rules.budgets[line.key[8:16]]
            limit = found.budget.limit
            if limit is None or line.excuse is not Excuse.NONE or not line.hold:
                continue
            assert used.get(line.key, 0) + line.hold <= limit
            if held.ask.task_class == "draft" and found.budget.reserve:
                counter = self.world.store.get(Family.COUNTERS, line.key)
                assert counter.used - counter.reserve_used <= limit - found.budget.reserve

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), amount=amounts, usage=st.tuples(tokens, tokens), by_cost=st.booleans())
    def settle(self, data, amount, usage, by_cost) -> None:
        self._settle(*self._pick(data), amount, usage, by_cost)

    @precondition(lambda self: self._expired())
    @rule(data=st.data(), amount=amounts, usage=st.tuples(tokens, tokens), by_cost=st.booleans())
    def settle_late(self, data, amount, usage, by_cost) -> None:
        identity = data.draw(st.sampled_from(sorted(self._expired())))
        self._settle(identity, self.calls[identity], amount, usage, by_cost)

    def _expired(self) -> list[bytes]:
        return [i for i, call in self.calls.items() if call.state is ReservationState.EXPIRED]

    def _settle(self, identity, call, amount, usage, by_cost) -> None:
        measured = Usage(prompt_tokens=usage[0], output_tokens=usage[1])
        ledger = self.world.ledger
        try:
            closed = ledger.settle(identity, usage=measured, cost_nusd=amount if by_cost else None)
        except ReservationClosed:
            assert call.state in {ReservationState.SETTLED, ReservationState.VOIDED}
            return
        if closed.replayed:
            assert call.state is ReservationState.SETTLED
            return
        assert closed.late is (call.state is ReservationState.EXPIRED)
        call.beyond = "late" if closed.late else "overrun"
        call.state = ReservationState.SETTLED
        call.charged = {
            "nusd": closed.reservation.cost_nusd,
            "calls": 1,
            "tokens": usage[0] + usage[1],
        }
        if by_cost:
            assert closed.reservation.cost_nusd == amount

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def void(self, data) -> None:
        identity, call = self._pick(data)
        try:
            replayed = self.world.ledger.void(identity).replayed
        except ReservationClosed:
            assert call.reported or call.state in {
                ReservationState.SETTLED,
                ReservationState.EXPIRED,
            }
            return
        assert replayed is (call.state is ReservationState.VOIDED)
        call.state, call.charged = ReservationState.VOIDED, {}

    @precondition(lambda self: self.calls)
    @rule(
        data=st.data(),
        amount=amounts,
        more=tokens,
        ttl_s=st.sampled_from([0, 60]),
        so_far=st.one_of(st.none(), st.integers(0, 2000)),
    )
    def extend(self, data, amount, more, ttl_s, so_far) -> None:
        identity, call = self._pick(data)
        if not self.asks[identity][2].price_id:
            return
        try:
            extended = self.world.ledger.extend(
                identity,
                additional_cost_nusd=amount,
                additional_output_tokens=more,
                ttl_ns=ttl_s * NS_PER_S,
                usage_so_far=None if so_far is None else Usage(prompt_tokens=so_far),
            )
        except ReservationClosed:
            assert call.state is not ReservationState.HELD
            return
        held = extended.reservation
        if so_far is not None:
            call.reported = {"nusd": held.reported_nusd, "tokens": so_far}
        if extended.reason is Reason.OK:
            assert held.hold_nusd >= call.held["nusd"] + amount
            call.held |= {"nusd": held.hold_nusd, "tokens": call.held["tokens"] + more}
        else:
            assert held.hold_nusd == call.held["nusd"]

    @precondition(lambda self: self.count % 4 == 0)
    @rule(team=teams, user=users, cost=amounts, used=tokens, ago_s=st.sampled_from([0, 7000]))
    def record(self, team, user, cost, used, ago_s) -> None:
        self.count += 1
        labels = {"team": team} | ({"user": user} if user else {})
        ask = Ask(ask_id=ask_id(f"x{self.count}"), labels=labels)
        report = Report(
            cost_nusd=cost, usage=Usage(output_tokens=used), provider="acme", model="mid"
        )
        happened_ns = self.world.clock.wall_ns - ago_s * NS_PER_S
        closed = self.world.ledger.record(ask, report, happened_ns=happened_ns, cost_known=True)
        call = Call(
            self._tags(ask, "standard"), state=ReservationState.SETTLED, beyond="unadmitted"
        )
        call.charged = {"nusd": cost, "calls": 1, "tokens": used}
        identity = closed.reservation.reservation_id
        self.calls[identity] = call
        self.asks[identity] = ask, "", closed.reservation.decision
        before = self._state()
        again = self.world.ledger.record(ask, report, happened_ns=happened_ns, cost_known=True)
        assert again.replayed
        assert before == self._state()

    @precondition(lambda self: self.asks and not self.world.ledger.kills)
    @rule(data=st.data())
    def replay(self, data) -> None:
        identity = data.draw(st.sampled_from(sorted(self.asks)))
        ask, signed, decision = self.asks[identity]
        if not ask.prompt_tokens:
            return  # a record has no ask to repeat
        before = self._state()
        again = self.world.ledger.admit(ask, grant=signed)
        assert before == self._state()
        assert (again.replayed, again.decision) == (True, decision)
        assert again.state is self.calls[identity].state

    # ---- operators and clocks -----------------------------------------------------------------

    @precondition(lambda self: self.count % 5 == 0)
    @rule(index=st.integers(0, len(POLICIES) - 1))
    def swap_policy(self, index: int) -> None:
        self.world.policy = POLICIES[index]
        self.world.ledger.swap_policy(POLICIES[index])

    @precondition(lambda self: self.count % 3 == 0)
    @rule(team=teams, seconds=st.sampled_from([0, 90]))
    def kill(self, team: str, seconds: int) -> None:
        self.count += 1
        switch = KillSwitch(
            kill_id=f"k{self.count}",
            scope=Selector((Match("team", frozenset({team})),)),
            mode=KillMode.CRITICAL_ONLY if seconds else KillMode.DENY_ALL,
            reason="drill",
            actor="ops",
            engaged_ns=self.world.clock.wall_ns,
            releases_steady_ns=self.world.clock.steady_ns + seconds * NS_PER_S if seconds else 0,
        )
        self.world.ledger.put_kill(switch, action="kill_engaged", actor="ops", detail="")

    @precondition(lambda self: self.world.ledger.kills)
    @rule()
    def release(self) -> None:
        self.world.play("release k -> ")
        self.world.play("release halt -> ")
        assert not self.world.ledger.kills

    @rule(seconds=st.sampled_from([1, 29, 60, 3600, 40_000]))
    def advance(self, seconds: int) -> None:
        self.world.clock.advance(seconds)

    @rule(seconds=st.sampled_from([-7200, -1, 3600, 90_000]))
    def jump(self, seconds: int) -> None:
        self.world.clock.jump_wall(seconds)

    @precondition(lambda self: any(c.state is ReservationState.HELD for c in self.calls.values()))
    @rule()
    def let_the_next_expire(self) -> None:
        held = [i for i, call in self.calls.items() if call.state is ReservationState.HELD]
        due_ns = min(self.world.ledger.find_reservation(identity).due_ns for identity in held)
        passed_ns = max(0, due_ns - self.world.clock.steady_ns)
        self.world.clock.steady_ns += passed_ns
        self.world.clock.wall_ns += passed_ns
        self.sweep()

    @rule()
    def sweep(self) -> None:
        now = self.world.clock.steady_ns
        due = [
            held.reservation_id
            for _, held in self.world.store.scan(Family.RESERVATIONS)
            if held.state is ReservationState.HELD and held.due_ns <= now
        ]
        self.world.sweeper.sweep()
        for identity in due:
            call = self.calls[identity]
            call.state = ReservationState.EXPIRED
            call.charged = {
                unit: max(call.held[unit], call.reported.get(unit, 0)) for unit in call.held
            }

    @rule()
    def restart(self) -> None:
        self.world.open()
        self.world.ledger.closed_keep_ns = LONG_NS

    # ---- what must hold after every step ------------------------------------------------------

    @invariant()
    def invariants_and_totals_hold(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    @invariant()
    def every_budget_has_settled_and_reserved_what_its_calls_did(self) -> None:
        if not hasattr(self, "world"):
            return
        settled: dict[bytes, int] = {}
        reserved: dict[bytes, int] = {}
        for key, counter in self.world.store.scan(Family.COUNTERS):
            tag = key[8:16]
            settled[tag] = settled.get(tag, 0) + counter.settled
            reserved[tag] = reserved.get(tag, 0) + counter.reserved
        for tag, unit in UNITS.items():
            calls = [call for call in self.calls.values() if tag in call.tags]
            charged = sum(call.charged.get(unit, 0) for call in calls)
            held = sum(c.held[unit] for c in calls if c.state is ReservationState.HELD)
            assert (settled.get(tag, 0), reserved.get(tag, 0)) == (charged, held)

    @invariant()
    def every_column_is_exactly_what_calls_have_of_it(self) -> None:
        if not hasattr(self, "world"):
            return
        expected: dict[bytes, dict[str, int]] = {}
        for identity, held in self.world.store.scan(Family.RESERVATIONS):
            call = self.calls[identity]
            for line in held.counters:
                columns = expected.setdefault(line.key, dict.fromkeys(COLUMNS, 0))
                stands = line.hold if call.state is ReservationState.HELD else 0
                stands += call.charged.get(line.unit, 0)
                if line.excuse is Excuse.NONE:
                    columns[call.beyond] += max(0, stands - line.hold)
                else:
                    columns[line.excuse.name.lower()] += stands
                general = line.hold - line.reserve_hold
                columns["reserve_used"] += max(0, min(stands, line.hold) - general)
        for key, counter in self.world.store.scan(Family.COUNTERS):
            assert {name: getattr(counter, name) for name in COLUMNS} == expected[key]

    @invariant()
    def every_grant_has_been_used_for_what_its_calls_hold_or_cost(self) -> None:
        if not hasattr(self, "world"):
            return
        uses: dict[str, list[int]] = {name: [0, 0] for name in self.world.grants}
        for identity, (_, _, decision) in self.asks.items():
            call = self.calls[identity]
            if decision.grant_id and call.state is not ReservationState.VOIDED:
                uses[decision.grant_id][0] += 1
                is_held = call.state is ReservationState.HELD
                uses[decision.grant_id][1] += (call.held if is_held else call.charged)["nusd"]
        for name, (uses_count, used_nusd) in uses.items():
            use = self.world.store.get(Family.GRANTS, name.encode())
            stored = (use.uses_count, use.used_nusd) if use else (0, 0)
            assert stored == (uses_count, used_nusd)

    @invariant()
    def usage_events_add_up_to_what_is_settled(self) -> None:
        if not hasattr(self, "world"):
            return
        sums: dict[bytes, dict[str, int]] = {}
        for _, event in self.world.store.scan(Family.USAGE):
            of_call = sums.setdefault(event.reservation_id, {"nusd": 0, "calls": 0})
            of_call["nusd"] += event.cost_nusd
            of_call["calls"] += event.calls_count
        for key, counter in self.world.store.scan(Family.COUNTERS):
            unit = UNITS[keys.tag_of(key)]
            if unit == "tokens":
                continue  # without token counts the hold's are charged, and no event claims them
            lines = {
                identity
                for identity, held in self.world.store.scan(Family.RESERVATIONS)
                if any(line.key == key for line in held.counters)
            }
            assert sum(sums.get(each, {}).get(unit, 0) for each in lines) == counter.settled

    @invariant()
    def usage_events_add_up_to_what_was_measured(self) -> None:
        if not hasattr(self, "world"):
            return
        tokens_of: dict[bytes, int] = {}
        for _, event in self.world.store.scan(Family.USAGE):
            measured = event.usage.total_tokens if event.usage else 0
            tokens_of[event.reservation_id] = tokens_of.get(event.reservation_id, 0) + measured
        for identity, total in tokens_of.items():
            call = self.calls[identity]
            told = call.charged if call.state is ReservationState.SETTLED else call.reported
            assert total == told.get("tokens", 0)

    # ---- the plain model ----------------------------------------------------------------------

    def _tags(self, ask: Ask, tier: str) -> set[bytes]:
        """Which budgets of the policy in force count this ask, read off the policy by hand."""
        facts = {**ask.labels, "tier": tier}
        found = set()
        for each in self.world.policy.budgets:
            wanted = {m.key: m.values for m in each.selector.matches}
            if each.active and all(facts.get(k) in values for k, values in wanted.items()):
                found.add(keys.budget_tag(each))
        return found

    def _pick(self, data) -> tuple[bytes, Call]:
        """Choose a call, an open one more often than not."""
        held = [i for i, call in self.calls.items() if call.state is ReservationState.HELD]
        closed = data.draw(st.integers(0, 4)) == 0
        identity = data.draw(st.sampled_from(sorted(self.calls if closed else held or self.calls)))
        return identity, self.calls[identity]

    def _sums(self) -> dict[bytes, int]:
        return {key: counter.used for key, counter in self.world.store.scan(Family.COUNTERS)}

    def _state(self) -> dict[Family, dict[bytes, object]]:
        return {family: dict(self.world.store.scan(family)) for family in Family}


COLUMNS = ("overrun", "granted", "late", "unadmitted", "shadow", "reserve_used")
UNITS = {keys.budget_tag(each): str(each.unit) for p in POLICIES for each in p.budgets}


def _held_tokens(held: Reservation) -> int:
    return next((line.hold for line in held.counters if line.unit == "tokens"), 0)


Books.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestBooks = Books.TestCase
