"""`alerts` and `audit`: what people should hear of, and who did what."""

from collections.abc import Iterable

from rich.console import RenderableType

from costd.cli import connection, options, render
from costd.cli.document import emit
from costd.cli.times import moment
from costd.wire.pb import control_pb2 as pb

ALERT_COLUMNS = ("raised", "kind", "rule", "key", ">at", "message")
AUDIT_COLUMNS = ("at", "actor", "action", "subject", ">count", "detail")


def alerts(
    *,
    since: options.Since = None,
    limit: options.Limit = 50,
    control: options.Control,
    as_json: options.Json = False,
    utc: options.Utc = False,
) -> None:
    """Show alerts: thresholds crossed, overruns, grants redeemed, kill switches engaged."""
    request = pb.ListAlertsRequest(limit_count=limit, since_ns=since)
    with connection.control(control) as daemon:
        answer = daemon.ListAlerts(request)
    if as_json:
        emit(answer)
    else:
        view = alerts_view(answer.alerts, utc=utc, truncated=answer.truncated)
        render.console().print(view)


def alerts_view(
    alerts: Iterable[pb.Alert], *, utc: bool, truncated: bool = False
) -> RenderableType:
    """Make a table of alerts."""
    rows = [
        (
            moment(alert.raised_ns, utc=utc),
            alert.kind,
            alert.rule,
            alert.key,
            render.percent(alert.utilisation_bp) if alert.utilisation_bp else "",
            alert.message,
        )
        for alert in alerts
    ]
    return render.listing(ALERT_COLUMNS, rows, nothing="no alerts", truncated=truncated)


def audit(
    *,
    since: options.Since = None,
    limit: options.Limit = 50,
    control: options.Control,
    as_json: options.Json = False,
    utc: options.Utc = False,
) -> None:
    """Show who did what: kill switches, grants, allowances, policies, denials counted by hour."""
    request = pb.ListAuditRequest(limit_count=limit, since_ns=since)
    with connection.control(control) as daemon:
        answer = daemon.ListAudit(request)
    if as_json:
        emit(answer)
        return
    rows = [
        (
            moment(record.at_ns, utc=utc),
            record.actor,
            record.action,
            record.subject,
            f"{record.count:,}" if record.count > 1 else "",
            # The faults of a refused policy, a line each.
            render.lines(record.detail) if record.action == "policy_refused" else record.detail,
        )
        for record in answer.records
    ]
    view = render.listing(
        AUDIT_COLUMNS, rows, nothing="nothing to audit", truncated=answer.truncated
    )
    render.console().print(view)
