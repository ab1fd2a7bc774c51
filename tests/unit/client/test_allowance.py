"""The hot path: the rules of a draw, its page, and threads."""

import pickle
import signal
import struct
import sys
import threading
from hashlib import sha256

import pytest
from attach_desk import MAGIC, NS, PRICE, World, allowance, poke, write_pages
from costd_client import allowance as allowance_module
from costd_client.allowance import Allowance, Gate, Sums
from costd_client.decision import Outcome, Source
from costd_client.drawn import End, check_end, write_end
from costd_client.errors import InvalidAsk
from costd_client.facts import Facts
from costd_client.pages import base_of, map_pages
from costd_client.pb import admission_pb2 as pb
from costd_client.requests import Closing
from costd_client.session import NO_STOCK

TYPICAL = pb.AdmitRequest(task_class="draft", model="m", labels={"team": "a", "run": "r1"})
FACTS = Facts(TYPICAL, NO_STOCK)


class Held:
    """One allowance with its gate and a clock that only the test moves."""

    def __init__(self, *, stretched=True, **changes):
        self.world = World()
        self.gate = Gate()
        self.gate.words, self.gate.generation = [0, 7], 7
        self.allowance = Allowance(
            allowance(**changes),
            home=self,
            gate=self.gate,
            clock=self.world.around.now_ns,
            sent_ns=self.world.now_ns,
            wall_offset_ns=10**18,
            prefix="session-0123456789.1.",
        )
        if stretched:
            assert self.allowance.stretch()

    def draw(self, prompt=None, output=None, cost=None):
        return self.allowance.draw(FACTS, prompt, output, cost)


def test_a_draw_takes_its_hold_one_call_and_its_tokens():
    held = Held()
    drawn = held.draw(100, 50)
    assert (drawn.hold_nusd, drawn.tokens_count) == (100 * 2 + 50 * 10, 150)
    assert held.allowance.sums() == Sums(1, 700, 150)
    held.draw(cost=300)
    assert held.allowance.sums() == Sums(2, 1_000, 150)


def test_a_draw_is_answered_the_allowances_decision_with_what_is_its_own():
    held = Held()
    held.draw(1, 1)
    drawn = held.draw(100, 50)
    assert drawn.allowed
    assert drawn.source == Source.ALLOWANCE == "allowance"
    assert (drawn.provider, drawn.model, drawn.tier) == ("p", "m", "standard")
    assert drawn.ask_id == "session-0123456789.1.2"
    assert drawn.expires_ns == held.world.now_ns + 10**18 + 600 * NS
    assert drawn.wire == pb.Decision(
        verdict=pb.VERDICT_ALLOW,
        reason=pb.REASON_OK,
        ask_id=drawn.ask_id,
        reservation_id=f"{1:032x}",
        provider="p",
        model="m",
        tier="standard",
        policy_revision="rev1",
        hold_nusd=700,
        ceiling_nusd=700,
        expires_ns=drawn.expires_ns,
        source="allowance",
    )
    expected = pb.AdmitRequest(ask_id=drawn.ask_id, prompt_tokens=100, max_output_tokens=50)
    expected.MergeFrom(TYPICAL)
    assert drawn.ask == expected
    assert drawn.max_output_tokens == 50
    with pytest.raises(TypeError, match="no truth value"):
        bool(drawn)


def test_a_draw_survives_a_process_boundary_as_a_plain_decision():
    drawn = Held().draw(100, 50)
    copy = pickle.loads(pickle.dumps(drawn))
    assert (copy.wire, copy.ask, copy.ask_id, copy.source) == (
        drawn.wire,
        drawn.ask,
        drawn.ask_id,
        "allowance",
    )
    assert repr(copy) == repr(drawn)


@pytest.mark.parametrize(
    ("changes", "ask"),
    [
        ({"calls_count": 0}, (1, 1, None)),
        ({"amount_nusd": 699}, (100, 50, None)),
        ({"amount_nusd": 99}, (None, None, 100)),
        ({"tokens_count": 149}, (100, 50, None)),
        ({"tokens_count": 10**6}, (None, None, 100)),
        ({"tokens_count": 10**6}, (100, None, 100)),
        ({"price_table": None}, (100, 50, None)),
        ({"price_table": pb.PriceTable(scale=0, bands=PRICE.bands)}, (100, 50, None)),
        ({"price_table": pb.PriceTable(scale=1)}, (100, 50, None)),
        ({"price_table": pb.PriceTable(scale=1, bands=[pb.PriceBand(input=-1)])}, (1, 5, None)),
        ({"context_window": 149}, (100, 50, None)),
        ({"context_window": 149}, (100, 50, 5)),
        ({}, (None, 50, None)),
        ({}, (100, None, None)),
        ({}, (-1, 50, None)),
        ({}, (100, -1, None)),
        ({}, (None, None, -1)),
        ({}, (100, -1, 5)),
        ({}, (True, 50, None)),
        ({}, (None, None, 1.5)),
        ({}, ("100", 50, None)),
        ({}, (10**12 + 1, 0, None)),
        ({}, (None, None, None)),
    ],
)
def test_what_cannot_be_drawn_is_left_to_the_daemon_and_takes_nothing(changes, ask):
    held = Held(**changes)
    assert held.draw(*ask) is None
    assert held.allowance.sums() == Sums(0, 0, 0)


def test_bounds_are_reached_exactly():
    held = Held(calls_count=2, amount_nusd=1_400, tokens_count=300, context_window=150)
    assert held.draw(100, 50) is not None
    assert held.draw(100, 50) is not None
    assert held.allowance.sums() == Sums(2, 1_400, 300)
    assert held.draw(0, 0) is None, "no call is left"


def test_output_is_defaulted_and_priced_no_further_than_its_bound():
    held = Held(output_tokens_default=40, output_tokens_max=30)
    assert (held.draw(100).hold_nusd, held.draw(100).tokens_count) == (500, 130)
    assert held.draw(100, 1_000).hold_nusd == 500
    assert held.draw(100, 20).hold_nusd == 400
    stated = held.draw(100, 1_000, 5)
    assert (stated.hold_nusd, stated.tokens_count) == (5, 130)
    assert held.draw(100).max_output_tokens is None


def test_a_directive_bounds_the_output_to_write():
    decision = pb.Decision(
        verdict=pb.VERDICT_DEGRADE, directives=pb.Directives(max_output_tokens=30)
    )
    held = Held(decision=decision, output_tokens_default=10)
    assert [held.draw(1, output).max_output_tokens for output in (50, 20, None)] == [30, 20, 30]


@pytest.mark.parametrize(
    ("prompt", "output", "hold"),
    [(0, 0, 1), (1, 0, 2), (100, 0, 101), (101, 0, 203), (200, 1, 410), (201, 1, 1_219)],
)
def test_a_price_is_of_the_highest_band_that_starts_below_the_prompt_rounded_up(
    prompt, output, hold
):
    bands = [
        pb.PriceBand(above_tokens=0, input=10, output=50),
        pb.PriceBand(above_tokens=100, input=20, output=90),
        pb.PriceBand(above_tokens=200, input=60, output=120),
    ]
    held = Held(price_table=pb.PriceTable(scale=10, per_request=7, bands=bands))
    drawn = held.draw(prompt, output)
    rate_in, rate_out = (60, 120) if prompt > 200 else (20, 90) if prompt > 100 else (10, 50)
    assert drawn.hold_nusd == -(-(7 + prompt * rate_in + output * rate_out) // 10) == hold


def test_nothing_is_drawn_once_the_lifetime_is_over():
    held = Held()
    held.world.now_ns += 4 * NS - 1
    assert held.draw(1, 1) is not None
    held.world.now_ns += 1
    assert held.draw(1, 1) is None


def test_nothing_is_drawn_while_the_generation_is_not_the_one_last_heard():
    held = Held()
    held.gate.words[1] = 8
    assert held.draw(1, 1) is None
    held.gate.generation = 8
    assert held.draw(1, 1) is not None


def test_the_first_half_is_drawn_freely_and_the_rest_after_stretching():
    for changes, ask, halves in (
        ({"calls_count": 10}, (0, 0, None), 5),
        ({"amount_nusd": 7_000}, (100, 50, None), 5),
        ({"tokens_count": 1_500}, (100, 50, None), 5),
    ):
        held = Held(stretched=False, **changes)
        assert [held.draw(*ask) is not None for _ in range(6)] == [True] * halves + [False]
        assert held.allowance.stretch()
        assert [held.draw(*ask) is not None for _ in range(6)] == [True] * halves + [False]
        assert not held.allowance.stretch()
    held = Held(stretched=False)
    held.world.now_ns += 2 * NS
    assert held.draw(1, 1) is None
    assert held.allowance.stretch()
    assert held.draw(1, 1) is not None


def test_a_closed_allowance_stays_closed():
    held = Held(stretched=False)
    drawn = held.draw(1, 1)
    held.allowance.close()
    assert not held.allowance.stretch()
    assert held.draw(0, 0) is None
    assert not held.allowance.draw_more(drawn, 1, 0)


def test_a_hold_grows_from_the_same_allowance_within_all_that_was_granted():
    held = Held(stretched=False, amount_nusd=1_000, tokens_count=400)
    drawn = held.draw(100, 20)
    assert held.allowance.draw_more(drawn, 600, 280)
    assert (drawn.hold_nusd, drawn.tokens_count) == (1_000, 400)
    assert held.allowance.sums() == Sums(1, 1_000, 400)
    assert not held.allowance.draw_more(drawn, 1, 0)
    assert not held.allowance.draw_more(drawn, 0, 1)


@pytest.mark.parametrize("why", ["over", "generation", "ended"])
def test_a_hold_grows_only_while_draws_are_allowed(why):
    held = Held()
    drawn = held.draw(1, 1)
    if why == "over":
        held.world.now_ns += 4 * NS
    elif why == "generation":
        held.gate.words[1] += 1
    else:
        assert held.allowance.close_draw(drawn, End(Closing(cost_nusd=1), 5))
    assert not held.allowance.draw_more(drawn, 1, 0)


def test_a_call_is_closed_once_with_all_that_it_held():
    held = Held()
    drawn = held.draw(100, 50)
    closing = Closing(
        usage=pb.Usage(prompt_tokens=90),
        duration_ns=5,
        outcome=Outcome.OK,
        retry_count=2,
        model="other",
    )
    end = End(closing, 77)
    assert held.allowance.draw_more(drawn, 10, 1)
    assert held.allowance.close_draw(drawn, end) is True
    assert write_end(drawn, end) == pb.DrawSettlement(
        allowance_id=f"{1:032x}",
        ask_id=drawn.ask_id,
        hold_nusd=710,
        tokens_count=151,
        usage=pb.Usage(prompt_tokens=90),
        duration={"nanos": 5},
        outcome=pb.OUTCOME_OK,
        retry_count=2,
        model="other",
        prompt_tokens=100,
        max_output_tokens=50,
        settled_ns=77,
    )
    assert held.allowance.close_draw(drawn, End(closing, 99)) is None
    assert held.allowance.close_draw(drawn, End(None, 99)) is False
    other = Closing(cost_nusd=0)
    assert held.allowance.close_draw(drawn, End(other, 99)) is False


def test_a_voided_call_says_nothing_but_what_it_drew():
    drawn = Held().draw(100, 50)
    assert write_end(drawn, End(None, 77)) == pb.DrawSettlement(
        allowance_id=f"{1:032x}",
        ask_id=drawn.ask_id,
        hold_nusd=700,
        tokens_count=150,
        voided=True,
    )


def test_the_sums_stand_in_the_page_byte_for_byte(tmp_path):
    daemon, client = write_pages(tmp_path)
    pages = map_pages(str(daemon), str(client))
    held = Held(slot=2)
    held.draw(100, 50)
    poke(client, base_of(2), 1_001)
    assert held.allowance.count_in(pages.slots, base_of(2))
    held.draw(100, 50)
    words = struct.pack("<qqqq32x", 1_001, 2, 1_400, 300)
    head = struct.pack("<8sq48x", MAGIC, 4)
    assert client.read_bytes() == head + bytes(128) + words + bytes(64)


def test_a_slot_is_written_only_while_its_serial_is_the_allowances(tmp_path):
    daemon, client = write_pages(tmp_path)
    pages = map_pages(str(daemon), str(client))
    held = Held()
    assert not held.allowance.count_in(pages.slots, base_of(1))
    poke(client, base_of(1), 1_001)
    assert held.allowance.count_in(pages.slots, base_of(1))
    drawn = held.draw(1, 1)
    poke(client, base_of(1), 5)
    before = client.read_bytes()
    assert held.draw(1, 1) is None
    assert not held.allowance.draw_more(drawn, 1, 1)
    assert client.read_bytes() == before


def test_the_daemons_page_stops_draws_at_once(tmp_path):
    daemon, client = write_pages(tmp_path, generation=7)
    held = Held()
    held.gate.words = map_pages(str(daemon), str(client)).heard
    assert held.draw(1, 1) is not None
    poke(daemon, 1, 8)
    assert held.draw(1, 1) is None


@pytest.mark.parametrize("damage", ["short", "magic", "slots", "missing"])
def test_what_is_no_page_is_not_mapped(tmp_path, damage):
    daemon, client = write_pages(tmp_path)
    match damage:
        case "short":
            client.write_bytes(client.read_bytes()[:63])
        case "magic":
            poke(daemon, 0, 5)
        case "slots":
            poke(client, 1, 5)
        case "missing":
            daemon.unlink()
    with pytest.raises((OSError, ValueError)):
        map_pages(str(daemon), str(client))


@pytest.fixture
def hasty_switching():
    """Threads take turns after every few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_switching")
def test_sixteen_threads_never_draw_the_same_money():
    held = Held(calls_count=10**9, amount_nusd=700 * 8_000 + 699, tokens_count=10**12)
    drawn, barrier, pages = [], threading.Barrier(17), []
    done = threading.Event()

    def work():
        barrier.wait()
        while (one := held.draw(100, 50)) is not None:
            drawn.append(one)

    def watch():
        barrier.wait()
        while not done.is_set():
            pages.append(held.allowance._slots[2])

    threads = [threading.Thread(target=work) for _ in range(16)]
    watcher = threading.Thread(target=watch)
    for thread in (*threads, watcher):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    watcher.join()
    assert len(drawn) == 8_000
    assert {one.number for one in drawn} == set(range(1, 8_001))
    assert held.allowance.sums() == Sums(8_000, 5_600_000, 1_200_000)
    assert held.allowance._slots == [1_001, 8_000, 5_600_000, 1_200_000]
    assert pages == sorted(pages)


@pytest.mark.usefixtures("hasty_switching")
def test_the_last_call_goes_to_one_of_many_threads():
    for _ in range(30):
        held, got = Held(calls_count=1), []
        barrier = threading.Barrier(8)

        def race(held=held, barrier=barrier, got=got):
            barrier.wait()
            got.append(held.draw(1, 1))

        threads = [threading.Thread(target=race) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(one is not None for one in got) == 1
        assert held.allowance.sums().calls_count == 1


class Interrupted(Exception):
    """What a signal handler raises here, as Ctrl-C does."""


def test_an_interrupt_in_the_middle_of_draws_blocks_nobody_and_takes_no_more_than_was_drawn(
    monkeypatch,
):
    monkeypatch.setattr(allowance_module, "TURN_WAIT_S", 0.005)
    stuck_count = 0

    def interrupt(*_):
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(400):
            held, drawn_count = Held(calls_count=10**9, amount_nusd=10**15), 0
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0002)
                while True:
                    drawn_count += held.draw(100, 50) is not None
            except Interrupted:
                pass
            sums = held.allowance.sums()
            stuck_count += held.allowance.is_stuck
            assert not (held.allowance.is_stuck and held.draw(1, 1))
            assert sums.calls_count - drawn_count in (0, 1), "the one that was interrupted"
            assert sums.amount_nusd == 700 * sums.calls_count
    finally:
        signal.signal(signal.SIGALRM, before)
    assert stuck_count < 400, "few interrupts come just before a turn"


def low_after_s(allowance_id):
    """How long an allowance of four seconds is drawn before the next one is asked for."""
    held = Held(stretched=False, allowance_id=allowance_id, calls_count=1_000)
    began_ns = held.world.now_ns
    while held.draw(cost=1) is not None:
        held.world.now_ns += NS // 50
    return (held.world.now_ns - began_ns) / NS


def test_clients_that_began_together_renew_at_moments_of_their_own():
    moments = [low_after_s(sha256(bytes([at])).hexdigest()[:32]) for at in range(24)]
    assert min(moments) >= 1.5
    assert max(moments) <= 2.5
    assert len(set(moments)) > 12


@pytest.mark.parametrize("outcome", ["ok", None, 2**40, -1])
def test_an_outcome_that_no_message_can_carry_is_refused_when_it_is_said(outcome):
    with pytest.raises(InvalidAsk):
        check_end(Closing(cost_nusd=1, outcome=outcome))
