"""A client process of the simulation: the client's own session, scopes and draws, without I/O."""

from dataclasses import dataclass, field

from costd_client import draws
from costd_client.drawn import End
from costd_client.pages import base_of, map_pages
from costd_client.pb import admission_pb2 as pb
from costd_client.requests import Closing, Defaults
from costd_client.scope import Scopes
from costd_client.session import Session
from costd_client.surroundings import Surroundings
from sim_policies import price


@dataclass(eq=False)
class Call:
    """One call that was let go: what the simulation itself knows of it."""

    user: str
    hold: int
    tokens: int
    model: str
    prompt: int
    ask_id: str
    drawn: object = None
    reservation_id: str = ""
    end: str = ""
    """Empty while it goes on, and for good where nobody says how it ended."""
    cost: int = 0
    used_tokens: int = 0
    said_in: list = field(default_factory=list)
    """Reports that carry its end: (session, number)."""
    is_unanswered: bool = False
    """Whether it was told by a unary call that nobody has answered yet."""

    @property
    def is_drawn(self):
        return self.drawn is not None


class Process:
    """One process: a session, its stream if it has one, and the calls that go on in it."""

    is_resting = False

    def __init__(self, *, host, new_id, user, labels, maps):
        self.host = host
        self.user = user
        self.new_id = new_id
        self.session = Session(
            Surroundings(
                now_ns=lambda: host.steady_ns,
                wall_ns=lambda: host.wall_ns,
                new_id=new_id,
                map_pages=maps,
            )
        )
        self.scopes = Scopes(Defaults(labels=labels), self)
        self.models = ()
        self.labelled = 0.0
        """What its calls are of, and how often they bear a label that few rules read."""
        self.stream = None
        self.calls = []
        """Calls that have not ended."""
        self.by_ask_id = {}
        """Drawn calls whose end some report is to say."""
        self.is_alive = True
        self.is_honest = True

    @property
    def sees_pages(self):
        return self.session._pages is not None

    # ---- what `Attached` does with a thread

    def draw(self, facts, stated):
        self.session.bind(facts)
        return self.session.draw(facts, stated)

    def check_home(self, drawn):
        assert drawn.allowance.home is self.session.home

    def poll(self):
        """What the session has to say now; notes which report says how each call ended."""
        messages = self.session.poll()
        for message in messages:
            if message.HasField("report"):
                for settlement in message.report.settlements:
                    said_in = self.by_ask_id[settlement.ask_id].said_in
                    place = (self.session.session_id, message.report.sequence)
                    if place not in said_in:
                        said_in.append(place)
        return messages

    # ---- calls

    def ask_for(self, ask):
        """Draw a call; None where the daemon has to be asked."""
        drawn = self.scopes.draw_ask(ask)
        if drawn is None:
            return None
        call = Call(
            user=self.user,
            hold=drawn.hold_nusd,
            tokens=drawn.tokens_count,
            model=drawn.wire.model,
            prompt=drawn.prompt_tokens or 0,
            ask_id=drawn.ask_id,
            drawn=drawn,
        )
        self.calls.append(call)
        self.by_ask_id[drawn.ask_id] = call
        return call

    def settle(self, call, *, prompt=None, output=None, cost=None):
        """End a drawn call at what it used."""
        self.calls.remove(call)
        call.end = "settled"
        usage = None
        if cost is None:
            usage = pb.Usage(prompt_tokens=prompt, output_tokens=output)
            cost, call.used_tokens = price(call.model, prompt, output), prompt + output
            closing = Closing(usage=usage)
        else:
            call.used_tokens = call.tokens
            closing = Closing(cost_nusd=cost)
        call.cost = cost
        self.session.end(call.drawn, End(closing, self.host.wall_ns))

    def void(self, call):
        """End a drawn call that never left."""
        self.calls.remove(call)
        call.end = "voided"
        self.session.end(call.drawn, End(None, self.host.wall_ns))

    def extend(self, call, output):
        """Enlarge a drawn call's hold; whether there was room for it."""
        request = pb.ExtendRequest(additional_output_tokens=output)
        extended = draws.extend(call.drawn, request, self).extended
        call.hold, call.tokens = call.drawn.hold_nusd, call.drawn.tokens_count
        return extended

    # ---- what no client should do

    def held(self):
        return [allowance for allowance, _ in self.session._held.values()]

    def cheat(self):
        """Believe to have been granted ten times as much as was."""
        self.is_honest = False
        for allowance in self.held():
            granted = allowance.granted
            allowance.granted = type(granted)(*(10 * one + 5 for one in granted))
            allowance.is_low = False

    def scribble(self, rng):
        """Write nonsense over a slot of the page; False where there is none."""
        slots = [one.slot for one in self.held() if one.slot >= 0]
        if not self.sees_pages or not slots:
            return False
        self.is_honest = False
        words, base = self.session._pages.slots, base_of(rng.choice(slots))
        words[base + rng.randrange(4)] = rng.choice([-1, 0, 1, 7, 2**62, -(2**63)])
        return True


def refuse_to_map(_daemon_page, _client_page):
    """Stand for a container whose files the daemon cannot share."""
    raise OSError("no such file here")


__all__ = ["Call", "Process", "map_pages", "refuse_to_map"]
