"""Who is who, and who may do what: certificates, role tokens, roles.

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
