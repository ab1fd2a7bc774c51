"""The acts of the demo: what each sets going, and what must have been seen for it to count."""

from collections.abc import Callable
from dataclasses import dataclass, field

from costd import grants
from costd.cli.demo.crew import Cue
from costd.cli.demo.loop import CALLS_COUNT, PROJECT
from costd.cli.demo.stage import DAEMON_NAME
from costd.cli.demo.tally import Tally
from costd.cli.identifiers import uuid7
from costd.cli.times import wall_ns
from costd.model.grant import GrantRefusal
from costd.model.time import NS_PER_S
from costd.wire.pb import control_pb2 as pb
from costd.wire.pb.control_pb2_grpc import ControlStub

EVERYDAY = ("atlas", "beacon", "comet", "reviewers")
STOPPED_PROJECT = "atlas"
KILL_ID = "demo-incident"
OPERATOR = "demo operator"
GRANT_USES = 3
GRANT_NUSD = 500_000_000
GRANT_S = 600
ENOUGH_DENIED = 20


@dataclass(slots=True)
class View:
    """What the Control service said last."""

    budgets: tuple[pb.BudgetStatus, ...] = ()
    kills: tuple[pb.KillSwitch, ...] = ()
    """Released ones too, the newest first."""
    alerts: tuple[pb.Alert, ...] = ()

    def read(self, control: ControlStub) -> None:
        """Ask for everything anew."""
        self.budgets = tuple(control.ListBudgets(pb.ListBudgetsRequest()).budgets)
        self.kills = tuple(control.ListKills(pb.ListKillsRequest(include_released=True)).kills)
        self.alerts = tuple(control.ListAlerts(pb.ListAlertsRequest(limit_count=100)).alerts)


Seen = Callable[[Tally, View], bool]


@dataclass(slots=True)
class Fact:
    """Something that must be seen to happen."""

    name: str
    look: Seen
    seen: bool = False


@dataclass(slots=True, kw_only=True)
class Act:
    """One act: who is at work, what an operator does first, what must be seen, how long."""

    title: str
    caption: str
    groups: tuple[str, ...]
    facts: list[Fact]
    lasts_s: float
    """At least so long, and a moment longer once everything was seen."""
    begin: Callable[[ControlStub], None] = field(default=lambda _: None)
    shows_grant: bool = False
    spins: bool = False

    def look(self, tally: Tally, view: View) -> list[Fact]:
        """List what is seen for the first time."""
        new = [fact for fact in self.facts if not fact.seen and fact.look(tally, view)]
        for fact in new:
            fact.seen = True
        return new

    @property
    def complete(self) -> bool:
        """Whether everything was seen."""
        return all(fact.seen for fact in self.facts)

    def cue(self, grant: str) -> Cue:
        """Tell the workers who is at work."""
        return Cue(
            groups=list(self.groups), grant=grant if self.shows_grant else "", spins=self.spins
        )


def acts(tally: Tally) -> list[Act]:
    """Write the play; the steps of the second act are those of the policy."""
    assert tally.ladder is not None
    budget = tally.ladder.budget.name
    return [
        Act(
            title="Business as usual",
            caption="Agents of three projects ask before every call and settle after it.",
            groups=EVERYDAY,
            facts=[
                Fact(f"{project} was allowed", _answered(project, "OK"))
                for project in ("atlas", "beacon", "comet")
            ],
            lasts_s=3,
        ),
        Act(
            title="A budget runs dry",
            caption=f"Project launch spends fast; each step of {budget} makes its calls cheaper.",
            groups=(*EVERYDAY, "launch"),
            facts=[*_ladder_facts(tally, budget), _quality_fact()],
            lasts_s=7,
        ),
        Act(
            title="The kill switch",
            caption=f"An operator stops {STOPPED_PROJECT}; security reviews hold a grant.",
            groups=EVERYDAY,
            begin=_engage,
            shows_grant=True,
            facts=[
                Fact("calls were denied by the kill switch", _denied(STOPPED_PROJECT)),
                Fact("the grant was redeemed under it", _redeemed),
                Fact("the grant was refused once used up", _used_up),
                Fact("other projects went on", _answered("beacon", "OK")),
            ],
            lasts_s=4,
        ),
        Act(
            title="Released",
            caption=f"The operator releases it; {STOPPED_PROJECT} goes on at once.",
            groups=EVERYDAY,
            begin=_release,
            facts=[
                Fact("the kill switch was released", _released),
                Fact(f"{STOPPED_PROJECT} was allowed again", _answered(STOPPED_PROJECT, "OK")),
            ],
            lasts_s=2,
        ),
        Act(
            title="A budget stops itself",
            caption="Project lab runs wild; its budget's halt step engages the switch by itself.",
            groups=(*EVERYDAY, "lab"),
            facts=[
                Fact("the budget engaged the kill switch", _halted),
                Fact("lab was denied by it", _denied("lab")),
                Fact("other projects went on", _answered("atlas", "OK")),
            ],
            lasts_s=4,
        ),
        Act(
            title="A tight loop",
            caption="One process loops; it decides by itself, from money set aside for it.",
            groups=EVERYDAY,
            spins=True,
            facts=[
                Fact(f"all of {CALLS_COUNT:,} calls were answered", _looped),
                Fact("most of them were decided in the process", _drawn),
                Fact("other projects went on", _answered("atlas", "OK")),
            ],
            lasts_s=1,
        ),
    ]


def make_grant(pair: grants.KeyPair, key_id: str) -> str:
    """Sign an override grant for security reviews of the project that will be stopped."""
    now_s = wall_ns() // NS_PER_S
    claims = grants.GrantClaims(
        jti=uuid7(),
        iss=OPERATOR,
        sub="security reviews",
        aud=(DAEMON_NAME,),
        nbf=now_s,
        exp=now_s + GRANT_S,
        iat=now_s,
        reason="the incident itself must be reviewed",
        scope={"project": STOPPED_PROJECT},
        task_classes=("security_review",),
        amount_nusd=GRANT_NUSD,
        uses=GRANT_USES,
        passes_kill=True,
    )
    return grants.issue(grants.load_private_key(pair.private_pem), key_id, claims)


def with_grant_key(policy: str, pair: grants.KeyPair, key_id: str) -> str:
    """Add the demo's own public key to a policy that lists none."""
    return f"{policy}\ngrant_keys:\n  - {{id: {key_id}, public_key: {pair.public_key}}}\n"


def _engage(control: ControlStub) -> None:
    control.EngageKill(
        pb.EngageKillRequest(
            kill_id=KILL_ID,
            scope={"project": STOPPED_PROJECT},
            reason="an agent misbehaves",
            actor=OPERATOR,
        )
    )


def _release(control: ControlStub) -> None:
    control.ReleaseKill(
        pb.ReleaseKillRequest(kill_id=KILL_ID, actor=OPERATOR, reason="the incident is over")
    )


def _answered(project: str, reason: str) -> Seen:
    return lambda tally, _: tally.answers(project=project, reason=reason) > 0


def _denied(project: str) -> Seen:
    return lambda tally, _: tally.answers(project=project, reason="KILL_SWITCH") >= ENOUGH_DENIED


def _redeemed(tally: Tally, _: View) -> bool:
    reviews = tally.answers(task_class="security_review", reason="GRANT")
    return reviews == tally.redeemed_count == GRANT_USES


def _used_up(tally: Tally, view: View) -> bool:
    """Look for refusals once all uses are seen: calls that redeem one end later than refusals."""
    return _redeemed(tally, view) and tally.grant_refusals[GrantRefusal.USED_UP] > 0


def _released(_: Tally, view: View) -> bool:
    return any(kill.kill_id == KILL_ID and not kill.engaged for kill in view.kills)


def _halted(_: Tally, view: View) -> bool:
    return any(kill.engaged and kill.actor == "costd" for kill in view.kills)


def _looped(tally: Tally, _: View) -> bool:
    return tally.answers(project=PROJECT) == CALLS_COUNT


def _drawn(tally: Tally, _: View) -> bool:
    return tally.drawn_count > CALLS_COUNT // 2


def _ladder_facts(tally: Tally, budget: str) -> list[Fact]:
    assert tally.ladder is not None
    facts = []
    for at, rung in enumerate(tally.ladder.rungs):
        look = (
            _alerted(budget, int(rung.at * 10_000)) if set(rung.do) <= {"alert"} else _reached(at)
        )
        facts.append(Fact(f"{budget} at {rung.share}: {rung.words}", look))
    return facts


def _reached(rung: int) -> Seen:
    return lambda tally, _: tally.ladder is not None and tally.ladder.counts[rung] > 0


def _alerted(budget: str, at_bp: int) -> Seen:
    return lambda _, view: any(
        alert.rule == budget and alert.threshold_bp == at_bp for alert in view.alerts
    )


def _quality_fact() -> Fact:
    def look(tally: Tally, _: View) -> bool:
        dry = tally.answers(project="launch", reason="STEP_DENY") > 0
        allowed = tally.answers(project="launch", task_class="code_review", reason="OK")
        cheaper = tally.by_class["code_review", "degrade"]
        return dry and allowed > 0 and not cheaper

    return Fact("code reviews went on, none made cheaper", look)
