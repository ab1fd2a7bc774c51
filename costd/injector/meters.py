"""What an injector lets Prometheus see; docs/operating/metrics.md lists it."""

from collections.abc import Callable

from opentelemetry.sdk.metrics.export import HistogramDataPoint

from costd.clock import SystemClock
from costd.injector.reviews import Reviews
from costd.telemetry.metrics import Metrics


def meter_made(metrics: Metrics, ends_s: Callable[[], int | None]) -> None:
    """Observe a certificate of our own as one in files is."""
    metrics.gauge(
        "costd_tls_certificate_expiry_timestamp_seconds",
        "When the certificate in force expires.",
        lambda: [(at_s, {}) for at_s in (ends_s(),) if at_s is not None],
    )


def meter_injector(metrics: Metrics, reviews: Reviews) -> None:
    """Observe what the webhook answers."""
    metrics.counter(
        "costd_injector_reviews",
        "Pods reviewed, by verdict and reason.",
        lambda: reviews.readings(),  # noqa: PLW0108  read, not kept
    )
    metrics.counter(
        "costd_injector_refused",
        "Requests that were no reviews, by reason.",
        lambda: [(count, {"reason": why}) for why, count in list(reviews.turned_away.items())],
    )
    clock = SystemClock()
    started_ns = clock.now().wall_ns

    def durations() -> list[HistogramDataPoint]:
        if not reviews.durations.is_used:
            return []
        return [reviews.durations.point({}, started_ns=started_ns, now_ns=clock.now().wall_ns)]

    metrics.durations(
        "costd_injector_review_duration", "From a review's headers to its answer.", durations
    )
