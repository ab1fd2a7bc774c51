"""What the callers saw, a line of JSON per call; knows nothing of costd."""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

FLUSH_BYTES = 16 * 1024
"""About forty calls; `flush` writes fewer."""


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the pretended provider measured."""

    prompt_tokens: int
    output_tokens: int
    cached_tokens: int = 0


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call: what was asked, what the daemon answered, and how it was closed.

    `ending` is settled, voided or denied. `index` numbers the calls of a trace, in its order.
    """

    at_ns: int
    ask_id: str
    labels: dict[str, str]
    task_class: str
    asked_provider: str
    asked_model: str
    prompt_tokens: int
    max_output_tokens: int
    verdict: str
    reason: str
    tier: str
    provider: str
    model: str
    ending: str
    index: int = -1
    hold_nusd: int = 0
    directives: dict[str, int] = {}
    """Those that were asked for, by name; flags are 1."""
    rule: str = ""
    upgrade_text: str = ""
    grant_id: str = ""
    grant_refusal: int = 0
    reservation_id: str = ""
    source: str = "daemon"
    """Who decided; `allowance` is the caller's own process."""
    usage: Usage | None = None
    cost_nusd: int = 0
    """As the daemon priced it."""
    overrun_nusd: int = 0
    retry_count: int = 0
    asking_ns: int = 0
    """How long the answer took."""

    def facts(self) -> Mapping[str, str]:
        """What a rule could select this call by, as it was decided."""
        return self.labels | {
            "task_class": self.task_class,
            "tier": self.tier,
            "provider": self.provider,
            "model": self.model,
        }


class JournalWriter:
    """Appends entries to one file; not shared between processes."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._waiting = io.BytesIO()
        self._encode = msgspec.json.Encoder().encode

    def write(self, entry: msgspec.Struct) -> None:
        """Append one call."""
        self._waiting.write(self._encode(entry) + b"\n")
        if self._waiting.tell() > FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Let readers see what was written."""
        waiting = self._waiting.getvalue()
        if waiting:
            self._file.write(waiting)
            self._waiting = io.BytesIO()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.flush()
        self._file.close()


class JournalReader:
    """Follows the journals of all workers while they grow."""

    def __init__(self, paths: list[Path]) -> None:
        for path in paths:
            path.touch()
        self._files = [path.open("rb") for path in paths]
        self._rests = [b""] * len(paths)
        self._decode = msgspec.json.Decoder(Entry).decode

    def new(self) -> Iterator[Entry]:
        """Yield the calls written since the last time, journal by journal."""
        for at, file in enumerate(self._files):
            *lines, rest = (self._rests[at] + file.read()).split(b"\n")
            self._rests[at] = rest
            yield from map(self._decode, lines)

    def close(self) -> None:
        """Stop following."""
        for file in self._files:
            file.close()
