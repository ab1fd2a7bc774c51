"""The program `costd` itself: what it lists, and what it imports for it."""

import gc
import inspect
import subprocess
import sys

import pytest

from costd.cli.costd import PROGRAMS, load

IMPORTED = """
import sys
from costd.cli import costd
try:
    costd.app(sys.argv[1:])
except SystemExit as end:
    print(end.code)
print(*sorted(sys.modules))
"""

WITHOUT = """
import sys
from costd.cli.costd import app
sys.modules.update(dict.fromkeys(sys.argv[1].split(",")))
app(sys.argv[2:])
"""


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_list_says_of_each_program_what_its_own_help_begins_with(name):
    first, _, _ = inspect.cleandoc(load(name).help).partition("\n")
    assert first == PROGRAMS[name][1]


@pytest.mark.parametrize("name", ["serve", "coordinator", "injector", "up"])
def test_the_help_of_what_runs_on_says_how_it_is_ended_and_how_it_ends(name):
    told = inspect.cleandoc(load(name).help)
    for about in ("Signals: SIGTERM", "Exit codes: 0 stopped", f"Example: costd {name} --"):
        assert f"\n\n{about}" in told


def test_help_lists_every_program_and_imports_none():
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, "--help"], capture_output=True, text=True, check=True
    )
    shown, _, modules = done.stdout.rstrip().rpartition("\n")
    assert all(name in shown for name in PROGRAMS)
    assert not {"grpc", "pydantic", "rocksdict", "psycopg"} & set(modules.split())


@pytest.mark.parametrize(
    ("missing", "arguments", "extra"),
    [
        ("psycopg", ["coordinator"], "coordinator"),
        ("starlette", ["injector", "--bootstrap", "--sidecar-image", "costd"], "injector"),
    ],
)
def test_a_program_without_its_packages_says_what_to_install(missing, arguments, extra):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, missing, *arguments],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == f"costd: {extra} needs more packages: pip install 'costd[{extra}]'\n"


def test_a_fault_of_our_own_is_not_blamed_on_a_package():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, "costd.coordinator.settings", "coordinator"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert "ModuleNotFoundError" in done.stderr


def test_the_collector_rests_while_a_program_is_imported_and_no_longer(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "resting.py").write_text(
        "import gc\nWAS_ENABLED = gc.isenabled()\ndef rest(): 'Rest.'\n"
    )
    (tmp_path / "broken.py").write_text("1 / 0")
    monkeypatch.setitem(PROGRAMS, "rest", ("resting", "Rest."))
    monkeypatch.setitem(PROGRAMS, "fall", ("broken", "Fall."))
    load("rest")
    assert not sys.modules["resting"].WAS_ENABLED
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        load("fall")
    assert gc.isenabled()
