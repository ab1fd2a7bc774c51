import io
import json

import pytest

from costd.daemon.reload import PolicyFile
from costd.errors import InvalidPolicy, StoreUnavailable
from costd.telemetry.logs import make_log
from costd.testing import FakeClock

GOOD = "version: 1\nunmatched: allow\n"
OTHER = "version: 1\nunmatched: deny\n"
BAD = "version: 1\nunmatched: perhaps\n"


class Books:
    """Notes what is put in force and audited."""

    def __init__(self):
        self.policies = []
        self.audited = []
        self.failure = None

    def swap_policy(self, policy, *, actor):
        if self.failure:
            raise self.failure
        self.policies.append((policy.revision, actor))

    def audit(self, actor, action, subject, detail=""):
        self.audited.append((actor, action, subject, detail))


class Setting:
    def __init__(self, path):
        self.path = path
        self.clock = FakeClock()
        self.books = Books()
        self.lines = io.StringIO()
        path.write_text(GOOD)
        log = make_log(level="info", style="json", stream=self.lines)
        self.file = PolicyFile(path, self.clock, log)
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


def test_the_old_text_put_back_clears_the_error(setting):
    setting.path.write_text(BAD)
    setting.file.follow()
    assert setting.file.error
    setting.path.write_text(GOOD)
    setting.file.follow()
    assert setting.file.error == ""
    assert setting.books.policies == []


def test_a_policy_the_ledger_cannot_use_is_refused_like_a_bad_file(setting):
    setting.path.write_text(OTHER)
    setting.books.failure = InvalidPolicy("prices: too large")
    with pytest.raises(InvalidPolicy):
        setting.file.reload("ann")
    assert setting.file.error == "prices: too large"
    assert setting.file.text == GOOD


def test_a_store_that_fails_meanwhile_is_logged_and_tried_again(setting):
    setting.path.write_text(OTHER)
    setting.books.failure = StoreUnavailable("disk full")
    setting.file.follow()
    assert setting.events() == ["policy_reload_failed"]
    setting.books.failure = None
    setting.file.follow()
    assert setting.file.text == OTHER


def test_a_file_that_is_gone_is_refused(setting):
    setting.path.unlink()
    setting.file.follow()
    assert str(setting.path) in setting.file.error
