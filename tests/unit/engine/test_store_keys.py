from policy_parts import budget, rate

from costd.engine import keys
from costd.model.grant import Grant
from costd.model.labels import Selector
from costd.model.policy import Window, WindowKind
from costd.model.time import NEVER_NS


def test_two_callers_never_share_an_id():
    assert keys.reservation_id("ann", "x" * 16) != keys.reservation_id("bob", "x" * 16)
    assert keys.reservation_id("", "a" * 16) != keys.reservation_id("a", "a" * 15)


def test_a_budgets_counters_follow_its_id_window_unit_and_per_only():
    tag = keys.budget_tag(budget("b", "10"))
    same = budget("b", "20", match={"team": "a"}, active=False, shadow=True)
    assert keys.budget_tag(same) == tag
    others = (
        budget("c", "10"),
        budget("b", "10", window="month"),
        budget("b", "10", zone="Asia/Kolkata"),
        budget("b", "10", window=Window(WindowKind.DAY, week_starts=6)),
        budget("b", 10, unit="calls"),
        budget("b", "10", per=("user",)),
        budget("b", "10", per=("team", "user")),
    )
    tags = {keys.budget_tag(other) for other in others}
    assert len(tags) == len(others)
    assert tag not in tags


def test_a_renamed_budget_keeps_its_tag():
    assert keys.budget_tag(budget("new", was="old")) == keys.budget_tag(budget("old"))


def test_a_rates_buckets_follow_its_id_unit_per_and_refill_only():
    tag = keys.rate_tag(rate("r", 5))
    assert keys.rate_tag(rate("r", 5, burst=2, match={"team": "a"})) == tag
    others = {
        keys.rate_tag(other)
        for other in (
            rate("s", 5),
            rate("r", 9),
            rate("r", 5, "tokens"),
            rate("r", 5, per=("user",)),
        )
    }
    assert len(others | {tag}) == 5


def test_counter_keys_come_apart_as_they_were_put_together():
    key = keys.window_prefix(77, b"12345678") + "user=ann\x1fteam=é".encode()
    assert keys.split_counter_key(key) == (77, b"12345678", "user=ann\x1fteam=é")
    assert keys.shown("user=ann\x1fteam=a") == "user=ann, team=a"


def test_missing_labels_stand_under_one_name():
    assert keys.per_key(("user",), {}) == "user=(none)"
    assert keys.per_key(("user", "team"), {"team": "a"}) == "user=(none)\x1fteam=a"


def test_due_keys_order_by_time_and_stop_where_time_does():
    assert keys.due_key(1, b"z") < keys.due_key(2, b"a") < keys.due_key(NEVER_NS, b"a")
    assert keys.due_key(NEVER_NS + 5, b"a") == keys.due_key(NEVER_NS, b"a")
    assert keys.sequence_key(255) < keys.sequence_key(256)


def granted(**fields):
    said = {
        "grant_id": "g", "issuer": "i", "subject": "s", "reason": "r", "scope": Selector(()),
        "task_classes": frozenset(), "amount_nusd": 7, "uses_max_count": 3, "expires_ns": 10**18,
    }  # fmt: skip
    return Grant(**(said | fields))


def test_a_grants_counters_say_what_they_are_of_and_when_it_is_over():
    uses, amount = keys.grant_keys(granted())
    assert keys.grant_counter(uses) == ("calls", 3, "g")
    assert keys.grant_counter(amount) == ("nusd", 7, "g")
    assert {keys.split_counter_key(key)[0] for key in (uses, amount)} == {10**18}
    assert all(map(keys.is_grants, (uses, amount)))


def test_who_signs_one_id_with_other_terms_makes_other_counters():
    uses, amount = keys.grant_keys(granted())
    assert keys.grant_keys(granted(uses_max_count=4)) != (uses, amount)
    assert keys.grant_keys(granted(amount_nusd=8))[1] != amount
    assert not {*keys.grant_keys(granted(expires_ns=9))} & {uses, amount}
    assert not {*keys.grant_keys(granted(grant_id="h"))} & {uses, amount}


def test_a_key_that_says_nonsense_of_a_grant_is_no_grants():
    uses = keys.grant_keys(granted())[0]
    for rest in (b"", b"3", b"x\x1fg", b"\x1fg", "\u0663\x1fg".encode(), b"\xff\xff"):
        assert keys.grant_counter(uses[:16] + rest) is None
    assert keys.grant_counter(uses[:16] + b"9" * 50 + b"\x1fg") == ("calls", 2**63 - 1, "g")
    other = keys.window_prefix(1, keys.budget_tag(budget("b"))) + b"3\x1fg"
    assert keys.grant_counter(other) is None
