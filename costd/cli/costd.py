"""`costd`: run the daemon. Exit codes: 0 stopped, 1 could not run, 2 bad settings or policy."""

import sys
from typing import Annotated, Any, Final

import typer
from ruamel.yaml import YAML

from costd import __version__
from costd.cli.program import Command, Group
from costd.daemon.serve import run
from costd.daemon.settings import Settings, SettingsError, load_settings
from costd.errors import CostdError, InvalidPolicy
from costd.serving.sockets import CannotListen
from costd.telemetry.logs import adopt_library_logs, make_log

COULD_NOT_RUN: Final = 1
BAD_SETTINGS: Final = 2

app = typer.Typer(
    cls=Group,
    name="costd",
    help="Decide, before an AI agent calls a language model, whether that call may happen.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _setting(name: str) -> Any:
    """Declare a setting's flag; the setting itself says what it means and checks its value."""
    description = Settings.model_fields[name].description
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
    listen: Annotated[str | None, _setting("listen")] = None,
    metrics_listen: Annotated[str | None, _setting("metrics_listen")] = None,
    listen_insecure: Annotated[bool | None, _setting("listen_insecure")] = None,
    labels_fixed: Annotated[str | None, _setting("labels_fixed")] = None,
    claims: Annotated[str | None, _setting("claims")] = None,
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
        log = make_log(level=settings.log_level, style=settings.log_format, stream=sys.stderr)
        adopt_library_logs(style=settings.log_format, stream=sys.stderr)
        run(settings, log)
    except (SettingsError, InvalidPolicy) as error:
        _end(error, BAD_SETTINGS)
    except (CostdError, CannotListen) as error:
        _end(error, COULD_NOT_RUN)


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
