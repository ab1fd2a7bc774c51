"""Hostile requests, from bytes to bytes: an answer or a clear refusal, and books that add up."""

import io
from types import SimpleNamespace

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from costd.daemon.admission import AdmissionService
from costd.daemon.books.asking import Trust
from costd.daemon.books.ledger import Ledger
from costd.daemon.clients.allowances import AllowanceBooks
from costd.daemon.clients.desk import Desk
from costd.daemon.clients.pages import NoPages
from costd.daemon.control import ControlService
from costd.daemon.servers import ADMISSION, CONTROL
from costd.daemon.sweeper import Sweeper
from costd.engine.changes import Family
from costd.engine.invariants import books_problems
from costd.model.reservation import ReservationState
from costd.policy import parse_policy
from costd.serving.calls import CALLER_METADATA, CallFigures, Calls
from costd.store.memory import MemoryStore
from costd.telemetry.logs import make_log
from costd.testing import FakeClock
from costd.wire.pb import admission_pb2 as pb
from costd.wire.pb import control_pb2 as cpb

STRICT = parse_policy(
    """
version: 1
tiers:
  premium: {models: [anthropic/claude-opus-4-5, openai/gpt-5.2]}
  economy: {models: [openai/gpt-5-nano]}
task_classes:
  draft: {tier: premium, max_output_tokens: 500}
  review: {critical: true, min_tier: premium}
default_task_class: draft
budgets:
  - {id: all, window: day}
  - id: user
    match: {user: "*"}
    per: [user, model]
    window: month
    limit: $5
    reserve: 10%
    steps:
      - {at: 50%, do: [tier_down, {max_output_tokens: 100}]}
      - {at: 90%, do: [deny]}
  - {id: run, match: {run: "*"}, per: run, window: run, limit: 3 calls}
  - {id: tokens, match: {project: a}, window: hour, limit: 5k tokens}
  - {id: lab, match: {project: b}, window: day, limit: $1, steps: [{at: 80%, do: [halt]}]}
rates:
  - {id: fast, match: {user: "*"}, per: user, limit: 60 requests / minute, burst: 3}
  - {id: spend, match: {project: "*"}, limit: $1 / minute}
""",
    "strict.yaml",
)
LENIENT = parse_policy(
    """
version: 1
unmatched: allow
unknown_price: {assume: openai/gpt-5.2}
tiers: {standard: {models: [openai/gpt-5.2, mine/model]}}
task_classes: {draft: {}, review: {critical: true}}
budgets:
  - {id: user, match: {user: "*"}, per: user, window: year}
prices:
  - {models: mine/model, input: $1000000, output: $1000000}
""",
    "lenient.yaml",
)

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Other work on the machine must not fail a test of what is answered."""

REFUSALS = {
    "INVALID_ARGUMENT",
    "PERMISSION_DENIED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "FAILED_PRECONDITION",
}
"""What a caller may be told; anything else is a bug, or says that the daemon is broken."""

HOSTILE_TEXTS = st.sampled_from(
    ["", "\0", "a\0b", "\x1f", "a\x1fuser=root", "\x1b[31mred", "a\nb", "[bold]x", "<script>",
     "\u202eabc", "\u200b", "\ufeff", "\U000e0001", "é" * 300, "x" * 65, "x" * 257, "x" * 5000,
     "(none)", "*", "a=b", "%s{0}$(id)`", "../../etc", "'; drop table", "𝔘𝔫𝔦", "[" * 99, "*" * 50]
)  # fmt: skip
TEXTS = HOSTILE_TEXTS | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
"""Without surrogates, which protobuf's own classes refuse to hold."""


def texts(*sensible):
    """Draw what the policy knows most of the time, and anything else otherwise."""
    return st.sampled_from(sensible) | st.sampled_from(sensible) | TEXTS


INTEGERS = (
    st.sampled_from([0, 1, -1, 1000, 10**6, 5 * 10**9, 10**12, 10**12 + 1, 2**62, 2**63 - 1])
    | st.sampled_from([-(2**63), 2**31, 2**53 + 1])
    | st.integers(0, 10**10)
    | st.integers(-(2**63), 2**63 - 1)
)
SMALL_INTEGERS = st.integers(-(2**31), 2**31 - 1) | st.sampled_from([0, 1])
IDS = st.sampled_from([f"ask-{n:02d}-of-the-fuzzer" for n in range(6)]) | TEXTS
KEYS = texts("user", "project", "run", "team")
LABELS = st.dictionaries(KEYS, texts("ann", "a", "b", "run-1"), max_size=4) | st.integers(
    60, 70
).map(lambda count: {f"label-{n}": "x" for n in range(count)})
UNITS = st.dictionaries(
    texts("requests", "web_searches", "input_audio_tokens", "images"), INTEGERS, max_size=2
)
PROVIDERS = texts("", "openai", "anthropic", "mine")
MODELS = texts("", "gpt-5.2", "gpt-5-nano", "claude-opus-4-5", "model", "unheard-of")


def messages(kind, **fields):
    """Draw messages in which any field may be missing."""
    return st.fixed_dictionaries({}, optional=fields).map(lambda drawn: kind(**drawn))


DURATIONS = st.fixed_dictionaries(
    {},
    optional={"seconds": INTEGERS | st.integers(0, 3600), "nanos": SMALL_INTEGERS},
)
USAGES = messages(
    pb.Usage,
    prompt_tokens=INTEGERS,
    cached_tokens=INTEGERS,
    cache_write_tokens=INTEGERS,
    output_tokens=INTEGERS,
    reasoning_tokens=INTEGERS,
    units=UNITS,
)
CALL_FIELDS = {
    "duration": DURATIONS,
    "outcome": st.integers(0, 5) | SMALL_INTEGERS,
    "retry_count": SMALL_INTEGERS,
    "provider": PROVIDERS,
    "model": MODELS,
    "usage": USAGES,
    "cost_nusd": INTEGERS,
}
ASKS = messages(
    pb.AdmitRequest,
    ask_id=IDS,
    estimated_cost_nusd=INTEGERS,
    prompt_tokens=INTEGERS,
    max_output_tokens=INTEGERS,
    task_class=texts("draft", "review"),
    labels=LABELS,
    provider=PROVIDERS,
    model=MODELS,
    tier=texts("premium", "standard", "economy"),
    acceptable_models=st.lists(MODELS | st.just("openai/*"), max_size=3)
    | st.integers(63, 66).map(lambda count: ["m"] * count),
    override_grant=TEXTS | st.just("e30.e30.e30"),
    ttl=DURATIONS,
    batch=st.booleans(),
    cost_kind=TEXTS,
    units=UNITS,
)
# Asks of which some are held: most drawn at random break one rule or another.
SOUND_ASKS = st.builds(
    pb.AdmitRequest,
    ask_id=st.sampled_from([f"ask-{n:02d}-of-the-fuzzer" for n in range(6)]),
    estimated_cost_nusd=st.sampled_from([0, 1, 10**6, 10**9, 10**15, 2**63 - 1]),
    prompt_tokens=st.sampled_from([0, 10, 1000]),
    max_output_tokens=st.sampled_from([0, 10, 1000]),
    task_class=st.just("draft"),
    labels=st.dictionaries(
        st.sampled_from(["user", "project", "run"]), st.sampled_from(["a", "b", "c"])
    ),
    model=st.sampled_from(["gpt-5.2", "gpt-5-nano"]),
)


def sound_ask(number, amount_nusd, **fields):
    """An ask that any policy here can answer."""
    return pb.AdmitRequest(
        ask_id=f"ask-{number:02d}-of-the-fuzzer",
        task_class="draft",
        model="gpt-5.2",
        estimated_cost_nusd=amount_nusd,
        prompt_tokens=10,
        max_output_tokens=10,
        **fields,
    )


def sound_record(cost_nusd, **fields):
    """A record that any policy here can charge."""
    return pb.RecordRequest(
        record_id="a-record-of-the-fuzzer",
        task_class="draft",
        model="gpt-5.2",
        cost_nusd=cost_nusd,
        **fields,
    )


HELD = st.integers(0, 5)
"""Which of the reservations made so far; its id is filled in when the request is made."""

OPERATIONS = st.one_of(
    st.tuples(st.just("Admit"), SOUND_ASKS, st.none()),
    st.tuples(st.sampled_from(["Admit", "Explain"]), ASKS, st.none()),
    st.tuples(
        st.just("Settle"),
        messages(pb.SettleRequest, reservation_id=TEXTS, **CALL_FIELDS),
        st.none() | HELD,
    ),
    st.tuples(st.just("Void"), messages(pb.VoidRequest, reservation_id=TEXTS), st.none() | HELD),
    st.tuples(
        st.just("Extend"),
        messages(
            pb.ExtendRequest,
            reservation_id=TEXTS,
            additional_cost_nusd=INTEGERS,
            additional_output_tokens=INTEGERS,
            ttl=DURATIONS,
            usage_so_far=USAGES,
        ),
        HELD,
    ),
    st.tuples(
        st.just("Record"),
        messages(
            pb.RecordRequest,
            record_id=IDS,
            task_class=texts("draft", "review"),
            labels=LABELS,
            happened_ns=INTEGERS,
            cost_kind=TEXTS,
            batch=st.booleans(),
            **CALL_FIELDS,
        ),
        st.none(),
    ),
)
CONTROL_OPERATIONS = st.one_of(
    st.tuples(
        st.just("EngageKill"),
        messages(
            cpb.EngageKillRequest,
            kill_id=TEXTS,
            scope=LABELS,
            mode=texts("deny_all", "critical_only", "max_tier"),
            max_tier=texts("premium", "standard"),
            reason=texts("drill"),
            actor=TEXTS,
            release_after=DURATIONS,
        ),
        st.none(),
    ),
    st.tuples(
        st.just("ReleaseKill"),
        messages(cpb.ReleaseKillRequest, kill_id=TEXTS, actor=TEXTS, reason=TEXTS),
        st.none(),
    ),
    st.tuples(
        st.just("Drill"),
        messages(cpb.DrillRequest, scope=LABELS, actor=TEXTS, reason=TEXTS, timeout=DURATIONS),
        st.none(),
    ),
    st.tuples(
        st.just("RevokeAllowance"),
        messages(cpb.RevokeAllowanceRequest, allowance_id=TEXTS, actor=TEXTS, reason=TEXTS),
        st.none(),
    ),
)
LISTS = (
    ("GetStatus", cpb.GetStatusRequest()),
    ("ListBudgets", cpb.ListBudgetsRequest(include_ended=True)),
    ("ListReservations", cpb.ListReservationsRequest(include_closed=True)),
    ("ListUsage", cpb.ListUsageRequest()),
    ("ListUsage", cpb.ListUsageRequest(group_by=["user", "model", "reason", "cost_kind"])),
    ("ListAlerts", cpb.ListAlertsRequest()),
    ("ListAudit", cpb.ListAuditRequest()),
    ("ListKills", cpb.ListKillsRequest(include_released=True)),
    ("ListGrants", cpb.ListGrantsRequest()),
    ("ListAllowances", cpb.ListAllowancesRequest()),
)


class Context:
    """As much of gRPC's context as a handler touches."""

    def __init__(self, caller):
        self.code, self.details = None, ""
        self._metadata = ((CALLER_METADATA, caller),)

    def invocation_metadata(self):
        return self._metadata

    def set_code(self, code):
        self.code = code

    def set_details(self, details):
        self.details = details


class Daemon:
    """Everything between the bytes of a request and those of its reply, over a memory store."""

    def __init__(self, policy, trust=None):
        self.clock, self.store, self.log = FakeClock(), MemoryStore(), io.StringIO()
        trust = trust or Trust(claims=frozenset({"*"}))
        self.ledger = Ledger(self.store, policy, self.clock, trust=trust)
        source = SimpleNamespace(path="", text="", error="", loaded_ns=0)
        desk = Desk(self.ledger, AllowanceBooks(self.ledger), NoPages())
        self.control = ControlService(self.ledger, source, desk)
        log = make_log(level="info", style="json", stream=self.log)
        calls = Calls(figures=CallFigures(), log=log)
        self._handlers = (
            calls.handlers(ADMISSION, AdmissionService(self.ledger)),
            calls.handlers(CONTROL, self.control),
        )
        self.held = []

    def call(self, rpc, raw, caller=""):
        """Answer bytes; returns the reply and the context. Nothing on the way may wait."""
        services = zip((ADMISSION, CONTROL), self._handlers, strict=True)
        for service, handlers in services:
            path = f"/{service.full_name}/{rpc}"
            method = handlers.service(SimpleNamespace(method=path, invocation_metadata=()))
            if method is not None:
                break
        context = Context(caller)
        answering = method.unary_unary(raw, context)
        with pytest.raises(StopIteration) as done:
            answering.send(None)
        return done.value.value, context

    def ask(self, rpc, request, which=None, caller=""):
        """Make one request, and check what must hold whatever it was."""
        if which is not None and self.held:
            request.reservation_id = self.held[which % len(self.held)]
        before = self.contents()
        raw, context = self.call(rpc, request.SerializeToString(), caller)
        if context.code is None:
            if rpc == "Admit":
                decision = pb.Decision.FromString(raw)
                assert decision.verdict
                assert decision.reason
                if decision.reservation_id and decision.reservation_id not in self.held:
                    self.held.append(decision.reservation_id)
        else:
            assert context.code.name in REFUSALS, f"{rpc} {request}: {context.details} {self.told}"
            assert context.details
            assert self.contents() == before, f"{rpc} {request}: refused, and wrote something"
        if rpc == "Explain":
            assert self.contents() == before
        self.check(f"{rpc} {request}")

    def contents(self):
        return {family: dict(self.store.scan(family)) for family in Family}

    @property
    def told(self):
        return self.log.getvalue()

    def check(self, after):
        """The books add up, and operators can look at all of it."""
        reservations = [each for _, each in self.store.scan(Family.RESERVATIONS)]
        assert books_problems(self.store.scan(Family.COUNTERS), reservations) == [], after
        held = [each for each in reservations if each.state is ReservationState.HELD]
        assert self.ledger.totals.open_count == len(held), after
        assert self.ledger.totals.reserved_nusd == sum(each.hold_nusd for each in held), after
        for rpc, request in LISTS:
            getattr(self.control, rpc)(request, "").SerializeToString()

    def expire_everything(self):
        """Let all time run out; nothing that was sent may stand in the way of it."""
        sweeper = Sweeper(self.ledger)
        for _ in range(3):
            self.clock.advance(86_400)
            while sweeper.sweep():
                pass
        self.check("expiry")
        assert self.ledger.totals.open_count == 0
        assert self.told == ""


@given(
    policy=st.sampled_from([STRICT, LENIENT]),
    operations=st.lists(OPERATIONS | CONTROL_OPERATIONS, max_size=10),
)
@settings(UNHURRIED, max_examples=150)
def test_any_requests_are_answered_or_refused_and_the_books_add_up(policy, operations):
    daemon = Daemon(policy)
    for rpc, request, which in operations:
        daemon.ask(rpc, request, which)
    daemon.expire_everything()


@given(
    policy=st.sampled_from([STRICT, LENIENT]),
    amounts=st.lists(st.sampled_from([0, 1, 10**6, 10**8, 10**15]), min_size=1, max_size=3),
    spent=st.sampled_from([0, 2**62, 2**63 - 1 - 10**15, 2**63 - 1001]),
    labels=st.sampled_from([{}, {"user": "a"}, {"project": "b"}, {"user": "a", "run": "c"}]),
    operations=st.lists(
        OPERATIONS.filter(lambda drawn: drawn[0] in {"Settle", "Void", "Extend"}), max_size=6
    ),
)
@settings(UNHURRIED, max_examples=150)
def test_whatever_is_said_of_held_money_is_answered_or_refused(
    policy, amounts, spent, labels, operations
):
    daemon = Daemon(policy)
    for number, amount in enumerate((1000, *amounts)):
        daemon.ask("Admit", sound_ask(number, amount, labels=labels))
        if number == 0:  # counters come close to the largest amount, or reach it
            daemon.ask("Record", sound_record(spent, labels=labels))
    assert daemon.held
    for number, (rpc, request, which) in enumerate(operations):
        daemon.ask(rpc, request, number if which is None else which)
    daemon.expire_everything()


@given(
    rpc=st.sampled_from(["Admit", "Settle", "Void", "Extend", "Record", "Explain", "EngageKill"]),
    raw=st.binary(max_size=200),
)
@settings(UNHURRIED, max_examples=300)
def test_any_bytes_are_answered_or_refused(rpc, raw):
    reply_or_refusal(BYSTANDER, rpc, raw)


@given(drawn=OPERATIONS, data=st.data())
@settings(UNHURRIED, max_examples=150)
def test_a_damaged_message_is_answered_or_refused(drawn, data):
    rpc, request, _ = drawn
    raw = request.SerializeToString()
    at = data.draw(st.integers(0, len(raw)))
    damage, length = data.draw(st.binary(max_size=6)), data.draw(st.integers(0, 6))
    reply_or_refusal(BYSTANDER, rpc, raw[:at] + damage + raw[at + length :])


@given(caller=TEXTS | st.binary(max_size=300), ask=SOUND_ASKS)
@settings(UNHURRIED, max_examples=50)
def test_any_caller_is_answered_or_refused(caller, ask):
    reply_or_refusal(Daemon(LENIENT), "Admit", ask.SerializeToString(), caller)


@given(asks=st.lists(ASKS, max_size=4))
@settings(UNHURRIED, max_examples=50)
def test_any_labels_are_answered_or_refused_where_some_are_fixed_and_no_class_may_be_claimed(asks):
    daemon = Daemon(STRICT, Trust(labels_fixed={"user": "ann"}))
    for ask in asks:
        daemon.ask("Admit", ask)
    reservations = [held for _, held in daemon.store.scan(Family.RESERVATIONS)]
    assert all(held.ask.labels["user"] == "ann" for held in reservations)
    assert all(held.ask.task_class == "draft" for held in reservations)


BYSTANDER = Daemon(STRICT)
"""Shared where nothing is likely to be admitted: making one costs more than a request."""


def reply_or_refusal(daemon, rpc, raw, caller=""):
    _, context = daemon.call(rpc, raw, caller)
    if context.code is not None:
        assert context.code.name in REFUSALS, f"{context.details} {daemon.told}"
        assert context.code is not grpc.StatusCode.INTERNAL
        assert context.details
    daemon.check(rpc)
