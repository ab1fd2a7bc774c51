"""`override`: make keys, sign override grants, look into them."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Group
from rich.text import Text

from costd import grants
from costd.cli import connection, options, render
from costd.cli.address import default_daemon_name
from costd.cli.document import emit
from costd.cli.exits import ExitCode, Failure
from costd.cli.identifiers import operator, uuid7
from costd.cli.sources import read_file, read_text_or_file, write_secret
from costd.cli.times import moment, moment_and_distance, wall_ns
from costd.model.grant import Grant, GrantRefusal
from costd.model.money import format_nusd
from costd.model.time import NS_PER_S
from costd.policy import load_policy
from costd.wire.pb import control_pb2 as pb

CLAIM_TIMES = ("nbf", "exp", "iat")
REDEEMED_COLUMNS = ("grant", ">uses", ">spent", "expires", "by")

KeyFile = Annotated[Path, typer.Option("--key", help="Private key file from `override keygen`.")]
KeyId = Annotated[
    str, typer.Option(help="The key's id in the policy; the file's name without ending if empty.")
]
Audience = Annotated[
    list[str] | None,
    typer.Option(
        "--audience",
        "-a",
        metavar="DAEMON",
        help="A daemon that may redeem it by itself; this host's if not given. Others of its "
        "fleet are lent it.",
    ),
]


def keygen(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="Where to put the private key.")],
    *,
    key_id: KeyId = "",
    as_json: options.Json = False,
) -> None:
    """Make an Ed25519 key: the private half into FILE, the public half for the policy."""
    pair = grants.keygen()
    name = key_id or out.stem
    write_secret(out, pair.private_pem)
    if as_json:
        emit({"key_id": name, "public_key": pair.public_key, "private_key_file": str(out)})
        return
    console = render.console()
    console.print(render.plain(f"private key in {out}; keep it where only issuers can read it"))
    console.print(Text("list the public key in the policy:\n"))
    console.print(Text(f"grant_keys:\n  - id: {name}\n    public_key: {pair.public_key}"))


def issue(
    *,
    key: KeyFile,
    amount: Annotated[int, options.money("--amount", about="All its uses together cost at most")],
    task_class: Annotated[
        list[str], typer.Option("--class", "-c", metavar="CLASS", help="For these. Repeatable.")
    ],
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why; goes into the audit.")],
    subject: Annotated[str, typer.Option(help="For whom: a person, an agent, a ticket.")],
    valid_for: Annotated[int, options.duration(about="How long it holds")],
    scope: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Labels it is for: a, a|b or * (any). Repeatable."),
    ] = None,
    everything: Annotated[bool, typer.Option("--everything", help="Instead of any scope.")] = False,
    uses: Annotated[int, typer.Option(min=1, help="How often it may be redeemed.")] = 1,
    not_before: Annotated[int | None, options.when(about="Not before; now if not given")] = None,
    passes_kill: Annotated[
        bool, typer.Option("--passes-kill", help="Holds under an engaged kill switch, too.")
    ] = False,
    audience: Audience = None,
    fleet: Annotated[
        bool,
        typer.Option(
            "--fleet",
            help="For a whole fleet, instead of any audience: its coordinator lends the uses.",
        ),
    ] = False,
    key_id: KeyId = "",
    issuer: Annotated[str, typer.Option(help="Who signs; you, if not given.")] = "",
    grant_id: Annotated[str, typer.Option("--id", help="Its id; a new UUIDv7 if empty.")] = "",
    as_json: options.Json = False,
) -> None:
    """Sign an override grant; prints the token and nothing else."""
    labels = options.pairs(scope, "--scope")
    if bool(labels) == everything:
        raise typer.BadParameter("give --scope KEY=VALUE, or --everything", param_hint="--scope")
    if audience and fleet:
        raise typer.BadParameter("give --audience DAEMON, or --fleet", param_hint="--fleet")
    now_s = wall_ns() // NS_PER_S
    starts_s = now_s if not_before is None else not_before // NS_PER_S
    claims = grants.GrantClaims(
        jti=grant_id or uuid7(),
        iss=issuer or operator(),
        sub=subject,
        aud=() if fleet else tuple(audience or [default_daemon_name()]),
        nbf=starts_s,
        exp=starts_s + -(-valid_for // NS_PER_S),
        iat=now_s,
        reason=reason,
        scope={name: _values(text) for name, text in labels.items()},
        task_classes=tuple(task_class),
        amount_nusd=amount,
        uses=uses,
        passes_kill=passes_kill,
    )
    try:
        private_key = grants.load_private_key(read_file(str(key)))
        token = grants.issue(private_key, key_id or key.stem, claims)
    except ValueError as error:
        raise Failure(f"the grant cannot be signed: {error}") from error
    if as_json:
        emit({"token": token, "claims": msgspec.to_builtins(claims)})
    else:
        typer.echo(token)


def inspect(
    token: Annotated[str, typer.Argument(help="The token, @FILE, or - for standard input.")],
    *,
    policy: Annotated[
        Path | None, typer.Option(help="Verify it with the keys that this policy lists.")
    ] = None,
    audience: Annotated[
        str, typer.Option("--audience", "-a", metavar="DAEMON", help="As this daemon.")
    ] = "",
    fleet: Annotated[
        bool, typer.Option("--fleet", help="As a daemon of a fleet, which may be lent a use.")
    ] = False,
    as_json: options.Json = False,
    utc: options.Utc = False,
) -> None:
    """Show what a grant claims; with --policy, also whether a daemon would believe it."""
    text = read_text_or_file(token)
    try:
        seen = grants.inspect(text)
    except ValueError as error:
        raise Failure(str(error)) from error
    verified = None
    if policy is not None:
        verified = grants.verify(
            text,
            keys=load_policy(policy).grant_keys,
            audience=audience or default_daemon_name(),
            wall_ns=wall_ns(),
            in_fleet=fleet,
        )
    if as_json:
        emit(
            {
                "verified": None if verified is None else isinstance(verified, Grant),
                "refusal": verified.name if isinstance(verified, GrantRefusal) else None,
                "header": seen.header,
                "claims": seen.claims,
            }
        )
    else:
        render.console().print(_view(seen, verified, utc=utc))
    if isinstance(verified, GrantRefusal):
        raise typer.Exit(ExitCode.DENIED)


def redeemed(
    *,
    expired: Annotated[bool, typer.Option("--expired", help="Expired ones, too.")] = False,
    control: options.Control,
    as_json: options.Json = False,
    utc: options.Utc = False,
) -> None:
    """Show what was used of override grants: at a daemon, or in a fleet and by whom."""
    with connection.control(control) as daemon:
        answer = daemon.ListGrants(pb.ListGrantsRequest(include_expired=expired))
    if as_json:
        emit(answer)
        return
    rows = [
        (
            grant.grant_id,
            f"{grant.uses_count:,} of {grant.uses_max_count:,}",
            f"{format_nusd(grant.used_nusd)} of {format_nusd(grant.amount_nusd)}",
            moment(grant.expires_ns, utc=utc),
            _by_whom(grant),
        )
        for grant in answer.grants
    ]
    nothing = "no override grant was redeemed"
    render.console().print(render.listing(REDEEMED_COLUMNS, rows, nothing=nothing))


def _by_whom(grant: pb.GrantStatus) -> str:
    if not grant.holders:
        return f"issued by {grant.issuer} to {grant.subject}"
    return ", ".join(
        f"{each.daemon} {each.uses_count:,}"
        + (f" ({each.unleased_count:,} offline)" if each.unleased_count else "")
        for each in grant.holders
        if each.uses_count
    )


def _view(
    seen: grants.UnverifiedGrant, verified: Grant | GrantRefusal | None, *, utc: bool
) -> Group:
    if verified is None:
        head = Text("NOT VERIFIED: anybody may have written this; add --policy", style="yellow")
    elif isinstance(verified, GrantRefusal):
        head = Text(f"REFUSED: {verified.name}", style="bold red")
    else:
        head = Text("VERIFIED", style="bold green")
    pairs = [("key", str(seen.header.get("kid", "")))]
    pairs += [(name, _claim(name, value, utc=utc)) for name, value in seen.claims.items()]
    return Group(head, render.fields(pairs))


def _claim(name: str, value: object, *, utc: bool) -> str:
    """Write a claim for people, whatever it is: nobody has checked it."""
    if name in CLAIM_TIMES and isinstance(value, int) and 0 < value < 2**33:
        return moment_and_distance(value * NS_PER_S, wall_ns(), utc=utc)
    if name == "amount_nusd" and isinstance(value, int):
        return format_nusd(value)
    if isinstance(value, dict):
        return render.mapping((str(key), str(text)) for key, text in value.items()) or "everything"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def _values(text: str) -> str | tuple[str, ...]:
    return tuple(text.split("|")) if "|" in text else text
