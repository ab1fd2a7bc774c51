"""What tests of costd, and of what is built on it, may use."""

from costd.store.memory import MemoryStore
from costd.testing.clock import FakeClock
from costd.testing.daemon import DaemonProcess
from costd.testing.fake_provider import Behaviour, FakeProvider
from costd.testing.process import DaemonFailed

__all__ = [
    "Behaviour",
    "DaemonFailed",
    "DaemonProcess",
    "FakeClock",
    "FakeProvider",
    "MemoryStore",
]
