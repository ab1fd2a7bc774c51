"""What else could be asked in a microsecond or a hundred: Redis with a script, and `limits`.

Both come with the extra `rivals`; where one is absent, its figure is skipped with a word.
"""

import importlib.metadata
import importlib.util
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bench.child import child_at

LIMIT: Final = 2**53
"""So large that nothing is refused: what is measured is an ask that passes."""
WINDOW_S: Final = 86_400
_PACKAGES: Final = "install the extra with `.venv/bin/pip install -e '.[rivals]'`"

SCRIPT: Final = """\
local spent = redis.call('MGET', unpack(KEYS))
local count = #KEYS
for at = 1, count do
  if (tonumber(spent[at]) or 0) + tonumber(ARGV[at]) > tonumber(ARGV[count + at]) then
    return at
  end
end
for at = 1, count do
  redis.call('INCRBY', KEYS[at], ARGV[at])
  if not spent[at] then
    redis.call('EXPIRE', KEYS[at], ARGV[2 * count + 1])
  end
end
return 0
"""
"""Check every counter, then add to all of them; Redis runs a script with nothing between.

KEYS are the counters; ARGV their amounts, then their limits, then how long a window is.
Returns which counter refused, or 0.
"""

Ask = Callable[[], object]


def redis_absence(
    *,
    installed: Callable[[str], object] = importlib.util.find_spec,
    which: Callable[[str], object] = shutil.which,
) -> str:
    """Say what Redis lacks here and how to get it; empty if nothing."""
    missing = [name for name in ("redis", "hiredis") if not installed(name)]
    if missing:
        return f"no {' and '.join(missing)} here; {_PACKAGES}"
    if not which("redis-server"):
        return "no redis-server here; install it with `apt-get install -y redis-server`"
    return ""


def limits_absence(*, installed: Callable[[str], object] = importlib.util.find_spec) -> str:
    """Say what `limits` lacks here and how to get it; empty if nothing."""
    return "" if installed("limits") else f"no limits here; {_PACKAGES}"


@contextmanager
def redis_asking(directory: Path, amounts: Sequence[int]) -> Iterator[Ask]:
    """Run a Redis of our own on a Unix socket, and yield an ask of one counter per amount.

    Shape:   nothing is kept on disk. redis-py parses with hiredis; the script is called by its
             hash, and its arguments are made before the clock starts.
    """
    import redis  # noqa: PLC0415  the extra may be absent

    path = directory / "redis.sock"
    command = [
        *("redis-server", "--port", "0", "--unixsocket", str(path), "--dir", str(directory)),
        *("--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "warning"),
    ]
    with child_at(path, command), redis.Redis(unix_socket_path=str(path)) as client:
        yield _redis_ask(client, amounts)


def redis_version() -> str:
    """Say which server this is, as it says itself."""
    said = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True)
    return next(word[2:] for word in said.stdout.split() if word.startswith("v="))


def limits_asking(budgets_count: int) -> Ask:
    """Make an ask of one fixed window in memory per budget."""
    from limits import RateLimitItemPerDay  # noqa: PLC0415  the extra may be absent
    from limits.storage import MemoryStorage  # noqa: PLC0415
    from limits.strategies import FixedWindowRateLimiter  # noqa: PLC0415

    hit = FixedWindowRateLimiter(MemoryStorage()).hit
    items = [RateLimitItemPerDay(LIMIT, namespace=f"budget-{at}") for at in range(budgets_count)]
    once = RateLimitItemPerDay(1, namespace="proof")
    if [hit(once), hit(once), *(hit(item) for item in items)] != [True, False] + [True] * len(
        items
    ):
        raise RuntimeError("limits does not count as it should")

    def ask() -> None:
        for item in items:
            hit(item, "api", "u0000001")

    return ask


def limits_version() -> str:
    """Say which `limits` this is."""
    return importlib.metadata.version("limits")


def _redis_ask(client: Any, amounts: Sequence[int]) -> Ask:
    names = [f"budget-{at}" for at in range(len(amounts))]
    digest = client.script_load(SCRIPT)
    _prove(client, digest)
    count, evalsha = len(names), client.evalsha
    rest = (*names, *amounts, *([LIMIT] * count), WINDOW_S)

    def ask() -> object:
        return evalsha(digest, count, *rest)

    if ask() != 0 or [int(spent) for spent in client.mget(names)] != list(amounts):
        raise RuntimeError("Redis did not add what it was asked to add")
    return ask


def _prove(client: Any, digest: str) -> None:
    """See that the script refuses past a limit, and that a refusal adds nothing."""
    names = ("proof-0", "proof-1")
    answers = [
        client.evalsha(digest, 2, *names, *amounts, 10, 10, WINDOW_S)
        for amounts in ((6, 4), (4, 7), (4, 6), (1, 0))
    ]
    spent = [int(value) for value in client.mget(names)]
    if (answers, spent) != ([0, 2, 0, 1], [10, 10]):
        raise RuntimeError(f"the script for Redis is wrong: it answered {answers}, spent {spent}")
