"""What is wrong with a file, where, and what to do about it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from costd.errors import InvalidPolicy

PROBLEMS_SHOWN_MAX = 50
TEXT_SHOWN_MAX = 60

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


def show(value: Any) -> str:
    """Quote a value for a message: on one line, and shortened."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = value if isinstance(value, str) else type(value).__name__
    return repr(text if len(text) <= TEXT_SHOWN_MAX else text[:TEXT_SHOWN_MAX] + "…")


def write_path(path: Path) -> str:
    """Write a path as people do: `budgets[2].steps[0].at`."""
    written = ""
    for part in path:
        if isinstance(part, int):
            written += f"[{part}]"
            continue
        plain = part.isprintable() and 0 < len(part) <= TEXT_SHOWN_MAX
        written += ("." if written else "") + (part if plain else show(part))
    return written or "(top)"


def refuse(name: str, problems: Sequence[Problem], more_count: int = 0) -> InvalidPolicy:
    """Make the one error that lists problems in the order of the file's lines.

    `more_count` problems further down were not even put into words.
    """
    ordered = sorted(set(problems))
    shown = [problem.show(name) for problem in ordered[:PROBLEMS_SHOWN_MAX]]
    more_count += max(0, len(ordered) - PROBLEMS_SHOWN_MAX)
    if more_count:
        line = ordered[: PROBLEMS_SHOWN_MAX + 1][-1].line
        shown.append(f"{name}:{line}: (file): and {more_count} more; mend these first")
    return InvalidPolicy("\n".join(shown))
