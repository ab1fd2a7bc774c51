"""The policy that a fleet's coordinator published: in force, and kept for a start without it."""

import asyncio
from typing import Final

from costd.clock import Clock
from costd.daemon.books.ledger import Ledger
from costd.daemon.fleet.tenancy import Situation
from costd.engine.changes import Family
from costd.errors import CostdError, InvalidAsk, InvalidPolicy, StoreUnavailable
from costd.model.policy import PolicySet
from costd.policy.load import parse_policy
from costd.store.port import Store
from costd.telemetry.logs import Log
from costd.wire.pb import fleet_pb2 as pb

_META_KEY: Final = b"fleet_policy"

NO_POLICY: Final = PolicySet(revision="none")
"""In force until a coordinator has published one: nothing is served under it."""


class FleetPolicy:
    """Where a member's policy comes from; implements `costd.daemon.control.PolicySource`.

    `text`, `policy` and `loaded_ns` are those of the policy in force; `error` is empty, or says
    why the newest published one is not in force here.
    """

    def __init__(self, store: Store, clock: Clock, log: Log) -> None:
        """Take up the last good one, if there was one.

        Errors:  InvalidPolicy where this release cannot read what an earlier one kept.
        """
        self._store = store
        self._clock = clock
        self._log = log
        self._situation = Situation()
        self._ledger: Ledger | None = None
        self.in_force = asyncio.Event()
        raw = store.get(Family.META, _META_KEY)
        kept = pb.PublishedPolicy.FromString(raw) if raw else pb.PublishedPolicy()
        self._adopt(kept, parse_policy(kept.yaml, _name(kept)) if raw else NO_POLICY)
        self.error = ""
        self.loaded_count = 1 if raw else 0
        self.refused_count = 0

    def report_to(self, situation: Situation) -> None:
        """Say in which situation the number in force is told, and what was refused."""
        situation.policy_number = self._situation.policy_number
        situation.policy_problem = self._situation.policy_problem
        self._situation = situation

    def govern(self, ledger: Ledger) -> None:
        """Say in which ledger later policies are put in force."""
        self._ledger = ledger

    def reload(self, actor: str) -> None:  # noqa: ARG002  a file's source has one
        """Refuse: there is no file to read again.

        Errors:  InvalidAsk.
        """
        raise InvalidAsk(
            "this daemon's policy comes from its coordinator; publish one there with "
            "`costctl policy apply FILE`"
        )

    async def heard(self, message: pb.PublishedPolicy) -> None:
        """Put a published policy in force, unless it is older than what is, or is refused.

        Shape:   parses in a thread, since a large policy takes the better part of a second.
        Ensures: a refused one changes nothing but `error`, which the next report tells.
        Errors:  StoreUnavailable.
        """
        if not message.number or message.number <= self._message.number:
            return
        ledger = self._ledger
        assert ledger is not None
        try:
            policy = await asyncio.to_thread(parse_policy, message.yaml, _name(message))
            ledger.swap_policy(policy, actor=message.actor or "coordinator")
            self._store.commit([(Family.META, _META_KEY, message.SerializeToString())])
        except StoreUnavailable:
            raise  # the stream ends with it, and the next one brings the policy again
        except CostdError as error:
            self._refused(ledger, message, error)
            return
        self._adopt(message, policy)
        self.error = self._situation.policy_problem = ""
        self.loaded_count += 1
        self._log.info("policy_loaded", number=message.number, revision=policy.revision)

    def _adopt(self, message: pb.PublishedPolicy, policy: PolicySet) -> None:
        self._message = message
        self.policy = policy
        self.path = _name(message)
        self.text = message.yaml
        self.loaded_ns = self._clock.now().wall_ns
        self._situation.policy_number = message.number
        if message.number:
            self.in_force.set()

    def _refused(self, ledger: Ledger, message: pb.PublishedPolicy, error: CostdError) -> None:
        problem = f"policy {message.number}: {error}"
        if problem == self.error:
            return
        self.error = self._situation.policy_problem = problem
        self.refused_count += 1
        self._log.error("policy_refused", number=message.number, problem=str(error))
        if isinstance(error, InvalidPolicy):
            ledger.audit(message.actor, "policy_refused", _name(message), str(error))


def _name(message: pb.PublishedPolicy) -> str:
    """Stand for the file in messages."""
    return f"policy {message.number}" if message.number else "(none published)"
