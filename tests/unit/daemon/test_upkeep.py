import io
import json
from types import SimpleNamespace

import pytest

from costd.daemon.upkeep import Upkeep
from costd.errors import StoreUnavailable
from costd.model.events import Alert
from costd.telemetry.logs import make_log


class Enough(BaseException):
    """Ends what catches every exception."""


class Sweeper:
    """Has so many reservations due, and looks at ten a slice."""

    retention = SimpleNamespace(slice_count=10)

    def __init__(self):
        self.ledger = SimpleNamespace(recent_alerts=[])
        self.due_count = 0
        self.failure = None

    def sweep(self):
        if self.failure:
            raise self.failure
        looked_at = min(self.due_count, 10)
        self.due_count -= looked_at
        return looked_at


class Timekeeper:
    def __init__(self):
        self.save_count = 0

    def save(self):
        self.save_count += 1


@pytest.fixture
def lines():
    return io.StringIO()


@pytest.fixture
def upkeep(lines):
    return Upkeep(
        Sweeper(), Timekeeper(), make_log(level="info", style="json", stream=lines), tick_s=0
    )


def test_a_tick_says_whether_more_is_due_at_once(upkeep):
    upkeep._sweeper.due_count = 25
    assert [upkeep.tick() for _ in range(4)] == [True, True, False, False]


def test_the_clock_is_saved_at_the_first_tick_and_not_at_each(upkeep):
    for _ in range(100):
        upkeep.tick()
    assert 1 <= upkeep._timekeeper.save_count < 100


def test_each_alert_is_logged_and_counted_once(upkeep, lines):
    alert = Alert(raised_ns=1, kind="threshold", rule="b", message="b at 80 %", threshold_bp=8000)
    upkeep._sweeper.ledger.recent_alerts = [alert, alert]
    upkeep.tick()
    upkeep.tick()
    logged = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [line["event"] for line in logged] == ["alert", "alert"]
    assert logged[0]["message"] == "b at 80 %"
    assert logged[0]["threshold_bp"] == 8000
    assert upkeep.alerts == {"threshold": 2}


@pytest.mark.parametrize(
    ("failure", "said"),
    [(StoreUnavailable("disk full"), "problem"), (ZeroDivisionError("bug"), "exception")],
)
async def test_a_failing_store_is_told_once_and_does_not_end_the_ticking(
    upkeep, lines, failure, said
):
    sweeper, attempts = upkeep._sweeper, []

    def sweep():
        attempts.append(1)
        if len(attempts) == 50:
            raise Enough
        raise failure

    sweeper.sweep = sweep
    with pytest.raises(Enough):
        await upkeep.run()
    (line,) = lines.getvalue().splitlines()
    assert said in json.loads(line)
