"""What is the same for all calls of one kind: everything of an ask but its id and its amounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costd_client.pb import admission_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable

    from costd_client.stock import Stock

AMOUNTS = ("prompt_tokens", "max_output_tokens", "estimated_cost_nusd")


class Facts:
    """One kind of call, and the stock of allowances that its calls are drawn from.

    Shape:   `typical` is a checked ask without an id; `stock` and `rest` are set once, by the
             session, which alone knows the scope labels. When those change, other Facts take
             their place, so that a draw keeps the ones it was made by.
    """

    __slots__ = ("epoch", "labels", "rest", "stock", "typical")

    def __init__(self, typical: pb.AdmitRequest, stock: Stock) -> None:
        self.typical = typical
        self.labels = dict(typical.labels)
        self.stock = stock
        self.rest: tuple[tuple[str, str], ...] = ()
        """Labels that no rule reads and that ride along with each settlement."""
        self.epoch: object = None
        """Which scope labels `stock` and `rest` were found by; None: not found yet."""

    def key(self, scope_labels: Iterable[str]) -> tuple[object, ...]:
        """Name the scope that these calls belong to."""
        typical = self.typical
        return (
            typical.task_class,
            typical.provider,
            typical.model,
            typical.tier,
            typical.batch,
            tuple(typical.acceptable_models),
            tuple(self.labels.get(label) for label in scope_labels),
        )

    def scoped(self, scope_labels: frozenset[str]) -> pb.AdmitRequest:
        """Write a typical call of the scope, with the labels that rules read and no others."""
        ask = pb.AdmitRequest()
        ask.CopyFrom(self.typical)
        for label in self.labels.keys() - scope_labels:
            del ask.labels[label]
        return ask


def set_amounts(
    ask: pb.AdmitRequest,
    prompt_tokens: int | None,
    max_output_tokens: int | None,
    estimated_cost_nusd: int | None,
) -> None:
    """Write what one call states into its ask."""
    if prompt_tokens is not None:
        ask.prompt_tokens = prompt_tokens
    if max_output_tokens is not None:
        ask.max_output_tokens = max_output_tokens
    if estimated_cost_nusd is not None:
        ask.estimated_cost_nusd = estimated_cost_nusd
