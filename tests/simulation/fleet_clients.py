"""Client processes of the fleet's daemons: what they draw, leases must stand behind."""

from costd_client.session import ProtocolBroken
from fleet_asks import Asks
from fleet_policies import CENT, RUNS, USERS
from sim_client import Process
from sim_wire import END, Stream

from costd.engine.changes import Family
from costd.errors import CostdError, InvalidAsk
from costd.model.time import NS_PER_S

QUIET_ROUNDS_MAX = 400


class Clients(Asks):
    """Processes beside daemons, and the streams by which they are attached.

    They have no pages, so that a grant or report that is lost on its way is charged in full.
    """

    def __init__(self, seed, folder, parts=None):
        self.processes, self.streams = [], []
        self.allowances = {}
        """By id, what a daemon set aside: its reservation."""
        super().__init__(seed, folder, parts)

    def new_process(self, host):
        user = self.rng.choice(USERS)
        process = Process(
            host=host.clock,
            new_id=lambda: f"id-{self.seed:08}-{next(self._ids):012}",
            user=user,
            labels={"user": user},
            maps=None,
        )
        process.home = host
        process.typical = {"task_class": "draft", "labels": {}}
        if self.rng.random() < 0.2:
            process.typical["labels"]["run"] = self.rng.choice(RUNS)
        self.processes.append(process)

    def living(self, host=None):
        return [each for each in self.processes if each.is_alive and host in {None, each.home}]

    # ---- streams -----------------------------------------------------------------------------

    def ways(self):
        found = super().ways()
        for stream in self.streams:
            if stream.up and (stream.connection is None or self.runs(stream.process.home)):
                found.append((self.carry_client, stream))
            if stream.down:
                found.append((self.hear_daemon, stream))
        return found

    def attach(self, process):
        """Open a stream; where nobody listens, it ends at once."""
        process.stream = stream = Stream(process)
        self.streams = [*(each for each in self.streams if not each.is_forgotten), stream]
        stream.send(process.session.opened())
        if not self.runs(process.home):
            stream.end()
            return
        desk = process.home.member.desk
        stream.connection = desk.attach(process.user, lambda said: self.push(stream, said))

    def push(self, stream, message):
        """Have a daemon say something to a client; what it grants is written down by now."""
        if message.HasField("grant") and message.grant.HasField("allowance"):
            self.saw("allowances granted")
            identity = message.grant.allowance.allowance_id
            disk = stream.process.home.disk
            self.allowances[identity] = disk.get(Family.RESERVATIONS, bytes.fromhex(identity))
        self.saw("allowances revoked", message.HasField("revocation"))
        stream.push(message)

    def carry_client(self, stream):
        """Have a daemon hear the next message of a client."""
        message, connection = stream.up.popleft(), stream.connection
        if connection is None:
            return
        host = stream.process.home
        if message is END:
            stream.connection = None
            self.at(host, connection.close)
            return
        result = self.at(host, connection.receive, message)
        if host.member is None or not isinstance(result, CostdError):
            return
        if isinstance(result, InvalidAsk):
            self.problems.append(f"{host.name} refused a client: {result}")
        stream.connection = None
        connection.close()
        stream.end(lost_down=False)

    def hear_daemon(self, stream):
        """Have a client hear the next message of its daemon."""
        process, message = stream.process, stream.down.popleft()
        if not process.is_alive or process.stream is not stream:
            return
        if message is END:
            process.session.broken()
            process.stream = None
            return
        if message.HasField("acknowledgement"):
            self.problems += [f"refused: {one}" for one in message.acknowledgement.problems]
        try:
            process.session.received(message)
        except ProtocolBroken as error:
            self.problems.append(f"the protocol was broken: {error}")
        if process.session.must_reopen:
            stream.end()
            process.session.broken()
            process.stream = None

    def host_died(self, host):
        super().host_died(host)
        self.end_streams(host)

    def end_streams(self, host):
        """End the streams of a daemon that is no more; what its clients hold they draw on."""
        for stream in self.streams:
            if stream.process.home is host:
                stream.end(lost_down=self.rng.random() < 0.5)
                stream.connection = None
                host.is_exact = False

    def poll(self, share=0.7):
        """Have some clients say what they have to say."""
        for process in self.living():
            if self.rng.random() < share:
                self.say(process)

    def say(self, process):
        if process.stream is None:
            self.attach(process)
        process.stream.send(process.poll())

    def talk(self, process):
        """Have a client say all, and hear what its daemon answers at once."""
        self.say(process)
        stream = process.stream
        while stream.up and self.runs(process.home):
            self.carry_client(stream)
        while stream.down:
            self.hear_daemon(stream)

    def cut_client(self):
        """Break a stream; everything under way on it is lost."""
        streams = [stream for stream in self.streams if not stream.is_ended]
        if streams:
            stream = self.rng.choice(streams)
            self.saw("streams of clients cut")
            stream.process.home.is_exact = False
            stream.end()

    # ---- calls -------------------------------------------------------------------------------

    def draw(self):
        """Have clients make calls, as agents do: again and again."""
        for process in self.living():
            if self.rng.random() < 0.6:
                self.draw_some(process, self.rng.choice((1, 2, 5, 10)))

    def spree(self):
        """Let some seconds pass in which clients do little but draw."""
        for _ in range(10):
            self.draw()
            self.poll()
            self.pass_time(0.2)
            self.deliver(40)

    def draw_some(self, process, count):
        """Have a process make calls by itself; those that it must ask for it leaves."""
        for _ in range(count):
            cost = self.rng.choice((CENT, CENT, CENT, CENT // 2, 2 * CENT))
            call = process.ask_for({**process.typical, "estimated_cost_nusd": cost})
            if call is None:
                continue
            host = process.home
            held = self.allowances[call.drawn.allowance.allowance_id]
            call.known = self.truth.draw(host, held, call.hold, self.texts())
            self.saw("calls drawn")
            self.note(f"a client of {host.name} draws {call.hold} for {held.ask.labels}")
            ends_ns = self.database.renewed_ns.get(host.name, 0) + self.span.tenure_ns
            is_leased = any(key != self.tracker for key in call.known.lines)
            if is_leased and self.true_ns >= ends_ns:
                late_s = (self.true_ns - ends_ns) / NS_PER_S
                self.problems.append(
                    f"F4: a client of {host.name} drew {late_s:.3f} s after its daemon's tenure"
                )

    def end_drawn(self):
        """End some calls: below their hold, at it, or above; or they never left."""
        for process in self.living():
            count = self.rng.randrange(1 + min(len(process.calls), 6))
            for call in self.rng.sample(process.calls, count):
                self.end_drawn_call(process, call)

    def end_drawn_call(self, process, call):
        rng = self.rng
        cost = rng.choice((0, 1, call.hold // 2, call.hold, call.hold, call.hold + CENT // 4))
        if rng.random() < 0.2:
            process.void(call)
            cost = None
        else:
            process.settle(call, cost=cost)
        self.saw("drawn calls voided" if cost is None else "drawn calls settled")
        self.truth.changing(call.known)
        call.known.end, call.known.cost = ("voided", 0) if cost is None else ("settled", cost)
        self.truth.changed(call.known)

    def client_dies(self):
        found = self.living()
        if found:
            self.client_died(self.rng.choice(found))

    def client_died(self, process):
        """Kill -9: what it has drawn and not told is charged in full."""
        self.saw("clients killed -9")
        process.is_alive, process.home.is_exact = False, False
        if process.stream is not None:
            process.stream.end(lost_up=self.rng.random() < 0.5)
            process.stream = None
        self.new_process(process.home)

    def clients_lose_power(self, host):
        for process in self.living(host):
            self.client_died(process)

    # ---- the end -----------------------------------------------------------------------------

    def close_clients(self):
        """End every call of clients that live, and have all they say heard."""
        for process in self.living():
            for call in list(process.calls):
                self.end_drawn_call(process, call)
            process.session.close()
        for _ in range(QUIET_ROUNDS_MAX):
            loud = [each for each in self.living() if not each.session.is_quiet]
            if not loud:
                return
            self.poll(1)
            self.carry_all()
            self.pass_time(0.05)
        self.problems.append("clients with nothing left to do do not become quiet")
