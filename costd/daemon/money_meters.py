"""Metrics of money: what was spent, and how the budgets stand."""

from collections.abc import Callable

from costd.daemon import views
from costd.daemon.books.ledger import Ledger
from costd.daemon.standings import Standing, Standings
from costd.model.labels import NO_LABEL
from costd.telemetry.metrics import Metrics, Readings


def meter_spending(metrics: Metrics, ledger: Ledger) -> None:
    """Observe what usage events add up to.

    What is taken back is a counter of its own, since one that falls looks like a restart.
    """
    tallies = ledger.tallies

    def charges(name: str) -> Callable[[], Readings]:
        return lambda: [
            (
                getattr(charges, name),
                {
                    "verdict": views.VERDICTS.get(verdict, NO_LABEL),
                    "task_class": task_class,
                    "tier": tier,
                },
            )
            for (task_class, tier, verdict), charges in list(tallies.charges.items())
        ]

    def measured() -> Readings:
        return [
            (measures.cost_nusd, {"tier": tier, "provider": provider})
            for (tier, provider), measures in list(tallies.measures.items())
        ]

    def tokens() -> Readings:
        return [
            (count, {"tier": tier, "provider": provider, "kind": kind})
            for (tier, provider), measures in list(tallies.measures.items())
            for kind, count in (
                ("prompt_uncached", measures.prompt_tokens - measures.cached_tokens),
                ("prompt_cached", measures.cached_tokens),
                ("output", measures.output_tokens),
            )
        ]

    metrics.counter(
        "costd.charged_nusd",
        "Nano-USD charged by settles, expiries and records.",
        charges("charged_nusd"),
    )
    metrics.counter(
        "costd.reversed_nusd",
        "Nano-USD of expiries taken back, because the truth came.",
        charges("reversed_nusd"),
    )
    metrics.counter(
        "costd.measured_nusd", "Nano-USD that settles and records said calls cost.", measured
    )
    metrics.counter("costd.measured_tokens", "LLM tokens that settles and records told.", tokens)


def meter_budgets(metrics: Metrics, ledger: Ledger) -> None:
    """Observe the budgets of the policy, one figure each."""
    standings = Standings(ledger)

    def told(
        rows: Callable[[], list[Standing]], figure: Callable[[Standing], float | None]
    ) -> Callable[[], Readings]:
        return lambda: [
            (value, {"budget": row.budget, "window": row.window})
            for row in rows()
            if (value := figure(row)) is not None
        ]

    def kept() -> list[Standing]:
        return standings.rows

    # Instruments are read in the order in which they were made: the first reads for all.
    for rows, name, description, figure in (
        (
            standings.read,
            "utilisation_ratio",
            "Settled and reserved over the limit; of the fullest counter.",
            lambda row: row.utilisation_ratio,
        ),
        (
            kept,
            "used_nusd",
            "Nano-USD settled and reserved in the window; of the fullest counter.",
            lambda row: row.used_nusd,
        ),
        (kept, "limit_nusd", "Nano-USD allowed in the window.", lambda row: row.limit_nusd),
        (
            kept,
            "window_start_timestamp_seconds",
            "When the window began.",
            lambda row: row.window_s and row.window_s[0],
        ),
        (
            kept,
            "window_end_timestamp_seconds",
            "When the window ends.",
            lambda row: row.window_s and row.window_s[1],
        ),
    ):
        metrics.gauge(f"costd.budget_{name}", description, told(rows, figure))
    metrics.gauge(
        "costd.budgets_unshown",
        "Budgets of the policy past those that metrics show.",
        lambda: [(standings.unshown_count, {})],
    )
