"""Who may make which call of a service that operators or machines use."""

from collections.abc import Callable
from typing import NamedTuple

from costd.errors import CostdError, NotPermitted, Unauthenticated
from costd.trust.identity import Authenticator, Connection, Identity
from costd.trust.roles import require


class Refused(NamedTuple):
    """A call that was not let in."""

    error: CostdError
    service: str
    method: str
    actor: str
    """Who called, as far as that was shown."""
    address: str


class Guard:
    """Lets calls of one service pass, or refuses them and has that written down.

    `tell` writes a refusal into the audit; it must not raise: what cannot be written must not let
    anybody in.
    """

    def __init__(
        self, service: str, authenticator: Authenticator, tell: Callable[[Refused], None]
    ) -> None:
        self._service = service
        self._authenticator = authenticator
        self._tell = tell

    def check(self, context: Connection, method: str) -> Identity:
        """Say who calls, if they may.

        Errors: Unauthenticated, NotPermitted; audited.
        """
        actor = ""
        try:
            identity = self._authenticator.identify(context)
            actor = identity.actor or identity.shown
            require(identity, self._service, method)
        except (Unauthenticated, NotPermitted) as refusal:
            address = str(context.peer())
            self._tell(Refused(refusal, self._service, method, actor, address))
            raise
        return identity
