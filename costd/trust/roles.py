"""Who may make which call. One table; a call that is not in it is refused."""

from collections.abc import Mapping
from typing import Final

from costd.errors import NotPermitted
from costd.trust.certificates import Kind, Role
from costd.trust.identity import Identity, Shown

Method = tuple[str, str]
"""A service by its full name, and one of its methods."""

_CONTROL: Final = "costd.v1.Control"
_FLEET_CONTROL: Final = "costd.v1.FleetControl"
_FLEET: Final = "costd.v1.Fleet"

ROLE_OF: Final[Mapping[Method, Role]] = {
    (_CONTROL, "GetStatus"): Role.VIEWER,
    (_CONTROL, "ListBudgets"): Role.VIEWER,
    (_CONTROL, "ListReservations"): Role.VIEWER,
    (_CONTROL, "ListUsage"): Role.VIEWER,
    (_CONTROL, "ListAlerts"): Role.VIEWER,
    (_CONTROL, "ListAudit"): Role.VIEWER,
    (_CONTROL, "ListKills"): Role.VIEWER,
    (_CONTROL, "ListGrants"): Role.VIEWER,
    (_CONTROL, "ListAllowances"): Role.VIEWER,
    (_CONTROL, "GetPolicy"): Role.VIEWER,
    (_CONTROL, "EngageKill"): Role.OPERATOR,
    (_CONTROL, "ReleaseKill"): Role.OPERATOR,
    (_CONTROL, "Drill"): Role.OPERATOR,
    (_CONTROL, "RevokeAllowance"): Role.OPERATOR,
    (_CONTROL, "ReloadPolicy"): Role.ADMIN,
    (_FLEET_CONTROL, "ListDaemons"): Role.VIEWER,
    (_FLEET_CONTROL, "ListLeases"): Role.VIEWER,
    (_FLEET_CONTROL, "ListPolicies"): Role.VIEWER,
    (_FLEET_CONTROL, "DrillFleet"): Role.OPERATOR,
    (_FLEET_CONTROL, "ReclaimLeases"): Role.OPERATOR,
    (_FLEET_CONTROL, "TopUpBudget"): Role.ADMIN,
    (_FLEET_CONTROL, "PublishPolicy"): Role.ADMIN,
    (_FLEET_CONTROL, "RollbackPolicy"): Role.ADMIN,
}
"""The least role that may call a method. Services that operators use belong here."""

KIND_OF: Final[Mapping[Method, Kind]] = {
    (_FLEET, "Join"): Kind.DAEMON,
}
"""The kind whose certificate a method needs. Services between machines belong here.

A token is not enough, whatever certificate it comes with: the name that counts is the machine's.
"""

_UNNAMED: Final = frozenset({Shown.SOCKET, Shown.NOTHING})
"""Ways to come that prove no name and allow everything."""


def require(identity: Identity, service: str, method: str) -> None:
    """Let a call pass, or refuse it.

    Errors: NotPermitted saying which role or certificate is needed.
    """
    called = service, method
    kind = KIND_OF.get(called)
    if kind is not None:
        if identity.shown not in _UNNAMED and identity.kind is not kind:
            raise NotPermitted(
                f"{method} needs the certificate of a {kind}, and {_described(identity)} showed a "
                f"{identity.shown}; issue one with `costctl ca issue NAME --kind {kind}`"
            )
        return
    role = ROLE_OF.get(called)
    if role is None:
        raise NotPermitted(f"nobody may call {service}/{method}: no role is set for it")
    if identity.role is None:
        raise NotPermitted(
            f"{method} needs the role {role.label}, and {_described(identity)} has none; use "
            "a role token or an operator's certificate"
        )
    if identity.role < role:
        raise NotPermitted(
            f"{method} needs the role {role.label}, and {_described(identity)} is "
            f"{identity.role.label}"
        )


def _described(identity: Identity) -> str:
    return identity.actor or f"whoever came by {identity.shown}"
