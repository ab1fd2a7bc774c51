"""`ca`: a certificate authority, the certificates of daemons and people, and a look at one."""

from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography import x509
from rich.console import Group
from rich.text import Text

from costd.cli import options, render
from costd.cli.document import emit
from costd.cli.exits import ExitCode, Failure
from costd.cli.times import moment_and_distance, wall_ns
from costd.trust import Kind, Peer, Role, TlsFault
from costd.trust.authority import (
    CA_CERTIFICATE,
    CA_DAYS,
    CA_KEY,
    DAYS,
    make_authority,
    read_authority,
    write_pair,
)
from costd.trust.authority import issue as certify
from costd.trust.certificates import (
    chain_problem,
    ns_of,
    read_certificates,
    role_named,
    subject_of,
    validity_problem,
)
from costd.trust.files import read_file

DIRECTORY = Path("costd-ca")

RoleOption = Annotated[
    Role | None,
    typer.Option(
        parser=options.reader(role_named),
        metavar="ROLE",
        help="viewer, operator or admin; operators have one.",
    ),
]


def init(
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to put it.")] = DIRECTORY,
    name: Annotated[str, typer.Option(help="What it is called in certificates.")] = "costd CA",
    days: Annotated[int, typer.Option(min=1, max=36_500, help="How long it holds.")] = CA_DAYS,
    as_json: options.Json = False,
) -> None:
    """Make a CA: ca.crt for everybody, ca.key for whoever issues certificates."""
    certificate, key = out / CA_CERTIFICATE, out / CA_KEY
    try:
        write_pair(make_authority(name, wall_ns(), days=days), certificate, key)
    except (TlsFault, ValueError) as error:
        raise Failure(str(error)) from error
    if as_json:
        emit({"certificate_file": str(certificate), "private_key_file": str(key)})
        return
    console = render.console()
    console.print(render.plain(f"CA in {certificate}; give it to everybody"))
    console.print(render.plain(f"private key in {key}; whoever has it can be anybody"))


def issue(
    name: Annotated[str, typer.Argument(help="Whose it is: a host, a person.")],
    *,
    kind: Annotated[Kind, typer.Option(help="What its holder is.")],
    role: RoleOption = None,
    dns: Annotated[
        list[str] | None, typer.Option(metavar="HOST", help="A server's name. Repeatable.")
    ] = None,
    ip: Annotated[
        list[str] | None, typer.Option(metavar="ADDRESS", help="A server's address. Repeatable.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="How long it holds; never past the CA.")] = DAYS,
    ca: Annotated[Path, typer.Option("--ca", metavar="DIR", help="From `ca init`.")] = DIRECTORY,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to put it.")] = Path(),
    as_json: options.Json = False,
) -> None:
    """Issue a certificate: NAME.crt and its key, NAME.key."""
    certificate, key = out / f"{name}.crt", out / f"{name}.key"
    peer = Peer(kind=kind, name=name, role=role)
    try:
        issued = certify(
            read_authority(ca, wall_ns()), peer, wall_ns(), dns=dns or (), ip=ip or (), days=days
        )
        write_pair(issued, certificate, key)
    except (TlsFault, ValueError) as error:
        raise Failure(str(error)) from error
    if as_json:
        files = {"certificate_file": str(certificate), "private_key_file": str(key)}
        emit({"name": peer.uri} | files)
        return
    console = render.console()
    console.print(render.plain(f"certificate of {peer.uri} in {certificate}"))
    console.print(render.plain(f"its private key in {key}"))


def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Certificates in PEM.")],
    *,
    ca: Annotated[
        Path | None, typer.Option("--ca", metavar="FILE", help="Hold them against this CA.")
    ] = None,
    as_json: options.Json = False,
    utc: options.Utc = False,
) -> None:
    """Show whose a certificate is, as what, and until when; exit code 1 if it does not hold."""
    now_ns = wall_ns()
    try:
        found = read_certificates(read_file(file), str(file))
        roots = () if ca is None else read_certificates(read_file(ca), str(ca))
    except TlsFault as fault:
        raise Failure(str(fault)) from fault
    problem = chain_problem(found, roots, now_ns) if roots else None
    problem = problem or validity_problem(found[0], now_ns)
    rows = [_described(each) for each in found]
    if as_json:
        emit({"problem": problem, "certificates": rows})
    else:
        head = Text("VALID", style="bold green")
        if problem:
            head = Text(f"NOT VALID: {render.visible(problem)}", style="bold red")
        views = [render.fields(_shown(row, now_ns, utc=utc)) for row in rows]
        render.console().print(Group(head, *views))
    if problem:
        raise typer.Exit(ExitCode.ERROR)


def _described(certificate: x509.Certificate) -> dict[str, Any]:
    peer: Peer | None
    try:
        peer = subject_of(certificate)
    except TlsFault:
        peer = None
    return {
        "kind": _kind(certificate, peer),
        "name": peer.name if peer else certificate.subject.rfc4514_string(),
        "role": peer.role.label if peer and peer.role else None,
        "names": _names(certificate),
        "issuer": certificate.issuer.rfc4514_string(),
        "serial": f"{certificate.serial_number:x}",
        "valid_from_ns": ns_of(certificate.not_valid_before_utc),
        "valid_until_ns": ns_of(certificate.not_valid_after_utc),
    }


def _kind(certificate: x509.Certificate, peer: Peer | None) -> str | None:
    if peer is not None:
        return str(peer.kind)
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return None
    return "ca" if basic.ca else None


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(getattr(name, "value", name)) for name in names]


def _shown(row: dict[str, Any], now_ns: int, *, utc: bool) -> list[tuple[str, str]]:
    return [
        ("kind", row["kind"] or "unknown"),
        ("name", row["name"]),
        ("role", row["role"] or ""),
        ("names", ", ".join(row["names"])),
        ("issuer", row["issuer"]),
        ("serial", row["serial"]),
        ("from", moment_and_distance(row["valid_from_ns"], now_ns, utc=utc)),
        ("until", moment_and_distance(row["valid_until_ns"], now_ns, utc=utc)),
    ]
