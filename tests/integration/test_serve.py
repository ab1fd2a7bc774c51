import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path

import grpc
import pytest
from desk import poll
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from costd.engine.changes import Family
from costd.engine.keys import sequence_key
from costd.model.ask import Ask
from costd.model.events import UsageEvent
from costd.store.rocks import STORE_FOLDER, RocksStore
from costd.testing import DaemonFailed, DaemonProcess
from costd.wire.pb import admission_pb2 as pb
from costd.wire.pb import control_pb2 as cpb
from costd.wire.pb.admission_pb2_grpc import AdmissionStub
from costd.wire.pb.control_pb2_grpc import ControlStub

POLICY = """\
version: 1
unmatched: deny
tiers:
  standard: {models: [openai/gpt-4o]}
task_classes:
  draft: {tier: standard}
  security_review: {critical: true, tier: standard}
default_task_class: draft
budgets:
  - id: everything
    window: day
    limit: $100
"""
OTHER_POLICY = POLICY.replace("$100", "$200")
BAD_POLICY = POLICY.replace("$100", "plenty")


def ask(**fields):
    return pb.AdmitRequest(
        ask_id=f"ask-{uuid.uuid4()}", task_class="draft", estimated_cost_nusd=1_000_000, **fields
    )


def admission(daemon):
    return AdmissionStub(grpc.insecure_channel(daemon.address))


def control(daemon):
    return ControlStub(grpc.insecure_channel(daemon.control_address))


def scrape(daemon):
    with urllib.request.urlopen(daemon.metrics_url, timeout=5) as reply:
        text = reply.read().decode()
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def refusal(call, *args, **kwargs):
    with pytest.raises(grpc.RpcError) as caught:
        call(*args, **kwargs)
    return caught.value.code().name, caught.value.details()


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    policy = tmp_path_factory.mktemp("serving") / "policy.yaml"
    policy.write_text(POLICY)
    with DaemonProcess(policy, "--listen", "127.0.0.1:0", "--message-bytes-max", "4096") as running:
        yield running


# ---- serving ------------------------------------------------------------------------------------


def test_the_quickstart_policy_serves(daemon):
    status = control(daemon).GetStatus(cpb.GetStatusRequest())
    assert status.policy_path.endswith("policies/quickstart.yaml")
    assert status.policy_error == ""


def test_an_ask_is_answered_over_the_socket_and_over_tcp(serving):
    for target in (serving.address, serving.listen_address):
        with grpc.insecure_channel(target) as channel:
            assert AdmissionStub(channel).Admit(ask()).verdict == pb.VERDICT_ALLOW


def test_sockets_have_their_modes_and_their_directory_too(serving):
    def mode(path):
        return stat.S_IMODE(path.stat().st_mode)

    assert mode(serving.socket) == 0o660
    assert mode(serving.control_socket) == 0o600
    assert mode(serving.socket.parent) == 0o750


def test_agents_do_not_reach_the_operators_service(serving):
    with grpc.insecure_channel(serving.address) as channel:
        code, _ = refusal(ControlStub(channel).GetStatus, cpb.GetStatusRequest())
    assert code == "UNIMPLEMENTED"


@pytest.mark.parametrize("service", ["", "costd.v1.Admission", "costd.v1.Control"])
def test_health_says_serving(serving, service):
    with grpc.insecure_channel(serving.address) as channel:
        reply = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=service)
        )
    assert reply.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize(
    ("address", "service"),
    [("address", "costd.v1.Admission"), ("control_address", "costd.v1.Control")],
)
def test_reflection_lists_and_describes_the_service(serving, address, service):
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=service),
    ]
    with grpc.insecure_channel(getattr(serving, address)) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        listed, described = stub.ServerReflectionInfo(iter(requests))
    names = {found.name for found in listed.list_services_response.service}
    assert {service, "grpc.health.v1.Health"} <= names
    file = descriptor_pb2.FileDescriptorProto.FromString(
        described.file_descriptor_response.file_descriptor_proto[0]
    )
    assert service.rpartition(".")[2] in {found.name for found in file.service}


# ---- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"\xff\xff\xff\xff", "no such message"),
        (b"\x0a\x02\xff\xfe", "UTF-8"),
        (b"\x0a\x7f", "no such message"),
    ],
)
def test_bytes_that_are_no_message_are_an_invalid_argument(serving, raw, said):
    with grpc.insecure_channel(serving.address) as channel:
        code, details = refusal(channel.unary_unary("/costd.v1.Admission/Admit"), raw)
    assert code == "INVALID_ARGUMENT"
    assert said in details


def test_bytes_that_are_not_even_grpc_disturb_nobody(serving):
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(serving.socket))
        raw.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(range(256)) * 16)
        raw.settimeout(5)
        while raw.recv(4096):
            pass
    assert admission(serving).Admit(ask()).verdict == pb.VERDICT_ALLOW


def test_a_request_past_the_limit_is_refused_before_it_is_read(serving):
    code, details = refusal(admission(serving).Admit, ask(override_grant="x" * 5_000))
    assert code == "RESOURCE_EXHAUSTED"
    assert "4096" in details


def test_a_method_that_does_not_exist_is_unimplemented(serving):
    with grpc.insecure_channel(serving.address) as channel:
        code, _ = refusal(channel.unary_unary("/costd.v1.Admission/Guess"), b"")
    assert code == "UNIMPLEMENTED"


def test_an_error_carries_its_status_and_what_to_do(serving):
    code, details = refusal(admission(serving).Admit, pb.AdmitRequest(ask_id="short"))
    assert code == "INVALID_ARGUMENT"
    assert "ask_id" in details
    code, _ = refusal(admission(serving).Void, pb.VoidRequest(reservation_id="00" * 16))
    assert code == "NOT_FOUND"


def test_a_critical_class_is_refused_where_callers_may_not_claim_it(serving):
    request = ask()
    request.task_class = "security_review"
    code, details = refusal(admission(serving).Admit, request)
    assert code == "PERMISSION_DENIED"
    assert "claims" in details


def test_callers_are_told_apart_by_their_metadata(serving):
    request, stub = ask(), admission(serving)
    mine = stub.Admit(request, metadata=(("costd-caller", "ann"),))
    again = stub.Admit(request, metadata=(("costd-caller", "ann"),))
    other = stub.Admit(request, metadata=(("costd-caller", "bob"),))
    assert again.replayed
    assert again.reservation_id == mine.reservation_id
    assert not other.replayed
    assert other.reservation_id != mine.reservation_id


def test_calls_past_the_number_open_at_once_are_told_to_back_off(fresh_daemon):
    daemon = fresh_daemon(POLICY, "--rpcs-count-max", "1").start()
    with grpc.insecure_channel(daemon.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        code, _ = refusal(AdmissionStub(channel).Admit, ask())
        assert code == "RESOURCE_EXHAUSTED"
        watch.cancel()


# ---- metrics ------------------------------------------------------------------------------------


def test_metrics_show_what_happened(fresh_daemon):
    daemon = fresh_daemon(POLICY).start()
    stub = admission(daemon)
    first, second, third = (stub.Admit(ask()) for _ in range(3))
    stub.Settle(pb.SettleRequest(reservation_id=first.reservation_id, cost_nusd=5_000_000))
    stub.Void(pb.VoidRequest(reservation_id=second.reservation_id))
    refusal(stub.Admit, pb.AdmitRequest())
    samples = scrape(daemon)
    decided = ("reason", "OK"), ("task_class", "draft"), ("verdict", "allow")
    assert samples["costd_decisions_total", *decided] == 3
    assert samples["costd_closings_total", ("how", "settled")] == 1
    assert samples["costd_closings_total", ("how", "voided")] == 1
    assert samples["costd_closings_total", ("how", "expired")] == 0
    assert samples[("costd_overruns_total",)] == 1
    assert samples[("costd_reservations_open",)] == 1
    assert samples[("costd_reserved_nusd",)] == third.hold_nusd
    assert samples[("costd_ceilings_unknown",)] == 1
    assert samples[("costd_kills_engaged",)] == 0
    assert samples[("costd_store_bytes",)] > 0
    assert samples["costd_rpc_errors_total", ("code", "INVALID_ARGUMENT"), ("rpc", "Admit")] == 1
    assert samples["costd_rpc_duration_seconds_count", ("rpc", "Admit")] == 4
    revision = control(daemon).GetStatus(cpb.GetStatusRequest()).policy_revision
    assert samples["costd_policy_info", ("revision", revision)] == 1


def test_every_metric_is_documented_and_every_documented_metric_is_there(fresh_daemon):
    daemon = fresh_daemon(POLICY).start()
    stub = admission(daemon)
    held = stub.Admit(ask())
    stub.Settle(pb.SettleRequest(reservation_id=held.reservation_id, cost_nusd=5_000_000))
    refusal(stub.Admit, pb.AdmitRequest())
    daemon.wait_for("alert")
    text = (Path(__file__).parents[2] / "docs" / "operating" / "metrics.md").read_text()
    alone, _, _ = text.partition("A daemon in a fleet")
    documented = {line.split("`")[1] for line in alone.splitlines() if line.startswith("| `costd_")}
    served = {
        re.sub("_(bucket|count|sum)$", "", name)
        for name, *_ in scrape(daemon)
        if name.startswith("costd_")
    }
    assert served == documented


def test_an_alert_is_a_line_of_the_log_and_a_metric(fresh_daemon):
    daemon = fresh_daemon(POLICY).start()
    stub = admission(daemon)
    held = stub.Admit(ask())
    stub.Settle(pb.SettleRequest(reservation_id=held.reservation_id, cost_nusd=5_000_000))
    line = daemon.wait_for("alert", kind="overrun")
    assert line["level"] == "warning"
    assert scrape(daemon)["costd_alerts_total", ("kind", "overrun")] == 1


def test_metrics_can_be_switched_off(fresh_daemon):
    daemon = fresh_daemon(POLICY, "--metrics-listen", "off").start()
    assert not [line for line in daemon.lines if line.get("event") == "metrics_listening"]


# ---- one daemon at a time -----------------------------------------------------------------------


def test_a_second_daemon_on_the_same_data_is_refused_and_the_first_goes_on(serving, fresh_daemon):
    second = fresh_daemon(POLICY)
    second.data = serving.data
    second.launch()
    assert second.ended() == 1
    assert f"another daemon holds {serving.data}" in second.log_text()
    assert admission(serving).Admit(ask()).verdict == pb.VERDICT_ALLOW


def test_a_second_daemon_on_the_same_socket_is_refused_and_the_first_goes_on(serving, fresh_daemon):
    second = fresh_daemon(POLICY)
    second.socket = serving.socket
    second.launch()
    assert second.ended() == 1
    assert f"another daemon serves {serving.socket}" in second.log_text()
    assert not second.control_socket.exists()
    assert admission(serving).Admit(ask()).verdict == pb.VERDICT_ALLOW


@pytest.mark.parametrize("flag", ["--listen", "--metrics-listen"])
def test_a_taken_port_is_named(fresh_daemon, flag):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        daemon = fresh_daemon(POLICY, flag, f"127.0.0.1:{port}")
        daemon.launch()
        assert daemon.ended() == 1
    assert f"{flag.removeprefix('--').replace('-', '_')}: 127.0.0.1:{port}" in daemon.log_text()


def test_a_daemon_that_was_killed_starts_again_on_its_socket_and_books(fresh_daemon):
    daemon = fresh_daemon(POLICY).start()
    request = ask()
    held = admission(daemon).Admit(request)
    daemon.kill()
    assert daemon.socket.exists()
    daemon.restart()
    again = admission(daemon).Admit(request)
    assert again.replayed
    assert again.reservation_id == held.reservation_id


# ---- stopping -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_and_its_sockets_are_gone(fresh_daemon, number):
    daemon = fresh_daemon(POLICY).start()
    assert admission(daemon).Admit(ask()).verdict == pb.VERDICT_ALLOW
    daemon.signal(number)
    assert daemon.ended() == 0
    assert [line["event"] for line in daemon.lines][-2:] == ["draining", "stopped"]
    assert not daemon.socket.exists()
    assert not daemon.control_socket.exists()


def test_whoever_watches_its_health_is_told_and_does_not_hold_it_up(fresh_daemon):
    daemon = fresh_daemon(POLICY, "--drain-s", "60").start()
    with grpc.insecure_channel(daemon.control_address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        daemon.signal(signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.RpcError):
            next(watch)
    assert daemon.ended() == 0


def fill_with_usage(daemon, count):
    """Write so many usage events that a listing of them takes seconds."""
    event = UsageEvent(
        reservation_id=b"r" * 16, ask=Ask(ask_id="x" * 16), tier="standard", provider="openai",
        model="gpt-4o", cost_nusd=1, hold_nusd=1, admitted_ns=time.time_ns(),
        settled_ns=time.time_ns(), usage=None, price=None, price_id="", reason=1,
        closed_as="settled",
    )  # fmt: skip
    store = RocksStore(daemon.data / STORE_FOLDER)
    for start in range(1, count, 10_000):
        numbers = range(start, start + 10_000)
        store.commit([(Family.USAGE, sequence_key(number), event) for number in numbers])
    store.close()


def test_a_second_signal_cuts_what_a_draining_daemon_still_waits_for(fresh_daemon):
    daemon = fresh_daemon(POLICY, "--drain-s", "600")
    fill_with_usage(daemon, 100_000)
    daemon.start()
    stub, request = control(daemon), cpb.ListUsageRequest(group_by=["model"])
    listings = [stub.ListUsage.future(request) for _ in range(3)]
    poll(lambda: scrape(daemon)[("costd_rpc_open",)] == len(listings))
    daemon.signal(signal.SIGTERM)
    assert daemon.wait_for("draining")["open_count"] == len(listings)
    daemon.signal(signal.SIGTERM)
    assert daemon.ended() == 0
    assert [line["event"] for line in daemon.lines][-2:] == ["draining", "stopped"]
    assert not daemon.socket.exists()
    cut = {listing.exception(timeout=20).code() for listing in listings}
    assert cut <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    daemon.restart()
    (group,) = control(daemon).ListUsage(request).groups
    assert group.calls_count == 100_000


def test_what_was_answered_is_there_after_a_stop(fresh_daemon):
    daemon = fresh_daemon(POLICY).start()
    held = admission(daemon).Admit(ask())
    assert daemon.stop() == 0
    daemon.restart()
    status = control(daemon).GetStatus(cpb.GetStatusRequest())
    assert status.open_reservations_count == 1
    assert status.reserved_nusd == held.hold_nusd


def test_a_stop_under_load_loses_no_answer(fresh_daemon):
    daemon = fresh_daemon(POLICY, "--durability", "disk").start()
    stub = admission(daemon)
    calls = [stub.Admit.future(ask()) for _ in range(300)]
    calls[20].result(timeout=20)
    assert daemon.stop() == 0
    answered, refused = set(), set()
    for call in calls:
        try:
            answered.add(call.result(timeout=20).reservation_id)
        except grpc.RpcError as error:
            refused.add(error.code())
    assert len(answered) > 20
    assert refused <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    daemon.restart()
    listed = control(daemon).ListReservations(cpb.ListReservationsRequest()).reservations
    assert answered <= {held.reservation_id for held in listed}


def test_durability_disk_answers_and_says_so(fresh_daemon):
    daemon = fresh_daemon(POLICY, "--durability", "disk").start()
    stub = admission(daemon)
    for call in [stub.Admit.future(ask()) for _ in range(20)]:
        assert call.result(timeout=20).verdict == pb.VERDICT_ALLOW
    assert control(daemon).GetStatus(cpb.GetStatusRequest()).durability == "disk"


# ---- the policy file ----------------------------------------------------------------------------


@pytest.fixture
def governed(fresh_daemon):
    daemon = fresh_daemon(POLICY).start()
    return daemon, daemon.policy, control(daemon)


def limit(stub):
    (budget,) = stub.ListBudgets(cpb.ListBudgetsRequest()).budgets
    return budget.limit // 1_000_000_000


def test_a_changed_file_is_in_force_without_being_asked(governed):
    daemon, path, stub = governed
    path.write_text(OTHER_POLICY)
    line = daemon.wait_for("policy_loaded")
    status = stub.GetStatus(cpb.GetStatusRequest())
    assert line["revision"] == status.policy_revision
    assert limit(stub) == 200
    assert stub.GetPolicy(cpb.GetPolicyRequest()).yaml == OTHER_POLICY


def test_a_file_renamed_over_the_old_one_is_in_force(governed):
    daemon, path, stub = governed
    new = path.with_suffix(".new")
    new.write_text(OTHER_POLICY)
    new.replace(path)
    daemon.wait_for("policy_loaded")
    assert limit(stub) == 200


def test_a_kubernetes_link_swap_is_seen(fresh_daemon, tmp_path):
    mount = tmp_path / "mount"
    for version, text in (("..v1", POLICY), ("..v2", OTHER_POLICY)):
        (mount / version).mkdir(parents=True)
        (mount / version / "policy.yaml").write_text(text)
    (mount / "..data").symlink_to("..v1")
    (mount / "policy.yaml").symlink_to("..data/policy.yaml")
    daemon = fresh_daemon(mount / "policy.yaml").start()
    assert limit(control(daemon)) == 100
    (mount / "..data_tmp").symlink_to("..v2")
    (mount / "..data_tmp").replace(mount / "..data")
    daemon.wait_for("policy_loaded")
    assert limit(control(daemon)) == 200


def test_a_bad_file_is_refused_with_its_line_and_the_old_policy_stays(governed):
    daemon, path, stub = governed
    path.write_text(BAD_POLICY)
    line = daemon.wait_for("policy_refused")
    where = f"{path}:{BAD_POLICY.splitlines().index('    limit: plenty') + 1}"
    assert where in line["problem"]
    status = stub.GetStatus(cpb.GetStatusRequest())
    assert where in status.policy_error
    assert line["in_force"] == status.policy_revision
    assert limit(stub) == 100
    assert scrape(daemon)[("costd_policy_refused",)] == 1
    records = stub.ListAudit(cpb.ListAuditRequest()).records
    assert [record.action for record in records].count("policy_refused") == 1
    path.write_text(OTHER_POLICY)
    daemon.wait_for("policy_loaded")
    assert stub.GetStatus(cpb.GetStatusRequest()).policy_error == ""
    assert scrape(daemon)[("costd_policy_refused",)] == 0


def test_a_file_that_is_gone_is_refused_and_the_old_policy_stays(governed):
    daemon, path, stub = governed
    path.unlink()
    daemon.wait_for("policy_refused")
    assert limit(stub) == 100


def test_sighup_and_operators_reload_it_at_once(governed):
    daemon, path, stub = governed
    path.write_text(BAD_POLICY)
    code, details = refusal(stub.ReloadPolicy, cpb.ReloadPolicyRequest(actor="ann"))
    assert code == "INVALID_ARGUMENT"
    assert f"{path}:" in details
    path.write_text(OTHER_POLICY)
    assert stub.ReloadPolicy(cpb.ReloadPolicyRequest(actor="ann")).yaml == OTHER_POLICY
    path.write_text(POLICY)
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("policy_loaded", revision=daemon.wait_for("serving")["revision"])
    assert limit(stub) == 100


# ---- starting badly -----------------------------------------------------------------------------


def test_a_bad_policy_ends_the_start_with_file_and_line(fresh_daemon):
    daemon = fresh_daemon(BAD_POLICY)
    daemon.launch()
    assert daemon.ended() == 2
    assert f"costd: {daemon.policy}:" in daemon.log_text()
    assert not daemon.socket.exists()


def test_a_bad_setting_ends_the_start_with_its_flag(fresh_daemon):
    daemon = fresh_daemon(POLICY, "--drain-s", "soon")
    with pytest.raises(DaemonFailed, match="--drain-s"):
        daemon.start()
    assert daemon.ended() == 2


def test_a_file_in_the_socket_s_place_is_left_alone(fresh_daemon):
    daemon = fresh_daemon(POLICY)
    daemon.socket.parent.mkdir()
    daemon.socket.write_text("mine")
    daemon.launch()
    assert daemon.ended() == 1
    assert "is no socket" in daemon.log_text()
    assert daemon.socket.read_text() == "mine"


def test_a_store_that_is_none_is_refused_not_remade(fresh_daemon):
    daemon = fresh_daemon(POLICY)
    (daemon.data / STORE_FOLDER).mkdir(parents=True)
    (daemon.data / STORE_FOLDER / "diary.txt").write_text("dear diary")
    daemon.launch()
    assert daemon.ended() == 1
    assert str(daemon.data) in daemon.log_text()
    assert [file.name for file in (daemon.data / STORE_FOLDER).iterdir()] == ["diary.txt"]


# ---- the command --------------------------------------------------------------------------------


def costd(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "costd.cli.costd", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("COSTD_")},
            **environment,
        },
    )


def test_print_settings_shows_what_is_in_force_as_a_file_that_gives_the_same(tmp_path):
    first = costd("serve", "--print-settings", "--policy", "p.yaml", COSTD_DRAIN_S="3.5")
    assert first.returncode == 0
    assert "drain_s: 3.5" in first.stdout
    written = Path(tmp_path) / "settings.yaml"
    written.write_text(first.stdout)
    second = costd("serve", "--print-settings", "--config", str(written))
    assert second.returncode == 0, second.stderr
    assert second.stdout == first.stdout


def test_missing_and_bad_settings_are_named_each_on_a_line():
    done = costd("serve", "--durability", "tape", COSTD_LOG_LEVEL="loud")
    assert done.returncode == 2
    assert done.stdout == ""
    assert [line.split(":")[1].strip() for line in done.stderr.splitlines()] == [
        "--durability",
        "environment COSTD_LOG_LEVEL",
    ]
    assert "policy: needed" in costd("serve").stderr


def test_version_is_one_line():
    assert costd("version").stdout.startswith("costd ")


def test_the_log_is_json_line_by_line(serving):
    assert serving.lines
    assert all(json.dumps(line) and "text" not in line for line in serving.lines)
