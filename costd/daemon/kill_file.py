"""Kill switches from a watched file: each engages by appearing, and releases by disappearing.

It works alone, as the daemon's own socket does: a ConfigMap reaches a daemon whose coordinator is
down.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from costd.daemon.books.ledger import Ledger
from costd.engine.changes import Family
from costd.errors import CostdError, InvalidPolicy
from costd.model.kill import KillSwitch
from costd.policy.source import read_file, read_source
from costd.telemetry.logs import Log
from costd.wire import kills
from costd.wire.pb import control_pb2 as pb

PREFIX: Final = "file:"
"""Begins the ids of switches that are the file's, here and in the books."""
ACTOR: Final = "kill file"
_FIELDS: Final = {"id", "scope", "mode", "max_tier", "reason"}


class Reading(NamedTuple):
    """What a file says: the switches that can be read, and what is wrong with it."""

    requests: tuple[pb.EngageKillRequest, ...]
    problems: tuple[str, ...]


class KillFile:
    """Keeps the switches in the books as the file has them."""

    def __init__(self, path: Path, ledger: Ledger, log: Log) -> None:
        self.path = path
        self._ledger = ledger
        self._log = log
        self.problem = ""
        """What is wrong with the file; empty if nothing is."""

    def read(self) -> None:
        """Read the file and put in force what it says.

        Ensures: a switch that can be read is engaged whatever else is wrong; while anything is,
                 none is released. A file that is not there has no switches; where its directory is
                 not there either (not mounted yet, or no more), nobody knows.
        """
        self._put_in_force(read_kill_file(self.path))

    async def follow(self) -> None:
        """Do the same for nobody who waits; the file is read in a thread."""
        self._put_in_force(await asyncio.to_thread(read_kill_file, self.path))

    def _put_in_force(self, reading: Reading) -> None:
        problems = list(reading.problems)
        named = set()
        for request in reading.requests:
            named.add(request.kill_id)
            try:
                self._engage(request)
            except CostdError as error:
                problems.append(f"{request.kill_id.removeprefix(PREFIX)}: {error}")
        if not problems:
            for switch in self._ledger.kills:
                if switch.kill_id.startswith(PREFIX) and switch.kill_id not in named:
                    self._release(switch)
        self._tell("; ".join(problems))

    def _engage(self, request: pb.EngageKillRequest) -> None:
        ledger, now = self._ledger, self._ledger.clock.now()
        known: KillSwitch | None = ledger.store.get(Family.KILLS, request.kill_id.encode())
        before = known
        if known is not None and known.engaged(now.steady_ns):
            # It may say something else by now, and is never out of force in between.
            before = msgspec.structs.replace(known, released_ns=known.changed_ns)
        switch = kills.engaged_from_pb(
            request, before, tiers=ledger.rules.tier_index, caller=ACTOR, now=now
        )
        if known is not None and known.engaged(now.steady_ns) and _same(known, switch):
            return
        detail = f"{switch.mode} for {switch.scope}: {switch.reason}"
        ledger.put_kill(switch, action="kill_engaged", actor=ACTOR, detail=detail)
        self._log.warning("kill_engaged", kill_id=switch.kill_id, detail=detail)

    def _release(self, switch: KillSwitch) -> None:
        ledger, now = self._ledger, self._ledger.clock.now()
        released = msgspec.structs.replace(
            switch, released_ns=max(now.wall_ns, switch.engaged_ns + 1), released_by=ACTOR
        )
        detail = f"{self.path} names it no longer"
        try:
            ledger.put_kill(released, action="kill_released", actor=ACTOR, detail=detail)
        except CostdError as error:
            self._log.error("kill_file_failed", kill_id=switch.kill_id, problem=str(error))
            return
        self._log.warning("kill_released", kill_id=switch.kill_id, detail=detail)

    def _tell(self, problem: str) -> None:
        if problem == self.problem:
            return
        self.problem = problem
        if not problem:
            self._log.info("kill_file_read", path=str(self.path))
            return
        self._log.error("kill_file_refused", path=str(self.path), problem=problem)
        try:
            self._ledger.audit(ACTOR, "kill_file_refused", str(self.path), problem)
        except CostdError as error:
            self._log.error("kill_file_failed", problem=str(error))


def read_kill_file(path: Path) -> Reading:
    """Read a list of switches; touches nothing else, so that any thread may."""
    try:
        path.stat()
        text = read_file(path)
        says_something = any(line.split("#")[0].strip() for line in text.splitlines())
        data = read_source(text, str(path)).data if says_something else None
    except (FileNotFoundError, NotADirectoryError):
        if path.parent.is_dir():
            return Reading((), ())
        return Reading((), (f"its directory {path.parent} is not there; make or mount it",))
    except (InvalidPolicy, OSError) as error:
        return Reading((), (str(error),))
    if data is None:
        return Reading((), ())
    if not isinstance(data, list):
        return Reading((), ("write it as a list of switches: - {id: …, scope: {…}, reason: …}",))
    requests: dict[str, pb.EngageKillRequest] = {}
    problems = []
    for number, entry in enumerate(data, 1):
        found = list(_problems(entry, requests))
        if found:
            problems += [f"switch {number}: {problem}" for problem in found]
        else:
            request = _request(entry)
            requests[request.kill_id] = request
    return Reading(tuple(requests.values()), tuple(problems))


def _problems(entry: Any, before: dict[str, pb.EngageKillRequest]) -> Iterator[str]:
    if not isinstance(entry, dict):
        yield "write it as {id: …, scope: {…}, mode: …, reason: …}"
        return
    unknown = sorted(entry.keys() - _FIELDS)
    if unknown:
        yield f"{', '.join(unknown)}: no such field; there are {', '.join(sorted(_FIELDS))}"
    for name in sorted(_FIELDS & entry.keys() - {"scope"}):
        if not isinstance(entry[name], str):
            yield f"{name}: write text"
    scope = entry.get("scope") or {}
    if not isinstance(scope, dict) or not all(isinstance(value, str) for value in scope.values()):
        yield "scope: write labels, as {team: research}; none stops everybody"
    kill_id = entry.get("id")
    if not kill_id:
        yield "id: needed; it says which switch this is when the file changes"
    elif f"{PREFIX}{kill_id}" in before:
        yield f"id: {kill_id} is there twice"


def _request(entry: dict[str, Any]) -> pb.EngageKillRequest:
    return pb.EngageKillRequest(
        kill_id=PREFIX + entry["id"],
        scope=entry.get("scope") or {},
        mode=entry.get("mode", ""),
        max_tier=entry.get("max_tier", ""),
        reason=entry.get("reason") or "named in the kill file",
    )


def _same(known: KillSwitch, switch: KillSwitch) -> bool:
    return (known.scope, known.mode, known.max_tier, known.reason) == (
        *(switch.scope, switch.mode, switch.max_tier),
        switch.reason,
    )
