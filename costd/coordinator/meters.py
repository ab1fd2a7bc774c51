"""What a coordinator lets Prometheus see; docs/operating/metrics.md lists it."""

from costd.coordinator.join import Join
from costd.coordinator.killbook import KillBook
from costd.coordinator.reception import Reception
from costd.coordinator.upkeep import Upkeep
from costd.telemetry.metrics import Metrics


def meter_fleet(
    metrics: Metrics, reception: Reception, join: Join, kills: KillBook, upkeep: Upkeep
) -> None:
    """Observe the fleet as this replica sees it."""
    metrics.gauge(
        "costd_fleet_daemons",
        "Daemons with a stream to this coordinator.",
        lambda: [(len(reception.attached), {})],
    )
    metrics.counter(
        "costd_fleet_messages",
        "Messages of daemons that were acted on.",
        lambda: [(join.messages_count, {})],
    )
    metrics.counter(
        "costd_fleet_transactions",
        "Database transactions those took; messages that wait share one.",
        lambda: [(join.transactions_count, {})],
    )
    metrics.gauge(
        "costd_fleet_policy_number",
        "The published policy in force.",
        lambda: [(reception.published.message.number, {})],
    )
    metrics.gauge(
        "costd_fleet_kills",
        "Kill switches known, engaged or released lately.",
        lambda: [(len(kills.switches), {})],
    )
    metrics.gauge(
        "costd_fleet_database_available",
        "1 while the database can be used.",
        lambda: [(int(not upkeep.database_problem), {})],
    )
