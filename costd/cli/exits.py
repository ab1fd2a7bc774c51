"""Exit codes of costctl, and the one exception that carries them (docs/reference/costctl.md)."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a script can branch on."""

    OK = 0
    """Done; for `admit` and `explain`: allowed or degraded."""
    ERROR = 1
    """Whoever was asked refused the request, or a file could not be read."""
    USAGE = 2
    """The command line is wrong."""
    DENIED = 3
    """`admit` and `explain`: the verdict is deny."""
    CONFLICT = 4
    """The books say otherwise: no such reservation, closed another way, id used before."""
    UNREACHABLE = 5
    """Nobody answers, or they are not ready."""
    POLICY = 6
    """The policy is not valid, or an expected decision came out differently."""
    UNREACHED = 7
    """`drill`: somebody did not confirm in time."""


class Failure(Exception):
    """End the command with one line on standard error and this exit code."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.ERROR) -> None:
        super().__init__(message)
        self.exit_code = exit_code
