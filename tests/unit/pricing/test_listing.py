"""What `costctl prices` shows."""

from fractions import Fraction

import pytest

from costd.model.policy import Discount, PolicyPrice, PolicySet
from costd.model.price import PriceTier, UnitPrice
from costd.pricing import PriceBook, search
from costd.pricing.listing import price_lines

NOW_NS = 1_795_359_600 * 10**9  # 2026-11-22


def found(text: str, limit: int = 20, book: PriceBook | None = None):
    return search(book or PriceBook(), text, limit, wall_ns=NOW_NS)


def test_the_closest_name_comes_first() -> None:
    first, *others = found("gpt-4o", 10)
    assert (first.model, first.context_window, first.deprecated) == ("gpt-4o", 128_000, False)
    assert all("gpt-4o" in listing.model for listing in others)
    assert len(others) == 9


def test_every_word_must_be_there_and_the_provider_counts() -> None:
    listings = found("groq llama")
    assert listings
    assert {listing.provider for listing in listings} <= {"groq", "huggingface_groq"}
    assert found("groq no-such-model") == []
    assert found("anthropic/claude-sonnet-4-5")[0].provider == "anthropic"


def test_nothing_asked_for_lists_everything_up_to_the_limit() -> None:
    assert len(found("", 7)) == 7


def test_a_listing_says_what_it_costs_when_and_who_says_so() -> None:
    listing = found("deepseek/deepseek-v4-pro", 1)[0]
    assert listing.prices == (
        "input_tokens $0.66 per 1,000,000",
        "output_tokens $1.98 per 1,000,000",
        "cache_read_tokens $0.022 per 1,000,000",
    )
    assert listing.name == "DeepSeek V4 Pro"
    assert listing.source.source == "catalogue"
    assert [note.partition(":")[0] for note in listing.notes[:2]] == [
        "at first, and whenever nothing below applies",
        "from 2026-08-17 UTC",
    ]
    assert listing.notes[2].startswith("daily 01:00 to 04:00 UTC: input_tokens $1.32 per")
    assert "peak" in listing.comments
    assert listing.urls[0].startswith("https://")


def test_kinds_of_processing_that_are_not_applied_say_so() -> None:
    notes = [note for listing in found("openai/gpt-5", 40) for note in listing.notes]
    assert any(note.startswith("processing=batch: ") for note in notes)
    assert any(note.startswith("service_tier=flex (not applied): ") for note in notes)


def test_a_model_without_a_price_is_listed_without_one() -> None:
    listing = found("cerebras/qwen-3-coder-480b", 1)[0]
    assert listing.prices == ()
    assert listing.source is None


def test_the_policys_price_and_discount_are_what_is_shown() -> None:
    policy = PolicySet(
        revision="r1",
        prices=(PolicyPrice(models="openai/gpt-4o", units=(UnitPrice("input_tokens", 1, 1),)),),
        discounts=(Discount(models="anthropic/*", share=Fraction(1, 3)),),
    )
    stated = found("openai/gpt-4o", 1, PriceBook(policy))[0]
    assert stated.prices == ("input_tokens $0.001 per 1,000,000",)
    assert stated.source.source == "policy"
    less = found("anthropic/claude-haiku-4-5", 1, PriceBook(policy))[0]
    assert less.prices[0] == "input_tokens ≈$0.666666666667 per 1,000,000"


@pytest.mark.parametrize(
    ("price", "line"),
    [
        (UnitPrice("input_tokens", 10**11, 10**6), "input_tokens $100.00 per 1,000,000"),
        (UnitPrice("input_tokens", 0, 10**6), "input_tokens $0.00 per 1,000,000"),
        (UnitPrice("gold_bars", 15 * 10**8, 7), "gold_bars $1.50 per 7"),
        (
            UnitPrice("audio_seconds", 36 * 10**7, 3600, at_least=10),
            "audio_seconds $0.36 per 3,600; at least 10 billed",
        ),
        (
            UnitPrice("input_tokens", 10**9, 10**6, (PriceTier(200_000, 2 * 10**9),)),
            "input_tokens $1.00 per 1,000,000; $2.00 above 200,000 input_tokens",
        ),
    ],
)
def test_prices_are_written_in_dollars(price, line) -> None:
    assert price_lines([price]) == (line,)
