"""`costd`: run a daemon, a coordinator, or both.

Exit codes: 0 stopped, 1 could not run, 2 bad settings or policy.
"""

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from ruamel.yaml import YAML

from costd import __version__, address
from costd.cli import up
from costd.cli.health import health
from costd.cli.injector import injector
from costd.cli.program import Command, Group
from costd.cli.telling import telling
from costd.configuration import Configured, SettingsError
from costd.coordinator import serve as coordinating
from costd.coordinator import settings as coordinator_settings
from costd.coordinator.migrate import Plan
from costd.daemon.serve import run
from costd.daemon.settings import Settings, load_settings
from costd.errors import CostdError, InvalidPolicy
from costd.serving.sockets import CannotListen
from costd.trust import TlsFault

COULD_NOT_RUN: Final = 1
BAD_SETTINGS: Final = 2

app = typer.Typer(
    cls=Group,
    name="costd",
    help="Decide, before an AI agent calls a language model, whether that call may happen.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _setting(name: str, program: type[Configured] = Settings) -> Any:
    """Declare a setting's flag; the setting itself says what it means and checks its value."""
    description = program.model_fields[name].description
    return typer.Option(f"--{name.replace('_', '-')}", help=description, show_default=False)


@app.command(cls=Command)
def serve(
    *,
    config: Annotated[str | None, _setting("config")] = None,
    policy: Annotated[str | None, _setting("policy")] = None,
    data: Annotated[str | None, _setting("data")] = None,
    name: Annotated[str | None, _setting("name")] = None,
    socket: Annotated[str | None, _setting("socket")] = None,
    socket_mode: Annotated[str | None, _setting("socket_mode")] = None,
    control_socket: Annotated[str | None, _setting("control_socket")] = None,
    tls_cert: Annotated[str | None, _setting("tls_cert")] = None,
    tls_key: Annotated[str | None, _setting("tls_key")] = None,
    tls_ca: Annotated[str | None, _setting("tls_ca")] = None,
    tls_verify_clients: Annotated[str | None, _setting("tls_verify_clients")] = None,
    listen: Annotated[str | None, _setting("listen")] = None,
    listen_tls: Annotated[str | None, _setting("listen_tls")] = None,
    control_listen: Annotated[str | None, _setting("control_listen")] = None,
    control_keys: Annotated[str | None, _setting("control_keys")] = None,
    metrics_listen: Annotated[str | None, _setting("metrics_listen")] = None,
    listen_insecure: Annotated[bool | None, _setting("listen_insecure")] = None,
    labels_fixed: Annotated[str | None, _setting("labels_fixed")] = None,
    claims: Annotated[str | None, _setting("claims")] = None,
    coordinator: Annotated[str | None, _setting("coordinator")] = None,
    coordinator_insecure: Annotated[bool | None, _setting("coordinator_insecure")] = None,
    kill_file: Annotated[str | None, _setting("kill_file")] = None,
    outbox_count_max: Annotated[str | None, _setting("outbox_count_max")] = None,
    outbox_full: Annotated[str | None, _setting("outbox_full")] = None,
    durability: Annotated[str | None, _setting("durability")] = None,
    reservations_retention_s: Annotated[str | None, _setting("reservations_retention_s")] = None,
    counters_retention_s: Annotated[str | None, _setting("counters_retention_s")] = None,
    runs_retention_s: Annotated[str | None, _setting("runs_retention_s")] = None,
    usage_retention_s: Annotated[str | None, _setting("usage_retention_s")] = None,
    alerts_retention_s: Annotated[str | None, _setting("alerts_retention_s")] = None,
    audit_retention_s: Annotated[str | None, _setting("audit_retention_s")] = None,
    message_bytes_max: Annotated[str | None, _setting("message_bytes_max")] = None,
    rpcs_count_max: Annotated[str | None, _setting("rpcs_count_max")] = None,
    drain_s: Annotated[str | None, _setting("drain_s")] = None,
    log_level: Annotated[str | None, _setting("log_level")] = None,
    log_format: Annotated[str | None, _setting("log_format")] = None,
    trace_labels: Annotated[str | None, _setting("trace_labels")] = None,
    print_settings: Annotated[
        bool, typer.Option("--print-settings", help="Print the settings in force, and end.")
    ] = False,
) -> None:
    """Run the daemon until SIGTERM or SIGINT; SIGHUP reads the policy file again.

    Flags beat the environment (COSTD_DRAIN_S=3), which beats the --config
    file (drain_s: 3).
    """
    given = locals()
    flags = {name: given[name] for name in Settings.model_fields if given[name] is not None}
    try:
        settings = load_settings(flags)
        if print_settings:
            YAML().dump(settings.model_dump(mode="json", exclude={"config"}), sys.stdout)
            return
        with telling("costd", settings.name, settings) as (log, exports):
            run(settings, log, exports)
    except (SettingsError, InvalidPolicy, TlsFault) as error:
        _end(error, BAD_SETTINGS)
    except (CostdError, CannotListen) as error:
        _end(error, COULD_NOT_RUN)


def _coordinators(name: str) -> Any:
    return _setting(name, coordinator_settings.Settings)


@app.command(cls=Command)
def coordinator(
    *,
    config: Annotated[str | None, _coordinators("config")] = None,
    database_url: Annotated[str | None, _coordinators("database_url")] = None,
    data: Annotated[str | None, _coordinators("data")] = None,
    name: Annotated[str | None, _coordinators("name")] = None,
    policy: Annotated[str | None, _coordinators("policy")] = None,
    listen: Annotated[str | None, _coordinators("listen")] = None,
    listen_insecure: Annotated[bool | None, _coordinators("listen_insecure")] = None,
    control_socket: Annotated[str | None, _coordinators("control_socket")] = None,
    tls_cert: Annotated[str | None, _coordinators("tls_cert")] = None,
    tls_key: Annotated[str | None, _coordinators("tls_key")] = None,
    tls_ca: Annotated[str | None, _coordinators("tls_ca")] = None,
    control_keys: Annotated[str | None, _coordinators("control_keys")] = None,
    metrics_listen: Annotated[str | None, _coordinators("metrics_listen")] = None,
    metrics_insecure: Annotated[bool | None, _coordinators("metrics_insecure")] = None,
    notices: Annotated[str | None, _coordinators("notices")] = None,
    tenure_s: Annotated[str | None, _coordinators("tenure_s")] = None,
    skew_max_s: Annotated[str | None, _coordinators("skew_max_s")] = None,
    usage_retention_s: Annotated[str | None, _coordinators("usage_retention_s")] = None,
    counters_retention_s: Annotated[str | None, _coordinators("counters_retention_s")] = None,
    runs_retention_s: Annotated[str | None, _coordinators("runs_retention_s")] = None,
    daemons_retention_s: Annotated[str | None, _coordinators("daemons_retention_s")] = None,
    drain_s: Annotated[str | None, _coordinators("drain_s")] = None,
    log_level: Annotated[str | None, _coordinators("log_level")] = None,
    log_format: Annotated[str | None, _coordinators("log_format")] = None,
    print_settings: Annotated[
        bool, typer.Option("--print-settings", help="Print the settings in force, and end.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Say what a start would do to the database, and end.")
    ] = False,
) -> None:
    """Run a coordinator, which shares budgets among daemons, until SIGTERM or SIGINT.

    Without a --database-url it runs a PostgreSQL of its own in its data
    directory. Flags beat the environment (COSTD_DATABASE_URL=…), which beats
    the --config file.
    """
    given = locals()
    fields = coordinator_settings.Settings.model_fields
    flags = {name: given[name] for name in fields if given[name] is not None}
    try:
        settings = coordinator_settings.load_settings(flags)
        if print_settings:
            YAML().dump(settings.model_dump(mode="json", exclude={"config"}), sys.stdout)
            return
        if check:
            _tell_plan(*asyncio.run(coordinating.plan(settings)))
            return
        with telling("costd-coordinator", settings.name, settings) as (log, exports):
            coordinating.run(settings, log, exports)
    except (SettingsError, InvalidPolicy) as error:
        _end(error, BAD_SETTINGS)
    except (CostdError, CannotListen, TlsFault) as error:
        _end(error, COULD_NOT_RUN)


def _tell_plan(where: str, plan: Plan | None) -> None:
    """Say what a start would do; exit code 1 if it would be refused."""
    typer.echo(f"database: {where}")
    if plan is None:
        typer.echo("a start would make it")
        return
    for line in plan.lines():
        typer.echo(line)
    if plan.refusal:
        typer.echo(f"costd: a start would be refused: {plan.refusal}", err=True)
        raise typer.Exit(COULD_NOT_RUN)


app.command(cls=Command)(health)
app.command(cls=Command)(injector)


@app.command("up", cls=Command)
def both(
    *,
    policy: Annotated[
        Path | None,
        typer.Option(help="Policy file to publish at the start, if it is not the newest."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Directory of the daemon's books; the coordinator's are in `coordinator` in it."
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="The name of both; the host's if empty.")] = "",
    socket: Annotated[
        Path | None,
        typer.Option(
            help="Unix socket agents ask at; control.sock and coordinator.sock lie beside it."
        ),
    ] = None,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where the daemon reaches the coordinator.")
    ] = "127.0.0.1:9466",
    claims: Annotated[
        str,
        typer.Option(help="Critical task classes that callers may claim: class,…; `*` for all."),
    ] = "",
    no_metrics: Annotated[
        bool, typer.Option("--no-metrics", help="Serve no Prometheus endpoints.")
    ] = False,
    log_level: Annotated[str, typer.Option(help="Least level that is logged.")] = "info",
    log_format: Annotated[
        str, typer.Option(help="`json` for machines, `console` for people.")
    ] = "console",
) -> None:
    """Run a coordinator and a daemon on this machine, until SIGTERM or SIGINT.

    Two processes, each of which is started again when it dies. For fleets, and for
    settings beyond these, run `costd coordinator` and `costd serve --coordinator`.
    """
    plan = up.Plan(
        policy=policy,
        data=(data or address.default_data()).absolute(),
        socket=(socket or address.default_socket()).absolute(),
        listen=listen,
        name=name,
        claims=claims,
        with_metrics=not no_metrics,
        log_level=log_level,
        log_format=log_format,
    )
    code = up.run(plan)
    if code:
        raise typer.Exit(code)


@app.command(cls=Command)
def version() -> None:
    """Print the version."""
    typer.echo(f"costd {__version__}")


def _end(error: Exception, exit_code: int) -> None:
    for line in str(error).splitlines():
        typer.echo(f"costd: {line}", err=True)
    raise typer.Exit(exit_code) from error


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
