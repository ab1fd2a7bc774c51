"""What operators list, where the order of the books is not the order of time."""

import pytest

from costd.daemon.books.asking import Trust
from costd.daemon.books.ledger import Ledger
from costd.daemon.clients.allowances import AllowanceBooks
from costd.daemon.clients.desk import Desk
from costd.daemon.control import ControlService
from costd.model.ask import Ask
from costd.model.decision import Verdict
from costd.model.time import NS_PER_S
from costd.policy import parse_policy
from costd.testing import FakeClock, MemoryStore
from costd.testing.pages import MemoryPages
from costd.wire.pb import admission_pb2 as apb
from costd.wire.pb import control_pb2 as pb

POLICY = """
version: 1
tiers:
  premium: {models: [openai/gpt-4o]}
task_classes:
  review: {critical: true, min_tier: premium}
  draft: {}
default_task_class: draft
budgets:
  - {id: day, window: day, limit: $1}
"""
MINUTE_S = 60
HOUR_NS = 3_600 * NS_PER_S


class Books:
    """A ledger, and what operators are told of it."""

    def __init__(self):
        self.clock = FakeClock()
        trust = Trust(claims=frozenset({"review"}))
        policy = parse_policy(POLICY, "p.yaml")
        self.ledger = Ledger(MemoryStore(), policy, self.clock, trust=trust)
        desk = Desk(self.ledger, AllowanceBooks(self.ledger), MemoryPages())
        self.control = ControlService(self.ledger, Source(), desk)
        self._asked_count = 0

    def deny(self, task_class):
        self._asked_count += 1
        ask = Ask(
            ask_id=f"an-ask-that-is-denied-{self._asked_count}",
            task_class=task_class,
            estimated_cost_nusd=2 * 10**9,
        )
        assert self.ledger.admit(ask).decision.verdict is Verdict.DENY

    def audited(self, since_ns):
        request = pb.ListAuditRequest(since_ns=since_ns)
        return self.control.ListAudit(request, "").records


class Source:
    """The policy's file, where a test needs none."""

    path, text, error, loaded_ns = "p.yaml", POLICY, "", 0


@pytest.fixture
def books():
    return Books()


@pytest.mark.parametrize("order", [("review", "draft"), ("draft", "review")])
def test_denials_of_an_hour_are_all_found_from_within_it(books, order):
    books.clock.advance((HOUR_NS - books.clock.wall_ns % HOUR_NS) // NS_PER_S)
    hour_ns = books.clock.wall_ns
    for task_class in order:
        books.clock.advance(10 * MINUTE_S)
        books.deny(task_class)
    later = books.audited(hour_ns + 15 * MINUTE_S * NS_PER_S)
    assert [each.task_class for each in later if each.action == "denied"] == [order[1]]
    every = books.audited(hour_ns)
    assert {each.task_class for each in every if each.action == "denied"} == set(order)


def test_a_denial_names_its_reason_and_class(books):
    books.deny("review")
    (denied,) = [each for each in books.audited(0) if each.action == "denied"]
    assert denied.task_class == "review"
    assert denied.reason == apb.REASON_BUDGET_EXHAUSTED


def test_the_policy_names_its_critical_classes(books):
    policy = books.control.GetPolicy(pb.GetPolicyRequest(), "")
    assert list(policy.critical_classes) == ["review"]
