"""A daemon's shares of the fleet's rates: which it needs no longer, and what goes with them."""

from collections.abc import Iterable, Mapping
from typing import Final

from costd.daemon.books.bookkeeping import Bookkeeping
from costd.engine import keys, shares
from costd.engine.rules import RateRule
from costd.model.lease import Lease

FAIR_NEWS_NS: Final = 100_000_000
"""So often a daemon that is asked for some of a rate tells how it stands, to hear what is fair."""


class RateShares:
    """Looks at the buckets behind the shares that this daemon holds.

    Shape:   reads the books and changes nothing; remembers how full buckets were when something
             was given back, until that is told. A restart forgets it: what is given back then
             counts as empty.
    """

    def __init__(self, books: Bookkeeping) -> None:
        self._books = books
        self._unused_ns: dict[bytes, int] = {}

    def split(self, counter_keys: Iterable[bytes]) -> tuple[list[bytes], list[bytes]]:
        """Part keys into those of rates, and others."""
        rated: list[bytes] = []
        others: list[bytes] = []
        for key in counter_keys:
            (others if self.rule_of(key) is None else rated).append(key)
        return rated, others

    def rule_of(self, key: bytes) -> RateRule | None:
        """Find the fleet's rate that this is a share of; None where it is a budget's counter."""
        return self._books.rules.shared_rates.get(keys.tag_of(key))

    def is_busy(self, key: bytes, since_ns: int) -> bool:
        """Tell whether a bucket was drawn from since then, or refilled at least.

        Units:   `since_ns` steady, and no longer ago than full buckets are kept (`Retention`).
        """
        full_ns = self._books.state.rate(keys.bucket_key(key))
        return full_ns is not None and full_ns > since_ns

    def kept(self, key: bytes, lease: Lease) -> int:
        """What to keep of a share when others are short."""
        rule, now = self.rule_of(key), self._books.clock.now()
        if rule is None:
            return 0
        full_ns = self._books.state.rate(keys.bucket_key(key))
        return shares.kept(rule.rate, full_ns, lease.amount, lease.reserve, now.steady_ns)

    def given_back(self, lowered: Mapping[bytes, Lease]) -> None:
        """Note how full the buckets are that are about to be given back of."""
        now = self._books.clock.now()
        for key in lowered:
            rule = self.rule_of(key)
            if rule is not None:
                full_ns = self._books.state.rate(keys.bucket_key(key))
                unused_ns = shares.unused_ns(rule.rate, full_ns, now.steady_ns)
                self._unused_ns[key] = min(unused_ns, self._unused_ns.get(key, unused_ns))

    def told(self, key: bytes) -> int:
        """Return how full that bucket was; once."""
        return self._unused_ns.pop(key, 0) if self._unused_ns else 0

    def forget(self) -> None:
        """Forget what was not told: the next Enrol tells nothing of it."""
        self._unused_ns.clear()
