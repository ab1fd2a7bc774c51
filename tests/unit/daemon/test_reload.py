import asyncio
import io
import json
import threading

import pytest

from costd.daemon.reload import PolicyFile, follow_signal
from costd.errors import InvalidPolicy, StoreUnavailable
from costd.policy.load import parse_policy, policy_revision
from costd.telemetry.logs import make_log
from costd.testing import FakeClock

GOOD = "version: 1\nunmatched: allow\n"
OTHER = "version: 1\nunmatched: deny\n"
NEWEST = "version: 1\nunmatched: deny\nshadow: true\n"
BAD = "version: 1\nunmatched: perhaps\n"
ANSWER_S = 30


class Books:
    """Notes what is put in force and audited."""

    def __init__(self):
        self.policies = []
        self.swaps = asyncio.Queue()
        self.audited = []
        self.failure = None

    def swap_policy(self, policy, *, actor):
        if self.failure:
            raise self.failure
        self.policies.append((policy.revision, actor))
        self.swaps.put_nowait((policy.revision, actor))

    def audit(self, actor, action, subject, detail=""):
        self.audited.append((actor, action, subject, detail))


class Parser:
    """Parses, in other threads only when it is let; asks nothing of the one it was made in."""

    def __init__(self):
        self.home = threading.current_thread()
        self.begun, self.let = asyncio.Queue(), threading.Semaphore(0)
        self._loop = asyncio.get_running_loop()

    def __call__(self, text, name):
        if threading.current_thread() is not self.home:
            self._loop.call_soon_threadsafe(self.begun.put_nowait, text)
            assert self.let.acquire(timeout=ANSWER_S)
        return parse_policy(text, name)


class Setting:
    def __init__(self, path, **options):
        self.path = path
        self.clock = FakeClock()
        self.books = Books()
        self.lines = io.StringIO()
        path.write_text(GOOD)
        log = make_log(level="info", style="json", stream=self.lines)
        self.file = PolicyFile(path, self.clock, log, **options)
        self.file.govern(self.books)

    def events(self):
        return [json.loads(line)["event"] for line in self.lines.getvalue().splitlines()]


@pytest.fixture
def setting(tmp_path):
    return Setting(tmp_path / "policy.yaml")


def test_a_bad_file_at_the_start_is_an_error_with_its_line(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(BAD)
    with pytest.raises(InvalidPolicy, match=rf"{path}:2"):
        PolicyFile(path, FakeClock(), make_log(level="info", style="json", stream=io.StringIO()))


def test_a_file_that_says_the_same_is_not_put_in_force_again(setting):
    setting.path.write_text(GOOD)
    setting.file.reload("ann")
    assert setting.books.policies == []
    assert setting.file.loaded_count == 1


def test_a_file_that_says_something_else_is_put_in_force(setting):
    setting.path.write_text(OTHER)
    setting.clock.advance(5)
    setting.file.reload("ann")
    assert setting.books.policies == [(setting.file.policy.revision, "ann")]
    assert setting.file.text == OTHER
    assert setting.file.loaded_ns == setting.clock.wall_ns
    assert setting.file.loaded_count == 2
    assert setting.events() == ["policy_loaded"]


def test_a_bad_file_changes_nothing_but_the_error_and_is_told_once(setting):
    revision = setting.file.policy.revision
    setting.path.write_text(BAD)
    for _ in range(3):
        with pytest.raises(InvalidPolicy):
            setting.file.reload("ann")
    assert setting.file.text == GOOD
    assert setting.file.policy.revision == revision
    assert f"{setting.path}:2" in setting.file.error
    assert setting.file.refused_count == 1
    ((actor, action, subject, detail),) = setting.books.audited
    assert (actor, action, subject) == ("ann", "policy_refused", str(setting.path))
    assert detail == setting.file.error
    assert setting.events() == ["policy_refused"]


async def test_the_old_text_put_back_clears_the_error(setting):
    setting.path.write_text(BAD)
    await setting.file.follow()
    assert setting.file.error
    setting.path.write_text(GOOD)
    await setting.file.follow()
    assert setting.file.error == ""
    assert setting.books.policies == []


def test_a_policy_the_ledger_cannot_use_is_refused_like_a_bad_file(setting):
    setting.path.write_text(OTHER)
    setting.books.failure = InvalidPolicy("prices: too large")
    with pytest.raises(InvalidPolicy):
        setting.file.reload("ann")
    assert setting.file.error == "prices: too large"
    assert setting.file.text == GOOD


async def test_a_store_that_fails_meanwhile_is_logged_and_tried_again(setting):
    setting.path.write_text(OTHER)
    setting.books.failure = StoreUnavailable("disk full")
    await setting.file.follow()
    assert setting.events() == ["policy_reload_failed"]
    setting.books.failure = None
    await setting.file.follow()
    assert setting.file.text == OTHER


async def test_a_file_that_is_gone_is_refused(setting):
    setting.path.unlink()
    await setting.file.follow()
    assert str(setting.path) in setting.file.error


async def test_a_file_is_parsed_in_a_thread_while_the_loop_goes_on(tmp_path):
    parser = Parser()
    setting = Setting(tmp_path / "policy.yaml", parse=parser)
    setting.path.write_text(OTHER)
    following = asyncio.create_task(setting.file.follow())
    assert await parser.begun.get() == OTHER
    assert setting.books.policies == []
    parser.let.release()
    await following
    assert setting.books.policies == [(policy_revision(OTHER), "file")]
    assert setting.file.text == OTHER


async def test_of_two_changes_in_a_row_the_later_one_is_in_force_last(tmp_path):
    parser = Parser()
    setting = Setting(tmp_path / "policy.yaml", parse=parser)
    setting.path.write_text(OTHER)
    first = asyncio.create_task(setting.file.follow())
    await parser.begun.get()
    setting.path.write_text(NEWEST)
    second = asyncio.create_task(setting.file.follow("SIGHUP"))
    parser.let.release(2)
    await asyncio.gather(first, second)
    revisions = [revision for revision, _ in setting.books.policies]
    assert revisions == [policy_revision(OTHER), policy_revision(NEWEST)]
    assert setting.file.text == NEWEST


async def test_what_was_read_before_a_reload_does_not_replace_what_it_read(tmp_path):
    parser = Parser()
    setting = Setting(tmp_path / "policy.yaml", parse=parser)
    setting.path.write_text(OTHER)
    following = asyncio.create_task(setting.file.follow())
    await parser.begun.get()
    setting.path.write_text(NEWEST)
    setting.file.reload("ann")
    parser.let.release()
    await following
    assert setting.books.policies == [(policy_revision(NEWEST), "ann")]
    assert setting.file.text == NEWEST
    assert setting.file.error == ""


async def test_a_reload_of_a_bad_file_outlives_a_good_reading_from_before_it(tmp_path):
    parser = Parser()
    setting = Setting(tmp_path / "policy.yaml", parse=parser)
    setting.path.write_text(OTHER)
    following = asyncio.create_task(setting.file.follow())
    await parser.begun.get()
    setting.path.write_text(BAD)
    with pytest.raises(InvalidPolicy):
        setting.file.reload("ann")
    parser.let.release(2)
    await following
    assert setting.books.policies == []
    assert setting.file.refused_count == 1
    assert setting.file.error


async def test_every_signal_is_followed_also_one_that_comes_meanwhile(tmp_path):
    parser = Parser()
    setting = Setting(tmp_path / "policy.yaml", parse=parser)
    signalled = asyncio.Event()
    task = asyncio.create_task(follow_signal(setting.file, signalled))
    setting.path.write_text(OTHER)
    signalled.set()
    assert await parser.begun.get() == OTHER
    setting.path.write_text(NEWEST)
    signalled.set()
    parser.let.release()
    assert await parser.begun.get() == NEWEST
    parser.let.release()
    assert await setting.books.swaps.get() == (policy_revision(OTHER), "SIGHUP")
    assert await setting.books.swaps.get() == (policy_revision(NEWEST), "SIGHUP")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
