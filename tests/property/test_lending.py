"""The coordinator's books under random grants, reports, losses and cuts: nobody is promised twice."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costd.engine import lend
from costd.engine.apportion import apportion
from costd.engine.lend import Terms
from costd.model.lease import EMPTY_POOL, NO_STAND, Stand, Want

AMOUNTS = st.integers(0, 1_000)
DAEMONS = st.integers(0, 3)


@given(
    room=st.integers(-100, 10**9),
    holders_count=st.integers(0, 1_000),
    needed=st.integers(0, 10**9),
    wanted=st.integers(0, 10**9),
    whole=st.booleans(),
)
def test_a_share_is_what_is_needed_or_more_and_never_more_than_is_left(
    room, holders_count, needed, wanted, whole
):
    share = apportion(room, holders_count=holders_count, needed=needed, wanted=wanted, whole=whole)
    if share is None:
        assert needed > room
    else:
        assert needed <= share <= room
        if not whole:
            assert share <= max(needed, wanted)


@given(room=st.integers(1, 10**9), holders_count=st.integers(1, 100))
def test_equal_holders_who_all_ask_at_once_find_something_each(room, holders_count):
    left = room
    for _ in range(holders_count):
        share = apportion(left, holders_count=holders_count, needed=0, wanted=10**9)
        assert share is not None
        left -= share
    assert left >= room // 2


@pytest.mark.parametrize(("holders_count", "share"), [(0, 50), (1, 50), (2, 25), (3, 16), (51, 0)])
def test_beyond_what_is_needed_a_holder_gets_its_part_of_half_of_what_is_left(holders_count, share):
    assert apportion(100, holders_count=holders_count, needed=0, wanted=100) == share


class Fleet:
    """Four daemons, as they are in truth, and the pool as the coordinator knows it."""

    def __init__(self, limit, reserve):
        self.terms = Terms(limit=limit, reserve=min(reserve, limit))
        self.pool = EMPTY_POOL
        self.was_cut = False
        self.known = {}
        self.truth = dict.fromkeys(range(4), NO_STAND)

    def restate(self, daemon, stand):
        self.pool = lend.restate(
            self.pool, self.known.get(daemon), stand, limit=self.terms.limit, wall_ns=1
        )
        self.known[daemon] = stand

    def grant(self, daemon, more, wanted, critical):
        truth = self.truth[daemon]
        self.restate(daemon, truth)
        general = truth.used - truth.reserve_used
        used = truth.used if critical else general + truth.reserve_amount
        want = Want(
            stand=truth,
            amount_min=max(used, truth.used) + more,
            amount_wanted=max(used, truth.used) + more + wanted,
            critical=critical,
        )
        got = lend.lend(self.pool, self.terms, want)
        if got is None:
            return
        assert got.amount >= want.amount_min or got == truth
        self.restate(daemon, got)
        self.truth[daemon] = got

    def hold(self, daemon, amount, critical):
        """Admit as a daemon's engine does."""
        stand = self.truth[daemon]
        general_amount = stand.amount - stand.reserve_amount
        general = stand.used - stand.reserve_used
        if stand.used + amount > stand.amount:
            return
        if not critical and general + amount > general_amount:
            return
        from_reserve = max(0, amount - max(0, general_amount - general)) if critical else 0
        self.truth[daemon] = msgspec.structs.replace(
            stand,
            reserved=stand.reserved + amount,
            reserve_reserved=stand.reserve_reserved + from_reserve,
        )

    def settle(self, daemon, over):
        stand = self.truth[daemon]
        self.truth[daemon] = msgspec.structs.replace(
            stand,
            settled=stand.settled + stand.reserved + over,
            reserved=0,
            reserve_settled=stand.reserve_settled + stand.reserve_reserved,
            reserve_reserved=0,
            overrun=stand.overrun + over,
        )

    def give_back(self, daemon):
        stand = self.truth[daemon]
        self.truth[daemon] = msgspec.structs.replace(
            stand,
            amount=stand.used,
            reserve_amount=min(stand.reserve_amount, stand.reserve_used),
        )

    def check(self):
        pool = self.pool
        assert pool.taken == sum(stand.taken for stand in self.known.values())
        assert pool.used == sum(stand.used for stand in self.known.values())
        assert pool.taken <= self.terms.limit + pool.excused
        truth = self.truth.values()
        spent = sum(stand.used for stand in truth)
        overrun = sum(stand.overrun for stand in truth)
        assert spent <= self.terms.limit + overrun + pool.lowered
        if not self.was_cut:  # a cut that leaves the whole alone may leave less without the reserve
            general = sum(stand.used - stand.reserve_used for stand in truth)
            assert general <= self.terms.limit - self.terms.reserve + overrun


EVENTS = st.one_of(
    st.tuples(st.just("grant"), DAEMONS, st.integers(1, 300), AMOUNTS, st.booleans()),
    st.tuples(st.just("hold"), DAEMONS, st.integers(1, 200), st.booleans()),
    st.tuples(st.just("settle"), DAEMONS, st.sampled_from([0, 0, 0, 7])),
    st.tuples(st.just("give_back"), DAEMONS),
    st.tuples(st.just("report"), DAEMONS),
    st.tuples(st.just("cut"), st.integers(200, 2_000)),
)


@settings(max_examples=300)
@given(limit=st.integers(200, 2_000), reserve=st.integers(0, 500), events=st.lists(EVENTS))
def test_no_order_of_grants_and_reports_passes_the_limit(limit, reserve, events):
    fleet = Fleet(limit, reserve)
    for name, *what in events:
        if name == "report":
            fleet.restate(what[0], fleet.truth[what[0]])
        elif name == "cut":
            fleet.was_cut = True
            fleet.terms = Terms(limit=what[0], reserve=min(reserve, what[0]))
            fleet.pool = lend.cut(fleet.pool, what[0])
        else:
            getattr(fleet, name)(*what)
        fleet.check()


@given(
    before=st.builds(Stand, amount=AMOUNTS, settled=AMOUNTS, version=st.integers(0, 3)),
    now=st.builds(Stand, amount=AMOUNTS, settled=AMOUNTS, version=st.integers(0, 3)),
)
def test_a_stand_from_before_the_newest_grant_gives_nothing_back(before, now):
    heard = lend.heard(before, now)
    assert heard.settled == now.settled
    assert heard.amount == (now.amount if now.version == before.version else before.amount)
