"""`costd injector --patch`: manifests in, the same with sidecars out."""

import json

import pytest
from patched_pods import rule_faults, schema_faults, sidecar_of
from ruamel.yaml import YAML
from typer.testing import CliRunner

from costd.cli.costd import app

DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: agents, namespace: research}
spec:
  selector: {matchLabels: {app: agents}}
  template:
    metadata: {labels: {app: agents}}
    spec:
      containers: [{name: app, image: app}]
"""
CRON = """\
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  schedule: "0 3 * * *"
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{name: app, image: app}]
"""
SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80}]}\n"
POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: a, image: b}]}\n"


def run(text, *flags):
    return CliRunner().invoke(app, ["injector", "--patch", "-", *flags], input=text)


def documents(text):
    return list(YAML(typ="safe").load_all(text))


def test_every_pod_in_a_stream_gets_its_sidecar_and_the_rest_stays():
    done = run(f"{DEPLOYMENT}---\n{SERVICE}---\n{CRON}---\n{POD}")
    assert done.exit_code == 0
    deployment, service, cron, pod = documents(done.stdout)
    assert service == documents(SERVICE)[0]
    for each in (
        deployment["spec"]["template"],
        cron["spec"]["jobTemplate"]["spec"]["template"],
        pod,
    ):
        assert sidecar_of(each)
        assert not rule_faults(each)
        whole = {"metadata": each["metadata"], "spec": each["spec"]}
        assert not schema_faults(whole)
    assert "Deployment agents: injected" in done.stderr
    assert "CronJob nightly: injected" in done.stderr


def test_patching_what_was_patched_changes_nothing():
    once = run(DEPLOYMENT)
    again = run(once.stdout)
    assert documents(again.stdout) == documents(once.stdout)
    assert "already_injected" in again.stderr


def test_a_list_and_json_are_read_as_well():
    items = documents(DEPLOYMENT) + documents(SERVICE)
    done = run(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    (listed,) = documents(done.stdout)
    assert sidecar_of(listed["items"][0]["spec"]["template"])
    assert listed["items"][1] == items[1]


def test_the_settings_hold():
    done = run(POD, "--sidecar-image", "mirror.example/costd:2")
    assert sidecar_of(documents(done.stdout)[0])["image"] == "mirror.example/costd:2"


def test_a_pod_that_is_kept_out_is_told_and_nothing_is_printed():
    done = run(POD.replace("{name: p}", "{name: p, annotations: {costd.dev/cpu: fast}}"))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "Pod p: bad_annotation: costd.dev/cpu: 'fast' is no amount" in done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "line 1: not YAML"),
        ("a: b", "a document has no kind"),
        ("- 1", "a document has no kind"),
        ("kind: Deployment", "the Deployment has no spec"),
        ("kind: CronJob\nspec: {jobTemplate: []}", "the CronJob has no jobTemplate"),
    ],
)
def test_what_is_no_manifest_is_named(text, says):
    done = run(text)
    assert done.exit_code == 1
    assert says in done.stderr


def test_a_file_that_is_not_there_is_named(tmp_path):
    done = CliRunner().invoke(app, ["injector", "--patch", str(tmp_path / "none.yaml")])
    assert done.exit_code == 1
    assert "none.yaml: No such file or directory" in done.stderr
