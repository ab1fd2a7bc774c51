"""costctl: what people at a terminal ask of a daemon or a coordinator, one module a noun."""

from typing import Any

import typer

from costd.cli import (
    allowances,
    ask,
    balance,
    budgets,
    ca,
    drill,
    fleet,
    kill,
    leases,
    override,
    policy,
    policy_versions,
    prices,
    records,
    render,
    reservations,
    settle,
    status,
    tokens,
    top,
    usage,
)
from costd.cli.credentials import reaching
from costd.cli.exits import ExitCode, Failure
from costd.cli.program import Command, Group
from costd.errors import CostdError, InvalidPolicy

CALLS, BOOKS, FLEET, STOP, RULES, TRUST = (
    "Calls",
    "Books",
    "Fleet",
    "Emergency",
    "Policy and prices",
    "Certificates and roles",
)


class _Group(Group):
    """Ends a command that cannot go on with its message and exit code, never with a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except Failure as failure:
            _complain(str(failure))
            raise typer.Exit(failure.exit_code) from failure
        except InvalidPolicy as error:
            _complain(str(error))
            raise typer.Exit(ExitCode.POLICY) from error
        except CostdError as error:
            _complain(str(error))
            raise typer.Exit(ExitCode.ERROR) from error


def _complain(message: str) -> None:
    """Print to standard error, whatever the message quotes; one line per fault."""
    for line in message.splitlines():
        render.console(stderr=True).print(render.plain(f"costctl: {line}", "red"), soft_wrap=True)


def _make_app() -> typer.Typer:
    app = typer.Typer(
        cls=_Group,
        name="costctl",
        help="Ask a costd daemon or coordinator, and steer it. Exit codes: 0 done or allowed, "
        "1 refused, 2 wrong usage, 3 denied, 4 the books say otherwise, 5 nobody answers, 6 policy "
        "not valid or not as expected, 7 a drill did not reach everyone.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    for name, command, panel in (
        ("admit", ask.admit, CALLS),
        ("explain", ask.explain, CALLS),
        ("settle", settle.settle, CALLS),
        ("void", settle.void, CALLS),
        ("record", settle.record, CALLS),
        ("status", status.status, BOOKS),
        ("top", top.top, BOOKS),
        ("budgets", budgets.budgets, BOOKS),
        ("reservations", reservations.reservations, BOOKS),
        ("allowances", allowances.allowances, BOOKS),
        ("usage", usage.usage, BOOKS),
        ("balance", balance.balance, BOOKS),
        ("alerts", records.alerts, BOOKS),
        ("audit", records.audit, BOOKS),
        ("fleet", fleet.fleet, FLEET),
        ("leases", leases.leases, FLEET),
        ("release", kill.release, STOP),
        ("kills", kill.kills, STOP),
        ("drill", drill.drill, STOP),
        ("prices", prices.prices, RULES),
        ("price", prices.price, RULES),
    ):
        app.command(name, cls=Command, rich_help_panel=panel)(reaching(command))
    app.add_typer(_kill(), rich_help_panel=STOP)
    app.add_typer(_allowance(), rich_help_panel=STOP)
    app.add_typer(_lease(), rich_help_panel=FLEET)
    app.add_typer(_budget(), rich_help_panel=FLEET)
    app.add_typer(_overrides(), rich_help_panel=STOP)
    app.add_typer(_policies(), rich_help_panel=RULES)
    app.add_typer(_certificates(), rich_help_panel=TRUST)
    app.add_typer(_tokens(), rich_help_panel=TRUST)
    return app


def _kill() -> typer.Typer:
    group = typer.Typer(name="kill", cls=Group, invoke_without_command=True)
    group.callback()(reaching(kill.kill))
    group.command("drill", cls=Command)(reaching(drill.drill))
    return group


def _lease() -> typer.Typer:
    group = typer.Typer(name="lease", cls=Group, help="Reclaim leases.", no_args_is_help=True)
    group.command("reclaim", cls=Command)(reaching(leases.reclaim))
    return group


def _budget() -> typer.Typer:
    group = typer.Typer(
        name="budget", cls=Group, help="Add to a fleet's budget.", no_args_is_help=True
    )
    group.command("top-up", cls=Command)(reaching(leases.top_up))
    return group


def _allowance() -> typer.Typer:
    group = typer.Typer(
        name="allowance", cls=Group, help="Revoke allowances.", no_args_is_help=True
    )
    group.command("revoke", cls=Command)(reaching(allowances.revoke))
    return group


def _overrides() -> typer.Typer:
    group = typer.Typer(
        name="override",
        cls=Group,
        help="Sign override grants, and look into them.",
        no_args_is_help=True,
    )
    for name, command in (
        ("keygen", override.keygen),
        ("issue", override.issue),
        ("inspect", override.inspect),
    ):
        group.command(name, cls=Command)(command)
    group.command("list", cls=Command)(reaching(override.redeemed))
    return group


def _policies() -> typer.Typer:
    group = typer.Typer(
        name="policy",
        cls=Group,
        help="Check, show, compare and try policies; publish them in a fleet.",
        no_args_is_help=True,
    )
    for name, command in (
        ("check", policy.check),
        ("show", policy.show),
        ("diff", policy.compare),
        ("test", policy.try_out),
        ("reload", policy.reload),
        ("apply", policy_versions.apply),
        ("history", policy_versions.history),
        ("rollback", policy_versions.rollback),
    ):
        group.command(name, cls=Command)(reaching(command))
    return group


def _certificates() -> typer.Typer:
    group = typer.Typer(
        name="ca",
        cls=Group,
        help="Make a certificate authority, and issue certificates.",
        no_args_is_help=True,
    )
    for name, command in (("init", ca.init), ("issue", ca.issue), ("show", ca.show)):
        group.command(name, cls=Command)(command)
    return group


def _tokens() -> typer.Typer:
    group = typer.Typer(
        name="token", cls=Group, help="Sign role tokens, and look into them.", no_args_is_help=True
    )
    for name, command in (
        ("keygen", tokens.keygen),
        ("issue", tokens.issue),
        ("inspect", tokens.inspect),
    ):
        group.command(name, cls=Command)(command)
    return group


app = _make_app()


def main() -> None:
    """Run costctl."""
    app(prog_name="costctl")


if __name__ == "__main__":
    main()
