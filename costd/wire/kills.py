"""Kill switches ↔ what operators say of them; every check of their words is here."""

import uuid
from collections.abc import Collection, Mapping

import msgspec

from costd.errors import BudgetNotFound, IdReused, InvalidAsk
from costd.model.ask import labels_problem, name_problem
from costd.model.kill import KillMode, KillSwitch
from costd.model.labels import RESERVED_KEYS, Match, Selector
from costd.model.time import Now
from costd.wire.admission import duration_ns
from costd.wire.pb import control_pb2 as pb

_TEXT_LENGTH_MAX = 1_024


def engaged_from_pb(
    request: pb.EngageKillRequest,
    known: KillSwitch | None,
    *,
    tiers: Collection[str],
    caller: str,
    now: Now,
) -> KillSwitch:
    """Read the switch that a request engages; `known` itself if it is engaged as asked already.

    Errors:  InvalidAsk; IdReused where `known` is engaged otherwise.
    """
    mode = _kill_mode(request.mode)
    if mode is KillMode.MAX_TIER and request.max_tier not in tiers:
        raise InvalidAsk(
            f"max_tier {request.max_tier!r} is not in the policy; it has: {', '.join(tiers)}"
        )
    if not request.reason:
        raise InvalidAsk("reason is empty; say why, for whoever finds it engaged")
    check_texts(kill_id=request.kill_id, actor=request.actor, reason=request.reason)
    check_scope(request.scope)
    scope = scope_from_pb(dict(request.scope))
    max_tier = request.max_tier if mode is KillMode.MAX_TIER else ""
    if known is not None and known.engaged(now.steady_ns):
        if (known.scope, known.mode, known.max_tier) != (scope, mode, max_tier):
            raise IdReused(
                f"kill switch {request.kill_id!r} is engaged: {known.mode} for {known.scope}; "
                "release it first, or engage another id"
            )
        return known
    after_ns = duration_ns(request, "release_after")
    # Later than its last state, whatever the clock says: of two states the later one counts.
    engaged_ns = max(now.wall_ns, known.changed_ns + 1 if known is not None else 0)
    return KillSwitch(
        kill_id=request.kill_id or f"kill-{uuid.uuid4().hex[:12]}",
        scope=scope,
        mode=mode,
        max_tier=max_tier,
        reason=request.reason,
        actor=request.actor or caller or "unknown",
        engaged_ns=engaged_ns,
        releases_ns=now.wall_ns + after_ns if after_ns else 0,
        releases_steady_ns=now.steady_ns + after_ns if after_ns else 0,
    )


def released_from_pb(
    request: pb.ReleaseKillRequest, known: KillSwitch | None, *, caller: str, now: Now
) -> KillSwitch:
    """Read the switch as a request releases it; `known` itself if it is released already.

    Errors:  InvalidAsk, BudgetNotFound.
    """
    check_texts(kill_id=request.kill_id, actor=request.actor, reason=request.reason)
    if known is None:
        raise BudgetNotFound(f"no kill switch {request.kill_id!r}; `costctl kills` lists them")
    if not known.engaged(now.steady_ns):
        return known
    return msgspec.structs.replace(
        known,
        released_ns=max(now.wall_ns, known.engaged_ns + 1),
        released_by=request.actor or caller or "unknown",
    )


def kill_to_pb(switch: KillSwitch, *, engaged: bool) -> pb.KillSwitch:
    """Write a kill switch; its scope as `key: value|value`, `*` for present, `!` before negated."""
    return pb.KillSwitch(
        kill_id=switch.kill_id,
        scope={
            match.key: ("!" if match.negated else "") + ("|".join(sorted(match.values)) or "*")
            for match in switch.scope.matches
        },
        mode=str(switch.mode),
        max_tier=switch.max_tier,
        reason=switch.reason,
        actor=switch.actor,
        engaged_ns=switch.engaged_ns,
        releases_ns=switch.releases_ns,
        released_ns=switch.released_ns,
        released_by=switch.released_by,
        engaged=engaged,
    )


def scope_from_pb(scope: dict[str, str]) -> Selector:
    """Read a kill switch's scope; `*` means that the label is present."""
    return Selector(
        tuple(
            Match(key, frozenset() if value == "*" else frozenset({value}))
            for key, value in sorted(scope.items())
        )
    )


def check_texts(**texts: str) -> None:
    """Check what people wrote.

    Errors:  InvalidAsk.
    """
    for name, text in texts.items():
        if len(text) > _TEXT_LENGTH_MAX:
            raise InvalidAsk(f"{name} has more than {_TEXT_LENGTH_MAX} characters")
        if not text.isprintable():
            raise InvalidAsk(f"{name} has characters that cannot be printed: {text[:80]!r}")


def check_scope(scope: Mapping[str, str]) -> None:
    """Check a kill switch's scope as an ask's labels, but for the keys that labels may not use.

    Errors:  InvalidAsk.
    """
    problem = labels_problem({k: v for k, v in scope.items() if k not in RESERVED_KEYS})
    for key in RESERVED_KEYS & scope.keys():
        problem = problem or name_problem(f"scope[{key}]", scope[key])
    if problem:
        raise InvalidAsk(problem.replace("labels", "scope", 1))


def _kill_mode(text: str) -> KillMode:
    try:
        return KillMode(text or KillMode.DENY_ALL)
    except ValueError as error:
        modes = ", ".join(KillMode)
        raise InvalidAsk(f"mode {text[:80]!r} is not one of {modes}") from error
