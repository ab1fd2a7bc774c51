"""Sidecars export to the collector that a setting or an annotation names."""

import pytest
from ruamel.yaml import YAML

from costd.injector.by_hand import patched
from costd.injector.settings import Settings
from costd.injector.wishes import read_collector

POD = """\
kind: Pod
apiVersion: v1
metadata: {{name: a, namespace: x, labels: {{costd.dev/inject: "true"}}, annotations: {annotations}}}
spec: {{containers: [{{name: app, image: "app:1"}}]}}
"""


def sidecar_environment(annotations="{}", **settings):
    """The variables of the sidecar that a pod gets, and in which order."""
    text = patched(
        POD.format(annotations=annotations), "x", Settings(**settings).rules, lambda *_: None
    )
    [sidecar] = YAML(typ="safe").load(text)["spec"]["initContainers"]
    return {each["name"]: each.get("value") for each in sidecar["env"]}


def test_without_a_collector_nothing_is_said_of_one():
    assert not [name for name in sidecar_environment() if name.startswith(("OTEL", "HOST"))]


def test_a_setting_names_the_collector_of_all():
    made = sidecar_environment(sidecar_otlp_endpoint="http://collector.telemetry:4317")
    assert made["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector.telemetry:4317"
    assert made["OTEL_RESOURCE_ATTRIBUTES"] == (
        "k8s.namespace.name=$(POD_NAMESPACE),k8s.pod.name=$(POD_NAME)"
    )


def test_a_pod_may_name_another_or_none():
    ours = {"sidecar_otlp_endpoint": "http://a:4317"}
    made = sidecar_environment('{costd.dev/otlp-endpoint: "https://b"}', **ours)
    assert made["OTEL_EXPORTER_OTLP_ENDPOINT"] == "https://b"
    none = sidecar_environment("{costd.dev/otlp-endpoint: none}", **ours)
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" not in none


def test_the_address_of_the_node_stands_before_what_names_it():
    made = [*sidecar_environment(sidecar_otlp_endpoint="http://$(HOST_IP):4317")]
    assert made.index("HOST_IP") < made.index("OTEL_EXPORTER_OTLP_ENDPOINT")


@pytest.mark.parametrize(
    "text", ["ftp://x", "x:4317", "http://", "http://$(POD_NAME)", "http://a b", "http://a/path\n"]
)
def test_what_is_no_collectors_address_is_refused(text):
    with pytest.raises(ValueError, match="is no http://host:port"):
        read_collector(text)
