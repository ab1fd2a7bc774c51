"""`costd coordinator`: run a coordinator, or say what a start would do."""

import asyncio
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from ruamel.yaml import YAML

from costd.cli.flags import takes_settings
from costd.cli.program import BAD_SETTINGS, COULD_NOT_RUN, end
from costd.cli.telling import telling
from costd.configuration import SettingsError
from costd.coordinator.migrate import Plan
from costd.coordinator.serve import plan, run
from costd.coordinator.settings import Settings, load_settings
from costd.errors import CostdError, InvalidPolicy
from costd.serving.sockets import CannotListen
from costd.trust import TlsFault


@takes_settings(Settings)
def coordinator(
    flags: Mapping[str, Any],
    *,
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
    the --config file. OTEL_* say where traces, metrics and logs are sent.

    Files: for root the operators' socket is in /run/costd, for others in
    $XDG_RUNTIME_DIR/costd; what it keeps is in the database.

    Signals: SIGTERM and SIGINT take leave of daemons and end it, a second one
    ends it at once.

    Exit codes: 0 stopped; 1 it could not run, such as without its database, or
    --check found that it would not; 2 settings or policy cannot be used.

    Example: costd coordinator --policy policy.yaml --listen 127.0.0.1:9466
    """
    try:
        settings = load_settings(flags)
        if print_settings:
            YAML().dump(settings.model_dump(mode="json", exclude={"config"}), sys.stdout)
            return
        if check:
            _tell_plan(*asyncio.run(plan(settings)))
            return
        with telling("costd-coordinator", settings.name, settings) as (log, exports):
            run(settings, log, exports)
    except (SettingsError, InvalidPolicy) as error:
        end(error, BAD_SETTINGS)
    except (CostdError, CannotListen, TlsFault) as error:
        end(error, COULD_NOT_RUN)


def _tell_plan(where: str, told: Plan | None) -> None:
    """Say what a start would do; exit code 1 if it would be refused."""
    typer.echo(f"database: {where}")
    if told is None:
        typer.echo("a start would make it")
        return
    for line in told.lines():
        typer.echo(line)
    if told.refusal:
        typer.echo(f"costd: a start would be refused: {told.refusal}", err=True)
        raise typer.Exit(COULD_NOT_RUN)
