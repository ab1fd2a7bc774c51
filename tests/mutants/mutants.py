"""`make mutants`: puts one mistake at a time into copies of the engine and of the fleet's protocol, and
shows which test or simulated order of events catches it; what none does needs a word."""

import argparse
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from mutating import Mutant, mutants_of
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
WORDS = Path(__file__).with_name("words.yaml")
KEPT = ROOT / "build" / "mutants.jsonl"

FLEET = ["tests/simulation/orders.py::test_the_books_of_a_fleet_add_up_in_order"]
ALL_ORDERS = ["tests/simulation/orders.py"]
ENGINE = ["tests/unit/engine", "tests/property/test_engine_books.py"]
COORDINATOR = ["tests/unit/coordinator", *FLEET]
DAEMON = [
    "tests/unit/daemon/test_borrow.py",
    "tests/unit/daemon/test_held.py",
    "tests/unit/daemon/test_tenancy.py",
    "tests/unit/daemon/test_ledger_leases.py",
    *FLEET,
]
LENDING = ["tests/unit/engine/test_lend.py", "tests/property/test_lending.py", *FLEET]

LEASES = {
    "costd/engine/apportion.py": LENDING,
    "costd/engine/lend.py": LENDING,
    "costd/engine/shares.py": [
        "tests/unit/engine/test_shared_rates.py",
        "tests/property/test_fleet_shares.py",
        *FLEET,
    ],
    "costd/coordinator/enrolling.py": COORDINATOR,
    "costd/coordinator/exchange.py": COORDINATOR,
    "costd/coordinator/lendable.py": COORDINATOR,
    "costd/coordinator/reception.py": COORDINATOR,
    "costd/coordinator/stands.py": COORDINATOR,
    "costd/daemon/fleet/borrow.py": DAEMON,
    "costd/daemon/fleet/held.py": DAEMON,
    "costd/daemon/books/lent.py": DAEMON,
    "costd/daemon/fleet/reports.py": DAEMON,
    "costd/daemon/fleet/tenancy.py": DAEMON,
}
"""The lease code, and what is run on each mutant of it, until something fails."""
OTHERS = {
    "costd/engine/leases.py": ["tests/property/test_engine_leases.py"],
    "costd/engine/rate.py": ["tests/property/test_engine_rates.py"],
    "costd/engine/rated.py": ["tests/property/test_engine_rates.py"],
    "costd/engine/window.py": ["tests/property/test_engine_windows.py"],
}
"""What touches the other modules of the engine besides `ENGINE`."""

SEED = 1
COUNT = 40
"""A minute or two on two cores."""
CPU_S_MAX = 90
WALL_S_MAX = 1_800
MEMORY_BYTES_MAX = 8 << 30
"""Of one run of tests: a mutant may loop, wait, or gather for ever. Tests take a fifth of it."""
PYTEST = (
    "pytest",
    "-x",
    "-q",
    "--tb=no",
    "-rfE",
    *("-p", "no:cacheprovider", "-p", "pytest_asyncio.plugin", "-p", "_hypothesis_pytestplugin"),
    "--hypothesis-profile=mutants",
)
COPIED = ("clients", "costd", "policies", "proto", "tests", "pyproject.toml")


class Fate(NamedTuple):
    """What became of a mutant."""

    is_caught: bool
    by: str = ""
    """The test, with its seed where it is an order of events."""


class Finding(NamedTuple):
    """A mutant, what became of it, and what is said of it if it survives."""

    mutant: Mutant
    fate: Fate
    word: str


def targets() -> dict[str, list[str]]:
    """Every module that is looked at, the lease code first, and the tests for it."""
    found = dict(LEASES)
    for path in sorted((ROOT / "costd/engine").glob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        found.setdefault(name, [*ENGINE, *OTHERS.get(name, []), *ALL_ORDERS])
    return found


def sample(mutants: Sequence[Mutant], seed: int, count: int) -> list[Mutant]:
    """Choose some, half of them of the lease code; the same ones though other lines change."""

    def rank(mutant: Mutant) -> bytes:
        return hashlib.sha256(repr((seed, mutant.key)).encode()).digest()

    ranked = sorted(mutants, key=rank)
    leases = [each for each in ranked if each.path in LEASES]
    others = [each for each in ranked if each.path not in LEASES]
    half = max(count // 2, count - len(others))
    chosen = {each.key for each in leases[:half]}
    chosen |= {each.key for each in others[: count - len(chosen)]}
    return [each for each in mutants if each.key in chosen]


# ---- words -----------------------------------------------------------------------------------


def words_from(text: str) -> dict[tuple, str]:
    """Read what is said of survivors: file, function, then entries of was, now, nth and word."""
    words = {}
    for path, functions in (YAML(typ="safe").load(text) or {}).items():
        for function, entries in functions.items():
            for each in entries:
                key = (path, function, each["was"], each["now"], each.get("nth", 1))
                if key in words or not each["word"].strip():
                    raise SystemExit(
                        f"words.yaml: {path}:{function}: {each['was']!r}: one word each"
                    )
                words[key] = " ".join(each["word"].split())
    return words


def lost_words(words: dict[tuple, str], mutants: Sequence[Mutant]) -> list[str]:
    """Name the words whose mutants are gone."""
    lost = sorted(words.keys() - {mutant.key for mutant in mutants})
    return [
        f"words.yaml: {path} {function}: nothing turns {was!r} into {now!r} (nth: {nth}) any more; "
        "take its word out"
        for path, function, was, now, nth in lost
    ]


def entry_for(mutant: Mutant) -> str:
    """Write what words.yaml lacks."""
    nth = f"\n      nth: {mutant.nth}" if mutant.nth > 1 else ""
    return (
        f"{mutant.path}:\n  {mutant.function}:\n    - was: {json.dumps(mutant.was)}\n"
        f"      now: {json.dumps(mutant.now)}{nth}\n      word:"
    )


# ---- running ---------------------------------------------------------------------------------


class Trees:
    """Copies of the source, one for each job; mistakes are made in these only."""

    def __init__(self, folder: Path, count: int) -> None:
        self._free: SimpleQueue[Path] = SimpleQueue()
        for number in range(count):
            tree = folder / f"tree-{number}"
            tree.mkdir()
            for name in COPIED:
                if (ROOT / name).is_dir():
                    ignored = shutil.ignore_patterns("__pycache__", "node_modules")
                    shutil.copytree(ROOT / name, tree / name, ignore=ignored)
                else:
                    shutil.copy(ROOT / name, tree / name)
            # What is compiled counts only for the very text it is from: two mutants may well be
            # of one size, and written within one second.
            command = [
                sys.executable,
                "-m",
                "compileall",
                "-q",
                "--invalidation-mode",
                "checked-hash",
            ]
            subprocess.run([*command, "costd", "clients"], cwd=tree, check=True)
            self._free.put(tree)

    def judge(self, tests: Sequence[str], mutant: Mutant | None = None) -> Fate:
        """Run tests until one fails, on a mutant or on the source as it is."""
        tree = self._free.get()
        try:
            if mutant is None:
                return run(tree, tests)
            path = tree / mutant.path
            source = path.read_bytes()
            path.write_bytes(mutant.text(source))
            try:
                return run(tree, tests)
            finally:
                path.write_bytes(source)
        finally:
            self._free.put(tree)


def run(tree: Path, tests: Sequence[str]) -> Fate:
    """Run tests in a tree until one fails."""
    child = subprocess.Popen(
        [sys.executable, "-m", *PYTEST, *tests],
        cwd=tree,
        env={
            **os.environ,
            "COLUMNS": "500",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": f"{tree}:{tree / 'clients/python'}",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    resource.prlimit(child.pid, resource.RLIMIT_CPU, (CPU_S_MAX, CPU_S_MAX))
    resource.prlimit(child.pid, resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    try:
        said, _ = child.communicate(timeout=WALL_S_MAX)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return Fate(is_caught=True, by=f"a timeout of {WALL_S_MAX} s")
    if child.returncode == 0:
        return Fate(is_caught=False)
    if child.returncode in {-signal.SIGKILL, -signal.SIGXCPU}:
        return Fate(is_caught=True, by=f"a timeout of {CPU_S_MAX} s of processor time")
    found = re.search(r"^(?:FAILED|ERROR) (?:collecting )?(.+?)(?: - .*)?$", said, re.MULTILINE)
    return Fate(is_caught=True, by=found[1] if found else said.strip().splitlines()[-1])


@cache
def digest(tests: tuple[str, ...]) -> str:
    """Tell one state of the source and of these tests from every other."""
    folders = {(ROOT / test.partition("::")[0]) for test in tests}
    folders = {folder if folder.is_dir() else folder.parent for folder in folders}
    hashed = hashlib.sha256((ROOT / "tests/conftest.py").read_bytes())
    for folder in sorted({*folders, ROOT / "costd", ROOT / "clients/python"}):
        for path in sorted(folder.rglob("*.py")):
            hashed.update(path.read_bytes())
    return hashed.hexdigest()


class Kept:
    """What is known of mutants of this very source, so that a run that was stopped goes on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tests = targets()
        self.fates: dict[tuple, Fate] = {}
        self.survivors: set[tuple] = set()
        """By whatever source and tests were looked at last."""
        for line in path.read_text().splitlines() if path.exists() else ():
            state, key, fate = json.loads(line)
            key, fate = tuple(key), Fate(*fate)
            (self.survivors.discard if fate.is_caught else self.survivors.add)(key)
            if state == digest(tuple(self._tests.get(key[0], ()))):
                self.fates[key] = fate

    def keep(self, mutant: Mutant, fate: Fate) -> None:
        """Note what became of one."""
        self._path.parent.mkdir(exist_ok=True)
        with self._path.open("a") as file:
            state = digest(tuple(self._tests[mutant.path]))
            file.write(json.dumps([state, mutant.key, fate]) + "\n")


def examine(
    mutants: Sequence[Mutant],
    words: dict[tuple, str],
    *,
    jobs_count: int,
    kept: Kept | None = None,
    advance: Callable[[Finding], None] = lambda _: None,
) -> list[Finding]:
    """Run the tests on every mutant.

    Errors:  SystemExit where tests fail without any.
    """
    if not mutants:
        return []
    tests = targets()
    known = kept.fates if kept else {}
    with tempfile.TemporaryDirectory(prefix="costd-mutants-") as folder:
        trees = Trees(Path(folder), jobs_count)

        def find(mutant: Mutant) -> Finding:
            fate = known.get(mutant.key)
            if fate is None:
                fate = trees.judge(tests[mutant.path], mutant)
                if kept:
                    kept.keep(mutant, fate)
            finding = Finding(mutant, fate, words.get(mutant.key, ""))
            advance(finding)
            return finding

        everything = {
            test for each in mutants if each.key not in known for test in tests[each.path]
        }
        as_it_is = trees.judge(sorted(everything)) if everything else Fate(is_caught=False)
        if as_it_is.is_caught:
            raise SystemExit(f"without any mutant, {as_it_is.by} fails; mend that first")
        with ThreadPoolExecutor(jobs_count) as pool:
            return list(pool.map(find, mutants))


# ---- reporting -------------------------------------------------------------------------------


def report(console: Console, finding: Finding) -> None:
    """Print one mutant and what became of it."""
    mutant, fate = finding.mutant, finding.fate
    style = "red" if not (fate.is_caught or finding.word) else None
    console.print(f"{mutant.path} {mutant.function}", style=style, highlight=False)
    for sign, line in (("-", mutant.was), ("+", mutant.now)):
        console.print(f"  {sign} {line}", style=style, markup=False, highlight=False)
    if fate.is_caught:
        outcome = f"caught by {fate.by}"
    else:
        outcome = f"SURVIVED: {finding.word or 'no word on it'}"
    console.print(f"    {outcome}", style=style, markup=False, highlight=False)


def verdict(console: Console, findings: Sequence[Finding]) -> int:
    """Print the sum of it; 1 if a survivor has no word."""
    survivors = [each for each in findings if not each.fate.is_caught]
    bare = [each for each in survivors if not each.word]
    console.print(
        f"{len(findings)} mutants: {len(findings) - len(survivors)} caught, "
        f"{len(survivors)} survived, {len(bare)} of them without a word"
    )
    for each in findings:
        if each.fate.is_caught and each.word:
            console.print(f"caught by now; its word can go: {each.mutant.key}", highlight=False)
    if bare:
        console.print("write a test that catches it, or a word on it into words.yaml:", style="red")
        for each in bare:
            console.print(entry_for(each.mutant), markup=False, highlight=False, soft_wrap=True)
    return 1 if bare else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Choose, run, report; exit 1 if a survivor has no word, or a word has no mutant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", default=f"{COUNT}", help="how many, or all")
    parser.add_argument("--seed", type=int, default=SEED, help="draws which")
    parser.add_argument("--only", action="append", help="a module's path; may be given again")
    parser.add_argument("--survivors", action="store_true", help="those that survived last only")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    chosen = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    paths = list(targets())
    unknown = [path for path in chosen.only or () if path not in paths]
    if unknown:
        raise SystemExit(f"{unknown[0]} is not looked at; these are: {', '.join(paths)}")
    mutants = [mutant for path in paths for mutant in mutants_of(ROOT, path)]
    words = words_from(WORDS.read_text())
    lost = lost_words(words, mutants)
    for problem in lost:
        console.print(problem, style="red", markup=False)
    kept = Kept(KEPT)
    wanted = [each for each in mutants if not chosen.only or each.path in chosen.only]
    if chosen.survivors:
        wanted = [each for each in wanted if each.key in kept.survivors]
    if chosen.count != "all":
        wanted = sample(wanted, chosen.seed, int(chosen.count))
    console.print(f"{len(wanted)} of {len(mutants):,} mutants, drawn by seed {chosen.seed}")
    started = time.monotonic()
    columns = (TextColumn("mutants"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("mutants", total=len(wanted))

        def advance(finding: Finding) -> None:
            report(console, finding)
            progress.advance(task)

        findings = examine(wanted, words, jobs_count=chosen.jobs, kept=kept, advance=advance)
    console.print(f"took {time.monotonic() - started:.0f} s")
    return max(verdict(console, findings), bool(lost))


if __name__ == "__main__":
    sys.exit(main())
