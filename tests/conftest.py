"""Lets every test use the scenario player, wherever it stands."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "unit" / "engine"))
