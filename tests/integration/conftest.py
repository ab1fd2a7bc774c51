from pathlib import Path

import pytest

from costd.testing import DaemonProcess

POLICIES = Path(__file__).parents[2] / "policies"


@pytest.fixture(scope="module")
def daemon():
    """A running daemon under policies/quickstart.yaml whose callers may claim every class."""
    with DaemonProcess(POLICIES / "quickstart.yaml", "--claims", "*", "--name", "test") as running:
        yield running


@pytest.fixture
def fresh_daemon(tmp_path):
    """Make daemons, not yet running, under a policy given as text or path, with flags."""
    made = []

    def make(policy, *flags):
        if isinstance(policy, str):
            path = tmp_path / f"policy-{len(made)}.yaml"
            path.write_text(policy)
            policy = path
        process = DaemonProcess(policy, *flags)
        made.append(process)
        return process

    yield make
    for process in made:
        process.close()
