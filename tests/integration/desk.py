"""Both sides of one running daemon's counter: what agents ask, and what operators see."""

import time
import uuid
from typing import NamedTuple

import grpc
import pytest

from costd.wire.pb import admission_pb2 as pb
from costd.wire.pb import control_pb2 as cpb
from costd.wire.pb.admission_pb2_grpc import AdmissionStub
from costd.wire.pb.control_pb2_grpc import ControlStub

USD = 1_000_000_000
AMOUNT_MAX = 2**63 - 1


class Refusal(NamedTuple):
    """A gRPC error: no decision was made."""

    code: str
    details: str


class Desk:
    """Talks to a daemon; `open` again after a restart."""

    def __init__(self, daemon):
        self.daemon = daemon
        self._channels = []
        self.open()

    def open(self):
        self.close()
        self._channels = [
            grpc.insecure_channel(address)
            for address in (self.daemon.address, self.daemon.control_address)
        ]
        agents, operators = self._channels
        self.channel, self.agents, self.operators = (
            agents,
            AdmissionStub(agents),
            ControlStub(operators),
        )

    def close(self):
        for channel in self._channels:
            channel.close()

    def restart(self):
        """Stop the daemon as SIGTERM does, and start it again on its books."""
        self.close()
        self.daemon.restart()
        self.open()

    def kill_9(self):
        """End the daemon without a word, and start it again on its books."""
        self.close()
        self.daemon.kill()
        self.daemon.restart()
        self.open()

    # ---- agents ---------------------------------------------------------------------------------

    def admit(self, dollars=None, *, caller="", **fields):
        return self.agents.Admit(ask(dollars, **fields), metadata=as_caller(caller))

    def hold(self, dollars, **fields):
        """Admit what must be admitted; returns the reservation's id."""
        decision = self.admit(dollars, **fields)
        assert decision.reservation_id, decision
        return decision.reservation_id

    def settle(self, reservation_id, dollars=None, **fields):
        if dollars is not None:
            fields["cost_nusd"] = round(dollars * USD)
        return self.agents.Settle(pb.SettleRequest(reservation_id=reservation_id, **fields))

    def void(self, reservation_id):
        return self.agents.Void(pb.VoidRequest(reservation_id=reservation_id))

    def extend(self, reservation_id, dollars=0, **fields):
        return self.agents.Extend(
            pb.ExtendRequest(
                reservation_id=reservation_id,
                additional_cost_nusd=round(dollars * USD),
                **fields,
            )
        )

    def record(self, dollars=None, *, caller="", **fields):
        fields = {"record_id": new_id(), "task_class": "draft", "model": "gpt-4o"} | fields
        if dollars is not None:
            fields["cost_nusd"] = round(dollars * USD)
        return self.agents.Record(pb.RecordRequest(**fields), metadata=as_caller(caller))

    def refusal(self, call, *arguments, **named):
        with pytest.raises(grpc.RpcError) as caught:
            call(*arguments, **named)
        return Refusal(caught.value.code().name, caught.value.details())

    # ---- operators ------------------------------------------------------------------------------

    def budget(self, name, key="", *, include_ended=False):
        request = cpb.ListBudgetsRequest(budget=name, include_ended=include_ended)
        (row,) = (row for row in self.operators.ListBudgets(request).budgets if row.key == key)
        return row

    def reservation(self, reservation_id):
        request = cpb.ListReservationsRequest(reservation_id=reservation_id)
        (row,) = self.operators.ListReservations(request).reservations
        return row

    def status(self):
        return self.operators.GetStatus(cpb.GetStatusRequest())

    def grants(self):
        rows = self.operators.ListGrants(cpb.ListGrantsRequest()).grants
        return {row.grant_id: row for row in rows}

    def alerts(self, kind=""):
        rows = self.operators.ListAlerts(cpb.ListAlertsRequest()).alerts
        return [row for row in rows if kind in {"", row.kind}]

    def audit(self, action):
        rows = self.operators.ListAudit(cpb.ListAuditRequest()).records
        return [row for row in rows if row.action == action]

    def audit_of(self, subject):
        """What was done with one thing, the newest first."""
        rows = self.operators.ListAudit(cpb.ListAuditRequest()).records
        return [row for row in rows if row.subject == subject]

    def usage(self):
        return self.operators.ListUsage(cpb.ListUsageRequest()).events

    def spent(self, by, **where):
        """What usage sums up to, over all groups: (nano-USD, calls)."""
        request = cpb.ListUsageRequest(group_by=[by], where=where)
        groups = self.operators.ListUsage(request).groups
        return sum(each.cost_nusd for each in groups), sum(each.calls_count for each in groups)

    def engage(self, kill_id="", **fields):
        fields = {"reason": "a drill", "actor": "ops"} | fields
        return self.operators.EngageKill(cpb.EngageKillRequest(kill_id=kill_id, **fields))

    def release(self, kill_id):
        return self.operators.ReleaseKill(cpb.ReleaseKillRequest(kill_id=kill_id, actor="ops"))

    def reload(self):
        return self.operators.ReloadPolicy(cpb.ReloadPolicyRequest(actor="ops"))

    def books(self):
        """Everything that holds or has cost money, to be compared before and after."""
        operators, status = self.operators, self.status()
        listed = [
            operators.ListBudgets(cpb.ListBudgetsRequest(include_ended=True)),
            operators.ListReservations(cpb.ListReservationsRequest(include_closed=True)),
            operators.ListUsage(cpb.ListUsageRequest()),
            operators.ListAlerts(cpb.ListAlertsRequest()),
            operators.ListGrants(cpb.ListGrantsRequest()),
            operators.ListKills(cpb.ListKillsRequest(include_released=True)),
        ]
        totals = status.open_reservations_count, status.reserved_nusd, status.exposure_nusd
        return [*map(str, listed), totals]


def new_id():
    return f"ask-{uuid.uuid4()}"


def ask(dollars=None, **fields):
    """Write an ask that lacks nothing."""
    fields = {"ask_id": new_id(), "task_class": "draft"} | fields
    if dollars is not None:
        fields["estimated_cost_nusd"] = round(dollars * USD)
    return pb.AdmitRequest(**fields)


def as_caller(name):
    return (("costd-caller", name),) if name else ()


def poll(condition, at_most_s=20.0):
    """Wait for something that the daemon does by itself."""
    end = time.monotonic() + at_most_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def if_available(call, *arguments, **named):
    """Call what cannot be had for a while; None while it cannot."""
    try:
        return call(*arguments, **named)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return None
