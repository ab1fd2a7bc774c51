"""Brings a database's schema up to this release, so that two releases can overlap.

Migrations are files `NNNN_name.expand.sql` and `NNNN_name.contract.sql`. An expansion only adds, so
that coordinators of the release before go on working; it runs at start. A contraction takes away
what only they needed; it runs once none of them is connected any more.
"""

import re
from pathlib import Path
from typing import Any, Final

import msgspec
from psycopg import errors

from costd.coordinator.database import Connection, Database
from costd.errors import CoordinatorUnavailable, StoreCorrupt

FOLDER: Final = Path(__file__).parent / "migrations"
LOCK_KEY: Final = 0x636F737464
"""Of the advisory lock under which schemas change and instances register: `costd` in ASCII."""
LOCK_WAIT_MS: Final = 60_000
LIVE_S: Final = 60
"""A coordinator that has not been heard of for so long is not connected any more; it beats four
times as often."""

_NAME: Final = re.compile(r"(?P<number>\d{4})_(?P<name>\w+)\.(?P<phase>expand|contract)\.sql")
_BOOKS: Final = """
CREATE TABLE IF NOT EXISTS migrations (
    number integer NOT NULL,
    phase text NOT NULL CHECK (phase IN ('expand', 'contract')),
    name text NOT NULL,
    release text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (number, phase)
)
"""


class Migration(msgspec.Struct, frozen=True, order=True):
    """One file."""

    number: int
    phase: str
    name: str
    sql: str = ""

    def __str__(self) -> str:
        return f"{self.number:04}_{self.name}.{self.phase}"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a start would do to a schema."""

    expansions: tuple[Migration, ...] = ()
    """They run at start."""
    contractions: tuple[Migration, ...] = ()
    """They run at start, or later by a heartbeat: no older coordinator is connected."""
    waiting: tuple[Migration, ...] = ()
    """They wait for the coordinators in `older`."""
    older: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    """Of a newer release, which are in force already."""
    is_read_only: bool = False
    """Nothing can be written: a standby, or a database that is set so."""

    def lines(self) -> list[str]:
        """Write it for people, a migration a line."""
        return [
            *(f"{each}: runs at start" for each in self.expansions),
            *(f"{each}: runs at start, nobody needs what it removes" for each in self.contractions),
            *(f"{each}: waits until {', '.join(self.older)} left" for each in self.waiting),
            *(f"{name}: ran already, of a newer release" for name in self.unknown),
        ] or ["nothing to migrate"]

    @property
    def taken_away(self) -> tuple[str, ...]:
        """What a newer release did that this one cannot work with."""
        return tuple(name for name in self.unknown if name.endswith(".contract"))

    @property
    def refusal(self) -> str | None:
        """Why this release cannot work with the schema, None if it can."""
        if self.taken_away:
            return (
                f"its schema is of a newer release of costd ({', '.join(self.taken_away)} ran "
                "already), which took away what this one needs; start that release"
            )
        if self.is_read_only:
            return (
                "it is read-only; name the primary in COSTD_DATABASE_URL, or add "
                "target_session_attrs=read-write to it"
            )
        return None


class Migrator:
    """Plans and runs the migrations of one folder."""

    def __init__(self, database: Database, *, release: str, folder: Path = FOLDER) -> None:
        self._database = database
        self._release = release
        self._migrations = read_migrations(folder)

    @property
    def schema_number(self) -> int:
        """The newest migration that this release knows."""
        return max((each.number for each in self._migrations), default=0)

    async def plan(self) -> Plan:
        """Tell what a start would do, changing nothing.

        Errors:  CoordinatorUnavailable.
        """
        async with self._database.connect() as connection:
            return await self._plan(connection)

    async def run(self, instance_id: str, *, address: str = "") -> Plan:
        """Migrate, and register this instance, so that nobody takes away what it needs.

        Ensures: however many coordinators start at once, each migration runs once.
        Errors:  StoreCorrupt for a schema of a newer release, or tables that are not ours, and
                 then nothing is changed; CoordinatorUnavailable where the database does not let us.
        """
        async with self._database.connect() as connection:
            await self._lock(connection)
            plan = await self._plan(connection)
            if plan.refusal:
                refused = StoreCorrupt if plan.taken_away else CoordinatorUnavailable
                raise refused(f"{self._database.where}: {plan.refusal}")
            await self._apply(connection, plan.expansions, plan)
            await connection.execute(
                """
                INSERT INTO coordinators (instance_id, release, schema_number, address)
                VALUES (%s, %s, %s, %s)
                ON CONFLICT (instance_id) DO UPDATE SET release = excluded.release,
                    schema_number = excluded.schema_number, address = excluded.address,
                    seen_at = now()
                """,
                (instance_id, self._release, self.schema_number, address),
            )
            await self._apply(connection, plan.contractions, plan)
            return plan

    async def contract(self) -> Plan:
        """Run the contractions that nobody needs to wait for any more; the others still wait."""
        async with self._database.connect() as connection:
            await self._lock(connection)
            plan = await self._plan(connection)
            await self._apply(connection, plan.contractions, plan)
            return plan

    async def _lock(self, connection: Connection) -> None:
        await connection.execute(f"SET lock_timeout = {LOCK_WAIT_MS}")
        await connection.execute("SET statement_timeout = 0")
        try:
            await connection.execute("SELECT pg_advisory_lock(%s)", (LOCK_KEY,))
        except errors.LockNotAvailable as error:
            raise CoordinatorUnavailable(
                f"{self._database.where}: another coordinator has been migrating for "
                f"{LOCK_WAIT_MS // 1000} s; wait until it is done, or look what holds it up"
            ) from error

    async def _plan(self, connection: Connection) -> Plan:
        done = await _done(connection)
        pending = [each for each in self._migrations if (each.number, each.phase) not in done]
        known = {(each.number, each.phase) for each in self._migrations}
        contractions = [each for each in pending if each.phase == "contract"]
        older = await _older(connection, {each.number for each in contractions})
        # A new database has nobody to wait for, nor has what nobody used yet.
        runnable = [each for each in contractions if not older.get(each.number)]
        return Plan(
            expansions=tuple(each for each in pending if each.phase == "expand"),
            contractions=tuple(runnable),
            waiting=tuple(each for each in contractions if each not in runnable),
            older=tuple(sorted({name for names in older.values() for name in names})),
            unknown=tuple(
                f"{number:04}_{name}.{phase}"
                for (number, phase), name in sorted(done.items(), key=_order)
                if (number, phase) not in known
            ),
            is_read_only=await _is_read_only(connection),
        )

    async def _apply(
        self, connection: Connection, migrations: tuple[Migration, ...], plan: Plan
    ) -> None:
        if not migrations:
            return
        try:
            await connection.execute(_BOOKS)
            for each in migrations:
                async with connection.transaction():
                    await connection.execute(each.sql.encode(), prepare=False)
                    await connection.execute(
                        "INSERT INTO migrations (number, phase, name, release)"
                        " VALUES (%s, %s, %s, %s)",
                        (each.number, each.phase, each.name, self._release),
                    )
        except (errors.DuplicateTable, errors.DuplicateObject) as error:
            raise StoreCorrupt(
                f"{self._database.where} has tables that costd did not make "
                f"({' '.join(str(error).split())}); nothing was changed. Name a database that is "
                "costd's alone"
            ) from error
        except errors.InsufficientPrivilege as error:
            lacking = ", ".join(str(each) for each in (*plan.expansions, *plan.contractions))
            raise CoordinatorUnavailable(
                f"{self._database.where} has an older schema and does not let us migrate it "
                f"({' '.join(str(error).split())}); missing: {lacking}. Grant the role CREATE on "
                "the schema, or start one coordinator as a role that may"
            ) from error


def read_migrations(folder: Path = FOLDER) -> tuple[Migration, ...]:
    """Read the migrations of a folder, in the order in which they run.

    Errors:  ValueError for a file whose name is none, or two with one number and phase.
    """
    found: dict[tuple[int, str], Migration] = {}
    for path in sorted(folder.glob("*.sql")):
        named = _NAME.fullmatch(path.name)
        if named is None:
            raise ValueError(f"{path}: migrations are called NNNN_name.(expand|contract).sql")
        key = (int(named["number"]), named["phase"])
        if key in found:
            raise ValueError(f"{path}: {found[key]} has the same number and phase")
        found[key] = Migration(*key, named["name"], path.read_text())
    # Of one number, what adds runs before what takes away.
    return tuple(found[key] for key, _ in sorted(found.items(), key=_order))


def _order(each: tuple[tuple[int, str], Any]) -> tuple[int, bool]:
    (number, phase), _ = each
    return number, phase != "expand"


async def _done(connection: Connection) -> dict[tuple[int, str], str]:
    exists = await connection.execute("SELECT to_regclass('migrations') IS NOT NULL")
    if not (await exists.fetchone() or (False,))[0]:
        return {}
    cursor = await connection.execute("SELECT number, phase, name FROM migrations")
    return {(number, phase): name for number, phase, name in await cursor.fetchall()}


async def _is_read_only(connection: Connection) -> bool:
    cursor = await connection.execute("SELECT current_setting('transaction_read_only') = 'on'")
    return bool((await cursor.fetchone() or (False,))[0])


async def _older(connection: Connection, numbers: set[int]) -> dict[int, list[str]]:
    """List the live coordinators that do not know a migration, by its number."""
    exists = await connection.execute("SELECT to_regclass('coordinators') IS NOT NULL")
    if not numbers or not (await exists.fetchone() or (False,))[0]:
        return {}
    cursor = await connection.execute(
        "SELECT instance_id, release, schema_number FROM coordinators"
        " WHERE seen_at > now() - make_interval(secs => %s)",
        (float(LIVE_S),),
    )
    live = await cursor.fetchall()
    return {
        number: [f"{name} ({release})" for name, release, schema in live if schema < number]
        for number in numbers
    }
