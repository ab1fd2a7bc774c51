"""Word between replicas: LISTEN and NOTIFY, or polling where the database has neither."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Final

import psycopg

from costd.coordinator.database import Connection, Database
from costd.coordinator.drill_words import DrillWord, read_word, word_text
from costd.coordinator.queries import query
from costd.coordinator.store import Notice, Topic
from costd.errors import CoordinatorUnavailable

CHANNEL: Final = "costd"
PROBE_S: Final = 5.0
"""How long a connection is believed; then it must answer, and say what it may have lost."""
RETRY_S: Final = 0.5
POLL_S: Final = 0.1
RECALLS_KEPT_S: Final = 60.0
_TOPICS: Final = frozenset(Topic)


async def listened(database: Database) -> AsyncIterator[Notice]:
    """Yield what others tell, for ever; ALL on every new connection.

    Ensures: what is committed before ALL is yielded can be read, what comes after is yielded; of
             switches and policies also what a replica stored that polls and tells nobody, later.
    """
    while True:
        try:
            async with database.connect() as connection:
                await connection.execute(f"LISTEN {CHANNEL}")
                versions = await _versions(connection)
                yield Notice(topic=Topic.ALL)
                while True:
                    async for told in connection.notifies(timeout=PROBE_S):
                        notice = read_notice(told.payload)
                        if notice is None:
                            continue
                        if notice.topic in versions:
                            versions[notice.topic] = notice.version
                        yield notice
                    found = await _versions(connection)
                    for notice in _untold(found, versions):
                        yield notice
                    versions = found
        except CoordinatorUnavailable:
            await asyncio.sleep(RETRY_S)


async def is_heard(database: Database, *, within_s: float = PROBE_S) -> bool:
    """Tell whether word gets from one connection to another.

    Shape:   some databases refuse LISTEN, and some poolers accept it and lose what is told.
    Errors:  CoordinatorUnavailable where the database cannot be reached.
    """
    channel = f"{CHANNEL}_{uuid.uuid4().hex}"
    try:
        async with database.connect() as hearing, database.connect() as telling:
            await hearing.execute(f"LISTEN {channel}")
            await telling.execute("SELECT pg_notify(%s, '')", (channel,))
            async for _ in hearing.notifies(timeout=within_s, stop_after=1):
                return True
    except CoordinatorUnavailable as error:
        if isinstance(error.__cause__, psycopg.OperationalError):
            raise
    return False


async def polled(database: Database, *, poll_s: float = POLL_S) -> AsyncIterator[Notice]:
    """Yield the same, found by asking again and again."""
    versions: dict[str, int] = {}
    recalls: dict[bytes, int] = {}
    connected = False
    while True:
        try:
            found, fresh = await _poll(database, 10 * poll_s + 1)
        except CoordinatorUnavailable:
            connected = False
            await asyncio.sleep(RETRY_S)
            continue
        if not connected:
            yield Notice(topic=Topic.ALL)
        else:
            for notice in _untold(found, versions):
                yield notice
            keys = tuple(sorted(key for key, at in fresh.items() if recalls.get(key) != at))
            if keys:
                yield Notice(topic=Topic.RECALL, keys=keys)
        connected, versions, recalls = True, found, fresh
        await asyncio.sleep(poll_s)


async def _poll(database: Database, within_s: float) -> tuple[dict[str, int], dict[bytes, int]]:
    async with database.connection() as connection:
        versions = await _versions(connection)
        recalls = await connection.execute(query("fresh_recalls"), {"within_s": within_s})
        return versions, {bytes(key): at for key, at in await recalls.fetchall()}


async def _versions(connection: Connection) -> dict[str, int]:
    """Read how far each list is, by its topic."""
    versions = await connection.execute(query("read_versions"))
    return dict(await versions.fetchall())


def _untold(found: Mapping[str, int], known: Mapping[str, int]) -> Iterator[Notice]:
    """Yield of which lists something new is found; those of a newer release are not ours."""
    for name, version in found.items():
        if name in _TOPICS and version != known.get(name):
            yield Notice(topic=Topic(name), version=version)


def read_notice(payload: str) -> Notice | None:
    """Read a notification; None where it is not ours."""
    topic, *words = payload.split(" ")
    if topic == Topic.DRILL:
        word = read_word(payload.removeprefix(f"{topic} "))
        return Notice(topic=Topic.DRILL, word=word) if word is not None else None
    try:
        if topic == Topic.RECALL:
            return Notice(topic=Topic.RECALL, keys=tuple(bytes.fromhex(word) for word in words))
        return Notice(topic=Topic(topic), version=int(words[0]))
    except (ValueError, IndexError):
        return None


def notice_text(topic: Topic, version: int) -> str:
    """Write what `read_notice` reads."""
    return f"{topic} {version}"


def drill_text(word: DrillWord) -> str:
    """Write what `read_notice` reads, of a drill."""
    return f"{Topic.DRILL} {word_text(word)}"
