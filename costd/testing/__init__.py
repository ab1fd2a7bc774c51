"""What tests of costd, and of what is built on it, may use."""

from costd.testing.clock import FakeClock

__all__ = ["FakeClock"]
