"""What holds for every test: the scenario player can be imported, and no clock fails a test."""

import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent / "unit" / "engine"))

# Hypothesis fails an example that takes 200 ms, which any example may on a busy machine.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
