"""Print the part of the lock file that an installation needs, with its hashes.

    python deploy/image/pinned.py coordinator > needed.txt
    pip install --require-hashes -r needed.txt

The lock file says of each package who wants it (`# via`), so that nothing has to be resolved anew,
and what is installed is what was tested. Needs nothing but Python.
"""

import argparse
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Pin(NamedTuple):
    """One package of the lock file."""

    name: str
    wanted_by: frozenset[str]
    text: str


def read_pins(text: str) -> Iterator[Pin]:
    """Take a lock file apart, package by package."""
    for block in re.split(r"^(?=\S)", text, flags=re.MULTILINE):
        found = re.match(r"[\w.-]+", block)
        if found is None:
            continue
        wanted_by = re.findall(r"^ +#(?: via)? +(.+)$", block, re.MULTILINE)
        yield Pin(normal(found[0]), frozenset(map(normal, wanted_by)), block)


def wanted(project: dict[str, Any], extras: Iterable[str]) -> set[str]:
    """Name what the project itself wants with these extras.

    Errors: KeyError for an extra that it has not.
    """
    names: set[str] = set()
    optional = project["optional-dependencies"]
    for each in [project["dependencies"], *(optional[extra] for extra in extras)]:
        for requirement in each:
            name, inner = re.match(r"([\w.-]+)(?:\[([^\]]*)\])?", requirement).groups()
            if name == project["name"]:
                names |= wanted(project, [extra.strip() for extra in inner.split(",")])
            else:
                names.add(normal(name))
    return names


def needed(pins: Iterable[Pin], names: set[str], without: set[str]) -> list[Pin]:
    """Keep the pins of these packages and of all that they want in turn."""
    pins = list(pins)
    unknown = (names | without) - {pin.name for pin in pins}
    if unknown:
        raise KeyError(f"{', '.join(sorted(unknown))}: not in the lock file; run `make lock`")
    kept = names - without
    while more := {p.name for p in pins if p.wanted_by & kept} - kept - without:
        kept |= more
    return [pin for pin in pins if pin.name in kept]


def normal(name: str) -> str:
    """Write a package's name the one way that names are compared by."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> int:
    """Do what the module says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("extras", nargs="*", help="extras of pyproject.toml, or `build` alone")
    parser.add_argument("--without", nargs="*", default=[], help="packages to leave out")
    parser.add_argument("--only", action="store_true", help="the extras, without what costd needs")
    given = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    if given.only:
        project["dependencies"] = []
    try:
        names = wanted(project, given.extras)
        pins = read_pins((ROOT / "requirements.lock").read_text())
        kept = needed(pins, names, set(map(normal, given.without)))
    except KeyError as error:
        known = ", ".join(sorted(project["optional-dependencies"]))
        sys.stderr.write(f"pinned.py: {error.args[0]} (extras are {known})\n")
        return 2
    sys.stdout.write("".join(pin.text for pin in kept))
    return 0


if __name__ == "__main__":
    sys.exit(main())
