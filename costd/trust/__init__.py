"""Who is who, and who may do what: certificates, role tokens, roles.

A host makes `TlsFiles`, serves with `server_credentials(files)`, calls with
`channel_credentials(files)` and `expecting(kind)`, and asks at each call
`identity = Authenticator(…).identify(context)`, then `require(identity, service, method)`.
docs/operating/security.md says how to set it up, docs/adr/0015-certificates-and-roles.md why it is
so.
"""

from costd.trust.certificates import Kind, Peer, Role, TlsFault
from costd.trust.credentials import channel_credentials, expecting, server_credentials
from costd.trust.files import TlsFiles
from costd.trust.identity import Authenticator, Identity, peer_of
from costd.trust.roles import KIND_OF, ROLE_OF, require

__all__ = [
    "KIND_OF",
    "ROLE_OF",
    "Authenticator",
    "Identity",
    "Kind",
    "Peer",
    "Role",
    "TlsFault",
    "TlsFiles",
    "channel_credentials",
    "expecting",
    "peer_of",
    "require",
    "server_credentials",
]
