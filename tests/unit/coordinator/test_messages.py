"""What daemons say to the coordinator, one message at a time, and what becomes of its books."""

import pytest

from costd.coordinator.exchange import Exchange
from costd.coordinator.lendable import EXHAUSTED_RETRY_NS, RECALL_RETRY_NS, Span
from costd.coordinator.rows import Outbox, Rows
from costd.engine.rules import Rules
from costd.errors import InvalidAsk, StaleEpoch, StillSpending
from costd.model.lease import Stand
from costd.model.time import NS_PER_S
from costd.policy import parse_policy
from costd.pricing import PriceBook
from costd.wire import fleet as wire
from costd.wire.pb import fleet_pb2 as pb

START_NS = 1_772_409_540 * NS_PER_S
"""The first moment of a minute."""
SPAN = Span()
POLICY = parse_policy(
    """
    version: 1
    budgets:
      - {id: b, window: minute, limit: 100 calls}
      - {id: other, window: day, limit: 100 calls}
    """,
    "policy.yaml",
)
RULES = Rules(POLICY, PriceBook(POLICY), in_fleet=True)
KEY, OTHER_KEY = (
    rule.counter_key({}, START_NS)
    for rule in sorted(RULES.budgets.values(), key=lambda rule: rule.budget.budget_id)
)


class Fleet:
    """The coordinator's books, and a clock."""

    def __init__(self):
        self.rows, self.now_ns, self.lends_from_ns = Rows(), START_NS, 0

    def exchange(self):
        return Exchange(
            self.rows, RULES, now_ns=self.now_ns, span=SPAN, lends_from_ns=self.lends_from_ns
        )

    def enrol(self, daemon_id="d1", *, stand=None, peer="", **fields):
        stands = [] if stand is None else [wire.stand_to_pb(KEY, stand)]
        said = {"name": daemon_id, "now_ns": self.now_ns, **fields}
        self.rows.outboxes.setdefault(daemon_id, Outbox())
        return self.exchange().enrol(pb.Enrol(daemon_id=daemon_id, stands=stands, **said), peer)

    def report(self, sequence, stand=None, *, daemon_id="d1", epoch=1, **fields):
        stands = [] if stand is None else [wire.stand_to_pb(KEY, stand)]
        said = {"now_ns": self.now_ns, **fields}
        message = pb.LeaseReport(epoch=epoch, sequence=sequence, stands=stands, **said)
        return self.exchange().report(daemon_id, message)

    def request(self, sequence, *wants, daemon_id="d1", epoch=1):
        """Each want as (amount_min, stand), or with a key as third."""
        message = pb.LeaseRequest(request_id="r", epoch=epoch, sequence=sequence)
        for amount_min, stand, *key in wants:
            message.wants.add(
                stand=wire.stand_to_pb(*(key or [KEY]), stand),
                amount_min=amount_min,
                amount_wanted=amount_min,
            )
        return self.exchange().request(daemon_id, message)

    def outcome(self, *args, **kwargs):
        [grant] = self.request(*args, **kwargs).grants
        return grant.outcome

    def lent(self, amount, *, daemon_id="d1"):
        """Enrol a daemon that holds so much."""
        self.enrol(daemon_id)
        assert self.outcome(1, (amount, Stand()), daemon_id=daemon_id) == pb.LEASE_OUTCOME_GRANTED

    def share(self, daemon_id="d1"):
        return self.rows.shares[KEY, daemon_id]

    @property
    def pool(self):
        return self.rows.pools[KEY]


@pytest.fixture
def fleet():
    return Fleet()


# ---- enrol -------------------------------------------------------------------------------------


def test_a_new_daemon_begins_its_first_epoch_and_its_tenure(fleet):
    welcome = fleet.enrol(version="1.2", boot_id="boot", now_ns=START_NS + 7)
    assert (welcome.epoch, welcome.now_ns) == (1, START_NS)
    assert welcome.tenure.ToNanoseconds() == SPAN.tenure_ns
    daemon = fleet.rows.daemons["d1"]
    assert (daemon.name, daemon.version, daemon.boot_id) == ("d1", "1.2", "boot")
    assert (daemon.enrolled_ns, daemon.seen_ns, daemon.clock_offset_ns) == (START_NS, START_NS, 7)
    assert daemon.tenure_ends_ns == START_NS + SPAN.tenure_ns
    assert fleet.rows.written_daemons == {"d1"}


def test_the_name_is_the_one_that_is_certified(fleet):
    fleet.enrol(name="says so", peer="host-1")
    assert fleet.rows.daemons["d1"].name == "host-1"


def test_every_enrol_begins_another_epoch_and_counts_from_the_start(fleet):
    fleet.enrol()
    fleet.report(1)
    assert fleet.enrol(epoch=1).epoch == 2
    assert fleet.rows.daemons["d1"].sequence == 0
    assert fleet.report(1, epoch=2).sequence == 1


def test_a_grant_that_never_arrived_is_free_again_and_what_was_used_of_it_is_not(fleet):
    fleet.lent(40)
    fleet.report(2, Stand(amount=40, settled=5, reserved=3, version=1))
    fleet.enrol(epoch=1)
    assert fleet.share().stand == Stand(amount=8, settled=5, reserved=3, version=1)
    assert fleet.pool.taken == 8


def test_what_a_daemon_states_at_an_enrol_is_what_it_holds(fleet):
    fleet.lent(40)
    stated = Stand(amount=30, settled=5, version=1)
    welcome = fleet.enrol(epoch=1, stand=stated)
    assert fleet.share().stand == stated
    assert [(level.counter_key, level.limit) for level in welcome.levels] == [(KEY, 100)]
    assert not welcome.reclaimed_keys
    assert fleet.rows.lends_from_ns == 0


def test_others_are_lent_nothing_that_old_books_may_have_spent(fleet):
    fleet.lent(40)
    stated = Stand(amount=25, settled=10)
    fleet.enrol(epoch=1, stand=stated, books_are_old=True)
    assert fleet.share().stand == Stand(amount=10, settled=10)
    assert (fleet.share().lost, fleet.pool.taken) == (30, 40)
    fleet.enrol(epoch=2, stand=stated, books_are_old=True)
    assert (fleet.share().lost, fleet.pool.taken) == (30, 40), "told again it is not lost again"


def test_what_old_books_say_of_a_counter_that_was_never_lent_is_used_at_most(fleet):
    fleet.enrol(stand=Stand(amount=25, settled=10), books_are_old=True)
    assert fleet.share().stand == Stand(amount=10, settled=10)
    assert (fleet.share().lost, fleet.pool.taken) == (0, 10)


# ---- reports -----------------------------------------------------------------------------------


def test_a_report_renews_the_tenure_and_is_remembered(fleet):
    fleet.enrol()
    fleet.now_ns += 3 * NS_PER_S
    receipt = fleet.report(
        1,
        policy_number=4,
        policy_problem="what",
        outbox_count=5,
        overspend_bound_nusd=6,
        clients_count=7,
        kills_version=8,
        now_ns=fleet.now_ns - 9,
    )
    assert (receipt.epoch, receipt.sequence, receipt.now_ns) == (1, 1, fleet.now_ns)
    assert receipt.tenure.ToNanoseconds() == SPAN.tenure_ns
    daemon = fleet.rows.daemons["d1"]
    assert daemon.tenure_ends_ns == fleet.now_ns + SPAN.tenure_ns
    assert (daemon.seen_ns, daemon.enrolled_ns) == (fleet.now_ns, START_NS)
    assert (daemon.clock_offset_ns, daemon.sequence, daemon.spoken_epoch) == (-9, 1, 1)
    assert (daemon.policy_number, daemon.policy_problem) == (4, "what")
    assert (daemon.outbox_count, daemon.overspend_bound_nusd) == (5, 6)
    assert (daemon.clients_count, daemon.kills_version) == (7, 8)


def test_a_report_gives_back_and_is_told_how_the_fleet_stands(fleet):
    fleet.lent(40)
    fleet.lent(30, daemon_id="d2")
    fleet.report(2, Stand(amount=30, settled=25, version=1), daemon_id="d2")
    receipt = fleet.report(2, Stand(amount=20, settled=10, reserved=5, version=1))
    assert fleet.share().stand == Stand(amount=20, settled=10, reserved=5, version=1)
    assert (fleet.pool.taken, fleet.pool.used) == (50, 40)
    [level] = receipt.levels
    assert (level.counter_key, level.limit, level.others_used) == (KEY, 100, 25)


def test_a_report_that_crossed_a_grant_gives_nothing_back(fleet):
    fleet.lent(40)
    fleet.report(2, Stand(settled=4))
    assert fleet.share().stand == Stand(amount=40, settled=4, version=1)


def test_in_a_later_epoch_no_grant_is_on_its_way(fleet):
    fleet.lent(40)
    fleet.enrol(epoch=1, stand=Stand(amount=40, version=1))
    fleet.report(1, Stand(amount=4, settled=4), epoch=2)
    assert fleet.share().stand.amount == 4


def test_a_report_never_takes(fleet):
    fleet.lent(40)
    fleet.report(2, Stand(amount=60, reserve_amount=5, settled=4, version=1))
    assert fleet.share().stand == Stand(amount=40, settled=4, version=1)
    assert fleet.pool.taken == 40


def test_a_report_that_comes_again_changes_nothing_but_the_tenure(fleet):
    fleet.lent(40)
    fleet.report(2, Stand(amount=20, settled=10, version=1))
    fleet.report(3, Stand(amount=20, settled=15, version=1))
    fleet.now_ns += NS_PER_S
    assert fleet.report(2, Stand(amount=20, settled=10, version=1)).sequence == 2
    assert fleet.share().stand.settled == 15
    assert fleet.rows.daemons["d1"].sequence == 3
    assert fleet.rows.daemons["d1"].tenure_ends_ns == fleet.now_ns + SPAN.tenure_ns


def test_after_a_message_that_is_lost_the_daemon_enrols_anew(fleet):
    fleet.enrol()
    with pytest.raises(InvalidAsk, match="message 2 came after 0; one between is lost"):
        fleet.report(2)
    with pytest.raises(InvalidAsk, match="message 3 came after 0"):
        fleet.request(3, (1, Stand()))


def test_a_stream_that_is_over_or_was_never_there_is_refused(fleet):
    fleet.enrol()
    fleet.enrol(epoch=1)
    for epoch in (1, 3):
        with pytest.raises(StaleEpoch, match=f"its epoch {epoch} is not 2; enrol anew"):
            fleet.report(1, epoch=epoch)
        with pytest.raises(StaleEpoch, match=f"its epoch {epoch} is not 2"):
            fleet.request(1, (1, Stand()), epoch=epoch)
    with pytest.raises(StaleEpoch, match="its epoch 1 is not known here"):
        fleet.report(1, daemon_id="d9")


# ---- requests ----------------------------------------------------------------------------------


def test_a_request_tells_how_its_daemon_stands_and_takes_what_it_needs(fleet):
    fleet.lent(40)
    reply = fleet.request(2, (50, Stand(amount=40, settled=30, reserved=8, version=1)))
    [grant] = reply.grants
    assert (reply.request_id, reply.epoch, reply.now_ns) == ("r", 1, START_NS)
    assert (grant.counter_key, grant.amount, grant.version) == (KEY, 50, 2)
    assert grant.level.limit == 100
    assert not reply.HasField("retry_after")
    assert fleet.share().stand == Stand(amount=50, settled=30, reserved=8, version=2)
    assert (fleet.share().epoch, fleet.pool.taken) == (1, 50)
    assert fleet.rows.daemons["d1"].spoken_epoch == 1


def test_two_counters_are_lent_together(fleet):
    fleet.enrol()
    fleet.request(1, (10, Stand()), (20, Stand(), OTHER_KEY))
    assert fleet.share().stand.amount == 10
    assert fleet.rows.shares[OTHER_KEY, "d1"].stand.amount == 20


def test_where_one_of_two_is_short_neither_is_lent_and_both_are_heard(fleet):
    fleet.enrol()
    reply = fleet.request(1, (101, Stand()), (20, Stand(settled=3), OTHER_KEY))
    assert [grant.outcome for grant in reply.grants] == [
        pb.LEASE_OUTCOME_EXHAUSTED,
        pb.LEASE_OUTCOME_SET_FAILED,
    ]
    assert reply.retry_after.ToNanoseconds() == EXHAUSTED_RETRY_NS
    assert fleet.rows.shares[OTHER_KEY, "d1"].stand == Stand(settled=3)


def test_a_counter_that_is_named_twice_is_refused(fleet):
    fleet.enrol()
    with pytest.raises(InvalidAsk, match="request 'r' names a counter twice"):
        fleet.request(1, (10, Stand()), (20, Stand()))


def test_a_request_that_comes_again_is_told_what_it_was_granted(fleet):
    fleet.lent(40)
    reply = fleet.request(1, (40, Stand()))
    [grant] = reply.grants
    assert (grant.outcome, grant.amount, grant.version) == (pb.LEASE_OUTCOME_GRANTED, 40, 1)
    assert (reply.request_id, reply.epoch, reply.now_ns) == ("r", 1, START_NS)
    assert reply.retry_after.ToNanoseconds() == EXHAUSTED_RETRY_NS
    assert fleet.share().stand == Stand(amount=40, version=1)


def test_a_request_that_comes_again_and_was_refused_is_not_granted_then(fleet):
    fleet.enrol()
    fleet.request(1, (101, Stand()))
    assert fleet.outcome(1, (50, Stand())) == pb.LEASE_OUTCOME_NOT_NOW
    assert fleet.share().stand.amount == 0
    fleet.request(2, (40, Stand()))
    assert fleet.outcome(1, (41, Stand())) == pb.LEASE_OUTCOME_NOT_NOW, "it needed more"
    held = Stand(amount=40, version=1)
    assert fleet.outcome(1, (40, held)) == pb.LEASE_OUTCOME_NOT_NOW, "it had that then"


def test_what_others_do_not_use_is_recalled_for_who_needs_it(fleet):
    fleet.lent(60, daemon_id="d2")
    fleet.enrol()
    reply = fleet.request(1, (50, Stand()))
    assert reply.grants[0].outcome == pb.LEASE_OUTCOME_RECALLED
    assert reply.retry_after.ToNanoseconds() == RECALL_RETRY_NS
    assert fleet.rows.recalled == {KEY}


def test_nothing_is_recalled_where_others_use_all_that_they_hold(fleet):
    fleet.lent(60, daemon_id="d2")
    fleet.report(2, Stand(amount=60, settled=60, version=1), daemon_id="d2")
    fleet.lent(10)
    reply = fleet.request(2, (50, Stand(amount=10, version=1)))
    assert reply.grants[0].outcome == pb.LEASE_OUTCOME_EXHAUSTED
    assert reply.retry_after.ToNanoseconds() == EXHAUSTED_RETRY_NS
    assert fleet.rows.recalled == set()


@pytest.mark.parametrize("sign", [1, -1])
def test_a_daemon_whose_clock_is_far_off_is_lent_nothing(fleet, sign):
    fleet.enrol(now_ns=START_NS + sign * SPAN.skew_ns_max)
    assert fleet.outcome(1, (1, Stand())) == pb.LEASE_OUTCOME_GRANTED
    fleet.report(2, now_ns=START_NS + sign * (SPAN.skew_ns_max + 1))
    assert fleet.outcome(3, (2, Stand(amount=1, version=1))) == pb.LEASE_OUTCOME_NOT_NOW


def test_while_it_learns_what_daemons_hold_nothing_is_lent(fleet):
    fleet.enrol()
    fleet.lends_from_ns = START_NS + 1
    assert fleet.outcome(1, (1, Stand())) == pb.LEASE_OUTCOME_NOT_NOW
    fleet.now_ns += 1
    assert fleet.outcome(2, (1, Stand())) == pb.LEASE_OUTCOME_GRANTED


def test_a_window_is_lent_from_shortly_before_it_begins_until_it_is_over(fleet):
    for at_ns, outcome in [
        (START_NS - SPAN.early_ns - 1, pb.LEASE_OUTCOME_WRONG_WINDOW),
        (START_NS - SPAN.early_ns, pb.LEASE_OUTCOME_GRANTED),
        (START_NS + 60 * NS_PER_S + SPAN.skew_ns_max - 1, pb.LEASE_OUTCOME_GRANTED),
        (START_NS + 60 * NS_PER_S + SPAN.skew_ns_max, pb.LEASE_OUTCOME_WRONG_WINDOW),
    ]:
        books = Fleet()
        books.now_ns = at_ns
        books.enrol()
        assert books.outcome(1, (1, Stand())) == outcome


def test_a_window_that_is_over_is_lent_to_who_has_calls_in_flight_there(fleet):
    fleet.lent(10)
    fleet.now_ns += 120 * NS_PER_S
    idle = Stand(amount=10, settled=5, version=1)
    assert fleet.outcome(2, (20, idle)) == pb.LEASE_OUTCOME_WRONG_WINDOW
    busy = Stand(amount=10, settled=5, reserved=1, version=1)
    assert fleet.outcome(3, (20, busy)) == pb.LEASE_OUTCOME_GRANTED


# ---- operators ---------------------------------------------------------------------------------


def reclaim(fleet):
    return fleet.exchange().reclaim("d1", [KEY, OTHER_KEY])


def test_nothing_is_reclaimed_while_its_daemon_may_spend_it(fleet):
    fleet.lent(40)
    fleet.now_ns += SPAN.tenure_ns + SPAN.skew_ns_max - NS_PER_S
    with pytest.raises(StillSpending, match=r"'d1' may still spend .* wait 1\.0 s more"):
        reclaim(fleet)
    assert fleet.share().stand.amount == 40
    fleet.now_ns += NS_PER_S
    assert reclaim(fleet) == 40
    assert (fleet.share().stand.amount, fleet.share().is_reclaimed, fleet.pool.taken) == (
        0,
        True,
        0,
    )


def test_after_a_reclaim_the_stream_of_the_daemon_is_over(fleet):
    fleet.lent(40)
    fleet.report(2, Stand(amount=40, settled=15, version=1))
    fleet.now_ns += 60 * NS_PER_S
    assert reclaim(fleet) == 25
    with pytest.raises(StaleEpoch):
        fleet.report(3)
    assert reclaim(fleet) == 0, "there is no more"


def test_what_was_used_of_what_was_reclaimed_comes_late_and_once(fleet):
    fleet.lent(40)
    fleet.now_ns += 60 * NS_PER_S
    reclaim(fleet)
    used = Stand(amount=40, settled=30, version=1)
    for epoch in (2, 3):
        welcome = fleet.enrol(epoch=epoch - 1, stand=used)
        assert (welcome.epoch, list(welcome.reclaimed_keys)) == (epoch + 1, [KEY])
        assert fleet.share().stand == Stand(amount=30, settled=30, version=1)
        assert (fleet.share().late, fleet.pool.late, fleet.pool.taken) == (30, 30, 30)
    fleet.report(1, Stand(settled=32, version=1), epoch=4)
    assert (fleet.share().late, fleet.pool.late) == (32, 32)
    assert not fleet.share().is_reclaimed
    assert not fleet.enrol(epoch=4, stand=Stand(settled=32, version=1)).reclaimed_keys
