"""`costd injector`: run the admission webhook, or patch pods by hand."""

import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from ruamel.yaml import YAML

from costd.cli.flags import takes_settings
from costd.cli.program import BAD_SETTINGS, COULD_NOT_RUN, end, needing
from costd.cli.telling import telling
from costd.configuration import SettingsError
from costd.injector.by_hand import NotReadable, patched
from costd.injector.outcome import Outcome
from costd.injector.settings import Settings, load_settings
from costd.serving.sockets import CannotListen
from costd.trust import TlsFault


@takes_settings(Settings)
def injector(
    flags: Mapping[str, Any],
    *,
    print_settings: Annotated[
        bool, typer.Option("--print-settings", help="Print the settings in force, and end.")
    ] = False,
    patch: Annotated[
        str | None,
        typer.Option(
            "--patch",
            metavar="FILE",
            help="Print the manifests of FILE (- for standard input) with sidecars, and end.",
        ),
    ] = None,
) -> None:
    """Run the admission webhook that puts sidecars into pods, until SIGTERM or SIGINT.

    Serves HTTPS with --tls-cert and --tls-key, or makes its own certificate with
    --bootstrap. Flags beat the environment (COSTD_SIDECAR_IMAGE=…), which beats
    the --config file.

    Signals: SIGTERM and SIGINT answer what was asked and end it, a second one
    ends it at once.

    Exit codes: 0 stopped; 1 it could not run, or --patch refused a pod; 2
    settings or certificates cannot be used.

    Example: costd injector --sidecar-image costd --patch pod.yaml
    """
    try:
        settings = load_settings(flags)
        if print_settings:
            YAML().dump(settings.model_dump(mode="json", exclude={"config"}), sys.stdout)
            return
        if patch is not None:
            _patch(patch, settings)
            return
        _run(settings)
    except (SettingsError, TlsFault) as error:
        end(error, BAD_SETTINGS)
    except CannotListen as error:
        end(error, COULD_NOT_RUN)


def _run(settings: Settings) -> None:
    with needing("injector"):  # which patching by hand does not
        from costd.injector.serve import run  # noqa: PLC0415

    with telling("costd-injector", socket.gethostname(), settings) as (log, exports):
        run(settings, log, exports)


def _patch(file: str, settings: Settings) -> None:
    """Print patched manifests; what became of each pod goes to standard error."""
    is_refused = False

    def tell(what: str, outcome: Outcome) -> None:
        nonlocal is_refused
        is_refused |= not outcome.is_let_in
        typer.echo(f"costd: {what}: {outcome.reason}: {outcome.message}", err=True)
        for warning in outcome.warnings:
            typer.echo(f"costd: {what}: warning: {warning.removeprefix('costd: ')}", err=True)

    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
        written = patched(text, "default", settings.rules, tell)
    except (OSError, UnicodeDecodeError, NotReadable) as error:
        end(f"{file}: {getattr(error, 'strerror', None) or error}", COULD_NOT_RUN)
    if is_refused:
        raise typer.Exit(COULD_NOT_RUN)
    typer.echo(written.rstrip("\n"))
