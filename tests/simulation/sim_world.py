"""One order of events: a daemon, its clients, and everything that may happen to them."""

import itertools
import random
from collections import Counter
from pathlib import Path

from costd_client.pb import admission_pb2 as pb
from costd_client.session import ProtocolBroken
from sim_client import Call, Process, map_pages, refuse_to_map
from sim_daemon import Daemon, Disk, Fuse, Killed
from sim_policies import CALL_NUSD, LIMITS_CALLS, VARIANTS, policy, price
from sim_truth import Truth
from sim_wire import END, Rpc, Stream

from costd.engine.changes import Family
from costd.errors import CostdError, InvalidAsk, StoreUnavailable
from costd.testing import FakeClock
from costd.wire.pb import control_pb2 as cpb

USERS = ("ann", "bob", "cat", "dan")
CROWD_COUNT = 64
STOPPED_S = 60
DAY_S = 86_400


class World:
    """Everything there is in one order of events, drawn from one seed."""

    def __init__(self, seed, folder: Path):
        self.seed = seed
        self.rng = rng = random.Random(seed)
        self.host = FakeClock(steady_ns=rng.randrange(10**15))
        self.steps_years = rng.random() < 0.5
        """Whether the clock may step a year ahead: a daemon that starts then cannot tell it from a
        day's stop, so that things must be kept for longer than the days it may gain."""
        self.has_pages = rng.random() < 0.75
        self.socket = folder / "s" if self.has_pages else None
        self.fuse = Fuse()
        self.disk = Disk(self.fuse)
        self.truth = Truth()
        self.seen = Counter()
        """How often what happened."""
        self.problems = []
        self.limit_calls = rng.choice(LIMITS_CALLS)
        self.variant = rng.choice(VARIANTS)
        self.barred = set()
        """Allowances that nobody who sees the pages may draw any more."""
        self.kills = ()
        """Kill switches whose engagement was answered."""
        self._ids = itertools.count(1)
        self.processes = []
        self.streams = []
        self.rpcs = []
        self.daemon = None
        self.start_daemon()
        crowd = rng.random() < 1 / 32
        self.seen["orders of 64 clients"] += crowd
        for _ in range(CROWD_COUNT if crowd else rng.randrange(2, 6)):
            self.attach(self.new_process(rng.choice(USERS)))

    # ---- the daemon ------------------------------------------------------------------------------

    @property
    def policy(self):
        return policy(self.limit_calls, self.variant, "14d" if self.steps_years else "2h")

    def start_daemon(self):
        """Start it on what the one before left; it may die while it starts."""
        self.truth.limit_max = max(self.truth.limit_max, self.limit_calls * CALL_NUSD)
        try:
            self.daemon = Daemon(
                disk=self.disk,
                fuse=self.fuse,
                host=self.host,
                socket=self.socket,
                policy=self.policy,
                closed_keep_s=10 * DAY_S if self.steps_years else 1_800,
            )
        except Killed:
            self.daemon_died()
            return
        except StoreUnavailable:
            return
        self.barred |= set(self.daemon.desk.books.out)
        self.kills = self.daemon.ledger.kills

    def daemon_died(self):
        """Forget all that was not committed, and all that was under way to it."""
        self.seen["daemon killed -9"] += 1
        if self.daemon is not None:
            self.daemon.close()
            self.daemon = None
        for _, session in self.disk.scan(Family.SESSIONS):
            self.truth.booked[session.session_id] = session.report_sequence
        self._note_unpaged()
        for stream in self.streams:
            stream.end(lost_down=self.rng.random() < 0.5)
            stream.connection = None
        for rpc in self.rpcs:
            rpc.copies = 0

    @property
    def answers(self):
        """Whether the daemon does anything now."""
        return self.daemon is not None and not self.daemon.is_stopped

    def at_daemon(self, act, *arguments):
        """Have the daemon do something, which it may not survive; the answer, or its error."""
        try:
            answer = act(*arguments)
        except Killed:
            self.daemon_died()
            return None
        except CostdError as error:
            return error
        self.kills = self.daemon.ledger.kills
        return answer

    # ---- clients ---------------------------------------------------------------------------------

    def new_process(self, user):
        rng = self.rng
        maps = map_pages if rng.random() < 0.9 else rng.choice([None, refuse_to_map])
        process = Process(
            host=self.host,
            new_id=lambda: f"id-{self.seed:06}-{next(self._ids):012}",
            user=user,
            labels={"user": user, "team": f"team-{USERS.index(user) % 2}"},
            maps=maps,
        )
        process.models = rng.choice((["gpt-4o"], ["gpt-4o-mini"], ["gpt-4o", "gpt-4o-mini"]))
        process.labelled = rng.choice((0, 0, 0.1, 0.5))
        self.processes.append(process)
        return process

    def attach(self, process):
        """Open a stream; where nobody listens, it ends at once."""
        process.stream = stream = Stream(process)
        self.streams.append(stream)
        stream.send(process.session.opened())
        if self.daemon is None:
            stream.end()
        else:
            stream.connection = self.daemon.desk.attach(process.user, stream.push)

    def hear(self, stream):
        """Have a client hear the next message of its stream."""
        process, message = stream.process, stream.down.popleft()
        if not process.is_alive or process.stream is not stream:
            return
        if message is END:
            process.session.broken()
            process.stream = None
            return
        if message.HasField("acknowledgement") and process.is_honest:
            self.problems += [f"refused: {one}" for one in message.acknowledgement.problems]
        if message.HasField("grant") and message.grant.HasField("allowance"):
            self.seen["allowances granted"] += 1
            identity = bytes.fromhex(message.grant.allowance.allowance_id)
            if identity in self.truth.unpaged:
                self.truth.unpaged[identity] = (process.user, process)
            if process.sees_pages and message.grant.allowance.slot < 0 and process.is_honest:
                self.problems.append("an honest client is granted nothing through its page")
        session_id = process.session.session_id
        try:
            process.session.received(message)
        except ProtocolBroken as error:
            self.problems.append(f"the protocol was broken: {error}")
            stream.end()
        if process.session.session_id != session_id:
            self.problems.append("the daemon has forgotten a session")
        if process.session.must_reopen:
            stream.end(lost_up=self.rng.random() < 0.5)
            process.session.broken()
            process.stream = None

    def carry(self, stream):
        """Have the daemon receive the next message of a stream."""
        message, connection = stream.up.popleft(), stream.connection
        if connection is None:
            return
        if message is END:
            self.at_daemon(connection.close)
            stream.connection = None
            return
        result = self.at_daemon(connection.receive, message)
        if self.daemon is None:
            return
        if isinstance(result, CostdError):
            if isinstance(result, InvalidAsk) and not stream.was_disturbed:
                self.problems.append(
                    f"the daemon refused {message.WhichOneof('message')}: {result}"
                )
            self.seen["streams ended by the daemon"] += 1
            connection.close()
            stream.connection = None
            stream.end(lost_down=False)
        elif message.HasField("request"):
            self._note_unpaged()
        elif message.HasField("report"):
            session_id = connection.session_id
            booked = self.truth.booked
            again = message.report.sequence <= booked[session_id]
            self.seen["reports booked"] += not again
            self.seen["reports that came again"] += again
            booked[session_id] = max(booked[session_id], message.report.sequence)

    def _note_unpaged(self):
        """Remember what was granted without pages, whether or not its client will hear of it."""
        for identity, allowance in self.disk.scan(Family.ALLOWANCES):
            if allowance.slot < 0:
                self.truth.unpaged.setdefault(identity, (allowance.caller, None))

    def let_go(self, process, call, drawn_while=""):
        """Note a call that was admitted, and check that it could be."""
        self.truth.let_go(call)
        self.seen[f"calls {'drawn' if call.is_drawn else 'asked one by one'}"] += 1
        if not call.is_drawn or not process.sees_pages or call.drawn.allowance.slot < 0:
            return
        if bytes.fromhex(call.drawn.allowance.allowance_id) in self.barred:
            self.problems.append(f"{call.ask_id} was drawn from an allowance revoked before")
        typical = call.drawn.ask
        facts = {
            **typical.labels,
            "task_class": typical.task_class or "draft",
            "provider": "openai",
            "model": call.model,
            "tier": call.drawn.wire.tier,
        }
        for kill in self.kills:
            # One that releases itself may do so before the daemon has noticed.
            if kill.scope.holds(facts) and not kill.releases_ns:
                self.problems.append(f"{call.ask_id} was drawn under kill switch {kill.kill_id}")

    def call_once(self, process):
        """Have a process make one call, in the process if it can."""
        rng = self.rng
        ask = {
            "model": rng.choice(process.models),
            "prompt_tokens": rng.choice((10, 1_000, 1_000, 2_500)),
            "max_output_tokens": rng.choice((None, 20, 100, 100, 300)),
        }
        if rng.random() < process.labelled:
            ask["labels"] = {"feature": rng.choice(("web", "app"))}
        call = process.ask_for(ask)
        if call is not None:
            self.let_go(process, call)
            self._check_hold(call, ask, call.drawn.max_output_tokens)
        elif rng.random() < 0.1:
            self.ask_daemon(process, ask)

    def _check_hold(self, call, ask, output):
        output = 200 if output is None else output
        expected = price(call.model, ask["prompt_tokens"], output)
        if (call.hold, call.tokens) != (expected, ask["prompt_tokens"] + output):
            self.problems.append(f"{call.ask_id} holds {call.hold}, its price is {expected}")

    def ask_daemon(self, process, ask):
        """Ask for one call beside the stream."""
        rng = self.rng
        labels = {**process.scopes._defaults.labels, **ask.get("labels", {})}
        output = ask["max_output_tokens"] or 200
        request = pb.AdmitRequest(
            ask_id=process.new_id(),
            task_class="draft",
            labels=labels,
            model=ask["model"],
            prompt_tokens=ask["prompt_tokens"],
            max_output_tokens=output,
        )
        if rng.random() < 0.5:
            request.ttl.seconds = rng.choice((5, 30))
        key = (process.user, request.ask_id)
        self.truth.unheard_asks.add(key)

        def done(answer):
            if isinstance(answer, CostdError):
                self.problems.append(f"an ask was refused with an error: {answer}")
                return
            if answer.verdict not in {pb.VERDICT_ALLOW, pb.VERDICT_DEGRADE}:
                self.seen["denied"] += 1
                return  # a kill switch may hide that an answer before had allowed it
            self.truth.unheard_asks.discard(key)
            directives = answer.directives
            most = (
                directives.max_output_tokens if directives.HasField("max_output_tokens") else output
            )
            call = Call(
                user=process.user,
                hold=answer.hold_nusd,
                tokens=ask["prompt_tokens"] + min(output, most),
                model=answer.model,
                prompt=ask["prompt_tokens"],
                ask_id=request.ask_id,
                reservation_id=answer.reservation_id,
            )
            process.calls.append(call)
            self.let_go(process, call)
            self._check_hold(call, ask, min(output, most))

        self.rpcs.append(Rpc(process, "Admit", request, done))

    def end_call(self, process, call):
        """End a call in one of the ways in which calls end."""
        rng = self.rng
        how = rng.random()
        if how < 0.1:
            self.seen["calls abandoned"] += 1
            process.calls.remove(call)
        elif how < 0.25:
            self.seen["calls voided"] += 1
            self._void(process, call)
        else:
            self.seen["calls settled"] += 1
            output = rng.choice((0, 20, 100, 100, 400))
            cost = rng.choice((0, 1, call.hold, call.hold // 2)) if rng.random() < 0.3 else None
            self._settle(process, call, output, cost)

    def _settle(self, process, call, output, cost):
        if call.is_drawn:
            process.settle(call, prompt=call.prompt, output=output, cost=cost)
            self.truth.ended(call)
            return
        process.calls.remove(call)
        call.end, call.is_unanswered = "settled", True
        request = pb.SettleRequest(reservation_id=call.reservation_id)
        if cost is None:
            request.usage.prompt_tokens, request.usage.output_tokens = call.prompt, output
            call.cost, call.used_tokens = (
                price(call.model, call.prompt, output),
                call.prompt + output,
            )
        else:
            request.cost_nusd = call.cost = cost
            call.used_tokens = call.tokens
        self.truth.ended(call)

        def done(answer):
            call.is_unanswered = False
            if isinstance(answer, CostdError):
                self.problems.append(f"a settle was refused: {answer}")

        self.rpcs.append(Rpc(process, "Settle", request, done))

    def _void(self, process, call):
        if call.is_drawn:
            process.void(call)
            self.truth.ended(call)
            return
        process.calls.remove(call)
        call.end, call.is_unanswered = "voided", True

        def done(answer):
            call.is_unanswered = False
            if isinstance(answer, CostdError):
                call.end = ""  # it came too late: its hold was charged
                self.seen["voids that came too late"] += 1
            else:
                self.truth.ended(call)

        request = pb.VoidRequest(reservation_id=call.reservation_id)
        self.rpcs.append(Rpc(process, "Void", request, done))

    def move(self, rpc):
        """Have the daemon, or the caller, hear one copy of a unary call."""
        if rpc.answers and (not rpc.copies or not self.answers or self.rng.random() < 0.5):
            answer = rpc.answers.pop(0)
            if rpc.process.is_alive and not rpc.is_done:
                rpc.is_done = True
                rpc.done(answer)
        elif rpc.copies and self.answers:
            rpc.copies -= 1
            method = getattr(self.daemon.admission, rpc.method)
            answer = self.at_daemon(method, rpc.request, rpc.process.user)
            if answer is not None and not isinstance(answer, StoreUnavailable):
                rpc.answers.append(answer)
        if not rpc.copies and not rpc.answers:
            if rpc.is_done or not rpc.process.is_alive:
                self.rpcs.remove(rpc)
            else:
                self.seen["unary calls repeated"] += 1
                rpc.copies = 1

    # ---- operators -------------------------------------------------------------------------------

    def swap_policy(self):
        """Put another policy in force; afterwards nothing granted before may be drawn."""
        self.truth.limit_max = max(self.truth.limit_max, self.limit_calls * CALL_NUSD)
        out = set(self.daemon.desk.books.out)
        self.daemon.source.text = self.policy
        answer = self.at_daemon(
            self.daemon.control.ReloadPolicy, cpb.ReloadPolicyRequest(actor="ops"), ""
        )
        if isinstance(answer, cpb.Policy):
            self.barred |= out

    def revoke(self):
        """Revoke an allowance by hand."""
        out = sorted(self.daemon.desk.books.out)
        if not out:
            return
        identity = self.rng.choice(out)
        request = cpb.RevokeAllowanceRequest(allowance_id=identity.hex(), actor="ops")
        answer = self.at_daemon(self.daemon.control.RevokeAllowance, request, "")
        if isinstance(answer, cpb.RevokeAllowanceResponse):
            self.seen["allowances revoked by hand"] += 1
            self.barred.add(identity)

    # ---- checks ----------------------------------------------------------------------------------

    def check(self):
        """What must hold after every step."""
        if self.daemon is not None:
            self.problems += self.daemon.problems()
        self.problems += self.truth.problems(self.disk)
