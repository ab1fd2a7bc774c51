"""`costd serve`: run a daemon."""

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from ruamel.yaml import YAML

from costd.cli.flags import takes_settings
from costd.cli.program import BAD_SETTINGS, COULD_NOT_RUN, end
from costd.cli.telling import telling
from costd.configuration import SettingsError
from costd.daemon.serve import run
from costd.daemon.settings import Settings, load_settings
from costd.errors import CostdError, InvalidPolicy
from costd.serving.sockets import CannotListen
from costd.trust import TlsFault


@takes_settings(Settings)
def serve(
    flags: Mapping[str, Any],
    *,
    print_settings: Annotated[
        bool, typer.Option("--print-settings", help="Print the settings in force, and end.")
    ] = False,
) -> None:
    """Run the daemon until SIGTERM or SIGINT; SIGHUP reads the policy file again.

    Flags beat the environment (COSTD_DRAIN_S=3), which beats the --config
    file (drain_s: 3). OTEL_* say where traces, metrics and logs are sent.

    Files: for root the sockets are in /run/costd and the books in
    /var/lib/costd; for others in $XDG_RUNTIME_DIR/costd and
    ~/.local/state/costd.

    Signals: SIGTERM and SIGINT let open calls finish and end it, a second one
    ends it at once; SIGHUP reads the policy file again.

    Exit codes: 0 stopped; 1 it could not run, such as for books that another
    daemon has open; 2 settings, policy or certificates cannot be used.

    Example: costd serve --policy policy.yaml --claims security_review
    """
    try:
        settings = load_settings(flags)
        if print_settings:
            YAML().dump(settings.model_dump(mode="json", exclude={"config"}), sys.stdout)
            return
        with telling("costd", settings.name, settings) as (log, exports):
            run(settings, log, exports)
    except (SettingsError, InvalidPolicy, TlsFault) as error:
        end(error, BAD_SETTINGS)
    except (CostdError, CannotListen) as error:
        end(error, COULD_NOT_RUN)
