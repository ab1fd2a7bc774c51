"""The network of the fleet's simulation: streams of bytes that keep their order until disturbed."""

from collections import deque

from costd.wire.pb import fleet_pb2 as pb

END = b"the end"
"""What each side of a stream hears last; no message serialises to it."""


class Link:
    """One `Join`: what is under way in both directions, and who still listens at either end."""

    def __init__(self, host, replica):
        self.host = host
        self.replica = replica
        self.up = deque()
        self.down = deque()
        self.connection = None
        """The replica's end; None before it has heard of the stream, and after."""
        self.is_heard = True
        """Whether the daemon still listens."""
        self.is_served = True
        """Whether the replica still reads."""
        self.waits = False
        """Whether the replica reads nothing more until the Enrol is answered."""
        self.stalled_until_ns = 0
        """In true time; until then nothing arrives on either side."""
        self.was_disturbed = False
        """Whether a message was repeated, or overtook another."""
        self.silent_since_ns = 0

    def from_member(self, message):
        """Send what a daemon says."""
        if self.is_heard:
            self.up.append(message.SerializeToString())

    def from_replica(self, message):
        """Send what a coordinator says."""
        if self.is_served:
            self.down.append(message.SerializeToString())

    def hang_up(self, *, lost_up):
        """End it on the daemon's side; what it said may be lost, or arrive yet, even much later."""
        if not self.is_heard:
            return
        self.is_heard = False
        if lost_up:
            self.up.clear()
        self.up.append(END)
        self.down.clear()

    def drop(self, *, lost_down):
        """End it on the replica's side; what it said may be lost, or arrive yet."""
        if not self.is_served:
            return
        self.is_served = False
        if lost_down:
            self.down.clear()
        self.down.append(END)
        self.up.clear()

    @property
    def is_over(self):
        return not (self.is_heard or self.is_served) and not (self.up or self.down)


def name_up(raw):
    """Name what a daemon says, for the trace."""
    return "END" if raw == END else pb.ToCoordinator.FromString(raw).WhichOneof("message")


def name_down(raw):
    """Name what a coordinator says, for the trace."""
    return "END" if raw == END else pb.ToDaemon.FromString(raw).WhichOneof("message")
