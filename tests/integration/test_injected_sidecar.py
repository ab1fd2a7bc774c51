"""The sidecar that is written into pods, run: the real daemon under its environment and commands."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from injecting import POD

from costd.injector.patch import inject
from costd.injector.settings import Settings
from costd.testing.process import CostdProcess

POLICY = Path(__file__).parents[2] / "policies" / "quickstart.yaml"
FIELDS = {
    "metadata.namespace": "research",
    "metadata.name": "agents-6c9f7d5b8-x2x4z",
    "spec.serviceAccountName": "runner",
    "metadata.labels['costd.dev/label-agent']": "coder",
}


class Sidecar(CostdProcess):
    """What the kubelet would start, with its volumes in a directory."""

    READY = "serving"

    def __init__(self, container):
        super().__init__()
        self.container = container
        paths = [each["mountPath"] for each in container["volumeMounts"]]
        values = {}
        for each in container["env"]:
            value = each.get("value") or FIELDS[each["valueFrom"]["fieldRef"]["fieldPath"]]
            for other, known in values.items():
                value = value.replace(f"$({other})", known)
            values[each["name"]] = value
        for path in paths:
            (self.directory / path.lstrip("/")).mkdir(parents=True)
        self.environment = {name: self.rooted(value, paths) for name, value in values.items()}
        self.environment["COSTD_METRICS_LISTEN"] = "127.0.0.1:0"

    def rooted(self, value, paths):
        """Put paths of the container into the directory."""
        for path in paths:
            value = value.replace(f"{path}/", f"{self.directory}{path}/")
        return value

    def command(self):
        """What is run, but for the program itself."""
        program, *arguments = self.container["command"]
        assert program == "costd"
        return arguments

    def run(self, *words):
        """Run a command of the container beside it."""
        return subprocess.run(
            [sys.executable, "-m", "costd.cli.costd", *words],
            check=False, capture_output=True, text=True, timeout=60,
            env={**os.environ, **self.environment},
        )  # fmt: skip


@pytest.fixture(scope="module", params=["native", "container"])
def running(request):
    labels = {"costd.dev/label-agent": "coder"}
    annotations = {"costd.dev/claims": "security_review", "costd.dev/mode": request.param}
    pod = POD | {"metadata": {"name": "a", "labels": labels, "annotations": annotations}}
    spec = inject(pod, "research", Settings().rules).pod["spec"]
    listed = (
        [*spec["initContainers"], *spec["containers"]]
        if request.param == "native"
        else spec["containers"]
    )
    (container,) = [each for each in listed if each["name"] == "costd"]
    sidecar = Sidecar(container)
    policy = Path(sidecar.environment["COSTD_POLICY"])
    policy.write_text(POLICY.read_text())
    with sidecar as started:
        yield started


def test_the_daemon_starts_and_has_its_name(running):
    assert running.environment["COSTD_NAME"] == "research.agents-6c9f7d5b8-x2x4z"
    assert not [line for line in running.lines if line.get("level") == "error"]


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_its_probes_say_that_it_serves(running, probe):
    program, *words = running.container[probe]["exec"]["command"]
    assert program == "costd"
    done = running.run(*words)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_it_runs_before_it_is_stopped_ends(running):
    if "lifecycle" in running.container:
        _, *words = running.container["lifecycle"]["preStop"]["exec"]["command"]
        done = running.run(*words, "--quiet-s", "0")
        assert done.returncode == 0, done.stderr


def test_an_agent_cannot_claim_another_label(running):
    environment = {**os.environ, "COSTD_ADDRESS": running.environment["COSTD_SOCKET"]}

    def ask(label):
        words = shlex.split(
            f"admit --class draft --model openai/gpt-4o-mini --cost 0.01 --label {label}"
        )
        return subprocess.run(
            [sys.executable, "-m", "costd.cli.costctl", *words],
            check=False, capture_output=True, text=True, timeout=60, env=environment,
        )  # fmt: skip

    refused = ask("team=other")
    assert refused.returncode == 1
    assert "team" in refused.stderr
    assert "fixed" in refused.stderr
    assert "fixed" not in ask("team=research").stderr
