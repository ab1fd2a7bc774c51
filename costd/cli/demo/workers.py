"""The worker processes of a run, as the demo's own process handles them."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from costd.cli.demo.crew import Assignment, Cue
from costd.cli.demo.journal import JournalReader
from costd.cli.demo.stage import DemoFailed, Stage, plain_environment, tail

END_S = 60
"""A call under way may wait for its answer for half a minute at most."""


class Workers:
    """Some worker processes, their cues and their journals."""

    def __init__(self, folder: Path, processes: list["subprocess.Popen[bytes]"]) -> None:
        self._folder = folder
        self._processes = processes
        self.journals = [folder / _journal(number) for number in range(len(processes))]
        self.reader = JournalReader(self.journals)

    def cue(self, cue: Cue) -> None:
        """Tell every worker who is at work from now on."""
        for process in self._processes:
            assert process.stdin is not None
            try:
                process.stdin.write(msgspec.json.encode(cue) + b"\n")
                process.stdin.flush()
            except BrokenPipeError:
                self.check()

    def check(self) -> bool:
        """Tell whether any still works.

        Errors:  DemoFailed if one failed.
        """
        codes = [process.poll() for process in self._processes]
        for number, code in enumerate(codes):
            if code:
                log = tail(self._folder, _log(number))
                raise DemoFailed(f"worker {number} ended with code {code}:\n{log}")
        return None in codes

    def dismiss(self) -> None:
        """Let everyone finish the call under way, and end."""
        for process in self._processes:
            if process.stdin is not None and not process.stdin.closed:
                process.stdin.close()


@contextmanager
def at_work(stage: Stage, parts: list[Assignment]) -> Iterator[Workers]:
    """Run one worker process for each part until the block ends."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for number, each in enumerate(parts):
            part = msgspec.structs.replace(
                each,
                address=stage.address,
                journal=str(stage.folder / _journal(number)),
                worker=number,
                workers_count=len(parts),
            )
            processes.append(_start(stage.folder / _log(number), part))
        workers = Workers(stage.folder, processes)
        try:
            yield workers
        finally:
            workers.reader.close()
    finally:
        for process in processes:
            _end(process)


def _start(log_path: Path, part: Assignment) -> "subprocess.Popen[bytes]":
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "costd.cli.demo.crew"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=plain_environment(),
        )
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(part) + b"\n")
    process.stdin.flush()
    return process


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.stdin is not None and not process.stdin.closed:
        process.stdin.close()
    if process.poll() is None:
        process.kill()
    process.wait()


def _journal(number: int) -> str:
    return f"journal-{number}.jsonl"


def _log(number: int) -> str:
    return f"worker-{number}.log"
