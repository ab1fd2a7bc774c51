import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from costd.telemetry.histogram import BOUNDS_NS, Durations
from costd.telemetry.metrics import Metrics


@pytest.fixture
def metrics():
    served = Metrics(version="9.9", name="host-a")
    yield served
    served.close()


def scrape(metrics):
    address = metrics.listen("127.0.0.1", 0)
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as reply:
        text = reply.read().decode()
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_counter_shows_what_the_daemon_counted_by_the_time_it_is_scraped(metrics):
    tally = {("allow", "draft"): 3}
    metrics.counter(
        "costd.decisions",
        "Decisions.",
        lambda: [
            (count, {"verdict": verdict, "task_class": task_class})
            for (verdict, task_class), count in list(tally.items())
        ],
    )
    tally["deny", "draft"] = 1
    samples = scrape(metrics)
    assert samples["costd_decisions_total", ("task_class", "draft"), ("verdict", "allow")] == 3
    assert samples["costd_decisions_total", ("task_class", "draft"), ("verdict", "deny")] == 1


def test_a_gauge_keeps_its_name_and_carries_no_scope_labels(metrics):
    metrics.gauge("costd.reserved.nusd", "Held.", lambda: [(12_500_000_000, {})])
    assert scrape(metrics)[("costd_reserved_nusd",)] == 12_500_000_000


def test_a_histogram_counted_elsewhere_is_served_as_one(metrics):
    durations = Durations()
    for duration_ns in (BOUNDS_NS[0], BOUNDS_NS[0] + 1, 10 * BOUNDS_NS[-1]):
        durations.observe(duration_ns)
    metrics.gauge(
        "costd.up", "A gauge, because a reader of nothing reads nothing.", lambda: [(1, {})]
    )
    metrics.durations(
        "costd.rpc.duration",
        "Time per call.",
        lambda: [durations.point({"rpc": "Admit"}, started_ns=0, now_ns=1)],
    )
    samples = scrape(metrics)
    name = "costd_rpc_duration_seconds"
    assert samples[f"{name}_bucket", ("le", "2.5e-05"), ("rpc", "Admit")] == 1
    assert samples[f"{name}_bucket", ("le", "5e-05"), ("rpc", "Admit")] == 2
    assert samples[f"{name}_bucket", ("le", "1.0"), ("rpc", "Admit")] == 2
    assert samples[f"{name}_bucket", ("le", "+Inf"), ("rpc", "Admit")] == 3
    assert samples[f"{name}_count", ("rpc", "Admit")] == 3
    assert samples[f"{name}_sum", ("rpc", "Admit")] == pytest.approx(10.000050001)


def test_the_process_itself_is_measured_and_the_daemon_named(metrics):
    metrics.gauge("costd.up", "Up.", lambda: [(1, {})])
    samples = scrape(metrics)
    assert samples[("process_resident_memory_bytes",)] > 1_000_000
    target = next(key for key in samples if key[0] == "target_info")
    assert {("host_name", "host-a"), ("service_version", "9.9")} <= set(target)


def test_two_daemons_in_one_process_do_not_mix_their_figures(metrics):
    other = Metrics(version="9.9", name="host-b")
    metrics.gauge("costd.up", "Up.", lambda: [(1, {})])
    other.gauge("costd.up", "Up.", lambda: [(2, {})])
    assert scrape(metrics)[("costd_up",)] == 1
    assert scrape(other)[("costd_up",)] == 2
    other.close()


def test_a_taken_address_is_an_error(metrics):
    _, _, port = metrics.listen("127.0.0.1", 0).partition(":")
    other = Metrics(version="9.9", name="host-b")
    with pytest.raises(OSError, match="in use"):
        other.listen("127.0.0.1", int(port))
    other.close()
