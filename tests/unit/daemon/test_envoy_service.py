"""What the rate-limit service makes of descriptors: one ask, one settlement, or a clear refusal."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costd.daemon.admission import AdmissionService
from costd.daemon.books.asking import Trust
from costd.daemon.books.ledger import Ledger
from costd.daemon.envoy import EnvoyService
from costd.daemon.fleet.patience import Patience
from costd.daemon.fleet.tenancy import Situation, Tenancy
from costd.engine import keys
from costd.engine.changes import Family
from costd.engine.invariants import books_problems
from costd.errors import InvalidAsk
from costd.grants import GrantClaims, issue, keygen, load_private_key
from costd.model.kill import KillMode, KillSwitch
from costd.model.labels import Selector
from costd.model.reservation import ReservationState
from costd.model.time import NS_PER_S
from costd.policy import parse_policy
from costd.testing import FakeClock, MemoryStore
from costd.wire.envoy import DESCRIPTORS_COUNT_MAX
from costd.wire.pb import ratelimit_pb2 as pb

POLICY = """
version: 1
tiers:
  premium: {models: [openai/gpt-4o]}
task_classes:
  draft: {}
default_task_class: draft
prices:
  - {models: openai/gpt-4o, input: $1, output: $10}
budgets:
  - {id: user-day, per: user, window: day, limit: $1}
rates:
  - {id: quick, match: {user: hasty}, limit: 1 requests / minute}
envoy:
  - id: ask
    domain: llm
    match: {step: ask}
    request_id: request
    labels: {user: user, site: {value: berlin}}
    task_class: class
    model: {entry: model, value: openai/gpt-4o}
    prompt_tokens: {value: "1000"}
    max_output_tokens: {entry: longest, value: "100"}
  - id: by-amount
    domain: llm
    match: {step: amount}
    labels: {user: user}
    hits_addend: cost_microusd
  - id: by-prompt
    domain: llm
    match: {step: counted}
    labels: {user: user}
    model: {value: openai/gpt-4o}
    hits_addend: prompt_tokens
    max_output_tokens: {value: "0"}
  - {id: more, domain: llm, match: {more: "*"}, labels: {team: more}}
  - {id: prompt, domain: llm, match: {step: prompt}, does: settle, request_id: request, hits_addend: prompt_tokens}
  - {id: cached, domain: llm, match: {step: cached}, does: settle, request_id: request, hits_addend: cached_tokens}
  - {id: output, domain: llm, match: {step: output}, does: settle, request_id: request, hits_addend: output_tokens}
  - {id: cost, domain: llm, match: {step: cost}, does: settle, request_id: request, hits_addend: cost_microusd}
  - {id: end, domain: llm, match: {step: end}, does: settle, request_id: request}
"""
ID = "0190-request-of-envoy"
HOLD = 1_000 * 1_000 + 100 * 10_000
OK, OVER_LIMIT = pb.RateLimitResponse.OK, pb.RateLimitResponse.OVER_LIMIT


class Told:
    """A log that keeps what it is told."""

    def __init__(self):
        self.events = []

    def warning(self, event, **fields):
        self.events.append((event, fields["problem"]))


def request_of(*descriptors, domain="llm", hits=0):
    request = pb.RateLimitRequest(domain=domain, hits_addend=hits)
    for entries in descriptors:
        made = request.descriptors.add()
        for key, value in entries.items():
            if key == "hits":
                made.hits_addend.value = value
            else:
                made.entries.add(key=key, value=value)
    return request


class World:
    """One ledger behind the service."""

    def __init__(self, policy=POLICY, *, in_fleet=False, claims=frozenset()):
        self.clock = FakeClock()
        self.log = Told()
        self.ledger = Ledger(
            MemoryStore(), parse_policy(policy, "p.yaml"), self.clock, trust=Trust(claims=claims),
            in_fleet=in_fleet,
        )  # fmt: skip
        self.service = EnvoyService(self.ledger, AdmissionService(self.ledger), self.log)

    def send(self, *descriptors, domain="llm", hits=0):
        return self.service.ShouldRateLimit(request_of(*descriptors, domain=domain, hits=hits), "")

    def ask(self, user="ann", **entries):
        return self.send({"step": "ask", "request": ID, "user": user, **entries})

    def held(self, request_id=ID):
        return self.ledger.find_reservation(keys.reservation_id("envoy", request_id))

    @property
    def events(self):
        return [event for _, event in self.ledger.store.scan(Family.USAGE)]

    @property
    def charges(self):
        return [event.cost_nusd for event in self.events]

    def check_books(self):
        store = self.ledger.store
        reservations = [held for _, held in store.scan(Family.RESERVATIONS)]
        assert books_problems(store.scan(Family.COUNTERS), reservations) == []


@pytest.fixture
def world():
    return World()


def headers(response):
    return {each.key: each.value for each in response.response_headers_to_add}


def reason(response):
    """The reason of a refusal."""
    assert response.overall_code == OVER_LIMIT
    return headers(response)["x-costd-reason"]


def end(step="end", request_id=ID, **more):
    return {"step": step, "request": request_id, **more}


# ---- asks ---------------------------------------------------------------------------------------


def test_an_ask_holds_what_its_descriptor_says_and_its_end_settles_it(world):
    response = world.ask(**{"class": "draft"})
    assert response.overall_code == OK
    assert [status.code for status in response.statuses] == [OK]
    held = world.held()
    assert (held.state, held.hold_nusd) == (ReservationState.HELD, HOLD)
    assert held.ask.labels == {"user": "ann", "site": "berlin"}
    assert (held.ask.provider, held.ask.model) == ("openai", "gpt-4o")
    ended = world.send(end("prompt", hits=400), end("output", hits=50), end())
    assert ended.overall_code == OK
    assert world.charges == [400 * 1_000 + 50 * 10_000]
    world.check_books()


def test_an_answer_tells_headers_limits_metadata_and_a_quota_of_nothing(world):
    response = world.ask(longest="10")
    assert headers(response) == {
        "x-costd-verdict": "allow",
        "x-costd-reason": "OK",
        "x-costd-budget": "user-day",
        "x-costd-model": "openai/gpt-4o",
        "x-costd-tier": "premium",
    }
    upstream = {each.key: each.value for each in response.request_headers_to_add}
    assert upstream == {"x-costd-model": "openai/gpt-4o", "x-costd-tier": "premium"}
    (status,) = response.statuses
    assert (status.current_limit.name, status.current_limit.requests_per_unit) == (
        "user-day",
        1_000_000,
    )
    assert status.current_limit.unit == pb.RateLimitResponse.RateLimit.DAY
    # A dollar without the 1,100,000 nano-USD held, to a hundredth of a percent.
    assert status.limit_remaining == 998_900
    assert 0 < status.duration_until_reset.seconds <= 86_400
    assert (response.quota.id, response.quota.requests) == ("user-day", 0)
    metadata = dict(response.dynamic_metadata)
    assert metadata["model"] == "gpt-4o"
    assert metadata["provider_model"] == "openai/gpt-4o"
    assert metadata["reservation_id"] == world.held().reservation_id.hex()


def test_without_a_request_id_an_ask_is_charged_at_once_what_it_would_hold(world):
    first = world.send({"step": "amount", "user": "ann"}, hits=2_500)
    second = world.send({"step": "amount", "user": "ann", "hits": 1})
    assert (first.overall_code, second.overall_code) == (OK, OK)
    assert world.charges == [2_500_000, 1_000]
    world.check_books()


def test_hits_count_prompt_tokens_where_the_rule_says_so(world):
    world.send({"step": "counted", "user": "ann", "hits": 7})
    assert world.charges == [7 * 1_000]


def test_a_limit_and_a_sign_that_a_descriptor_brings_change_nothing(world):
    limit, is_negative = b"\x12\x04\x08\x00\x10\x02", b"\x20\x01"  # 0 a minute; fields 2 and 4
    plain = pb.RateLimitDescriptor(hits_addend={"value": 9})
    for key, value in {"step": "amount", "user": "ann"}.items():
        plain.entries.add(key=key, value=value)
    raw = plain.SerializeToString() + limit + is_negative
    request = pb.RateLimitRequest(
        domain="llm", descriptors=[pb.RateLimitDescriptor.FromString(raw)]
    )
    assert world.service.ShouldRateLimit(request, "").overall_code == OK
    assert world.charges == [9_000]


def test_several_descriptors_are_one_ask(world):
    response = world.send(
        {"step": "ask", "request": ID, "user": "ann"}, {"more": "1"}, {"more": "1", "user": "ann"}
    )
    assert [status.code for status in response.statuses] == [OK, OK, OK]
    assert len(list(world.ledger.store.scan(Family.RESERVATIONS))) == 1
    world.check_books()


def test_a_refusal_consumes_nothing_and_tells_why(world):
    assert world.send({"step": "amount", "user": "ann", "hits": 1_000_000}).overall_code == OK
    response = world.ask()
    assert reason(response) == "BUDGET_EXHAUSTED"
    told = headers(response)
    assert told["x-costd-budget"] == "user-day"
    assert told["x-should-retry"] == "false"
    assert 0 < int(told["retry-after"]) <= 86_400
    assert response.raw_body
    assert [status.limit_remaining for status in response.statuses] == [0]
    assert world.held() is None
    # The end of a call that never left settles nothing.
    assert world.send(end()).overall_code == OK
    assert len(world.charges) == 1


def test_a_rate_refuses_for_a_while_and_leaves_retrying_to_the_client(world):
    assert world.ask("hasty").overall_code == OK
    response = world.send({"step": "ask", "request": ID + "2", "user": "hasty"})
    assert reason(response) == "RATE_LIMITED"
    assert 0 < int(headers(response)["retry-after"]) <= 60
    assert "x-should-retry" not in headers(response)


@pytest.mark.parametrize(
    ("refusing", "entries", "why"),
    [
        (
            "budgets: [{id: each, per: team, window: day, limit: $1, missing: deny}]",
            {},
            "LABEL_MISSING",
        ),
        (
            "rates: [{id: each, per: team, limit: 9 requests / minute, missing: deny}]",
            {},
            "LABEL_MISSING",
        ),
        ("", {"model": "openai/unheard-of"}, "PRICE_UNKNOWN"),
        ("model_rules: [{id: old, match: {user: ann}, forbid: [openai/*]}]", {}, "MODEL_FORBIDDEN"),
    ],
)
def test_nobody_is_told_to_come_back_where_waiting_does_not_help(refusing, entries, why):
    name, _, rule = refusing.partition(": ")
    policy = POLICY.replace(f"{name}:\n", f"{name}:\n  - {rule[1:-1]}\n") if rule else POLICY
    if rule and policy == POLICY:
        policy += f"{refusing}\n"
    response = World(policy).ask(**entries)
    assert reason(response) == why
    assert "retry-after" not in headers(response)


@pytest.mark.parametrize(("releases_in_s", "told"), [(90, "90"), (0, None)])
def test_a_kill_switch_says_when_it_releases_itself_and_nothing_otherwise(
    world, releases_in_s, told
):
    now = world.clock.now()
    switch = KillSwitch(
        kill_id="k",
        scope=Selector(()),
        mode=KillMode.DENY_ALL,
        reason="test",
        actor="t",
        engaged_ns=now.wall_ns,
        releases_ns=releases_in_s and now.wall_ns + releases_in_s * NS_PER_S,
        releases_steady_ns=releases_in_s and now.steady_ns + releases_in_s * NS_PER_S,
    )
    world.ledger.put_kill(switch, action="kill_engaged", actor="t", detail="")
    response = world.ask()
    assert reason(response) == "KILL_SWITCH"
    assert headers(response).get("retry-after") == told


def test_a_missing_label_counts_as_the_policy_says(world):
    world.send({"step": "ask", "request": ID})
    assert world.held().ask.labels == {"site": "berlin"}


def test_an_override_grant_in_an_entry_is_redeemed():
    key = keygen()
    granted = World(
        POLICY.replace("draft: {}", "draft: {}\n  review: {critical: true}").replace(
            "    task_class: class\n", "    task_class: class\n    override_grant: grant\n"
        )
        + f"grant_keys: [{{id: lead, public_key: {key.public_key}}}]\n",
        claims=frozenset({"review"}),
    )
    now_s = granted.clock.now().wall_ns // NS_PER_S
    claims = GrantClaims(
        jti="g1", iss="lead", sub="ann", aud=("costd",), reason="release",
        nbf=now_s, iat=now_s, exp=now_s + 3_600, scope={}, task_classes=("review",),
        amount_nusd=NS_PER_S, uses=1, passes_kill=False,
    )  # fmt: skip
    granted.send({"step": "amount", "user": "ann", "hits": 1_000_000})
    assert reason(granted.ask(**{"class": "review"})) == "BUDGET_EXHAUSTED"
    token = issue(load_private_key(key.private_pem), "lead", claims)
    spoiled = granted.ask(**{"class": "review", "grant": token + "x"})
    assert reason(spoiled) == "BUDGET_EXHAUSTED"
    assert headers(spoiled)["x-costd-grant-refusal"]
    response = granted.ask(**{"class": "review", "grant": token})
    assert response.overall_code == OK
    assert headers(response)["x-costd-reason"] == "GRANT"


def test_shadow_is_told(world):
    shadowed = World(POLICY + "shadow: true\n")
    shadowed.send({"step": "amount", "user": "ann", "hits": 1_000_000})
    response = shadowed.ask()
    assert response.overall_code == OK
    assert headers(response)["x-costd-shadow"] == "deny"


# ---- the same request again -----------------------------------------------------------------------


def test_the_same_ask_again_gets_the_same_answer_while_its_call_goes_on(world):
    assert world.ask() == world.ask()
    assert len(list(world.ledger.store.scan(Family.RESERVATIONS))) == 1


def test_the_id_of_a_call_that_has_ended_buys_no_other_call(world):
    world.ask()
    world.send(end("cost", hits=5))
    assert reason(world.ask()) == "ALREADY_EXISTS"


def test_the_id_of_another_ask_is_refused(world):
    world.ask()
    assert reason(world.ask("bob")) == "ALREADY_EXISTS"


def test_an_end_that_comes_twice_is_charged_once(world):
    world.ask()
    for _ in range(2):
        assert world.send(end("cost", hits=5), end()).overall_code == OK
    assert world.charges == [5_000]


def test_an_end_that_says_something_else_later_is_refused_and_changes_nothing(world):
    world.ask()
    world.send(end("cost", hits=5))
    for _ in range(2):
        assert reason(world.send(end("cost", hits=6))) == "FAILED_PRECONDITION"
    ((event, problem),) = world.log.events
    assert event == "envoy_end_refused"
    assert "was settled at 5000 nano-USD" in problem
    assert world.send(end()).overall_code == OK
    assert world.charges == [5_000]


# ---- ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("descriptors", "refused_as", "said"),
    [
        ([end("cost", hits=5), end("cost", hits=6)], "INVALID_ARGUMENT", "one request is one call"),
        ([end("cost", hits=5), end(request_id="another")], "INVALID_ARGUMENT", "request_id is"),
        ([end("cost", hits=5), {"step": "ask"}], "INVALID_ARGUMENT", "some settle"),
        ([end("cost", hits=5), end("elsewhere")], "NO_BUDGET", "matches no rule"),
    ],
)
def test_an_end_whose_descriptors_make_no_sense_together_is_told_in_the_log(
    world, descriptors, refused_as, said
):
    world.ask()
    for _ in range(2):
        assert reason(world.send(*descriptors)) == refused_as
    ((event, problem),) = world.log.events
    assert event == "envoy_end_refused"
    assert said in problem
    assert world.charges == []


def test_an_end_with_bytes_that_are_no_text_is_told_in_the_log(world):
    world.ask()
    request = pb.RateLimitRequest.FromString(
        request_of(end("cost", user="~~", hits=5)).SerializeToString().replace(b"~~", b"\xff\xfe")
    )
    assert reason(world.service.ShouldRateLimit(request, "")) == "INVALID_ARGUMENT"
    ((event, problem),) = world.log.events
    assert event == "envoy_end_refused"
    assert "not UTF-8" in problem


def test_an_ask_that_makes_no_sense_is_told_to_who_asks_and_not_in_the_log(world):
    assert reason(world.ask(longest="much")) == "INVALID_ARGUMENT"
    assert reason(world.send({"step": "elsewhere"})) == "NO_BUDGET"
    assert world.log.events == []


def test_an_end_without_usage_charges_the_hold(world):
    world.ask()
    world.send(end())
    assert world.charges == [HOLD]


def test_cached_tokens_are_part_of_the_prompt(world):
    world.ask()
    world.send(end("prompt", hits=400), end("cached", hits=100), end("output", hits=0))
    (event,) = world.events
    assert (event.usage.prompt_tokens, event.usage.cached_tokens) == (400, 100)


def test_an_end_of_a_call_that_nobody_asked_for_is_recorded(world):
    world.send(end("cost", hits=9))
    (event,) = world.events
    assert (event.cost_nusd, event.closed_as) == (9_000, "recorded")


@pytest.mark.parametrize("model", ["red\x1b[31m", "two\nlines", "nul\0", "m" * 257])
def test_an_end_whose_model_cannot_be_printed_is_refused_as_an_ask_would_be(model):
    named = World(
        POLICY.replace("hits_addend: output_tokens}", "hits_addend: output_tokens, model: model}")
    )
    named.ask()
    assert reason(named.send(end("output", hits=5, model=model))) == "INVALID_ARGUMENT"
    ((event, problem),) = named.log.events
    assert event == "envoy_end_refused"
    assert problem.startswith("model has ")
    assert named.charges == []
    assert named.held().state is ReservationState.HELD  # and charged at its hold in the end


# ---- bad input --------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [{"step": "unheard-of"}, {"user": "ann"}])
def test_descriptors_that_match_no_rule_are_refused_by_name_and_hold_nothing(world, other):
    response = world.send({"step": "ask", "request": ID, "user": "ann"}, other)
    assert reason(response) == "NO_BUDGET"
    said = headers(response)["x-costd-message"]
    assert "descriptors[1]" in said
    assert next(iter(other)) in said
    assert "'llm'" in said
    assert [status.code for status in response.statuses] == [OK, OVER_LIMIT]
    assert world.held() is None


def test_another_domain_matches_no_rule(world):
    response = world.send({"step": "ask", "request": ID}, domain="web")
    assert reason(response) == "NO_BUDGET"


def test_without_envoy_rules_nothing_matches():
    bare = World(POLICY[: POLICY.index("envoy:")])
    assert reason(bare.ask()) == "NO_BUDGET"


def test_unmatched_descriptors_pass_where_the_policy_lets_them():
    lenient = World(POLICY + "unmatched: allow\n")
    assert lenient.send({"step": "unheard-of"}).overall_code == OK
    response = lenient.send({"step": "unheard-of"}, {"step": "ask", "request": ID, "user": "ann"})
    assert response.overall_code == OK
    assert lenient.held() is not None


@pytest.mark.parametrize(
    ("descriptors", "domain", "says"),
    [
        ([{"step": "ask"}], "", "domain is empty"),
        ([], "llm", "descriptors has 0 entries; send 1 to 64"),
        ([{"step": "ask"}] * (DESCRIPTORS_COUNT_MAX + 1), "llm", "has 65 entries"),
        ([{}], "llm", r"descriptors\[0\].entries has 0 entries"),
        ([{"": "x"}], "llm", "an entry without a key"),
    ],
)
def test_a_request_that_no_rule_could_read_is_an_error(world, descriptors, domain, says):
    with pytest.raises(InvalidAsk, match=says):
        world.send(*descriptors, domain=domain)


def test_two_values_of_one_entry_are_an_error(world):
    request = pb.RateLimitRequest(domain="llm")
    made = request.descriptors.add()
    for value in ("ask", "end"):
        made.entries.add(key="step", value=value)
    with pytest.raises(InvalidAsk, match="two values of 'step'"):
        world.service.ShouldRateLimit(request, "")


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"request": "short"}, "ask_id has 5 characters"),
        ({"longest": "a few"}, "max_output_tokens is 'a few'; it must be a count"),
        ({"longest": "9" * 30}, "it must be a count"),
        ({"class": "unheard-of"}, "unheard-of"),
        ({"model": "openai/unheard-of"}, ""),
    ],
)
def test_what_a_caller_says_wrong_is_refused_and_no_error(world, entries, says):
    response = world.ask(**entries)
    assert reason(response) in {"INVALID_ARGUMENT", "PRICE_UNKNOWN"}
    assert says in headers(response)["x-costd-message"]


def test_a_value_that_is_no_text_is_refused_and_no_error(world):
    request = pb.RateLimitRequest(domain="llm")
    request.descriptors.add().entries.add(key="step", value="ask")
    request.descriptors[0].entries.add(key="user", value="XX")
    raw = request.SerializeToString().replace(b"XX", b"\xff\xfe")
    response = world.service.ShouldRateLimit(pb.RateLimitRequest.FromString(raw), "")
    assert reason(response) == "INVALID_ARGUMENT"
    assert "the value of 'user' is not UTF-8" in headers(response)["x-costd-message"]
    assert world.events == []


def test_descriptors_that_contradict_each_other_are_refused(world):
    response = world.send(
        {"step": "ask", "request": ID, "user": "ann"}, {"step": "amount", "user": "bob"}
    )
    assert reason(response) == "INVALID_ARGUMENT"
    assert "one request is one call" in headers(response)["x-costd-message"]
    assert reason(world.send({"step": "ask", "request": ID}, end())) == "INVALID_ARGUMENT"


KEYS = st.sampled_from(["step", "request", "user", "class", "model", "longest", "more", "", "x"])
VALUES = st.one_of(
    st.sampled_from(["ask", "amount", "counted", "prompt", "output", "cost", "end", ID, "draft"]),
    st.text(max_size=40),
)
DESCRIPTORS = st.dictionaries(KEYS, VALUES, max_size=5)
HITS = st.one_of(st.none(), st.integers(0, 2**64 - 1))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.tuples(DESCRIPTORS, HITS), max_size=3), max_size=6))
def test_whatever_descriptors_say_there_is_an_answer_and_the_books_add_up(requests):
    world = World()
    for descriptors in requests:
        said = [entries | ({} if hits is None else {"hits": hits}) for entries, hits in descriptors]
        try:
            response = world.send(*said)
        except InvalidAsk:
            continue
        assert len(response.statuses) == len(said)
        for header in response.response_headers_to_add:
            assert header.value.isascii()
            assert header.value.isprintable()
    world.check_books()


# ---- in a fleet -------------------------------------------------------------------------------------


def test_in_a_fleet_an_ask_waits_for_its_lease_and_is_refused_without():
    fleet = World(in_fleet=True)
    situation = Situation(name="host-1", version="1", boot_id="boot")
    nobody_there = Tenancy(fleet.ledger, daemon_id="daemon-1", situation=situation)
    patience = Patience(nobody_there, lambda: 0)
    fleet.service = EnvoyService(fleet.ledger, AdmissionService(fleet.ledger, patience), fleet.log)
    response = asyncio.run(fleet.ask())
    assert reason(response) == "NO_LEASE"
