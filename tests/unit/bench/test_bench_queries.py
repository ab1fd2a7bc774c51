"""The bench asks every named query, so it must know what each is asked with."""

import pytest

from bench.fleet.queries import NOT_ALONE, NamedQueries
from costd.coordinator.queries import query_names


@pytest.mark.parametrize("name", sorted(set(query_names()) - NOT_ALONE))
def test_every_named_query_is_told_what_it_asks_for(name):
    queries = NamedQueries.__new__(NamedQueries)
    queries._now_ns = 1_800_000_000 * 10**9
    assert queries._parameters(name) is not None
