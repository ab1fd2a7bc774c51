"""What a coordinator says of a database that it cannot take leave of."""

import asyncio

import pytest

from costd.coordinator.serve import _leave
from costd.coordinator.settings import Settings
from costd.errors import CoordinatorUnavailable


class Database:
    """Answers nobody; whoever waits is told once the connections are cut."""

    where = "PostgreSQL"

    def __init__(self):
        self.is_cut = asyncio.Event()

    def cut(self):
        self.is_cut.set()


class Log:
    def __init__(self):
        self.told = []

    def warning(self, event, **fields):
        self.told.append((event, fields["problem"]))


async def refused(database):
    raise CoordinatorUnavailable("the database is read-only")


async def silent(database):
    await database.is_cut.wait()
    raise CoordinatorUnavailable("the connection was cut")


async def heard(database):
    pass


@pytest.mark.parametrize(
    ("word", "told"),
    [
        (refused, [("database_left", "the database is read-only")]),
        (silent, [("database_left", "PostgreSQL does not answer")]),
        (heard, []),
    ],
)
async def test_a_coordinator_that_stops_says_once_why_it_could_not_tell_its_database(word, told):
    database, log = Database(), Log()
    await _leave(word(database), database, Settings(drain_s=0.01), log)
    assert log.told == told
