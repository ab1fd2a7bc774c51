"""`costd injector`: run the admission webhook, or patch pods by hand."""

import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from ruamel.yaml import YAML

from costd.cli.telling import telling
from costd.configuration import SettingsError
from costd.injector.by_hand import NotReadable, patched
from costd.injector.outcome import Outcome
from costd.injector.settings import Settings, load_settings
from costd.serving.sockets import CannotListen
from costd.trust import TlsFault

COULD_NOT_RUN: Final = 1
BAD_SETTINGS: Final = 2


def _setting(name: str) -> Any:
    """Declare a setting's flag; the setting itself says what it means and checks its value."""
    description = Settings.model_fields[name].description
    return typer.Option(f"--{name.replace('_', '-')}", help=description, show_default=False)


def injector(
    *,
    config: Annotated[str | None, _setting("config")] = None,
    listen: Annotated[str | None, _setting("listen")] = None,
    tls_cert: Annotated[str | None, _setting("tls_cert")] = None,
    tls_key: Annotated[str | None, _setting("tls_key")] = None,
    bootstrap: Annotated[bool | None, _setting("bootstrap")] = None,
    namespace: Annotated[str | None, _setting("namespace")] = None,
    service: Annotated[str | None, _setting("service")] = None,
    secret: Annotated[str | None, _setting("secret")] = None,
    webhook: Annotated[str | None, _setting("webhook")] = None,
    namespaces_excluded: Annotated[str | None, _setting("namespaces_excluded")] = None,
    annotations: Annotated[str | None, _setting("annotations")] = None,
    labels: Annotated[str | None, _setting("labels")] = None,
    behind: Annotated[str | None, _setting("behind")] = None,
    host_network: Annotated[bool | None, _setting("host_network")] = None,
    unfit: Annotated[str | None, _setting("unfit")] = None,
    sidecar_image: Annotated[str | None, _setting("sidecar_image")] = None,
    sidecar_image_pull_policy: Annotated[str | None, _setting("sidecar_image_pull_policy")] = None,
    sidecar_mode: Annotated[str | None, _setting("sidecar_mode")] = None,
    sidecar_policy: Annotated[str | None, _setting("sidecar_policy")] = None,
    sidecar_kill_switches: Annotated[str | None, _setting("sidecar_kill_switches")] = None,
    sidecar_coordinator: Annotated[str | None, _setting("sidecar_coordinator")] = None,
    sidecar_coordinator_tls: Annotated[str | None, _setting("sidecar_coordinator_tls")] = None,
    sidecar_coordinator_insecure: Annotated[
        bool | None, _setting("sidecar_coordinator_insecure")
    ] = None,
    sidecar_claims: Annotated[str | None, _setting("sidecar_claims")] = None,
    sidecar_cpu: Annotated[str | None, _setting("sidecar_cpu")] = None,
    sidecar_memory: Annotated[str | None, _setting("sidecar_memory")] = None,
    sidecar_cpu_limit: Annotated[str | None, _setting("sidecar_cpu_limit")] = None,
    sidecar_memory_limit: Annotated[str | None, _setting("sidecar_memory_limit")] = None,
    sidecar_data_size: Annotated[str | None, _setting("sidecar_data_size")] = None,
    sidecar_drain_s: Annotated[str | None, _setting("sidecar_drain_s")] = None,
    sidecar_metrics_port: Annotated[str | None, _setting("sidecar_metrics_port")] = None,
    sidecar_log_level: Annotated[str | None, _setting("sidecar_log_level")] = None,
    metrics_listen: Annotated[str | None, _setting("metrics_listen")] = None,
    listen_insecure: Annotated[bool | None, _setting("listen_insecure")] = None,
    body_bytes_max: Annotated[str | None, _setting("body_bytes_max")] = None,
    deadline_s: Annotated[str | None, _setting("deadline_s")] = None,
    connections_count_max: Annotated[str | None, _setting("connections_count_max")] = None,
    drain_s: Annotated[str | None, _setting("drain_s")] = None,
    log_level: Annotated[str | None, _setting("log_level")] = None,
    log_format: Annotated[str | None, _setting("log_format")] = None,
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
    """
    given = locals()
    flags = {name: given[name] for name in Settings.model_fields if given[name] is not None}
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
        _end(error, BAD_SETTINGS)
    except CannotListen as error:
        _end(error, COULD_NOT_RUN)


def _run(settings: Settings) -> None:
    from costd.injector.serve import run  # noqa: PLC0415  needs what patching by hand does not

    with telling("costd-injector", settings.service, settings) as (log, exports):
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
        _end(f"{file}: {getattr(error, 'strerror', None) or error}", COULD_NOT_RUN)
    if is_refused:
        raise typer.Exit(COULD_NOT_RUN)
    typer.echo(written.rstrip("\n"))


def _end(error: Exception | str, exit_code: int) -> Any:
    for line in str(error).splitlines():
        typer.echo(f"costd: {line}", err=True)
    raise typer.Exit(exit_code)
