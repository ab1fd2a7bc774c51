import pytest

from costd.errors import NotPermitted, Unauthenticated
from costd.grants import keygen, load_private_key, load_public_key
from costd.trust import KIND_OF, ROLE_OF, Authenticator, Identity, Kind, Role, require
from costd.trust.identity import ANYBODY, SOCKET_OWNER, Shown
from costd.trust.tokens import RoleClaims, issue_token

NOW_NS = 1_800_000_000 * 10**9


class Connection:
    """As much of gRPC's context as an authenticator reads."""

    def __init__(self, peer="ipv4:127.0.0.1:5", security="insecure", metadata=()):
        self._peer = peer
        self._security = security
        self._metadata = metadata

    def peer(self):
        return self._peer

    def auth_context(self):
        return {"transport_security_type": [self._security.encode()]}

    def invocation_metadata(self):
        return self._metadata


def identified(context, **more):
    return Authenticator(wall_ns=lambda: NOW_NS, audiences=["here"], **more).identify(context)


def shown(how, name="x", role=None, kind=None):
    return Identity(shown=how, name=name, role=role, kind=kind)


@pytest.mark.parametrize("role", Role)
def test_a_method_nobody_listed_may_be_called_by_nobody(role):
    for identity in (shown(Shown.TOKEN, role=role), SOCKET_OWNER, ANYBODY):
        for called in (("costd.v1.Control", "Drop"), ("costd.v1.Other", "GetStatus")):
            with pytest.raises(NotPermitted, match="no role is set"):
                require(identity, *called)


@pytest.mark.parametrize("called", ROLE_OF)
@pytest.mark.parametrize("role", Role)
def test_a_role_may_do_all_that_lower_ones_may(called, role):
    identity = shown(Shown.TOKEN, "ann", role)
    if role >= ROLE_OF[called]:
        require(identity, *called)
        return
    with pytest.raises(
        NotPermitted, match=f"role {ROLE_OF[called].label}, and ann is {role.label}"
    ):
        require(identity, *called)


@pytest.mark.parametrize("called", KIND_OF)
def test_calls_between_machines_need_the_certificate_of_that_kind(called):
    require(shown(Shown.CERTIFICATE, "host-7", kind=KIND_OF[called]), *called)
    for identity in (
        shown(Shown.CERTIFICATE, "ann", Role.ADMIN, Kind.OPERATOR),
        shown(Shown.CERTIFICATE, "a", kind=Kind.AGENT),
        shown(Shown.TOKEN, "host-7", Role.ADMIN),
    ):
        with pytest.raises(NotPermitted, match=f"certificate of a {KIND_OF[called]}"):
            require(identity, *called)


def test_a_socket_s_owner_may_call_everything():
    for called in (*ROLE_OF, *KIND_OF):
        require(SOCKET_OWNER, *called)
        require(ANYBODY, *called)


def test_only_a_socket_of_the_file_system_is_local():
    assert identified(Connection("unix:/run/costd/control.sock")) is SOCKET_OWNER
    assert identified(Connection("unix:")) is SOCKET_OWNER
    for context in (
        Connection("ipv4:127.0.0.1:5"),
        Connection("ipv6:%5B::1%5D:5"),
        Connection("unix-abstract:control"),
        Connection("unix:", "ssl"),
        Connection("vsock:1"),
        Connection(""),
    ):
        with pytest.raises(Unauthenticated, match="nobody said who calls"):
            identified(context)


def test_a_host_told_to_believe_anybody_does_so_without_tls_only():
    assert identified(Connection(), insecure=True) is ANYBODY
    assert identified(Connection("unix:"), insecure=True) is SOCKET_OWNER
    with pytest.raises(Unauthenticated):
        identified(Connection(security="ssl"), insecure=True)
    with pytest.raises(Unauthenticated):
        identified(Connection(metadata=[("authorization", "Bearer x")]), insecure=True)


def test_a_token_that_came_in_the_clear_is_refused_however_good_it_is():
    pair, now_s = keygen(), NOW_NS // 10**9
    claims = RoleClaims(
        sub="ann", role="viewer", aud=("here",), iat=now_s - 60, exp=now_s + 60, jti="t"
    )
    token = issue_token(load_private_key(pair.private_pem), "ops", claims)
    metadata = [("authorization", f"Bearer {token}")]
    keys = {"ops": load_public_key(pair.public_key)}
    for context in (
        Connection(security="ssl", metadata=metadata),
        Connection("unix:/run/costd/control.sock", metadata=metadata),
    ):
        assert identified(context, keys=keys).actor == "ann"
    with pytest.raises(Unauthenticated, match="came in the clear"):
        identified(Connection(metadata=metadata), keys=keys)


@pytest.mark.parametrize(
    ("identity", "actor"),
    [
        (shown(Shown.TOKEN, "ann", Role.VIEWER), "ann"),
        (shown(Shown.CERTIFICATE, "ann", Role.VIEWER, Kind.OPERATOR), "ann"),
        (shown(Shown.CERTIFICATE, "ann", None, Kind.DAEMON), "daemon/ann"),
        (SOCKET_OWNER, ""),
    ],
)
def test_a_machine_is_not_audited_under_a_persons_name(identity, actor):
    assert identity.actor == actor
