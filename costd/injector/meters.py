"""What an injector lets Prometheus see; docs/operating/metrics.md lists it."""

from collections.abc import Callable

from opentelemetry.sdk.metrics.export import HistogramDataPoint

from costd.clock import SystemClock
from costd.injector.reviews import Reviews
from costd.telemetry.metrics import Metrics


def meter_injector(
    metrics: Metrics, reviews: Reviews, certificate_ends_s: Callable[[], int | None]
) -> None:
    """Observe what the webhook answers, and until when it can."""
    metrics.counter(
        "costd_injector_reviews",
        "Pods reviewed, by verdict and reason.",
        reviews.readings,
    )
    metrics.counter(
        "costd_injector_refused",
        "Requests that were no reviews, by reason.",
        lambda: [(count, {"reason": why}) for why, count in list(reviews.turned_away.items())],
    )
    metrics.gauge(
        "costd_injector_certificate_expiry_timestamp_seconds",
        "When the certificate in force ends.",
        lambda: [(ends_s, {}) for ends_s in (certificate_ends_s(),) if ends_s is not None],
    )
    clock = SystemClock()
    started_ns = clock.now().wall_ns

    def durations() -> list[HistogramDataPoint]:
        if not reviews.durations.is_used:
            return []
        return [reviews.durations.point({}, started_ns=started_ns, now_ns=clock.now().wall_ns)]

    metrics.durations(
        "costd_injector_review_duration", "From a review's first byte to its answer.", durations
    )
