"""What operators read of settings, metrics and logs is what the code has: no more, and no less."""

import ast
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic_core import PydanticUndefined

from costd.coordinator import meters as coordinator_meters
from costd.coordinator import settings as coordinator_settings
from costd.daemon import meters as daemon_meters
from costd.daemon import settings as daemon_settings
from costd.injector import meters as injector_meters
from costd.injector import settings as injector_settings
from costd.serving.metered import meter_certificate

ROOT = Path(__file__).parents[2]
OPERATING = ROOT / "docs" / "operating"
METRICS = (OPERATING / "metrics.md").read_text()
SETTINGS = (OPERATING / "settings.md").read_text()
LEVELS = {"debug", "info", "warning", "error"}


def rows(text):
    """The rows of a page's tables, cell by cell."""
    return [
        [cell.strip() for cell in line.strip("| ").split(" | ")]
        for line in text.splitlines()
        if line.startswith("| `")
    ]


def between(text, begin, end):
    """A part of a page; both must be there."""
    _, found, rest = text.partition(begin)
    part, also_found, _ = rest.partition(end)
    assert found
    assert also_found
    return part


# ---- metrics ------------------------------------------------------------------------------------


class Named:
    """Takes down which instruments are made, as Prometheus calls them."""

    def __init__(self):
        self.kinds = {}

    def counter(self, name, _description, _read):
        self.kinds[f"{name}_total"] = "counter"

    def gauge(self, name, _description, _read):
        self.kinds[name] = "gauge"

    def durations(self, name, _description, _read):
        """Said in words."""


@pytest.mark.parametrize(
    ("begin", "end", "make"),
    [
        (
            "A daemon in a fleet has these as well:",
            "A coordinator serves these",
            lambda metrics: daemon_meters.meter_fleet(metrics, SimpleNamespace(tenancy=None)),
        ),
        (
            "A coordinator serves these",
            "An injector serves these",
            lambda metrics: coordinator_meters.meter_fleet(metrics, *4 * [None], alerts=None),
        ),
        (
            "An injector serves these",
            "A host that has a certificate",
            lambda metrics: injector_meters.meter_injector(metrics, None),
        ),
        (
            "A host that has a certificate",
            "Beside them:",
            lambda metrics: meter_certificate(metrics, SimpleNamespace()),
        ),
    ],
    ids=["daemon", "coordinator", "injector", "certificate"],
)
def test_the_metrics_of_a_fleet_are_those_that_the_page_lists(begin, end, make):
    """Those of a daemon by itself are compared with what a running one serves, in test_serve."""
    metrics = Named()
    make(metrics)
    listed = {row[0].strip("`"): row[1] for row in rows(between(METRICS, begin, end))}
    assert listed == metrics.kinds


@pytest.mark.parametrize(
    ("folders", "counted", "metric"),
    [
        (("engine", "daemon"), daemon_meters.ALERTS, "costd_alerts_total"),
        (("coordinator",), coordinator_meters.ALERTS, "costd_fleet_alerts_total"),
    ],
    ids=["daemon", "coordinator"],
)
def test_every_kind_of_alert_is_counted_from_the_start(folders, counted, metric):
    kinds = {
        word.value
        for folder in folders
        for path in (ROOT / "costd" / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Alert"
        for keyword in node.keywords
        if keyword.arg == "kind"
        for word in ast.walk(keyword.value)
        if isinstance(word, ast.Constant)
    }
    if folders == ("coordinator",):  # which raises for the fleet what the engine finds
        kinds |= {"threshold", "burn_rate", "kill_engaged"}
    assert kinds == set(counted)
    (row,) = (row for row in rows(METRICS) if row[0] == f"`{metric}`")
    assert kinds == set(row[2].partition(": ")[2].split(", "))


# ---- settings -----------------------------------------------------------------------------------


def written(default):
    """A default the way that the page writes it."""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, dict):
        default = [f"{key}={value}" for key, value in default.items()]
    if isinstance(default, list | tuple):
        default = " ".join(default)
    if default in (None, "") or not default:
        return "none" if not isinstance(default, int | float) else str(default)
    return str(default)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (daemon_settings.Settings, SETTINGS.partition("# Settings of a coordinator")[0]),
        (
            coordinator_settings.Settings,
            between(SETTINGS, "# Settings of a coordinator", "# Settings of an injector"),
        ),
        (
            injector_settings.Settings,
            between(SETTINGS, "# Settings of an injector", "# One machine"),
        ),
    ],
    ids=["daemon", "coordinator", "injector"],
)
def test_the_defaults_are_those_that_the_page_lists(settings, text):
    """Those that depend on the machine or on other settings are said in words."""
    listed = {row[0].strip("`"): re.sub(r"[`,\\]", "", row[1]) for row in rows(text)}
    # A daemon has no policy by default, and then does not start.
    listed = {name: "none" if default == "needed" else default for name, default in listed.items()}
    fixed = {
        name: getattr(field.default, "get_secret_value", lambda field=field: field.default)()
        for name, field in settings.model_fields.items()
        if field.default_factory is None and field.default is not PydanticUndefined
    }
    assert {name: listed[name] for name in fixed} == {
        name: written(default) for name, default in fixed.items()
    }


# ---- logs ---------------------------------------------------------------------------------------


def logged():
    """Every event that a host logs, with its levels."""
    found = {}
    for folder in ("daemon", "coordinator", "injector", "serving"):
        for path in (ROOT / "costd" / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                    continue
                owner = ast.unparse(node.func.value)
                if node.func.attr in LEVELS and owner.endswith("log"):
                    found.setdefault(ast.literal_eval(node.args[0]), set()).add(node.func.attr)
    return found


def test_every_event_that_is_logged_is_listed_with_its_level():
    listed = {}
    for events, levels, _ in rows(METRICS.partition("## Logs")[2]):
        names, of_each = re.findall("`([a-z_]+)`", events), levels.split(", ")
        if len(of_each) != len(names):
            of_each = [levels] * len(names)
        for name, level in zip(names, of_each, strict=True):
            listed.setdefault(name, set()).update(level.split(" or "))
    assert listed == logged()
