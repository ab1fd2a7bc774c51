"""Which price is found, and for how long it holds."""

from datetime import UTC, datetime
from fractions import Fraction

import pytest
from genai_prices.types import ModelPrice

from costd.errors import InvalidPolicy
from costd.model.policy import Discount, PolicyPrice, PolicySet
from costd.model.price import PriceTier, UnitPrice
from costd.model.time import NEVER_NS
from costd.pricing import CATALOGUE_VERSION, PriceBook
from costd.pricing.book import MEMO_MAX
from costd.pricing.catalogue import providers

MTOK = 10**6
TEN_DOLLARS = (UnitPrice("input_tokens", 10**10, MTOK),)
ONE_MILLION = {"input_tokens": MTOK}


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


NOW_NS = at("2026-11-22T12:00")


def policy(*, prices=(), discounts=()) -> PolicySet:
    return PolicySet(revision="r7", prices=tuple(prices), discounts=tuple(discounts))


def cost(book: PriceBook, name: str, counts=None, *, wall_ns: int = NOW_NS, batch: bool = False):
    provider, _, model = name.rpartition(":")
    price = book.find(provider, model, wall_ns=wall_ns, batch=batch)
    return None if price is None else price.cost_nusd(counts or ONE_MILLION)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("openai:gpt-4o", "openai gpt-4o"),
        ("openai:gpt-4o-2024-11-20", "openai gpt-4o"),
        ("OpenAI:GPT-4o", "openai gpt-4o"),
        (":gpt-4o", "openai gpt-4o"),
        (":openai/gpt-4o", "openai gpt-4o"),
        (":anthropic/claude-sonnet-4-5", "anthropic claude-sonnet-4-5"),
        (":claude-sonnet-4-5", "anthropic claude-sonnet-4-5"),
        ("litellm:openai/gpt-4o", "openai gpt-4o"),
        ("azure:gpt-4o", "azure gpt-4o"),
        ("google:claude-opus-4-1", "google claude-4-opus"),
        ("openrouter:openai/gpt-4o", "openrouter openai/gpt-4o"),
        ("nobody:gpt-4o", None),
        ("openai:no-such-model", None),
        (":no-such-model", None),
        (":nobody/gpt-zz", None),
        (":openai/no-such-model", None),
        (":/", None),
        (":", None),
    ],
)
def test_names_lead_to_models(name, found) -> None:
    provider, _, model = name.rpartition(":")
    price = PriceBook().find(provider, model, wall_ns=NOW_NS)
    assert (f"{price.source.provider} {price.source.model}" if price else None) == found


def test_a_catalogue_price_says_where_it_is_from_and_how_much_context_there_is() -> None:
    price = PriceBook().find("openai", "gpt-4o", wall_ns=NOW_NS)
    assert price.source.source == "catalogue"
    assert price.source.version == CATALOGUE_VERSION
    assert CATALOGUE_VERSION.startswith("genai-prices 0.")
    assert price.context_window == 128_000
    assert not price.source.assumed


def test_the_price_id_is_that_of_the_content() -> None:
    ids = [PriceBook().find("openai", "gpt-4o", wall_ns=NOW_NS).price_id for _ in range(2)]
    assert ids[0] == ids[1]
    assert len(ids[0]) == 16
    other = PriceBook().find("azure", "gpt-4o", wall_ns=NOW_NS)
    assert other.price_id != ids[0]


def test_a_model_without_any_listed_price_is_unknown_unless_its_name_says_free() -> None:
    unpriced = ModelPrice()
    listed = [(p.id, m.id) for p in providers() for m in p.models if m.prices == unpriced]
    book = PriceBook()
    for provider, model in listed:
        price = book.find(provider, model, wall_ns=NOW_NS)
        assert (price is not None) == model.endswith(":free"), model
        assert price is None or price.cost_nusd({"input_tokens": 10**9}) == 0
    assert {model.endswith(":free") for _, model in listed} == {True, False}


def test_dated_prices_change_at_midnight_utc() -> None:
    book = PriceBook()
    before, after = at("2026-08-17T00:00") - 1, at("2026-08-17T00:00")
    assert cost(book, "deepseek:deepseek-v4-pro", wall_ns=before) == 435_000_000
    assert cost(book, "deepseek:deepseek-v4-pro", wall_ns=after) == 660_000_000
    assert cost(book, "deepseek:deepseek-v4-pro", wall_ns=before) == 435_000_000


@pytest.mark.parametrize(
    ("time", "cost_nusd"),
    [
        ("2026-11-22T00:59:59", 660_000_000),
        ("2026-11-22T01:00:00", 1_320_000_000),
        ("2026-11-22T03:59:59", 1_320_000_000),
        ("2026-11-22T04:00:00", 660_000_000),
        ("2026-11-22T06:00:00", 1_320_000_000),
        ("2026-11-22T10:00:00", 660_000_000),
        ("2026-11-22T23:59:59", 660_000_000),
        ("2026-11-23T01:00:00", 1_320_000_000),
    ],
)
def test_prices_by_time_of_day_follow_the_clock_in_one_book(time, cost_nusd) -> None:
    book = PriceBook()
    assert cost(book, "deepseek:deepseek-v4-pro", wall_ns=at("2026-11-22T12:00")) == 660_000_000
    assert cost(book, "deepseek:deepseek-v4-pro", wall_ns=at(time)) == cost_nusd
    assert cost(book, "deepseek:deepseek-v4-pro", wall_ns=at("2026-11-22T02:00")) == 1_320_000_000


@pytest.mark.parametrize("wall_ns", [-(2**62), -1, 0, 2**63 - 1])
def test_any_wall_time_has_a_price(wall_ns) -> None:
    book = PriceBook()
    for name in ("openai:gpt-4o", "deepseek:deepseek-v4-pro", "groq:whisper-large-v3"):
        assert cost(book, name, wall_ns=wall_ns) is not None


def test_batch_asks_get_the_batch_price_where_there_is_one() -> None:
    book = PriceBook()
    assert cost(book, "anthropic:claude-sonnet-4-5", {"output_tokens": MTOK}) == 15 * 10**9
    assert (
        cost(book, "anthropic:claude-sonnet-4-5", {"output_tokens": MTOK}, batch=True) == 75 * 10**8
    )
    # Charged as usual where the provider has no batch price, or resells at another's price.
    for name in ("deepseek:deepseek-chat", "google:claude-sonnet-5"):
        assert cost(book, name, batch=True) == cost(book, name) is not None


def test_groq_bills_ten_seconds_at_least() -> None:
    book = PriceBook()
    ten = cost(book, "groq:whisper-large-v3", {"audio_seconds": 10})
    assert cost(book, "groq:whisper-large-v3", {"audio_seconds": 1}) == ten
    assert cost(book, "groq:whisper-large-v3", {"audio_seconds": 0}) == 0
    assert cost(book, "openai:whisper-1", {"audio_seconds": 1}) < ten


@pytest.mark.parametrize(
    ("pattern", "asked", "is_stated"),
    [
        ("openai/gpt-4o", "openai:gpt-4o", True),
        ("openai/gpt-4o", ":gpt-4o", True),
        ("openai/gpt-4o", ":openai/gpt-4o", True),
        ("openai/gpt-4o", "openai:gpt-4o-2024-11-20", True),  # the catalogue calls it gpt-4o
        ("gpt-4o", "azure:gpt-4o", True),
        ("OpenAI/GPT-*", "openai:gpt-4o", True),
        ("*", "openai:gpt-4o", True),
        ("azure/*", "openai:gpt-4o", False),
        ("openai/gpt-4o-mini", "openai:gpt-4o", False),
        ("local/*", "local:llama", True),
        ("local/llama", ":local/llama", True),
        ("llama", ":llama", True),
    ],
)
def test_a_policy_price_beats_the_catalogue_where_its_pattern_matches(
    pattern, asked, is_stated
) -> None:
    book = PriceBook(policy(prices=[PolicyPrice(models=pattern, units=TEN_DOLLARS)]))
    assert (cost(book, asked) == 10**10) == is_stated


@pytest.mark.parametrize(
    ("pattern", "asked", "source"),
    [
        ("openai/*", "openai:gpt-4o-2024-11-20", ("openai", "gpt-4o")),
        ("local/llama", ":local/llama", ("local", "llama")),
        ("local/*", "local:llama", ("local", "*")),
        ("*/llama", "local:llama", ("", "*/llama")),
        ("llama-*", ":llama-7", ("", "llama-*")),
    ],
)
def test_a_policy_price_names_its_rule_and_never_what_the_caller_wrote(
    pattern, asked, source
) -> None:
    book = PriceBook(policy(prices=[PolicyPrice(models=pattern, units=TEN_DOLLARS)]))
    provider, _, model = asked.rpartition(":")
    price = book.find(provider, model, wall_ns=NOW_NS)
    assert (price.source.source, price.source.version) == ("policy", "r7")
    assert (price.source.provider, price.source.model) == source


def test_the_first_policy_price_in_force_wins() -> None:
    dear = (UnitPrice("input_tokens", 2 * 10**10, MTOK),)
    book = PriceBook(
        policy(
            prices=[
                PolicyPrice(models="openai/*", units=dear, from_ns=NOW_NS, until_ns=NOW_NS + 10),
                PolicyPrice(models="openai/gpt-4o", units=TEN_DOLLARS, until_ns=NOW_NS + 20),
            ]
        )
    )
    costs = [cost(book, "openai:gpt-4o", wall_ns=NOW_NS + ns) for ns in (-1, 0, 9, 10, 19, 20, 0)]
    assert costs == [10**10, 2 * 10**10, 2 * 10**10, 10**10, 10**10, 2_500_000_000, 2 * 10**10]


def test_a_policy_price_for_an_unknown_model_ends_in_unknown() -> None:
    book = PriceBook(
        policy(prices=[PolicyPrice(models="mine", units=TEN_DOLLARS, until_ns=NOW_NS)])
    )
    assert [cost(book, ":mine", wall_ns=NOW_NS + ns) for ns in (0, -1, 1)] == [None, 10**10, None]


def test_a_standard_policy_price_serves_batch_asks_only_without_a_batch_price() -> None:
    half = (UnitPrice("input_tokens", 5 * 10**9, MTOK),)
    standard = PolicyPrice(models="gpt-4o", units=TEN_DOLLARS)
    for_batch = PolicyPrice(models="gpt-4o", units=half, batch=True)
    assert cost(PriceBook(policy(prices=[standard])), "openai:gpt-4o", batch=True) == 10**10
    both = PriceBook(policy(prices=[standard, for_batch]))
    assert cost(both, "openai:gpt-4o", batch=True) == 5 * 10**9
    assert cost(both, "openai:gpt-4o") == 10**10
    assert cost(PriceBook(policy(prices=[for_batch])), "openai:gpt-4o") == 2_500_000_000


def test_a_policy_price_keeps_the_catalogues_context_window_unless_it_states_one() -> None:
    for stated, window in ((None, 128_000), (9, 9)):
        rule = PolicyPrice(models="gpt-4o", units=TEN_DOLLARS, context_window=stated)
        price = PriceBook(policy(prices=[rule])).find("", "gpt-4o", wall_ns=NOW_NS)
        assert price.context_window == window
    unknown = PolicyPrice(models="mine", units=TEN_DOLLARS)
    assert (
        PriceBook(policy(prices=[unknown])).find("", "mine", wall_ns=NOW_NS).context_window is None
    )


def test_a_policy_price_need_not_say_what_is_part_of_what() -> None:
    units = (
        UnitPrice("input_tokens", 10, 1),
        UnitPrice("cache_read_tokens", 1, 1),
        UnitPrice("house_tokens", 5, 1, minus=("guest_tokens",)),
        UnitPrice("guest_tokens", 3, 1),
    )
    book = PriceBook(policy(prices=[PolicyPrice(models="m", units=units)]))
    assert cost(book, ":m", {"input_tokens": 5, "cache_read_tokens": 3}) == 2 * 10 + 3
    assert cost(book, ":m", {"house_tokens": 5, "guest_tokens": 3}) == 2 * 5 + 3 * 3


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (
            (UnitPrice("a", 1, 1, minus=("b",)), UnitPrice("b", 1, 1, minus=("a",))),
            "part of itself",
        ),
        ((UnitPrice("a", 1, 0),), "a must cost 0 or more for each 1 or more"),
        ((UnitPrice("a", -1, 1),), "a must cost"),
        ((UnitPrice("a", 1, 1, (PriceTier(5, -1),)),), "a must cost"),
        ((UnitPrice("a", 1, 1), UnitPrice("a", 2, 1)), "priced twice"),
    ],
)
def test_a_price_that_cannot_be_computed_with_is_refused_with_the_policy(units, message) -> None:
    with pytest.raises(InvalidPolicy, match=f"price of 'x/\\*': .*{message}"):
        PriceBook(policy(prices=[PolicyPrice(models="x/*", units=units)]))


def test_a_discount_is_taken_off_catalogue_prices_and_not_off_the_policys_own() -> None:
    offers = [
        Discount(models="openai/*", share=Fraction(1, 10)),
        Discount(models="*", share=Fraction(1, 2)),
    ]
    stated = PolicyPrice(models="openai/gpt-4o-mini", units=TEN_DOLLARS)
    book = PriceBook(policy(prices=[stated], discounts=offers))
    assert cost(book, "openai:gpt-4o") == 2_250_000_000  # the first that matches, not both
    assert cost(book, "anthropic:claude-haiku-4-5") == 500_000_000
    assert cost(book, "openai:gpt-4o-mini") == 10**10
    assert cost(book, "openai:no-such-model") is None
    price = book.find("openai", "gpt-4o", wall_ns=NOW_NS)
    assert price.source.version == f"{CATALOGUE_VERSION} less 1/10"
    assert price.price_id != PriceBook().find("openai", "gpt-4o", wall_ns=NOW_NS).price_id


def test_a_discount_that_leaves_no_whole_price_is_still_exact() -> None:
    book = PriceBook(policy(discounts=[Discount(models="*", share=Fraction(1, 3))]))
    price = book.find("openai", "gpt-4o", wall_ns=NOW_NS)
    assert price.units[0].per == 3 * MTOK
    assert cost(book, "openai:gpt-4o", {"input_tokens": 3}) == 5_000
    assert cost(book, "openai:gpt-4o", {"input_tokens": 1}) == 1_667


def test_a_discount_reaches_every_tier() -> None:
    book = PriceBook(policy(discounts=[Discount(models="*", share=Fraction(1, 2))]))
    assert cost(book, "anthropic:claude-sonnet-4-5", {"input_tokens": 200_000}) == 300_000_000
    assert cost(book, "anthropic:claude-sonnet-4-5", {"input_tokens": 200_001}) == 600_003_000


@pytest.mark.parametrize(("share", "cost_nusd"), [(Fraction(0), 2_500_000_000), (Fraction(1), 0)])
def test_a_discount_may_take_nothing_or_all(share, cost_nusd) -> None:
    book = PriceBook(policy(discounts=[Discount(models="*", share=share)]))
    assert cost(book, "openai:gpt-4o") == cost_nusd


def test_a_discount_begins_and_ends_to_the_nanosecond() -> None:
    offer = Discount(models="*", share=Fraction(1, 2), from_ns=NOW_NS, until_ns=NOW_NS + 5)
    book = PriceBook(policy(discounts=[offer]))
    costs = [cost(book, "openai:gpt-4o", wall_ns=NOW_NS + ns) for ns in (-1, 0, 4, 5)]
    assert costs == [2_500_000_000, 1_250_000_000, 1_250_000_000, 2_500_000_000]


def test_the_same_price_is_the_same_object_while_it_holds() -> None:
    book = PriceBook()
    first = book.find("openai", "gpt-4o", wall_ns=NOW_NS)
    assert book.find("openai", "gpt-4o", wall_ns=NEVER_NS - 1) is first
    assert book.find("", "gpt-4o-2024-11-20", wall_ns=NOW_NS) is first


def test_names_that_callers_make_up_do_not_fill_the_memory() -> None:
    rule = PolicyPrice(models="mine-*", units=TEN_DOLLARS)
    book = PriceBook(policy(prices=[rule]))
    ids = set()
    for number in range(2 * MEMO_MAX + 10):
        name = f"mine-{number}" if number % 2 else f"other-{number}"
        price = book.find("", name, wall_ns=NOW_NS)
        ids.add(price.price_id if price else None)
        assert len(book._memo) <= MEMO_MAX
    assert len(ids) == 2
    assert len(book._prices) == 1
    assert cost(book, "openai:gpt-4o") == 2_500_000_000
