"""What a coordinator lends of override grants: what a token that it verifies says, and no more."""

import pytest

from costd.coordinator.exchange import Exchange
from costd.coordinator.lendable import Span, limit_of
from costd.coordinator.rows import Daemon, Rows
from costd.daemon.books.enacting import compiled
from costd.engine import keys
from costd.grants import GrantClaims, issue, keygen, load_private_key, verify
from costd.model.grant import Grant, GrantRefusal
from costd.model.money import AMOUNT_MAX
from costd.model.time import NS_PER_S
from costd.policy import parse_policy
from costd.wire.pb import fleet_pb2 as pb

NOW_S = 1_800_000_000
LEAD, STRANGER = keygen(), keygen()
TEXT = f"""\
version: 1
unmatched: deny
tiers: {{premium: {{models: [openai/gpt-4o]}}}}
task_classes: {{draft: {{tier: premium, max_output_tokens: 1000}}}}
budgets: [{{id: b, window: total, limit: $1}}]
grant_keys: [{{id: lead, public_key: {LEAD.public_key}}}]
"""
POLICY = parse_policy(TEXT, "policy")
RULES = compiled(POLICY, NOW_S * NS_PER_S, in_fleet=True)


def token(pair=LEAD, **claims):
    fields = {
        "jti": "g", "iss": "lead", "sub": "ann", "aud": (), "nbf": NOW_S - 60, "iat": NOW_S - 60,
        "exp": NOW_S + 3600, "reason": "release night", "scope": {}, "task_classes": ("draft",),
        "amount_nusd": 100, "uses": 3, "passes_kill": False,
    }  # fmt: skip
    return issue(load_private_key(pair.private_pem), "lead", GrantClaims(**(fields | claims)))


def counters(text):
    found = verify(
        text, keys=POLICY.grant_keys, audience="", wall_ns=NOW_S * NS_PER_S, in_fleet=True
    )
    assert isinstance(found, Grant)
    return keys.grant_keys(found)


class Desk:
    """A coordinator's exchange with one daemon that has enrolled, message by message."""

    def __init__(self):
        self.rows = Rows({"d": Daemon(daemon_id="d", name="host", epoch=1)})
        self.sequence = 0

    def ask(self, text, *wants, rules=RULES, now_s=NOW_S):
        self.sequence += 1
        exchange = Exchange(self.rows, rules, now_ns=now_s * NS_PER_S, span=Span())
        request = pb.LeaseRequest(
            request_id=str(self.sequence),
            epoch=1,
            sequence=self.sequence,
            override_grant=text,
            wants=[
                pb.Want(stand=stand, amount_min=amount, amount_wanted=amount)
                for stand, amount in wants
            ],
        )
        return [
            (pb.LeaseOutcome.Name(each.outcome).removeprefix("LEASE_OUTCOME_"), each.grant_refusal)
            for each in exchange.request("d", request).grants
        ]


def stand(key, **fields):
    return pb.Stand(counter_key=key, **fields)


def test_all_that_a_grant_says_is_lent_and_not_one_more():
    desk, text = Desk(), token()
    uses, amount = counters(text)
    assert desk.ask(text, (stand(uses), 1), (stand(amount), 60)) == [("GRANTED", 0)] * 2
    held = (
        stand(uses, amount=1, settled=1, version=1),
        stand(amount, amount=60, settled=60, version=1),
    )
    assert desk.ask(text, (held[0], 2), (held[1], 101)) == [("SET_FAILED", 0), ("EXHAUSTED", 0)]
    assert desk.ask(text, (held[0], 4), (held[1], 100)) == [("EXHAUSTED", 0), ("SET_FAILED", 0)]
    assert desk.ask(text, (held[0], 3), (held[1], 100)) == [("GRANTED", 0)] * 2
    assert [desk.rows.pool(key).taken for key in (uses, amount)] == [3, 100]
    assert [record.action for record in desk.rows.audit] == ["grant_lent"] * 2


@pytest.mark.parametrize(
    ("shown", "now_s", "refusal"),
    [
        (token(STRANGER), NOW_S, GrantRefusal.BAD_SIGNATURE),
        (token()[:-4] + "AAAA", NOW_S, GrantRefusal.BAD_SIGNATURE),
        (token(), NOW_S + 3600, GrantRefusal.EXPIRED),
        (token(), NOW_S - 61, GrantRefusal.NOT_YET_VALID),
        (token(jti="other"), NOW_S, GrantRefusal.MALFORMED),
        (token(uses=4), NOW_S, GrantRefusal.MALFORMED),
        (token(amount_nusd=101), NOW_S, GrantRefusal.MALFORMED),
        ("", NOW_S, GrantRefusal.MALFORMED),
    ],
)
def test_nothing_is_lent_for_a_token_that_does_not_say_so(shown, now_s, refusal):
    desk, (uses, amount) = Desk(), counters(token())
    told = desk.ask(shown, (stand(uses), 1), (stand(amount), 60), now_s=now_s)
    assert ("BAD_GRANT", refusal) in told
    assert not any(outcome == "GRANTED" for outcome, _ in told)
    assert not any(pool.taken for pool in desk.rows.pools.values())
    assert desk.rows.audit == []


def test_a_grant_whose_key_left_the_policy_is_lent_no_more():
    desk, text = Desk(), token()
    without = parse_policy(TEXT.replace("id: lead", "id: other"), "policy")
    rules = compiled(without, NOW_S * NS_PER_S, in_fleet=True)
    told = desk.ask(text, (stand(counters(text)[0]), 1), rules=rules)
    assert told == [("BAD_GRANT", GrantRefusal.BAD_SIGNATURE)]


def test_a_call_in_flight_is_extended_without_its_token():
    desk, text = Desk(), token()
    _, amount = counters(text)
    assert desk.ask(text, (stand(amount), 60)) == [("GRANTED", 0)]
    running = stand(amount, amount=60, reserved=60, version=1)
    assert desk.ask("", (running, 70), now_s=NOW_S + 7200) == [("GRANTED", 0)]
    done = stand(amount, amount=70, settled=70, version=2)
    assert desk.ask("", (done, 80)) == [("BAD_GRANT", GrantRefusal.MALFORMED)]


def test_a_counter_that_says_nonsense_is_no_budget():
    text = token()
    nonsense = counters(text)[0][:16] + b"many"
    assert Desk().ask("", (stand(nonsense, reserved=1), 2)) == [("NO_BUDGET", 0)]


def test_top_ups_that_raced_past_what_can_be_counted_leave_the_most_that_can_be():
    (rule,) = RULES.budgets.values()
    assert limit_of(rule, topped_up=0) == rule.limit == NS_PER_S
    assert limit_of(rule, topped_up=-1) == NS_PER_S - 1
    assert limit_of(rule, topped_up=AMOUNT_MAX) == AMOUNT_MAX
