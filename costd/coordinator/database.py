"""The connection to PostgreSQL. Its exceptions become costd's here, and nowhere else."""

import asyncio
import contextlib
import os
import socket
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection, errors
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.numeric import Int8BinaryDumper, Int8Dumper
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from costd.clock import ticks_ns
from costd.errors import CoordinatorUnavailable, InvariantBroken
from costd.model.time import NS_PER_S

CONNECTIONS_MAX: Final = 16
"""Of one coordinator; a transaction takes one for a few ms."""
ACQUIRE_S: Final = 5.0
"""How long a transaction waits for a connection: less than daemons wait for a receipt."""
CONNECT_S: Final = 5
STATEMENT_MS: Final = 30_000
"""No query of ours takes so long; a connection that hangs must not hold rows for ever."""
RETRY_S_MAX: Final = 1.0

Connection = AsyncConnection[tuple[Any, ...]]

RETRIED: Final = (errors.SerializationFailure, errors.DeadlockDetected, errors.CheckViolation)
"""What may be run again; nothing was written then. The only check is that a day has a partition."""


class Database:
    """A pool of connections to one PostgreSQL.

    Errors:  CoordinatorUnavailable from every use while it cannot be reached, is read-only or
             refuses us; what was being committed just then may or may not be written.
    """

    def __init__(self, url: str, *, connections_max: int = CONNECTIONS_MAX) -> None:
        try:
            told = conninfo_to_dict(url)
        except psycopg.ProgrammingError as error:
            raise CoordinatorUnavailable(
                f"COSTD_DATABASE_URL cannot be read ({str(error).strip()}); write it as "
                "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
            ) from error
        self.where: Final = _where(told)
        """Names the server for people; without the password."""
        self.url: Final = url
        self._open: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            kwargs={"autocommit": True, **_connect_arguments(told)},
            min_size=1,
            max_size=connections_max,
            timeout=ACQUIRE_S,
            configure=self._configure,
            open=False,
            reconnect_timeout=RETRY_S_MAX,
            name="costd",
        )

    async def open(
        self,
        *,
        wait_s: float = 0.0,
        stopped: asyncio.Event | None = None,
        tell: Callable[[str], None] = lambda _problem: None,
    ) -> bool:
        """Connect; wait so long for a server that is not there yet, or until `stopped`.

        Shape:   False if it was stopped; `tell` hears once why it waits.
        Errors:  CoordinatorUnavailable saying what was wrong and what to do. A password that is
                 refused, or a database that does not exist, is not waited for.
        """
        ends_ns = ticks_ns() + int(wait_s * NS_PER_S)
        stopped = stopped or asyncio.Event()
        first_pause_s = pause_s = 0.05
        while True:
            try:
                async with self.connect() as connection:
                    await connection.execute("SELECT 1")
                break
            except CoordinatorUnavailable as error:
                hopeless = not isinstance(error.__cause__, psycopg.OperationalError) or _is_refusal(
                    error.__cause__
                )
                if hopeless or ticks_ns() >= ends_ns:
                    raise
                if pause_s == first_pause_s:
                    tell(str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), pause_s)
                return False
            pause_s = min(2 * pause_s, RETRY_S_MAX)
        await self._pool.open()
        return True

    async def close(self) -> None:
        """Give up all connections; closing twice is harmless."""
        await self._pool.close()

    def cut(self) -> None:
        """End every connection now: a server that stands still answers no query, nor its cancel.

        Ensures: whoever waits for an answer has CoordinatorUnavailable.
        """
        for connection in list(self._open):
            with (
                contextlib.suppress(psycopg.Error, OSError),
                socket.socket(fileno=os.dup(connection.pgconn.socket)) as end,
            ):
                end.shutdown(socket.SHUT_RDWR)

    @contextlib.asynccontextmanager
    async def connection(
        self, *, passing: tuple[type[psycopg.Error], ...] = ()
    ) -> AsyncIterator[Connection]:
        """Lend a connection; a transaction that fails on it is rolled back.

        Errors:  CoordinatorUnavailable; InvariantBroken for a row that cannot be; what `passing`
                 names as it is, for those who run it again.
        """
        with self._translated(passing):
            connection = await self._living()
            try:
                yield connection
            except BaseException:
                await _roll_back(connection)
                raise
            finally:
                await self._pool.putconn(connection)

    async def _living(self) -> Connection:
        """Take a connection that was not cut while it lay idle; the pool drops those that were."""
        while True:
            connection = await self._pool.getconn()
            if not _was_cut(connection):
                return connection
            await self._pool.putconn(connection)

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        """Open a connection outside the pool, for what holds one long: LISTEN, migrations."""
        with self._translated():
            connection = await AsyncConnection.connect(
                self.url, autocommit=True, **_connect_arguments(conninfo_to_dict(self.url))
            )
            async with connection:
                await self._configure(connection)
                yield connection

    async def _configure(self, connection: Connection) -> None:
        # One type for every integer, so that one prepared statement serves whatever the amounts
        # are. Both formats: lists would else take the type of the first list that came by.
        connection.adapters.register_dumper(int, Int8Dumper)
        connection.adapters.register_dumper(int, Int8BinaryDumper)
        self._open.add(connection)

    @contextlib.contextmanager
    def _translated(self, passing: tuple[type[psycopg.Error], ...] = ()) -> Iterator[None]:
        """Turn the driver's exceptions into costd's."""
        try:
            yield
        except passing:
            raise
        except (PoolTimeout, PoolClosed, TooManyRequests) as error:
            raise CoordinatorUnavailable(
                f"no connection to {self.where} within {ACQUIRE_S:g} s; see whether it runs and "
                "takes connections, and try again"
            ) from error
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            raise InvariantBroken(f"{self.where} refused a row: {_said(error)}") from error
        except psycopg.Error as error:
            raise CoordinatorUnavailable(self._problem(error)) from error

    def _problem(self, error: psycopg.Error) -> str:
        """Say what was wrong, where, and what to do."""
        said = _said(error)
        if isinstance(error, errors.ReadOnlySqlTransaction):
            return (
                f"{self.where} is read-only ({said}); name the primary in COSTD_DATABASE_URL, or "
                "add target_session_attrs=read-write to it"
            )
        if isinstance(error, errors.InsufficientPrivilege):
            return f"{self.where} does not permit this ({said}); grant the role what it lacks"
        if isinstance(error, errors.UndefinedTable | errors.UndefinedColumn):
            return (
                f"{self.where} has another schema than this release wants ({said}); start a "
                "coordinator of this release, which migrates it, or upgrade this one"
            )
        if isinstance(error, RETRIED):
            return f"{self.where} gave a transaction up ({said}); nothing was written; try again"
        if isinstance(error, errors.DiskFull):
            return f"{self.where} has no room left ({said}); make room; nothing was written"
        if _is_refusal(error):
            return f"{self.where} refuses us ({said}); mend user, password or database in the URL"
        if isinstance(error, psycopg.OperationalError):
            return (
                f"{self.where} cannot be reached or went away ({said}); see whether it runs; what "
                "was under way may or may not be written, and may be repeated"
            )
        return f"{self.where} failed ({said}); this may be a bug in costd"


def _was_cut(connection: Connection) -> bool:
    """Look at what came in, without a round trip: an idle connection gets a word only to end it."""
    try:
        connection.pgconn.consume_input()
        connection.pgconn.consume_input()
    except psycopg.OperationalError:
        return True
    return connection.broken or connection.closed


async def _roll_back(connection: Connection) -> None:
    if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
        # A connection that broke cannot roll back, and need not.
        with contextlib.suppress(psycopg.Error):
            await connection.rollback()


def _connect_arguments(told: dict[str, Any]) -> dict[str, Any]:
    """What we ask of a connection where the URL does not."""
    ours = {
        "connect_timeout": CONNECT_S,
        "application_name": "costd-coordinator",
        # A peer that is gone without a word is noticed within about ten seconds.
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
        "options": f"-c statement_timeout={STATEMENT_MS}",
    }
    return {name: value for name, value in ours.items() if name not in told}


def _is_refusal(error: psycopg.Error) -> bool:
    """Tell whether the server answered that it will not have us; waiting does not help then.

    A failed connect carries no SQLSTATE, only libpq's words.
    """
    if isinstance(
        error,
        errors.InvalidPassword
        | errors.InvalidAuthorizationSpecification
        | errors.InvalidCatalogName,
    ):
        return True
    words = ("authentication failed", "does not exist", "no pg_hba.conf entry", "no password")
    return isinstance(error, psycopg.OperationalError) and any(w in str(error) for w in words)


def _where(told: dict[str, Any]) -> str:
    host = told.get("host", "") or told.get("hostaddr", "") or "localhost"
    port = "" if str(host).startswith("/") else f":{told.get('port', 5432)}"
    user = f" as {told['user']}" if told.get("user") else ""
    return f"PostgreSQL at {host}{port}, database {told.get('dbname', 'default')!r}{user}"


def _said(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
