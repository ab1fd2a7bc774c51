"""Completion in a real shell, by the scripts that the programs write themselves."""

import subprocess
import sys
from pathlib import Path

import pytest

from costd.cli.costd import PROGRAMS as PROGRAMS_OF_COSTD

PROGRAMS = Path(sys.executable).parent
COMPLETE = """
eval "$(_{upper}_COMPLETE=source_bash {program})"
COMP_WORDS=({words}) COMP_CWORD={index}
_{program}_completion {program}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def completed(line):
    """What bash offers for the last word of a line; an empty word is written ''."""
    words = line.split(" ")
    script = COMPLETE.format(
        program=words[0], words=line, index=len(words) - 1, upper=words[0].upper()
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env={"PATH": f"{PROGRAMS}:/usr/bin:/bin", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("costd ''", {*PROGRAMS_OF_COSTD, "version"}),
        ("costd serve --control-l", {"--control-listen"}),
        ("costctl policy r", {"reload", "rollback"}),
        ("costctl policy no-such-thing-", set()),
    ],
)
def test_bash_completes_commands_and_flags(line, offered):
    assert completed(line) == offered


@pytest.mark.parametrize("program", ["costd", "costctl"])
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_script_for_each_shell(program, shell):
    done = subprocess.run(
        [PROGRAMS / program],
        env={f"_{program.upper()}_COMPLETE": f"source_{shell}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"_{program.upper()}_COMPLETE=complete_{shell}" in done.stdout
