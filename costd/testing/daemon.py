"""A real daemon in a process of its own, for tests, benchmarks and demonstrations."""

from pathlib import Path

from costd.testing.process import ANSWER_S, CostdProcess, DaemonFailed

__all__ = ["ANSWER_S", "DaemonFailed", "DaemonProcess"]


class DaemonProcess(CostdProcess):
    """Starts, stops, kills and restarts one daemon; see `CostdProcess`."""

    READY = "serving"

    def __init__(
        self, policy: Path | str | None, *flags: str, directory: Path | None = None
    ) -> None:
        """Say what to run; `flags` are those of `costd serve` and come last.

        Shape:   without a policy, flags name the coordinator that publishes it.
        """
        super().__init__(directory)
        self.policy = None if policy is None else Path(policy)
        self.flags = flags
        self.data = self.directory / "data"
        self.socket = self.directory / "s" / "costd.sock"
        self.control_socket = self.directory / "s" / "control.sock"

    def command(self) -> list[str]:
        """What to run."""
        return [
            "serve",
            *(() if self.policy is None else ("--policy", str(self.policy))),
            *("--data", str(self.data)),
            *("--socket", str(self.socket), "--control-socket", str(self.control_socket)),
            *("--metrics-listen", "127.0.0.1:0"),
            *self.flags,
        ]

    @property
    def address(self) -> str:
        """Where agents ask, as a gRPC target."""
        return f"unix:{self.socket}"

    @property
    def control_address(self) -> str:
        """Where operators ask, as a gRPC target."""
        return f"unix:{self.control_socket}"

    @property
    def listen_address(self) -> str:
        """Where agents ask over TCP, with the port it got."""
        return str(self.wait_for("serving")["listen"])

    @property
    def metrics_url(self) -> str:
        """Where metrics are."""
        return f"http://{self.wait_for('metrics_listening')['address']}/metrics"
