"""Keeps what waits to be recorded in a file, so that it survives the process."""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from costd_client.ids import new_ask_id
from costd_client.lines import append, lock, release

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger("costd_client")


@dataclass(frozen=True, slots=True)
class Entry:
    """One request that the daemon has yet to hear; `method` is of `Admission`, or Abandon."""

    entry_id: str
    method: str
    request: bytes


class Spool:
    """A folder with one append-only file per live process, locked by it.

    Ensures: what a dead process left is adopted by whoever opens the folder next, once; a line
             torn by a crash is skipped. Lines are handed to the kernel at once, so that they
             survive `kill -9`; power loss may cost the last ones.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._path, self._file = self._create()

    def _create(self) -> tuple[Path, int]:
        while True:
            path = self._folder / f"{new_ask_id()}.spool"
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            if lock(path, file, wait=True):
                return path, file
            os.close(file)  # somebody took it for a dead process's before it was locked

    def write(self, op: str, entry: Entry) -> None:
        """Append one line: `hold`, `put` or `done`.

        Errors:  OSError if the disk refuses it; the caller must not count on the entry then.
        """
        append(self._file, _line(op, entry))

    def reject(self, entry: Entry) -> None:
        """Keep for people what the daemon refused for good, in `rejected.jsonl`."""
        with (self._folder / "rejected.jsonl").open("ab") as file:
            file.write(_line("put", entry))

    def forget_all(self) -> None:
        """Empty the file, once nothing waits any more."""
        os.ftruncate(self._file, 0)

    def adopt(self) -> list[Entry]:
        """Take over what dead processes left behind; it stands in this file afterwards.

        Shape:   what cannot be read, or finds no room in this file, is logged and left to others.
        """
        adopted: list[Entry] = []
        for path in sorted(self._folder.glob("*.spool")):
            if path == self._path:
                continue
            try:
                file = os.open(path, os.O_RDWR)
            except FileNotFoundError:
                continue  # somebody else has just adopted it
            except OSError as error:
                log.warning("costd: cannot read what a dead process left: %s", error)
                continue
            try:
                if not lock(path, file):
                    continue  # its process is alive, or somebody else has just adopted it
                left = list(_unfinished(_lines(file)))
                for entry in left:
                    self.write("put", entry)
                path.unlink(missing_ok=True)
                adopted += left
            except OSError as error:
                log.warning("costd: cannot take over what a dead process left: %s", error)
            finally:
                os.close(file)
        return adopted

    def close(self, *, keep: bool) -> None:
        """Let go of the file; delete it unless something in it still waits."""
        if not keep:
            self._path.unlink(missing_ok=True)
        release(self._file)

    def abandon(self) -> None:
        """Close the inherited descriptor after a fork; the file stays the parent's."""
        os.close(self._file)


def _line(op: str, entry: Entry) -> bytes:
    line: dict[str, str] = {"op": op, "id": entry.entry_id}
    if op != "done":
        line |= {"method": entry.method, "request": base64.b64encode(entry.request).decode()}
    return json.dumps(line).encode() + b"\n"


def _lines(file: int) -> Iterator[dict[str, str]]:
    with os.fdopen(os.dup(file), "rb") as stream:
        for line in stream:
            try:
                read = json.loads(line)
            except ValueError:
                log.warning("costd spool: skipped a torn line")
                continue
            if isinstance(read, dict):
                yield read


def _unfinished(lines: Iterator[dict[str, str]]) -> Iterator[Entry]:
    waiting: dict[str, Entry] = {}
    for line in lines:
        try:
            if line["op"] == "done":
                waiting.pop(line["id"], None)
            else:
                request = base64.b64decode(line["request"], validate=True)
                waiting[line["id"]] = Entry(line["id"], line["method"], request)
        except (KeyError, TypeError, binascii.Error):
            log.warning("costd spool: skipped a damaged line")
    yield from waiting.values()
