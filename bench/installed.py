"""costd as users have it: in a virtual environment of its own, with the packages of some extras."""

import atexit
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from packaging.requirements import Requirement

ROOT: Final = Path(__file__).parents[1]
IMAGE: Final = ROOT / "deploy" / "image"
_BYTES_PER_MIB: Final = 2**20


def install(target: Path, extras: Sequence[str]) -> Path:
    """Install from the lock file and this source, as an image is built; returns its Python."""
    subprocess.run(
        ["sh", IMAGE / "install.sh", target, " ".join(extras)],
        check=True,
        stdout=subprocess.DEVNULL,
        env=own_environment(),
    )
    return target / "bin" / "python3"


def link(target: Path, extras: Sequence[str]) -> Path:
    """Make the same quickly, with hard links to the packages that are installed here already."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", target], check=True)
    python = target / "bin" / "python3"
    packages = Path(_packages_of(python))
    for name in _names(extras):
        _link(name, packages)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    offline = ["install", "--quiet", "--no-deps", "--no-index", "--no-compile", wheel()]
    subprocess.run([*pip, *offline], check=True, stderr=subprocess.DEVNULL)
    return python


@cache
def wheel() -> Path:
    """Build the wheel of `costd`, once a run."""
    folder = Path(mkdtemp(prefix="costd-wheel-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return build(ROOT, "costd", folder, "wheel")


def build(project: Path, package: str, folder: Path, what: str) -> Path:
    """Build a `wheel` or `sdist` in a folder, from a copy: nothing is left in the source."""
    source, out = folder / "source", folder / what
    kept_out = shutil.ignore_patterns("__pycache__")
    shutil.copytree(project / package, source / package, ignore=kept_out, dirs_exist_ok=True)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(project / name, source)
    out.mkdir()
    make = f"from setuptools.build_meta import build_{what}; build_{what}({str(out)!r})"
    subprocess.run([sys.executable, "-c", make], cwd=source, check=True, capture_output=True)
    return next(out.iterdir())


def size_mib(target: Path) -> float:
    """Add up the files of an installation; links into the system's Python are not part of it."""
    sizes = (path.lstat().st_size for path in target.rglob("*") if path.is_file())
    return sum(sizes) / _BYTES_PER_MIB


def _names(extras: Sequence[str]) -> list[str]:
    """Name the packages that the lock file has for these extras and this machine."""
    pinned = [sys.executable, IMAGE / "pinned.py", *extras]
    text = subprocess.run(pinned, check=True, capture_output=True, text=True).stdout
    pins = [Requirement(line.rstrip(" \\")) for line in text.splitlines() if line[:1].isalnum()]
    return [pin.name for pin in pins if pin.marker is None or pin.marker.evaluate()]


def _link(name: str, packages: Path) -> None:
    for file in distribution(name).files or ():
        if file.parts[0] == ".." or file.suffix == ".pyc":
            continue
        path = packages / file
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(Path(str(file.locate())), path)


def _packages_of(python: Path) -> str:
    ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    return subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip()


def own_environment() -> dict[str, str]:
    """Let what is installed be compiled once, whatever this process was told of bytecode."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in {"PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"}
    }
