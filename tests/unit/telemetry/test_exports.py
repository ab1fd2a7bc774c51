"""What the environment says of where telemetry goes; nothing is sent here."""

import pytest

from costd.configuration import SettingsError
from costd.telemetry.exports import describe, exporting

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
NOBODY = "http://127.0.0.1:1"


@pytest.fixture
def variables(monkeypatch):
    """Set variables for one test."""

    def put(**values):
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return put


def made():
    """Which of the three would be sent."""
    with exporting("costd", version="1", name="here") as exports:
        return [
            signal
            for signal, found in (
                ("traces", exports.tracer),
                ("metrics", exports.metrics),
                ("logs", exports.logger),
            )
            if found
        ]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, []),
        ({ENDPOINT: "  "}, []),
        ({"OTEL_TRACES_SAMPLER": "always_on", "OTEL_SERVICE_NAME": "x"}, []),
        ({ENDPOINT: NOBODY}, ["traces", "metrics", "logs"]),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": NOBODY}, ["logs"]),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ["traces"]),
        ({"OTEL_TRACES_EXPORTER": "otlp,console"}, ["traces"]),
        ({ENDPOINT: NOBODY, "OTEL_TRACES_EXPORTER": "none"}, ["metrics", "logs"]),
        ({ENDPOINT: NOBODY, "OTEL_METRICS_EXPORTER": "prometheus"}, ["traces", "logs"]),
        ({ENDPOINT: NOBODY, "OTEL_LOGS_EXPORTER": " "}, ["traces", "metrics", "logs"]),
        ({ENDPOINT: NOBODY, "OTEL_SDK_DISABLED": "True"}, []),
        ({ENDPOINT: NOBODY, "OTEL_SDK_DISABLED": "false"}, ["traces", "metrics", "logs"]),
    ],
)
def test_what_is_sent_is_what_the_environment_asks_for(variables, environment, expected):
    variables(**environment)
    assert made() == expected


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("OTEL_TRACES_EXPORTER", "jaeger", r"OTEL_TRACES_EXPORTER: no exporter 'jaeger' of traces"),
        ("OTEL_TRACES_EXPORTER", "otlp,jaeger", "there are console, none, otlp"),
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "carrier-pigeon",
            "OTEL_EXPORTER_OTLP_PROTOCOL: 'carrier-pigeon' is not one of grpc, http/protobuf",
        ),
        (
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "http/protobuf",
            "pip install opentelemetry-exporter-otlp-proto-http, or set",
        ),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "could not convert string to float: 'soon'"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip", '"zip" for compression'),
    ],
)
def test_a_variable_that_cannot_be_followed_is_named(variables, variable, value, says):
    variables(**{ENDPOINT: NOBODY, variable: value})
    with pytest.raises(SettingsError, match=says):
        made()


def test_the_environment_names_a_host_better_than_we_do(variables):
    variables(OTEL_SERVICE_NAME="spend", OTEL_RESOURCE_ATTRIBUTES="a=b,service.version=9")
    told = describe("costd", version="1", name="here").attributes
    assert (told["service.name"], told["service.version"], told["a"]) == ("spend", "9", "b")
    assert told["service.instance.id"] == "here"
