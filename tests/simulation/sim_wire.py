"""The network of the simulation: streams that keep their order, calls that keep none."""

from collections import deque

END = object()
"""What each side of a stream hears last."""


class Stream:
    """One `Attach`: what is under way in both directions, and the daemon's end of it."""

    def __init__(self, process):
        self.process = process
        self.up = deque()
        self.down = deque()
        self.connection = None
        self.is_ended = False
        """Whether nothing more may be put on it."""
        self.was_disturbed = False
        """Whether the simulation changed the order of what it carries."""

    def send(self, messages):
        if not self.is_ended:
            self.up.extend(messages)

    def push(self, message):
        if not self.is_ended:
            self.down.append(message)

    def end(self, *, lost_up=True, lost_down=True):
        """End it: what is under way is lost, or still arrives first."""
        if self.is_ended:
            return
        self.is_ended = True
        if lost_up:
            self.up.clear()
        if lost_down:
            self.down.clear()
        self.up.append(END)
        self.down.append(END)

    @property
    def is_forgotten(self):
        return self.is_ended and not self.up and not self.down


class Rpc:
    """One unary call, sent again until somebody hears an answer."""

    def __init__(self, process, method, request, done):
        self.process = process
        self.method = method
        self.request = request
        self.done = done
        """Called with the first answer, or error."""
        self.copies = 1
        """Requests under way to the daemon."""
        self.answers = []
        self.is_done = False
        self.was_refused = False
        """Whether a copy got an error that may be tried again."""
