"""What is wrong with a file, where, and what to do about it."""

from collections.abc import Iterable
from typing import NamedTuple

from costd.errors import InvalidPolicy

PROBLEMS_SHOWN_MAX = 50

Path = tuple[str | int, ...]
"""Keys and list positions from the top of the file down to one value."""


class Problem(NamedTuple):
    """One thing that is wrong; `text` says what, then what to do."""

    line: int
    path: str
    text: str

    def show(self, name: str) -> str:
        """Write it as `FILE:LINE: path: what is wrong; what to do`."""
        return f"{name}:{self.line}: {self.path}: {self.text}"


def write_path(path: Path) -> str:
    """Write a path as people do: `budgets[2].steps[0].at`."""
    written = ""
    for part in path:
        if isinstance(part, int):
            written += f"[{part}]"
        else:
            written += f".{part}" if written else part
    return written or "(top)"


def refuse(name: str, problems: Iterable[Problem]) -> InvalidPolicy:
    """Make the one error that lists every problem in the order of the file's lines."""
    ordered = sorted(set(problems))
    shown = [problem.show(name) for problem in ordered[:PROBLEMS_SHOWN_MAX]]
    if len(ordered) > PROBLEMS_SHOWN_MAX:
        shown.append(f"{name}: and {len(ordered) - PROBLEMS_SHOWN_MAX} more; fix these first")
    return InvalidPolicy("\n".join(shown))
