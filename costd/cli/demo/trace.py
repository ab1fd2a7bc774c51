"""Reads a trace of real calls, and draws for each who made it: from a seed, row by row."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from costd.cli.demo.calls import PlannedCall, drawn
from costd.cli.demo.journal import Usage
from costd.cli.demo.stage import DemoFailed

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
DIGITS_MAX = 9
"""No model takes a thousand million tokens; a longer number is a typing error."""
OUTPUT_BOUNDS = (64, 128, 256, 512, 1024, 2048, 4096)
"""What callers commonly state as the most a model may write."""
OUTPUT_TOKEN_MS = 20
"""A provider writes about fifty tokens a second."""

PROJECTS = {"search": 30, "assistant": 30, "reports": 20, "ops": 12, "sandbox": 8}
USERS = (
    "ada", "ben", "cleo", "dara", "eli", "fay", "gus", "hana", "ivo", "june", "kai", "lena",
    "milo", "nora", "omar", "pia", "quin", "rosa", "sam", "tess", "uma", "vito", "wren", "yara",
)  # fmt: skip
TASK_CLASSES = {
    "chat": 35, "draft": 20, "research": 20, "code_review": 10, "testing": 8, "security_review": 7,
}  # fmt: skip
MODELS: dict[str, dict[tuple[str, str], int]] = {
    "chat": {
        ("anthropic", "claude-haiku-4-5"): 4,
        ("openai", "gpt-5-mini"): 4,
        ("openai", "gpt-5-nano"): 2,
    },
    "draft": {
        ("anthropic", "claude-opus-4-5"): 4,
        ("openai", "gpt-5.2"): 3,
        ("openai", "gpt-5-mini"): 3,
    },
    "research": {("openai", "gpt-5.2"): 6, ("anthropic", "claude-opus-4-5"): 4},
    "code_review": {("anthropic", "claude-opus-4-5"): 7, ("openai", "gpt-5.2"): 3},
    "testing": {("anthropic", "claude-haiku-4-5"): 5, ("openai", "gpt-5.2"): 5},
    "security_review": {("anthropic", "claude-opus-4-5"): 8, ("openai", "gpt-5.2"): 2},
}
CACHED_SHARES = (0, 0, 0, 25, 50)
"""How much of a prompt the provider had cached, in percent, equally often."""
ESTIMATE_SHARES = (90, 110)
"""Callers guess their prompt's tokens to about a tenth."""


@dataclass(frozen=True, slots=True)
class Row:
    """One call of a trace; `offset_s` is counted from the first one."""

    index: int
    offset_s: float
    prompt_tokens: int
    output_tokens: int


def read_trace(path: Path, limit_count: int = 0) -> list[Row]:
    """Read a CSV file with the columns TIMESTAMP, ContextTokens and GeneratedTokens.

    Shape:   `limit_count` reads so many rows at most, 0 all of them; rows need not be sorted.
    Errors:  DemoFailed naming file, line, column, what is wrong and what belongs there.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(_rows(path, csv.DictReader(file, strict=True), limit_count))
    except OSError as error:
        raise DemoFailed(f"{path}: {error.strerror}; name a CSV file with TRACE=") from error
    except UnicodeDecodeError as error:
        raise DemoFailed(f"{path}: not UTF-8 text; name a CSV file with TRACE=") from error
    if not rows:
        raise DemoFailed(f"{path}: no rows after the header; a trace needs at least one call")
    rows.sort(key=lambda row: row[0])
    start = rows[0][0]
    return [
        Row(index, (moment - start) / timedelta(seconds=1), prompt, output)
        for index, (moment, prompt, output) in enumerate(rows)
    ]


def _rows(
    path: Path, reader: "csv.DictReader[str]", limit_count: int
) -> Iterator[tuple[datetime, int, int]]:
    try:
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise DemoFailed(
                f"{path}:1: no column {', '.join(missing)}; the header must have "
                f"{', '.join(COLUMNS)}"
            )
        for count, row in enumerate(reader, 1):
            yield _read_row(f"{path}:{reader.line_num}", row)
            if count == limit_count:
                return
    except csv.Error as error:
        raise DemoFailed(
            f"{path}:{reader.reader.line_num}: not CSV: {error}; mend the line"
        ) from error


def _read_row(where: str, row: dict[str | Any, Any]) -> tuple[datetime, int, int]:
    stamp, *counts = (row[name] for name in COLUMNS)
    if None in (stamp, *counts) or None in row:
        raise DemoFailed(f"{where}: the row has not as many fields as the header; mend the line")
    try:
        moment = datetime.fromisoformat(stamp.strip())
    except ValueError as error:
        raise DemoFailed(
            f"{where}: TIMESTAMP {stamp[:40]!r} is not a time; write 2023-11-16 18:15:46.68"
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    prompt, output = (
        _read_count(where, name, text) for name, text in zip(COLUMNS[1:], counts, strict=True)
    )
    return moment, prompt, output


def _read_count(where: str, name: str, text: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX):
        raise DemoFailed(
            f"{where}: {name} {text[:40]!r} is not a count of tokens; write a whole number from 0"
        )
    return int(text)


def plan(row: Row, seed: int, *, speed: float = 0.0) -> PlannedCall:
    """Draw who makes a call, for what and with which model; the trace says how long it is.

    Shape:   the same for the same row and seed, however many workers share the trace.
    Units:   `speed` is how many seconds of the trace pass in one; 0 makes calls instant.
    """
    draw = drawn(seed, "row", row.index)
    task_class = _pick(draw, TASK_CLASSES)
    provider, model = _pick(draw, MODELS[task_class])
    guess = row.prompt_tokens * draw.randint(*ESTIMATE_SHARES) // 100
    bound = next((each for each in OUTPUT_BOUNDS if each >= row.output_tokens), row.output_tokens)
    return PlannedCall(
        labels={"project": _pick(draw, PROJECTS), "user": draw.choice(USERS)},
        task_class=task_class,
        provider=provider,
        model=model,
        prompt_tokens=guess,
        max_output_tokens=bound * draw.choice((1, 1, 2)),
        usage=Usage(
            prompt_tokens=row.prompt_tokens,
            output_tokens=row.output_tokens,
            cached_tokens=row.prompt_tokens * draw.choice(CACHED_SHARES) // 100,
        ),
        index=row.index,
        lasts_s=row.output_tokens * OUTPUT_TOKEN_MS / 1000 / speed if speed else 0.0,
    )


def _pick(draw: Any, weights: dict[Any, int]) -> Any:
    return draw.choices(list(weights), list(weights.values()))[0]
