"""Clients that compete for one budget, in simulated time: who gets how much of it."""

import heapq
import itertools
from dataclasses import dataclass

from costd_client.pages import map_pages
from costd_client.pb import admission_pb2 as pb
from sim_client import Process
from sim_daemon import Daemon, Disk, Fuse
from sim_policies import CALL_NUSD, booked

from costd.errors import CostdError
from costd.model.money import NUSD_PER_USD
from costd.testing import FakeClock

LATENCY_S = 0.001
TICK_S = 0.2
CALL_S = 0.3
"""How long a call takes: it is in flight meanwhile."""

ASK = {"model": "gpt-4o", "prompt_tokens": 1_000, "max_output_tokens": 100}


def policy(calls_count, *, more=""):
    """One budget of so many calls."""
    limit = calls_count * CALL_NUSD / NUSD_PER_USD
    return (
        "version: 1\n"
        "tiers: {premium: {models: [openai/gpt-4o]}}\n"
        "task_classes: {draft: {}}\n"
        "default_task_class: draft\n"
        f"budgets:\n  - {{id: all, window: total, limit: ${limit}}}\n"
        f"{more}"
    )


@dataclass
class Buyer:
    """One client process: so many calls a second, from a moment on, as many as it needs."""

    rate: float
    need: int = 10**9
    joins_s: float = 0.0
    threads_count: int = 8
    """How many calls may wait for the daemon at once."""
    process: Process = None
    asked: int = 0
    got: int = 0
    waiting: int = 0
    was_denied: bool = False
    poll_at_s: float = -1.0


class Market:
    """A daemon and its buyers, over a network that loses nothing and takes its time."""

    def __init__(self, calls_count, buyers, socket, *, more=""):
        self.host = FakeClock()
        self.calls_count = calls_count
        self.buyers = buyers
        fuse = Fuse()
        self.daemon = Daemon(
            disk=Disk(fuse),
            fuse=fuse,
            host=self.host,
            socket=socket,
            policy=policy(calls_count, more=more),
            closed_keep_s=3_600,
        )
        self.now_s = 0.0
        self._events = []
        self._order = itertools.count()
        self._ids = itertools.count()
        self.asked_count = 0
        """Calls that the daemon admitted one by one."""
        self.first_deny = None
        """When somebody was first denied a call: what everybody had got by then."""
        for number, buyer in enumerate(buyers):
            buyer.process = Process(
                host=self.host,
                new_id=lambda: f"market-{next(self._ids):016}",
                user=f"buyer-{number}",
                labels={},
                maps=map_pages,
            )
            self.at(buyer.joins_s + number / 1_000, self.join, buyer)
        self.at(TICK_S, self.tick)

    def at(self, when_s, act, *arguments):
        heapq.heappush(self._events, (when_s, next(self._order), act, arguments))

    def after(self, seconds, act, *arguments):
        self.at(self.now_s + seconds, act, *arguments)

    @property
    def is_over(self):
        return all(b.was_denied or b.got >= b.need for b in self.buyers)

    def run(self, *, at_most_s):
        """Let everybody buy until each was denied or has enough."""
        while not self.is_over:
            assert self.now_s < at_most_s, "the budget was never used up"
            self._step()
        return self

    def _pass(self, seconds):
        until_s = self.now_s + seconds
        while self._events[0][0] < until_s:
            self._step()

    def _step(self):
        when_s, _, act, arguments = heapq.heappop(self._events)
        self.host.advance(max(0.0, when_s - self.now_s))
        self.now_s = max(self.now_s, when_s)
        act(*arguments)

    def finish(self):
        """Let everybody leave and every call end; returns what the books say (settled, reserved)."""
        for buyer in self.buyers:
            buyer.was_denied = True
        self._pass(2 * CALL_S)
        for buyer in self.buyers:
            buyer.process.session.close()
            self.poll(buyer)
        self._pass(10)
        self.daemon.close()
        (sums,) = booked(self.daemon.disk, "all").values()
        return sums["settled"], sums["reserved"]

    # ---- the daemon

    def tick(self):
        self.daemon.tick()
        self.after(TICK_S, self.tick)

    # ---- buyers

    def join(self, buyer):
        process = buyer.process
        connection = self.daemon.desk.attach(
            process.user, lambda message: self.after(LATENCY_S, self.hear, buyer, message)
        )
        process.stream = connection
        self.say(buyer, process.session.opened())
        self.want(buyer)

    def say(self, buyer, messages):
        for message in messages:
            self.after(LATENCY_S, buyer.process.stream.receive, message)

    def hear(self, buyer, message):
        buyer.process.session.received(message)
        self.poll(buyer)

    def poll(self, buyer):
        """Say what there is to say, and again when it is time, as the thread of a client does."""
        self.say(buyer, buyer.process.poll())
        wait_ns = buyer.process.session.wait_ns()
        if wait_ns is not None:
            when_s = self.now_s + wait_ns / 10**9
            if not self.now_s < buyer.poll_at_s <= when_s:
                buyer.poll_at_s = when_s
                self.at(when_s, self._poll_on_time, buyer)

    def _poll_on_time(self, buyer):
        buyer.poll_at_s = -1.0
        self.poll(buyer)

    def want(self, buyer):
        """Make the next call, in the process if that can be."""
        if buyer.was_denied or buyer.got + buyer.waiting >= buyer.need:
            return
        self.after(1 / buyer.rate, self.want, buyer)
        buyer.asked += 1
        if buyer.waiting >= buyer.threads_count:
            return
        process = buyer.process
        call = process.ask_for(ASK)
        if process.session.is_wishing:
            self.poll(buyer)
        if call is not None:
            buyer.got += 1
            self.after(CALL_S, self.settle, buyer, call)
            return
        buyer.waiting += 1
        request = pb.AdmitRequest(ask_id=process.new_id(), **ASK)
        self.after(LATENCY_S, self.decide, buyer, request)

    def settle(self, buyer, call):
        is_idle = buyer.process.session.wait_ns() is None
        buyer.process.settle(call, prompt=1_000, output=100)
        if is_idle:
            self.poll(buyer)

    def decide(self, buyer, request):
        decision = self.daemon.admission.Admit(request, buyer.process.user)
        assert not isinstance(decision, CostdError)
        if decision.verdict == pb.VERDICT_ALLOW:
            self.asked_count += 1
            buyer.got += 1  # from now on it is in flight
            self.after(CALL_S, self._settle_asked, decision.reservation_id, buyer)
        elif self.first_deny is None:
            self.first_deny = [(one.got, one.asked) for one in self.buyers]
        self.after(LATENCY_S, self.answered, buyer, decision)

    def _settle_asked(self, reservation_id, buyer):
        request = pb.SettleRequest(reservation_id=reservation_id, cost_nusd=CALL_NUSD)
        self.daemon.admission.Settle(request, buyer.process.user)

    @staticmethod
    def answered(buyer, decision):
        buyer.waiting -= 1
        if decision.verdict != pb.VERDICT_ALLOW:
            buyer.was_denied = True


def fair_shares(amount, demands):
    """Max-min fair shares: nobody gets more than it wants, and the rest is shared evenly."""
    shares, left = [0.0] * len(demands), float(amount)
    hungry = sorted(range(len(demands)), key=lambda one: demands[one])
    for place, one in enumerate(hungry):
        shares[one] = min(float(demands[one]), left / (len(hungry) - place))
        left -= shares[one]
    return shares
