"""costd's rate-limit messages are Envoy's own, field by field and on the wire."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from costd.daemon.servers import ENVOY_NAME

API = Path(sys.prefix) / "envoy-api"


@pytest.mark.skipif(not API.exists(), reason="needs Envoy's protos: make setup")
def test_every_field_and_value_is_envoys_own_and_messages_come_back_as_they_went():
    run = subprocess.run(
        [sys.executable, Path(__file__).with_name("envoy_api.py")],
        env={**os.environ, "PYTHONPATH": str(API)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [f"service {ENVOY_NAME}/ShouldRateLimit", "compared 41"]
