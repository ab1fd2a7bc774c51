"""The fleet's policy: read, checked, stored, and put in force at every replica."""

import asyncio
from pathlib import Path

from costd.clock import Clock
from costd.coordinator.reception import Published, Reception
from costd.coordinator.store import CoordinatorStore, PolicyText
from costd.engine.rules import Rules
from costd.errors import IdReused
from costd.model.policy import PolicySet
from costd.policy.load import parse_policy
from costd.policy.source import read_file
from costd.pricing import PriceBook
from costd.telemetry.logs import Log
from costd.wire.pb import fleet_pb2 as pb


class Publishing:
    """Publishes policies, and follows what other replicas publish."""

    def __init__(self, store: CoordinatorStore, clock: Clock, log: Log) -> None:
        self._store = store
        self._clock = clock
        self._log = log
        self.reception: Reception | None = None

    async def first(self, path: Path | None) -> Published:
        """Return the policy in force, after publishing the file's if it is not that.

        Shape:   one without a number where none was ever published; daemons wait for the first.
        Errors:  InvalidPolicy, CoordinatorUnavailable.
        """
        current = await self._store.current_policy()
        if path is not None:
            text = read_file(path)
            policy = parse_policy(text, str(path))
            if current is None or current.revision != policy.revision:
                current = await self._stored(text, policy, actor="costd", note=f"from {path}")
        return await _compiled(current)

    async def __call__(self, yaml: str, *, actor: str, note: str, after_number: int) -> PolicyText:
        """Put a policy in force in the whole fleet.

        Errors:  InvalidPolicy, IdReused where another than `after_number` is in force by now,
                 CoordinatorUnavailable; nothing changed then.
        """
        policy = await asyncio.to_thread(parse_policy, yaml, "the policy")
        current = await self._store.current_policy()
        if after_number and (current is None or current.number != after_number):
            raise IdReused(
                f"policy {current.number if current else 0} is in force by now, not "
                f"{after_number}; look at what changed (`costctl policy history`), and try again"
            )
        stored = await self._stored(yaml, policy, actor=actor, note=note)
        await self.refresh()
        return stored

    async def refresh(self) -> None:
        """Put in force what was published since, here or elsewhere.

        Errors:  CoordinatorUnavailable.
        """
        reception = self.reception
        current = await self._store.current_policy()
        if reception is None or current is None:
            return
        if current.number > reception.published.message.number:
            reception.publish(await _compiled(current))
            self._log.info("policy_in_force", number=current.number, actor=current.actor)

    async def _stored(self, yaml: str, policy: PolicySet, *, actor: str, note: str) -> PolicyText:
        return await self._store.publish_policy(
            revision=policy.revision,
            yaml=yaml,
            actor=actor,
            at_ns=self._clock.now().wall_ns,
            note=note,
        )


async def _compiled(current: PolicyText | None) -> Published:
    if current is None:
        return Published(pb.PublishedPolicy(), _rules(PolicySet(revision="none")))
    policy = await asyncio.to_thread(parse_policy, current.yaml, f"policy {current.number}")
    message = pb.PublishedPolicy(
        number=current.number,
        revision=current.revision,
        yaml=current.yaml,
        actor=current.actor,
        published_ns=current.published_ns,
    )
    return Published(message, _rules(policy))


def _rules(policy: PolicySet) -> Rules:
    return Rules(policy, PriceBook(policy), in_fleet=True)
