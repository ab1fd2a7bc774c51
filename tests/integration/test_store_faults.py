"""What a daemon does with a disk that is full and a store that it cannot use."""

import shutil
import subprocess
from contextlib import suppress

import pytest
from desk import Desk, ask, if_available, new_id, poll
from rocksdict import Options, Rdict

from costd.daemon.servers import ENVOY_NAME
from costd.engine.changes import Family
from costd.store.rocks import STORE_FOLDER
from costd.store.rocks_directory import FORMAT_KEY
from costd.testing import DaemonProcess
from costd.wire.pb import admission_pb2 as pb
from costd.wire.pb import control_pb2 as cpb
from costd.wire.pb.ratelimit_pb2 import RateLimitRequest, RateLimitResponse

POLICY = """\
version: 1
unmatched: deny
tiers:
  premium: {models: [openai/gpt-4o]}
task_classes:
  draft: {tier: premium, max_output_tokens: 1000}
budgets:
  - {id: all, window: total, limit: $1000000}
  - {id: per-user, match: {user: "*"}, per: user, window: total, limit: $5}
"""
PERSON = {"user": "ann"}
LONG = {f"label-{number}": "v" * 250 for number in range(60)}
ENVOY = """\
expiry: {ttl: 2s}
envoy:
  - id: ask
    domain: llm
    match: {step: ask}
    request_id: request
    labels: {user: user}
    model: {value: openai/gpt-4o}
    task_class: {value: draft}
    prompt_tokens: {value: "1000"}
  - {id: end, domain: llm, match: {step: end}, does: settle, request_id: request}
"""


# ---- a full disk --------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 24 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], capture_output=True, check=False
    )
    if not mounted or mounted.returncode != 0:
        pytest.skip("this user may not mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def fill(disk):
    """Leave no room but for what was set aside already; returns what to remove again."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 65_536)
    return ballast


def descriptors(**entries):
    """What Envoy sends of one of ann's calls."""
    request = RateLimitRequest(domain="llm")
    descriptor = request.descriptors.add()
    for key, value in (entries | PERSON).items():
        descriptor.entries.add(key=key, value=value)
    return request


def test_a_full_disk_refuses_loses_nothing_and_recovers_when_there_is_room(
    fresh_daemon, small_disk
):
    daemon = fresh_daemon(POLICY)
    daemon.data = small_disk / "data"
    desk = Desk(daemon.start())
    desk.engage("stop-eve", scope={"user": "eve"})
    held = [desk.hold(0.001, labels=PERSON) for _ in range(20)]
    ballast = fill(small_disk)
    refused = []

    def refuses():
        request = ask(0.001, labels=PERSON | LONG)
        try:
            held.append(desk.agents.Admit(request).reservation_id)
        except Exception as error:  # noqa: BLE001  looked at below
            refused.append((request, error))
        return bool(refused)

    for _ in range(5_000):
        if refuses():
            break
    request, error = refused[0]
    assert error.code().name == "UNAVAILABLE"
    assert "the disk is full" in error.details()
    assert str(daemon.data) in error.details()

    # It answers whatever needs no room: what operators look at, and every refusal.
    assert desk.status().open_reservations_count == len(held)
    assert desk.budget("per-user", "user=ann").reserved == len(held) * 1_000_000
    assert desk.admit(6, labels=PERSON).reason == pb.REASON_BUDGET_EXHAUSTED
    assert desk.admit(0.01, labels={"user": "eve"}).reason == pb.REASON_KILL_SWITCH
    for call, arguments in (
        (desk.settle, (held[0], 0.001)),
        (desk.void, (held[0],)),
        (desk.record, (0.001,)),
        (desk.engage, ("too-late",)),
    ):
        assert desk.refusal(call, *arguments).code == "UNAVAILABLE", call
    assert desk.status().open_reservations_count == len(held)
    assert desk.reservation(held[0]).state == pb.RESERVATION_STATE_HELD
    complaints = [line for line in daemon.lines if line.get("event") == "call_failed"]
    assert complaints
    assert all("the disk is full" in line["exception"] for line in complaints)

    ballast.unlink()

    def admits():
        with suppress(Exception):
            held.append(desk.agents.Admit(request).reservation_id)
            return True

    poll(admits, 60)
    assert desk.settle(held[0], 0.001).state == pb.RESERVATION_STATE_SETTLED
    assert desk.budget("per-user", "user=ann").reserved == (len(held) - 1) * 1_000_000
    before = desk.books()
    desk.kill_9()
    assert desk.books() == before
    desk.close()


def test_a_stopping_daemon_of_a_fleet_tells_its_usage_though_its_disk_is_full(fleet, small_disk):
    processes = fleet(POLICY).start(coordinators=1, daemons=0)
    (coordinator,) = processes.coordinators
    daemon = processes.add_daemon("--leave-s", "5")
    daemon.kill()
    daemon.data = small_disk / "data"
    desk = Desk(daemon.start())
    for reservation in [desk.hold(0.001) for _ in range(50)]:
        desk.settle(reservation, 0.0005)
    ballast = fill(small_disk)
    poll(lambda: if_available(desk.admit, 0.000001, labels=LONG) is None)
    desk.close()
    assert daemon.stop() == 1
    assert "cannot close the store" in daemon.log_text()
    # What it holds cannot be given back without being written down, and so stays taken.
    (untold,) = [line for line in daemon.lines if line.get("event") == "left_untold"]
    assert "the disk is full" in untold["problem"]
    assert untold["usage_events_count"] == 0
    stored = coordinator.control.ListUsage(cpb.ListUsageRequest(limit_count=1_000)).events
    assert len(stored) == 50
    ballast.unlink()
    daemon.start()
    assert processes.problems() == []


def test_a_policy_that_is_published_while_the_disk_is_full_is_in_force_once_there_is_room(
    fleet, small_disk
):
    processes = fleet(POLICY).start(coordinators=1, daemons=0)
    (coordinator,) = processes.coordinators
    daemon = processes.add_daemon()
    daemon.kill()
    daemon.data = small_disk / "data"
    desk = Desk(daemon.start())
    ballast = fill(small_disk)
    poll(lambda: if_available(desk.admit, 0.000001, labels=LONG) is None)
    published = coordinator.publish(POLICY.replace("$5", "$7")).number
    lost = daemon.wait_for("coordinator_lost")
    assert "the disk is full" in lost["problem"]
    ballast.unlink()
    daemon.wait_for("policy_loaded", number=published)
    assert not [line for line in daemon.lines if line.get("event") == "policy_refused"]
    poll(lambda: coordinator.daemons()["d1"].policy_number == published, 60)
    desk.close()


def test_what_envoy_tells_while_the_disk_is_full_is_charged_at_its_hold(fresh_daemon, small_disk):
    daemon = fresh_daemon(POLICY + ENVOY)
    daemon.data = small_disk / "data"
    desk = Desk(daemon.start())
    tell = desk.channel.unary_unary(
        f"/{ENVOY_NAME}/ShouldRateLimit",
        RateLimitRequest.SerializeToString,
        RateLimitResponse.FromString,
    )
    called = new_id()
    assert tell(descriptors(step="ask", request=called)).overall_code == RateLimitResponse.OK
    held = desk.budget("per-user", "user=ann").reserved
    ballast = fill(small_disk)
    poll(lambda: if_available(desk.admit, 0.000001, labels=LONG) is None)
    assert desk.refusal(tell, descriptors(step="end", request=called)).code == "UNAVAILABLE"
    assert desk.refusal(tell, descriptors(step="ask", request=new_id())).code == "UNAVAILABLE"
    ballast.unlink()
    poll(lambda: desk.budget("per-user", "user=ann").reserved == 0, 60)
    assert desk.budget("per-user", "user=ann").settled == held > 0
    desk.close()


def test_a_daemon_does_not_start_on_a_full_disk_and_says_why(fresh_daemon, small_disk):
    daemon = fresh_daemon(POLICY)
    daemon.data = small_disk / "data"
    fill(small_disk)
    daemon.launch()
    assert daemon.ended() == 1
    (line,) = [line["text"] for line in daemon.lines if "text" in line]
    assert line.startswith("costd: ")
    assert "disk is full" in line or "No space left" in line
    assert not daemon.socket.exists()


# ---- a store that cannot be used ----------------------------------------------------------------


@pytest.fixture(scope="module")
def books_of_old(tmp_path_factory):
    """The data directory of a daemon that was stopped."""
    policy = tmp_path_factory.mktemp("old") / "policy.yaml"
    policy.write_text(POLICY)
    with DaemonProcess(policy) as daemon:
        desk = Desk(daemon)
        for _ in range(5):
            desk.hold(0.01, labels=PERSON)
        desk.close()
        daemon.stop()
        kept = policy.parent / "data"
        shutil.copytree(daemon.data, kept)
    return kept


def of_tomorrow(store):
    """Write it as a newer costd would."""
    options = Options(raw_mode=True)
    families = dict.fromkeys(["default", *Family, "of tomorrow"], options)
    options.create_missing_column_families(True)
    database = Rdict(str(store), options, column_families=families)
    database.put(FORMAT_KEY, b"2")
    database.close()


def without_current(store):
    (store / "CURRENT").unlink()


def without_manifest(store):
    for manifest in store.glob("MANIFEST-*"):
        manifest.unlink()


def scribbled_over(store):
    for manifest in store.glob("MANIFEST-*"):
        manifest.write_bytes(b"\xff" * 4_096)


def another_database(store):
    shutil.rmtree(store)
    Rdict(str(store)).close()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (of_tomorrow, "newer"),
        (without_current, "damaged"),
        (without_manifest, "damaged"),
        (scribbled_over, "damaged"),
        (another_database, "damaged"),
    ],
)
def test_a_store_that_cannot_be_understood_is_named_and_left_as_it_is(
    fresh_daemon, books_of_old, damage, said
):
    daemon = fresh_daemon(POLICY)
    shutil.copytree(books_of_old, daemon.data)
    damage(daemon.data / STORE_FOLDER)
    before = sorted(path.name for path in daemon.data.rglob("*.sst"))
    daemon.launch()
    assert daemon.ended() == 1
    (line,) = [line["text"] for line in daemon.lines if "text" in line]
    assert line.startswith("costd: ")
    assert str(daemon.data) in line
    assert said in line
    assert "Traceback" not in daemon.log_text()
    assert not daemon.socket.exists()
    assert sorted(path.name for path in daemon.data.rglob("*.sst")) == before


def test_a_data_directory_that_is_a_file_is_named(fresh_daemon):
    daemon = fresh_daemon(POLICY)
    daemon.data.write_text("mine")
    daemon.launch()
    assert daemon.ended() == 1
    assert f"costd: cannot use {daemon.data}" in daemon.log_text()
    assert "Traceback" not in daemon.log_text()
    assert daemon.data.read_text() == "mine"
