"""What a call cost: from usage and the price it was admitted at, whatever today's price is."""

from costd.engine.changes import Changes, Family
from costd.engine.ports import Prices
from costd.engine.resolve import Report
from costd.errors import InvalidAsk
from costd.model.money import AMOUNT_MAX
from costd.model.price import Price
from costd.model.reservation import Reservation
from costd.model.usage import Usage
from costd.pricing import usage_problem
from costd.store.port import Store


class Costs:
    """The prices behind reservations, kept in the store under their content's hash."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._saved: dict[str, Price] = {}

    def price_of(self, held: Reservation) -> Price | None:
        """Find the price a reservation was admitted at, whatever the catalogue says today."""
        return self._find(held.decision.price_id)

    def settling_price(self, held: Reservation, report: Report, prices: Prices) -> Price | None:
        """Find what a settle is priced at: the admit's price, unless another model answered.

        A settle that is repeated is priced as it was the first time.
        """
        if held.settled_price_id:
            return self._find(held.settled_price_id)
        price = self.price_of(held)
        if not report.model or report.model == held.decision.model:
            return price
        answered = prices.find(
            report.provider or held.decision.provider,
            report.model,
            wall_ns=held.admitted_ns,
            batch=held.ask.batch,
        )
        if answered is None or (price is not None and answered.source.model == price.source.model):
            return price
        return answered

    def save(self, changes: Changes, price: Price | None) -> None:
        """Write a price with what was computed from it, once."""
        if price is not None and price.price_id not in self._saved:
            changes.put(Family.PRICES, price.price_id.encode(), price)

    def saved(self, price: Price | None) -> None:
        """Remember a price once its write has succeeded."""
        if price is not None:
            self._saved.setdefault(price.price_id, price)

    def _find(self, price_id: str) -> Price | None:
        if not price_id:
            return None
        price = self._saved.get(price_id)
        return price or self._store.get(Family.PRICES, price_id.encode())


def cost_of(price: Price | None, usage: Usage | None) -> int:
    """Price usage, in nano-USD.

    Errors:  InvalidAsk where nothing was measured, the figures contradict each other, or nobody
             knows the price.
    """
    if usage is None or not (counts := usage.counts()):
        raise InvalidAsk("send usage with at least one count, or cost_nusd")
    _check_usage(usage)
    if price is None:
        raise InvalidAsk("nobody knows this model's price; send cost_nusd instead of usage")
    try:
        cost = price.cost_nusd(counts)
    except ValueError as error:
        raise InvalidAsk(f"usage: {error}") from error
    if cost > AMOUNT_MAX:
        raise InvalidAsk(f"usage costs {cost} nano-USD; at most {AMOUNT_MAX} can be charged")
    return cost


def marginal_cost(held: Reservation, price: Price | None, output_tokens: int) -> int:
    """What so many output tokens more will cost, in nano-USD.

    Errors:  InvalidAsk where nobody knows the price.
    """
    if price is None:
        raise InvalidAsk("nobody knows this model's price; send additional_cost_nusd")
    prompt = held.ask.prompt_tokens or 0
    base = {"input_tokens": prompt, "output_tokens": 0}
    longer = {"input_tokens": prompt, "output_tokens": output_tokens}
    return price.cost_nusd(longer) - price.cost_nusd(base)


def stated_cost(cost_nusd: int | None, usage: Usage | None) -> int | None:
    """Check a cost and usage that came together; None where no cost was stated.

    Errors:  InvalidAsk for a negative cost, or for usage that contradicts itself.
    """
    if cost_nusd is None:
        return None
    if not 0 <= cost_nusd <= AMOUNT_MAX:
        raise InvalidAsk(f"cost_nusd is {cost_nusd}; it must lie in 0 … {AMOUNT_MAX}")
    if usage is not None:
        _check_usage(usage)
    return cost_nusd


def _check_usage(usage: Usage) -> None:
    problem = usage.problem() or (usage_problem(usage.counts()) if usage.units else None)
    if problem:
        raise InvalidAsk(problem)
