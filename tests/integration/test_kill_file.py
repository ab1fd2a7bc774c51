"""Kill switches from a watched file, at a daemon that stands alone."""

import json
import shutil

import pytest
from desk import Desk, poll

from costd.testing import DaemonProcess
from costd.wire.pb import admission_pb2 as pb
from costd.wire.pb import control_pb2 as cpb

POLICY = """\
version: 1
unmatched: allow
tiers:
  premium: {models: [openai/gpt-4o]}
  economy: {models: [openai/gpt-4o-mini]}
task_classes: {draft: {tier: premium, max_output_tokens: 1000}}
budgets: []
"""
ONE = """\
- id: stop-research
  scope: {team: research}
  reason: runaway agents
"""


@pytest.fixture(scope="module")
def watching(tmp_path_factory):
    """A daemon that watches a kill file, which is not there."""
    folder = tmp_path_factory.mktemp("kills")
    policy = folder / "policy.yaml"
    policy.write_text(POLICY)
    file = folder / "kills.yaml"
    with DaemonProcess(policy, "--kill-file", str(file)) as daemon:
        desk = Desk(daemon)
        desk.file = file
        desk.audit_all = lambda: desk.operators.ListAudit(cpb.ListAuditRequest()).records
        yield desk
        desk.close()


@pytest.fixture
def killed(watching):
    """The same daemon with nothing engaged, and no word of earlier tests."""
    watching.file.unlink(missing_ok=True)
    poll(lambda: not watching.status().kills_engaged_count)
    watching.daemon.lines.clear()
    earlier = {record.sequence for record in watching.audit_all()}
    watching.audit = lambda action: [
        record
        for record in watching.audit_all()
        if record.action == action and record.sequence not in earlier
    ]
    return watching


@pytest.fixture
def unmounted(fresh_daemon, tmp_path):
    """A daemon whose kill file lies in a directory that is not there."""
    daemon = fresh_daemon(POLICY, "--kill-file", str(tmp_path / "mount" / "kills.yaml"))
    desk = Desk(daemon.start())
    desk.file = tmp_path / "mount" / "kills.yaml"
    yield desk
    desk.close()


def stopped(desk, team):
    return desk.admit(0.01, labels={"team": team}).reason == pb.REASON_KILL_SWITCH


def test_a_switch_engages_by_appearing_and_releases_by_disappearing(killed):
    assert not stopped(killed, "research")
    killed.file.write_text(ONE)
    poll(lambda: stopped(killed, "research"))
    assert not stopped(killed, "sales")
    (engaged,) = killed.audit("kill_engaged")
    assert (engaged.actor, engaged.subject) == ("kill file", "file:stop-research")
    assert "runaway agents" in engaged.detail
    killed.file.unlink()
    poll(lambda: not stopped(killed, "research"))
    (released,) = killed.audit("kill_released")
    assert (released.actor, released.subject) == ("kill file", "file:stop-research")


def test_what_it_names_is_in_force_before_the_first_ask_after_a_restart(killed):
    killed.file.write_text(ONE)
    poll(lambda: stopped(killed, "research"))
    killed.close()
    killed.daemon.kill()
    killed.file.write_text(json.dumps([{"id": "stop-sales", "scope": {"team": "sales"}}]))
    killed.daemon.start()
    killed.open()
    assert stopped(killed, "sales")
    assert not stopped(killed, "research")


def test_a_switch_that_changes_is_never_out_of_force(killed):
    killed.file.write_text(ONE)
    poll(lambda: stopped(killed, "research"))
    killed.file.write_text("- {id: stop-research, reason: everybody now}\n")
    while not stopped(killed, "sales"):
        assert stopped(killed, "research")
    assert stopped(killed, "research")
    assert len(killed.audit("kill_engaged")) == 2
    assert killed.audit("kill_released") == []


def test_a_bad_file_engages_what_can_be_read_and_releases_nothing(killed):
    killed.file.write_text(ONE)
    poll(lambda: stopped(killed, "research"))
    killed.file.write_text(
        "- {id: stop-sales, scope: {team: sales}}\n- {scope: {team: x}, mode: gently, until: noon}\n"
    )
    line = killed.daemon.wait_for("kill_file_refused")
    assert "switch 2: until: no such field" in line["problem"]
    assert "id: needed" in line["problem"]
    poll(lambda: stopped(killed, "sales"))
    assert stopped(killed, "research"), "the file no longer names it, but may be half of itself"
    (refused,) = killed.audit("kill_file_refused")
    assert refused.subject == str(killed.file)
    killed.file.write_text("- {id: stop-sales, scope: {team: sales}}\n")
    poll(lambda: not stopped(killed, "research"))
    assert stopped(killed, "sales")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stop: {team: research}\n", "write it as a list"),
        ("- {id: a, mode: gently}\n", "mode 'gently' is not one of"),
        ("- {id: a, mode: max_tier, max_tier: gold}\n", "max_tier 'gold' is not in the policy"),
        ("- {id: a, scope: {team: x}}\n- {id: a}\n", "id: a is there twice"),
        ("- {id: a, scope: [team]}\n", "scope: write labels"),
        ("- {id: a\n", "kills.yaml:"),
    ],
)
def test_a_mistake_is_named_and_stops_nobody(killed, text, said):
    killed.file.write_text(text)
    line = killed.daemon.wait_for("kill_file_refused")
    assert said in line["problem"]
    assert not stopped(killed, "research")


def test_a_switch_released_by_hand_is_engaged_again_while_the_file_names_it(killed):
    killed.file.write_text(ONE)
    poll(lambda: stopped(killed, "research"))
    killed.release("file:stop-research")
    poll(lambda: stopped(killed, "research"))


def test_a_directory_that_is_not_there_is_told_once_and_the_file_counts_once_it_is(unmounted):
    unmounted.daemon.wait_for("watch_failed", problem="it is not there")
    missing = f"its directory {unmounted.file.parent} is not there; make or mount it"
    assert unmounted.status().kill_file_error == missing
    unmounted.daemon.wait_for("kill_file_refused", problem=missing)
    unmounted.file.parent.mkdir()
    unmounted.file.write_text(ONE)
    unmounted.daemon.wait_for("watch_resumed")
    poll(lambda: stopped(unmounted, "research"))
    assert unmounted.status().kill_file_error == ""

    shutil.rmtree(unmounted.file.parent)
    unmounted.daemon.wait_for("watch_failed", at_least=2)
    poll(lambda: unmounted.status().kill_file_error == missing)
    assert stopped(unmounted, "research"), "who cannot read it does not release"
    unmounted.file.parent.mkdir()
    unmounted.daemon.wait_for("watch_resumed", at_least=2)
    poll(lambda: not stopped(unmounted, "research"))
    unmounted.daemon.wait_for("kill_file_read", at_least=2)
    failures = [line for line in unmounted.daemon.lines if line["event"] == "watch_failed"]
    assert len(failures) == 2
