"""`token`: role tokens, which say who may do what at which daemons, until when."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Group
from rich.text import Text

from costd import grants
from costd.cli import options, render
from costd.cli.address import default_daemon_name
from costd.cli.document import emit
from costd.cli.exits import Failure
from costd.cli.identifiers import operator, uuid7
from costd.cli.override import Audience, KeyId
from costd.cli.sources import read_file, read_text_or_file, write_secret
from costd.cli.times import moment_and_distance, wall_ns
from costd.model.time import NS_PER_S
from costd.trust import Role, TlsFault
from costd.trust.certificates import role_named
from costd.trust.files import check_private
from costd.trust.tokens import RoleClaims, inspect_token, issue_token

DEFAULT_TTL_NS = 8 * 3_600 * NS_PER_S


def keygen(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="Where to put the private key.")],
    *,
    key_id: Annotated[
        str, typer.Option(help="The key's id; the file's name without ending if empty.")
    ] = "",
    as_json: options.Json = False,
) -> None:
    """Make an Ed25519 key: the private half into FILE, the public half for daemons."""
    pair, name = grants.keygen(), key_id or out.stem
    write_secret(out, pair.private_pem)
    if as_json:
        emit({"key_id": name, "public_key": pair.public_key, "private_key_file": str(out)})
        return
    console = render.console()
    console.print(render.plain(f"private key in {out}; whoever has it can make themselves admin"))
    console.print(Text("tell daemons its public half:\n"))
    console.print(Text(f"control_keys:\n  {name}: {pair.public_key}"), soft_wrap=True)


def issue(
    *,
    key: Annotated[Path, typer.Option("--key", help="Private key file from `token keygen`.")],
    role: Annotated[
        Role,
        typer.Option(
            parser=options.reader(role_named), metavar="ROLE", help="viewer, operator or admin."
        ),
    ],
    subject: Annotated[
        str, typer.Option(help="Who holds it; goes into the audit. You, if not given.")
    ] = "",
    ttl: Annotated[
        int, options.duration(about="How long it holds, at most 31 days")
    ] = DEFAULT_TTL_NS,
    audience: Audience = None,
    key_id: KeyId = "",
    as_json: options.Json = False,
) -> None:
    """Sign a role token; prints it and nothing else."""
    now_s = wall_ns() // NS_PER_S
    claims = RoleClaims(
        sub=subject or operator(),
        role=role.label,
        aud=tuple(audience or [default_daemon_name()]),
        exp=now_s + -(-ttl // NS_PER_S),
        iat=now_s,
        jti=uuid7(),
    )
    try:
        check_private(key)
        private_key = grants.load_private_key(read_file(str(key)))
        token = issue_token(private_key, key_id or key.stem, claims)
    except (TlsFault, ValueError) as error:
        raise Failure(f"the token cannot be signed: {error}") from error
    if as_json:
        emit({"token": token, "claims": msgspec.to_builtins(claims)})
    else:
        typer.echo(token)


def inspect(
    token: Annotated[str, typer.Argument(help="The token, @FILE, or - for standard input.")],
    *,
    as_json: options.Json = False,
    utc: options.Utc = False,
) -> None:
    """Show what a role token claims; whether it is believed, only a daemon can say."""
    try:
        seen = inspect_token(read_text_or_file(token))
    except ValueError as error:
        raise Failure(str(error)) from error
    if as_json:
        emit({"header": seen.header, "claims": seen.claims})
        return
    pairs = [("key", str(seen.header.get("kid", "")))]
    pairs += [(name, _claim(name, value, utc=utc)) for name, value in seen.claims.items()]
    head = Text("NOT VERIFIED: anybody may have written this", style="yellow")
    render.console().print(Group(head, render.fields(pairs)))


def _claim(name: str, value: object, *, utc: bool) -> str:
    if name in {"exp", "iat"} and isinstance(value, int) and 0 < value < 2**33:
        return moment_and_distance(value * NS_PER_S, wall_ns(), utc=utc)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
