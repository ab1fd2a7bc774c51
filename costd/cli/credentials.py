"""What costctl shows a daemon that it reaches over TCP, and how it checks that daemon."""

import inspect
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import grpc
import typer

from costd.cli.exits import Failure
from costd.trust import TlsFault, TlsFiles, channel_credentials
from costd.trust.files import check_private, read_file

_PANEL: Final = "Over TCP"
_REACH: Final = frozenset({"address", "control"})
"""Parameters of commands that talk to a daemon."""

_OPTIONS: Final = {
    "tls_ca": ("COSTCTL_TLS_CA", "CA (PEM) that issued the daemon's certificate; turns TLS on."),
    "tls_cert": ("COSTCTL_TLS_CERT", "Certificate (PEM) that says who you are."),
    "tls_key": ("COSTCTL_TLS_KEY", "Its key (PEM)."),
    "token_file": ("COSTCTL_TOKEN_FILE", "File with a role token, from `token issue`."),
}


class Shown(NamedTuple):
    """The files given on the command line or by the environment."""

    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    token_file: Path | None = None

    def channel_credentials(self) -> grpc.ChannelCredentials | None:
        """Make the credentials of a channel over TCP, None for one that is not encrypted.

        Errors: Failure naming the file or the option that is wrong.
        """
        if self.tls_ca is None:
            given = next((name for name, path in self._asdict().items() if path is not None), None)
            if given is None:
                return None
            raise Failure(
                f"{_flag(given)} is of no use without --tls-ca (or COSTCTL_TLS_CA): nothing is "
                "shown to a daemon whose own certificate is not checked"
            )
        try:
            files = TlsFiles(certificate=self.tls_cert, key=self.tls_key, ca=self.tls_ca)
            secured = channel_credentials(files)
            if self.token_file is None:
                return secured
            token = _read_token(self.token_file)
        except TlsFault as fault:
            raise Failure(str(fault)) from fault
        return grpc.composite_channel_credentials(
            secured, grpc.access_token_call_credentials(token)
        )


_shown: ContextVar[Shown | None] = ContextVar("shown", default=None)


def shown() -> Shown:
    """Return what the command at hand was given."""
    return _shown.get() or Shown()


def reaching(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command that talks to a daemon the options of TLS; return others as they are."""
    signature = inspect.signature(command)
    if not _REACH & signature.parameters.keys():
        return command

    @wraps(command)
    def run(**values: Any) -> Any:
        given = Shown(**{name: values.pop(name) for name in _OPTIONS})
        token = _shown.set(given)
        try:
            return command(**values)
        finally:
            _shown.reset(token)

    added = {
        name: inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                Path | None,
                typer.Option(
                    _flag(name),
                    envvar=variable,
                    help=about,
                    show_default=False,
                    rich_help_panel=_PANEL,
                ),
            ],
        )
        for name, (variable, about) in _OPTIONS.items()
    }
    parameters = [*signature.parameters.values(), *added.values()]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = command.__annotations__ | {
        name: parameter.annotation for name, parameter in added.items()
    }
    return run


def _read_token(path: Path) -> str:
    check_private(path)
    text = read_file(path).decode("ascii", errors="replace").strip()
    if not text or not text.isprintable() or " " in text or not text.isascii():
        raise TlsFault(f"{path} holds no token; `costctl token issue` prints one")
    return text


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
