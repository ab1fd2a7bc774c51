"""The TypeScript client's own tests, by Node against real daemons, as tests of this suite."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.typescript import PACKAGE, build

FILES = sorted(path.stem for path in (PACKAGE / "test").glob("*.test.ts"))
MODULE_LINES_MAX = 400
WAIT_S = 300

pytestmark = pytest.mark.skipif(
    shutil.which("npm") is None, reason="Node is missing; install Node 20 or newer with npm"
)


def run(*command):
    """Run a program in the package; its output where it fails."""
    done = subprocess.run(
        command,
        cwd=PACKAGE,
        env={**os.environ, "COSTD_TEST_PROGRAM": str(Path(sys.executable).with_name("costd"))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert not done.returncode, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def built():
    build()


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("name", FILES)
def test_the_clients_own_tests_pass(name):
    said = run("node", "--test", "--test-reporter=spec", f"build/test/{name}.js")
    assert "pass 0" not in said


@pytest.mark.usefixtures("built")
def test_the_package_holds_what_it_exports(tmp_path):
    """Packed from sources alone, as somebody who has just cloned them would."""
    shutil.copytree(
        PACKAGE, tmp_path / "clone", ignore=shutil.ignore_patterns("node_modules", "build")
    )
    for folder in ("clone", "user"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "node_modules").symlink_to(PACKAGE / "node_modules")
    run("npm", "pack", "--silent", "--pack-destination", tmp_path, tmp_path / "clone")
    run("tar", "-xzf", next(tmp_path.glob("costd-client-*.tgz")), "-C", tmp_path / "user")
    lines = 'import { Client } from "./package/build/src/index.js"; await new Client().close();'
    (tmp_path / "user" / "main.mjs").write_text(lines)
    run("node", tmp_path / "user" / "main.mjs")
    assert (tmp_path / "user" / "package/build/src/index.d.ts").exists()
    assert not (tmp_path / "user" / "package/build/test").exists()


@pytest.mark.usefixtures("built")
def test_the_clients_source_keeps_its_style():
    run("node_modules/.bin/biome", "ci")
    sources = [path for path in (PACKAGE / "src").rglob("*.ts") if "pb" not in path.parts]
    assert sources
    assert not [p.name for p in sources if len(p.read_text().splitlines()) > MODULE_LINES_MAX]
