"""The protocol without I/O: what a session says, and when."""

import logging

import pytest
from attach_desk import NS, Wire, poke, write_pages
from costd_client.drawn import End
from costd_client.errors import ReservationClosed
from costd_client.facts import Facts
from costd_client.pages import base_of, map_pages
from costd_client.pb import admission_pb2 as pb
from costd_client.requests import Closing
from costd_client.session import NO_STOCK, ProtocolBroken
from costd_client.stock import Stated
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

ONE = Stated(100, 50, None)
"""Costs 700 nusd by the price of `attach_desk.allowance`."""


def facts(**changes):
    labels = {"team": "a", "run": "r1"} | changes.pop("labels", {})
    return Facts(
        pb.AdmitRequest(**{"task_class": "draft", "model": "m", **changes}, labels=labels), NO_STOCK
    )


def draw(wire, kind, stated=ONE):
    """As a scope does: quickly where it can, else by the session."""
    wire.session.bind(kind)
    current = kind.stock.current
    drawn = current.draw(kind, *stated) if current is not None else None
    return drawn if drawn is not None else wire.session.draw(kind, stated)


def settle(wire, drawn, cost_nusd=5):
    return wire.session.end(drawn, End(Closing(cost_nusd=cost_nusd), 77))


def opened(map_pages=None, *, granted=True, kind=None, **grant):
    """A wire past its welcome, holding an allowance for the calls of the facts returned."""
    wire, kind = Wire(map_pages), kind or facts()
    wire.open()
    if granted:
        assert draw(wire, kind) is None
        wire.poll(**grant)
    return wire, kind


def test_a_session_greets_first_and_says_nothing_else_before_it_is_welcome():
    wire, kind = Wire(), facts()
    [hello] = wire.session.opened()
    assert hello == pb.ClientMessage(hello=pb.Hello(session_id="session-or-request-0001"))
    assert draw(wire, kind) is None
    assert wire.session.poll() == []
    wire.say(welcome=wire.books.welcome(hello.hello))
    [request] = wire.poll()
    assert request.request.typical.labels == {"team": "a"}
    assert draw(wire, kind).source == "allowance"


def test_a_request_describes_one_typical_call_of_the_scope():
    wire, kind = opened(kind=facts(provider="p", acceptable_models=["m", "n"], batch=True))
    [request] = wire.requests()
    assert request.typical == pb.AdmitRequest(
        task_class="draft",
        model="m",
        provider="p",
        acceptable_models=["m", "n"],
        batch=True,
        labels={"team": "a"},
        prompt_tokens=100,
        max_output_tokens=50,
    )
    assert request.calls_count == 16
    assert kind.rest == (("run", "r1"),)


@pytest.mark.parametrize(
    "other",
    [
        {"task_class": "chat"},
        {"model": "n"},
        {"provider": "q"},
        {"tier": "premium"},
        {"batch": True},
        {"acceptable_models": ["m"]},
        {"labels": {"team": "b"}},
    ],
)
def test_each_part_of_the_key_makes_another_scope(other):
    wire, kind = opened()
    assert draw(wire, kind) is not None
    assert draw(wire, facts(**other)) is None
    assert draw(wire, facts(labels={"run": "r2"})) is not None, "a label that no rule reads"


def test_draws_travel_as_sums_at_least_every_50_ms_and_silence_costs_nothing():
    wire, kind = opened()
    for _ in range(5):
        draw(wire, kind)
    assert wire.session.wait_ns() <= 50_000_000
    wire.poll(after_s=0.03)
    [report] = wire.reports()
    assert report == pb.Report(
        sequence=1,
        drawn=[
            pb.Drawn(allowance_id=f"{1:032x}", calls_count=5, amount_nusd=3_500, tokens_count=750)
        ],
    )
    wire.poll(after_s=0.03)
    assert len(wire.reports()) == 1
    draw(wire, kind)
    wire.poll(after_s=0.03)
    assert wire.reports()[-1].drawn[0].calls_count == 6


def test_a_generation_is_confirmed_at_once_where_that_is_asked_for_and_only_there():
    wire, kind = opened()
    settle(wire, draw(wire, kind))
    wire.poll()
    assert wire.reports()[-1].generation == 0
    wire.say(generation=pb.Generation(generation=8, scope_labels=["team"]))
    assert wire.poll() == []
    wire.say(generation=pb.Generation(generation=9, scope_labels=["team"], confirm=True))
    [confirmation] = wire.poll()  # not after the wait of a report
    assert confirmation.report == pb.Report(sequence=2, generation=9)
    assert draw(wire, kind) is not None, "a drill stops nobody"
    wire.poll(after_s=0.03)
    assert wire.reports()[-1].generation == 0


def test_a_session_that_holds_nothing_confirms_and_is_quiet_again():
    wire, _ = opened(granted=False)
    wire.say(generation=pb.Generation(generation=8, scope_labels=["team"], confirm=True))
    assert wire.session.wait_ns() is None
    [confirmation] = wire.poll()
    assert confirmation.report == pb.Report(sequence=1, generation=8)
    assert wire.session.is_quiet
    assert wire.poll(after_s=1) == []


def test_what_is_confirmed_is_what_draws_look_at_when_it_is_said():
    wire, _ = opened(granted=False)
    wire.say(generation=pb.Generation(generation=8, scope_labels=["team"], confirm=True))
    wire.say(generation=pb.Generation(generation=9, scope_labels=["team"]))
    [confirmation] = wire.poll()
    assert confirmation.report.generation == 9


def test_a_confirmation_that_was_lost_is_sent_again():
    wire, _ = opened(granted=False)
    wire.answers = False
    wire.say(generation=pb.Generation(generation=8, scope_labels=["team"], confirm=True))
    [confirmation] = wire.poll()
    wire.session.broken()
    wire.open(generation=8)
    wire.answers = True
    assert wire.poll() == [confirmation]
    assert wire.session.is_quiet


def test_settlements_carry_the_labels_that_no_rule_reads_once_each():
    wire, kind = opened()
    other, bare = (
        facts(labels={"run": "r2"}),
        Facts(pb.AdmitRequest(task_class="draft", model="m", labels={"team": "a"}), NO_STOCK),
    )
    for one in (kind, other, kind, bare):
        settle(wire, draw(wire, one))
    wire.poll()
    [report] = wire.reports()
    assert [dict(one.labels) for one in report.labels] == [{"run": "r1"}, {"run": "r2"}]
    assert [one.labels_index for one in report.settlements] == [1, 2, 1, 0]
    assert report.drawn[0].calls_count == 4


def test_a_call_is_settled_once():
    wire, kind = opened()
    drawn = draw(wire, kind)
    assert settle(wire, drawn)
    assert not settle(wire, drawn)
    with pytest.raises(ReservationClosed):
        settle(wire, drawn, cost_nusd=6)
    wire.poll()
    assert list(wire.books.settled.values()) == [1]


def test_the_next_allowance_is_asked_for_when_half_is_gone_and_held_beside():
    wire, kind = opened(calls_count=4)
    draw(wire, kind)
    draw(wire, kind)
    assert wire.poll(after_s=0.03)[0].HasField("report")
    draw(wire, kind)
    wire.poll(calls_count=10)
    assert len(wire.requests()) == 2
    first = kind.stock.current
    assert (first.calls_count, kind.stock.next.granted.calls_count) == (3, 10)
    draw(wire, kind)
    assert draw(wire, kind).allowance is not first, "the first one is exhausted"
    wire.poll()
    assert wire.books.returned == [first.allowance_id]
    assert wire.books.drawn[first.allowance_id][0] == 4


def test_the_rest_of_an_allowance_is_returned_when_the_next_one_takes_over():
    wire, kind = opened(amount_nusd=2_000)
    draw(wire, kind)
    draw(wire, kind)
    wire.poll()
    first = kind.stock.current
    assert draw(wire, kind).allowance is not first, "600 are left and 700 needed"
    wire.poll()
    assert wire.books.drawn[first.allowance_id][1] == 1_400
    assert wire.books.returned == [first.allowance_id]


def test_about_half_a_lifetime_asks_for_the_next_too():
    wire, kind = opened()
    wire.poll(after_s=1.4)
    draw(wire, kind)
    wire.poll()
    assert len(wire.requests()) == 1
    wire.poll(after_s=1.2)
    draw(wire, kind)
    wire.poll()
    assert len(wire.requests()) == 2


def test_what_nobody_draws_is_not_renewed_and_returned_at_the_end_of_its_life():
    wire, kind = opened()
    drawn = draw(wire, kind)
    wire.poll(after_s=3.99)
    assert wire.books.returned == []
    wire.poll(after_s=0.01)
    assert wire.books.returned == [f"{1:032x}"]
    assert len(wire.requests()) == 1
    assert wire.session.is_quiet
    assert wire.session.wait_ns() is None
    settle(wire, drawn)
    wire.poll(after_s=60)
    assert list(wire.books.settled.values()) == [1], "calls in flight settle afterwards"


def test_a_lifetime_counts_from_when_the_request_was_sent():
    wire, kind = Wire(), facts()
    wire.open()
    draw(wire, kind)
    wire.answers = False
    [asked] = wire.poll()
    wire.world.now_ns += 3 * NS
    wire.say(grant=wire.books.grant(asked.request))
    assert draw(wire, kind) is not None
    wire.world.now_ns += 1 * NS
    assert draw(wire, kind) is None


@pytest.mark.parametrize(
    "why",
    ["late", "unknown", "denied", "newer", "slot"],
)
def test_a_grant_that_is_of_no_use_is_returned_at_once(why, tmp_path):
    daemon, client = write_pages(tmp_path)
    wire, kind = Wire(map_pages), facts()
    wire.open(daemon_page=str(daemon), client_page=str(client))
    draw(wire, kind)
    wire.answers = False
    [asked] = wire.poll()
    grant = wire.books.grant(asked.request)
    match why:
        case "late":
            wire.world.now_ns += 4 * NS
        case "unknown":
            grant.request_id = "another"
        case "denied":
            grant.allowance.decision.verdict = pb.VERDICT_DENY
        case "newer":
            grant.allowance.decision.verdict = 9
        case "slot":
            grant.allowance.slot = 4
    wire.say(grant=grant)
    assert draw(wire, kind) is None
    wire.answers = True
    wire.poll()
    assert wire.books.returned == [f"{1:032x}"]


def test_a_scope_that_is_granted_nothing_waits_as_long_as_the_daemon_says():
    wire, kind = opened(granted=False)
    draw(wire, kind)
    wire.answers = False
    [asked] = wire.poll()
    refusal = pb.AllowanceGrant(request_id=asked.request.request_id)
    refusal.retry_after.FromSeconds(3)
    wire.say(grant=refusal)
    for after_s, asks in ((2.9, 0), (0.1, 1)):
        wire.world.now_ns += round(after_s * NS)
        draw(wire, kind)
        assert len(wire.poll()) == asks
    wire.world.now_ns += 4 * NS
    draw(wire, kind)
    assert wire.poll() == [], "the answer may still come"
    wire.world.now_ns += 1 * NS
    draw(wire, kind)
    assert len(wire.poll()) == 1


def test_a_burst_grows_its_requests_eightfold_at_most():
    wire, kind = opened(calls_count=16, amount_nusd=10**12)
    for _ in range(3):
        granted = wire.requests()[-1].calls_count
        wire.world.now_ns += 1_000
        while len(wire.session._wishing) == 0:
            draw(wire, kind)
        wire.poll(calls_count=granted * 8, amount_nusd=10**12)
        while kind.stock.next is not None:
            draw(wire, kind)
        wire.poll()
    assert [one.calls_count for one in wire.requests()] == [16, 128, 1_024, 8_192]


def test_a_revoked_allowance_is_drawn_no_more_reported_and_returned():
    wire, kind = opened()
    drawn = draw(wire, kind)
    wire.say(
        revocation=pb.Revocation(
            allowance_id=drawn.allowance.allowance_id, reason=pb.REVOCATION_REASON_KILL_SWITCH
        )
    )
    assert draw(wire, kind) is None
    wire.poll()
    assert wire.books.returned == [drawn.allowance.allowance_id]
    assert wire.books.drawn[drawn.allowance.allowance_id] == (1, 700, 150)
    wire.say(revocation=pb.Revocation(allowance_id="unknown"))


def test_the_page_stops_draws_until_the_stream_has_told_what_changed(tmp_path):
    daemon, client = write_pages(tmp_path)
    wire, kind = Wire(map_pages), facts()
    wire.open(daemon_page=str(daemon), client_page=str(client))
    poke(client, base_of(3), 1_001)
    draw(wire, kind)
    wire.poll(slot=3)
    assert draw(wire, kind) is not None
    poke(daemon, 1, 8)
    assert draw(wire, kind) is None
    wire.say(generation=pb.Generation(generation=8, scope_labels=["team"]))
    assert draw(wire, kind) is not None, "it was not revoked, so it is good"
    assert map_pages(str(daemon), str(client)).slots[base_of(3) + 1] == 2


def test_a_message_of_a_newer_daemon_changes_nothing_for_what_is_held():
    wire, kind = opened()
    wire.session.received(pb.DaemonMessage.FromString(b"\xc2\x3e\x05hello"))
    assert draw(wire, kind).source == "allowance"


def test_without_pages_the_streams_generation_is_the_one_that_counts():
    wire, kind = opened()
    wire.say(generation=pb.Generation(generation=9, scope_labels=["team"]))
    assert draw(wire, kind) is not None


def test_a_generation_older_than_the_welcome_opens_nothing():
    wire, kind = opened()
    wire.open(generation=9)
    wire.say(generation=pb.Generation(generation=8, scope_labels=["run"], confirm=True))
    wire.poll()
    assert wire.session._generation == 9
    assert wire.session._scope_labels == {"team"}
    assert kind.epoch is wire.session.epoch


def test_an_end_that_cannot_be_written_does_not_take_the_others_along(caplog):
    wire, kind = opened()
    bad, good = draw(wire, kind), draw(wire, kind)
    wire.session.end(bad, End(Closing(cost_nusd=5, outcome="no outcome"), 1))
    settle(wire, good)
    wire.poll()
    assert [one.ask_id for one in wire.reports()[-1].settlements] == [good.ask_id]
    assert wire.session.unheard_count == 0
    assert bad.ask_id in caplog.text


def test_other_scope_labels_end_every_allowance_and_make_other_scopes():
    wire, kind = opened()
    old = draw(wire, kind)
    wire.say(generation=pb.Generation(generation=8, scope_labels=["team", "run"]))
    assert draw(wire, kind) is None
    settle(wire, old)
    again = facts()
    assert draw(wire, again) is None
    wire.poll()
    assert wire.books.returned == [old.allowance.allowance_id]
    assert wire.books.settlements[0][1] == {"run": "r1"}, "as it was drawn"
    assert wire.requests()[-1].typical.labels == {"team": "a", "run": "r1"}
    assert draw(wire, again) is not None
    assert again.rest == ()


def test_a_broken_stream_changes_nothing_for_what_is_held():
    wire, kind = opened()
    wire.session.broken()
    assert draw(wire, kind) is not None
    assert wire.poll(after_s=0.1) == []
    wire.open()
    hello = wire.sent[-1].hello
    assert list(hello.held_allowance_ids) == [f"{1:032x}"]
    assert hello.session_id == "session-or-request-0001"
    wire.poll()
    assert wire.books.drawn[f"{1:032x}"][0] == 1
    assert draw(wire, kind) is not None


def test_what_the_daemon_does_not_name_as_good_is_over():
    wire, kind = opened()
    draw(wire, kind)
    wire.session.broken()
    wire.open(good_allowance_ids=[])
    assert draw(wire, kind) is None
    wire.poll()
    assert wire.books.returned == [f"{1:032x}"]


def test_reports_are_kept_until_acknowledged_and_sent_again_behind_what_was_booked():
    wire, kind = opened()
    wire.answers = False
    for _ in range(3):
        settle(wire, draw(wire, kind))
        wire.poll(after_s=0.03)
    assert [one.sequence for one in wire.reports()] == [1, 2, 3]
    wire.books.book(wire.reports()[0])
    wire.session.broken()
    settle(wire, draw(wire, kind))
    wire.answers = True
    wire.open()
    wire.poll(after_s=0.03)
    assert [one.sequence for one in wire.reports()] == [1, 2, 3, 2, 3, 4]
    assert wire.reports()[3:5] == wire.reports()[1:3]
    assert set(wire.books.settled.values()) == {1}
    assert len(wire.books.settled) == 4
    assert wire.session.unheard_count == 0


def test_a_grant_that_was_lost_with_its_stream_is_returned_at_once_and_once():
    wire, kind = opened()
    settle(wire, draw(wire, kind))
    wire.poll(after_s=0.03)
    wire.session.broken()
    wire.open(unnamed_allowance_ids=["lost"])
    assert not wire.session.is_quiet
    assert wire.session.wait_ns() == 0
    wire.poll()
    wire.poll(after_s=60)
    assert wire.books.returned == ["lost", f"{1:032x}"], "the latter at the end of its lifetime"
    assert wire.session.is_quiet


def test_what_is_being_returned_is_named_and_not_returned_twice():
    wire, _ = opened()
    wire.say(revocation=pb.Revocation(allowance_id=f"{1:032x}"))
    wire.session.broken()
    wire.open()
    assert list(wire.sent[-1].hello.held_allowance_ids) == [f"{1:032x}"]
    wire.answers = False
    wire.poll()
    wire.session.broken()
    wire.answers = True
    wire.open(unnamed_allowance_ids=[f"{1:032x}"])
    wire.poll(after_s=0.03)
    assert wire.books.returned == [f"{1:032x}"]


def test_nothing_is_returned_to_other_books_that_was_returned_before():
    wire, kind = opened()
    settle(wire, draw(wire, kind))
    wire.poll(after_s=0.03)
    wire.session.broken()
    wire.books.sequence = 0
    wire.open(unnamed_allowance_ids=["returned long ago"])
    wire.poll(after_s=0.03)
    assert "returned long ago" not in wire.books.returned


def forgotten(booked):
    """A wire whose daemon had 2 of 3 reports, and says after a broken stream how many it has."""
    wire, kind = opened()
    for answers in (True, True, False):
        wire.answers = answers
        settle(wire, draw(wire, kind))
        wire.poll(after_s=0.03)
    wire.session.broken()
    wire.books.sequence = booked
    wire.answers = True
    wire.open(good_allowance_ids=[])
    wire.poll(after_s=0.03)
    return wire


@pytest.mark.parametrize("booked", [0, 1, 9])
def test_a_daemon_that_forgot_the_session_is_told_on_from_what_it_knows(caplog, booked):
    wire = forgotten(booked)
    assert "does not know this session's reports" in caplog.text
    assert [one.sequence for one in wire.reports()] == [1, 2, 3, booked + 1, booked + 2]
    assert set(wire.books.settled.values()) == {1}
    assert len(wire.books.settled) == 3
    assert wire.books.returned == [f"{1:032x}"]
    assert {one.hello.session_id for one in wire.sent if one.HasField("hello")} == {
        "session-or-request-0001"
    }


def test_a_report_whose_answer_was_lost_is_not_sent_again(caplog):
    wire = forgotten(3)
    assert [one.sequence for one in wire.reports()] == [1, 2, 3, 4]
    assert not wire.reports()[-1].settlements
    assert wire.session.unheard_count == 0
    assert not caplog.text


def test_pages_that_cannot_be_mapped_are_told_of_with_the_next_hello(tmp_path):
    daemon, client = write_pages(tmp_path)
    wire, kind = opened(map_pages)
    wire.session.broken()
    client.unlink()
    wire.open(daemon_page=str(daemon), client_page=str(client))
    assert wire.sent[-1].hello.maps_pages
    assert wire.session.must_reopen
    assert draw(wire, kind) is None, "the daemon would look for its sums in the page"
    wire.session.broken()
    wire.open()
    assert not wire.sent[-1].hello.maps_pages
    assert not wire.session.must_reopen
    wire.poll()
    assert wire.books.returned == [f"{1:032x}"]


def test_sums_go_on_in_the_page_of_the_next_stream(tmp_path):
    daemon, client = write_pages(tmp_path)
    wire, kind = Wire(map_pages), facts()
    wire.open(daemon_page=str(daemon), client_page=str(client))
    poke(client, base_of(0), 1_001)
    draw(wire, kind)
    wire.poll(slot=0)
    draw(wire, kind)
    wire.session.broken()
    other_daemon, other = write_pages(tmp_path, name="other")
    poke(other, base_of(0), 1_001)
    wire.open(daemon_page=str(other_daemon), client_page=str(other))
    slots = map_pages(str(other_daemon), str(other)).slots
    assert [slots[base_of(0) + n] for n in (1, 2, 3)] == [1, 700, 150]
    draw(wire, kind)
    assert slots[base_of(0) + 1] == 2
    wire.session.broken()
    poke(other, base_of(0), 9)
    wire.open(daemon_page=str(other_daemon), client_page=str(other))
    assert draw(wire, kind) is None, "its slot is another's now"


def test_settlements_are_bounded_and_draws_stop_until_the_daemon_has_heard_some():
    wire, kind = Wire(settlements_count_max=10), facts()
    wire.open()
    draw(wire, kind)
    wire.poll()
    wire.answers = False
    for _ in range(10):
        settle(wire, draw(wire, kind))
    assert wire.session.is_full
    assert draw(wire, kind) is None
    wire.poll()
    assert draw(wire, kind) is None, "sent is not heard"
    wire.say(acknowledgement=wire.books.book(wire.reports()[-1]))
    assert draw(wire, kind) is not None


def test_reports_under_way_are_bounded_too():
    wire, kind = opened(calls_count=10**6, amount_nusd=10**12)
    wire.answers = False
    for _ in range(100):
        settle(wire, draw(wire, kind))
        wire.poll(after_s=0.03)
    assert len(wire.reports()) == 64
    assert wire.session.unheard_count == 100


def test_a_large_queue_travels_in_reports_of_bounded_size_without_waiting():
    wire, kind = opened(calls_count=10**6, amount_nusd=10**12)
    for _ in range(1_200):
        settle(wire, draw(wire, kind))
    while wire.session.wait_ns() == 0:
        wire.poll()
    wire.poll(after_s=0.03)
    assert [len(one.settlements) for one in wire.reports()] == [200] * 6


def test_reports_stay_well_below_what_grpc_carries():
    wire, _ = opened(calls_count=10**6, amount_nusd=10**12)
    for number in range(200):
        many = {f"label-{key}": f"{number}-".ljust(250, "x") for key in range(60)}
        settle(wire, draw(wire, facts(labels=many)))
    for _ in range(10):
        wire.poll(after_s=0.03)
    assert len(wire.books.settled) == 200
    assert max(one.ByteSize() for one in wire.reports()) < 1_100_000


def test_closing_returns_everything_and_says_it_at_once():
    wire, kind = opened()
    settle(wire, draw(wire, kind))
    wire.poll()
    settle(wire, draw(wire, kind))
    wire.session.close()
    assert draw(wire, kind) is None
    wire.poll()
    assert wire.session.is_quiet
    assert wire.books.returned == [f"{1:032x}"]
    assert len(wire.books.settled) == 2


def test_what_is_granted_while_closing_is_returned_before_the_end():
    wire, kind = opened(granted=False)
    draw(wire, kind)
    wire.answers = False
    [asked] = wire.poll()
    wire.session.close()
    assert not wire.session.is_quiet
    wire.answers = True
    wire.say(grant=wire.books.grant(asked.request))
    wire.poll()
    assert wire.books.returned == [f"{1:032x}"]
    assert wire.session.is_quiet


def test_what_the_daemon_refused_is_logged(caplog):
    wire, _ = opened()
    with caplog.at_level(logging.WARNING):
        wire.say(acknowledgement=pb.Acknowledgement(sequence=1, problems=["draw beyond the grant"]))
    assert "draw beyond the grant" in caplog.text


def test_what_must_not_be_said_breaks_the_stream():
    wire, _ = opened()
    with pytest.raises(ProtocolBroken, match="welcome came while the stream was welcomed"):
        wire.say(welcome=pb.Welcome())
    wire.books.numbered = 0
    again = wire.books.grant(pb.AllowanceRequest())
    with pytest.raises(ProtocolBroken, match="granted twice"):
        wire.say(grant=again)
    with pytest.raises(ProtocolBroken, match="grant came while the stream was down"):
        Wire().say(grant=pb.AllowanceGrant())


def test_a_wish_that_could_not_be_sent_for_long_is_forgotten():
    wire, kind = Wire(), facts()
    draw(wire, kind)
    wire.world.now_ns += 5 * NS
    wire.open()
    assert wire.poll() == []


class Drill(RuleBasedStateMachine):
    """Any order of events keeps the promises of the protocol."""

    @initialize(labels=st.sampled_from([["team"], ["team", "run"], []]))
    def begin(self, labels):
        self.wire = Wire()
        self.wire.books.scope_labels = labels
        self.up = False
        self.lost = []
        self.drawn = []
        self.ended = {}
        self.sums = {}
        self.kinds = [facts(labels={"team": team, "run": run}) for team in "ab" for run in "xy"]

    @rule(which=st.integers(0, 3), count=st.integers(1, 6), cost=st.integers(0, 9_000))
    def ask(self, which, count, cost):
        kind = self.kinds[which]
        if kind.epoch is not None and kind.epoch is not self.wire.session.epoch:
            kind = self.kinds[which] = Facts(kind.typical, NO_STOCK)
        for _ in range(count):
            drawn = draw(self.wire, kind, Stated(None, None, cost))
            if drawn is not None:
                self.drawn.append(drawn)

    @rule(which=st.integers(0, 1_000), cost=st.integers(0, 50))
    def end(self, which, cost):
        if self.drawn:
            drawn = self.drawn[which % len(self.drawn)]
            if drawn.ask_id not in self.ended:
                self.ended[drawn.ask_id] = drawn
                settle(self.wire, drawn, cost)

    @rule(after_ms=st.sampled_from([0, 10, 30, 1_000, 2_500]), calls=st.integers(1, 40))
    def poll(self, after_ms, calls):
        self.wire.poll(after_s=after_ms / 1_000, calls_count=calls, amount_nusd=calls * 3_000)

    @rule()
    def open(self):
        if not self.up:
            self.wire.open()
            self.up = True

    @rule()
    def break_off(self):
        """The stream breaks, and what is said next is lost or booked with its answer lost."""
        self.wire.session.broken()
        self.up = False

    @rule(booked=st.booleans())
    def break_off_with_reports_under_way(self, booked):
        self.wire.answers = False
        for message in self.wire.poll(after_s=0.03):
            if booked and message.HasField("report"):
                self.wire.books.book(message.report)
        self.wire.answers = True
        self.break_off()

    @rule(which=st.integers(0, 20))
    def revoke(self, which):
        if self.up and self.wire.books.granted:
            ids = list(self.wire.books.granted)
            self.wire.say(revocation=pb.Revocation(allowance_id=ids[which % len(ids)]))

    @rule(labels=st.sampled_from([["team"], ["team", "run"], []]))
    def change(self, labels):
        if self.up:
            self.wire.books.generation += 1
            self.wire.books.scope_labels = labels
            self.wire.say(
                generation=pb.Generation(generation=self.wire.books.generation, scope_labels=labels)
            )

    @invariant()
    def nothing_is_drawn_beyond_its_grant_and_sums_never_fall(self):
        for drawn in self.drawn:
            one = drawn.allowance
            now = one.sums()
            assert all(have <= most for have, most in zip(now, one.granted, strict=True))
            before = self.sums.setdefault(one.allowance_id, now)
            assert all(new >= old for new, old in zip(now, before, strict=True))
            self.sums[one.allowance_id] = now

    def teardown(self):
        if not hasattr(self, "wire"):
            return
        self.wire.session.broken()
        self.wire.open()
        self.wire.session.close()
        for _ in range(10):
            self.wire.poll(after_s=0.03)
        books = self.wire.books
        assert books.settled == dict.fromkeys(self.ended, 1)
        assert self.wire.session.is_quiet
        of_each = {}
        for drawn in self.drawn:
            calls, amount = of_each.get(drawn.allowance.allowance_id, (0, 0))
            of_each[drawn.allowance.allowance_id] = (calls + 1, amount + drawn.hold_nusd)
        assert {key: sums[:2] for key, sums in books.drawn.items()} == of_each
        assert len({drawn.ask_id for drawn in self.drawn}) == len(self.drawn)
        assert len(books.returned) == len(set(books.returned))


TestDrill = Drill.TestCase
TestDrill.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
