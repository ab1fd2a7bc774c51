"""The arithmetic of `costd.model.price`, without any catalogue."""

import msgspec
import pytest

from costd.model.money import AMOUNT_MAX
from costd.model.price import Price, PriceSource, PriceTier, UnitPrice

SOURCE = PriceSource("policy", "r1", "", "m")
MTOK = 10**6


def price(*units: UnitPrice) -> Price:
    return Price("id", units, SOURCE)


CLAUDE = price(
    UnitPrice(
        "input_tokens", 3_000_000_000, MTOK, minus=("cache_read_tokens", "cache_write_tokens")
    ),
    UnitPrice("cache_read_tokens", 300_000_000, MTOK),
    UnitPrice("cache_write_tokens", 3_750_000_000, MTOK, minus=("cache_write_1h_tokens",)),
    UnitPrice("cache_write_1h_tokens", 6_000_000_000, MTOK),
    UnitPrice("output_tokens", 15_000_000_000, MTOK),
)


@pytest.mark.parametrize(
    ("counts", "cost_nusd"),
    [
        ({}, 0),
        ({"input_tokens": 0, "output_tokens": 0}, 0),
        ({"input_tokens": 1}, 3_000),
        ({"input_tokens": 1000, "output_tokens": 100}, 3_000_000 + 1_500_000),
        # 1000 in: 600 read from cache, 300 written to it, of these 100 for an hour
        (
            {
                "input_tokens": 1000,
                "cache_read_tokens": 600,
                "cache_write_tokens": 300,
                "cache_write_1h_tokens": 100,
            },
            100 * 3_000 + 600 * 300 + 200 * 3_750 + 100 * 6_000,
        ),
        ({"input_tokens": 10, "cache_read_tokens": 10}, 10 * 300),
        ({"output_tokens": 10, "output_reasoning_tokens": 7}, 150_000),
        ({"web_searches": 5}, 0),
    ],
)
def test_parts_are_charged_once_at_their_own_price(counts, cost_nusd) -> None:
    assert CLAUDE.cost_nusd(counts) == cost_nusd


def test_naming_parts_of_parts_again_changes_nothing() -> None:
    named_twice = price(
        msgspec.structs.replace(
            CLAUDE.units[0],
            minus=("cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens"),
        ),
        *CLAUDE.units[1:],
    )
    counts = {
        "input_tokens": 1000,
        "cache_read_tokens": 600,
        "cache_write_tokens": 300,
        "cache_write_1h_tokens": 100,
    }
    assert named_twice.cost_nusd(counts) == CLAUDE.cost_nusd(counts)


def test_parts_that_overlap_are_taken_off_once() -> None:
    audio = price(
        UnitPrice("in", 10, 1, minus=("audio", "cached", "cached_audio")),
        UnitPrice("audio", 100, 1, minus=("cached_audio",)),
        UnitPrice("cached", 1, 1, minus=("cached_audio",)),
        UnitPrice("cached_audio", 50, 1),
    )
    # 10 in = 3 plain + 4 audio + 2 cached + 1 both
    counts = {"in": 10, "audio": 5, "cached": 3, "cached_audio": 1}
    assert audio.cost_nusd(counts) == 3 * 10 + 4 * 100 + 2 * 1 + 1 * 50


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (
            {"input_tokens": 5, "cache_read_tokens": 6},
            "input_tokens is 5, less than its parts: cache_read_tokens 6",
        ),
        ({"cache_read_tokens": 6}, "input_tokens is 0"),
        (
            {"input_tokens": 9, "cache_write_tokens": 1, "cache_write_1h_tokens": 2},
            "cache_write_tokens is 1, less than its parts: cache_write_1h_tokens 2",
        ),
    ],
)
def test_parts_greater_than_their_whole_are_refused(counts, message) -> None:
    with pytest.raises(ValueError, match=message):
        CLAUDE.cost_nusd(counts)


def test_a_part_that_is_not_priced_costs_what_the_whole_costs() -> None:
    only = price(UnitPrice("input_tokens", 10, 1, minus=("cache_read_tokens",)))
    assert only.cost_nusd({"input_tokens": 3, "cache_read_tokens": 2}) == 30


@pytest.mark.parametrize("minus", [("a",), ("b",)])
def test_a_unit_cannot_be_part_of_itself(minus) -> None:
    circle = price(UnitPrice("a", 1, 1, minus=minus), UnitPrice("b", 1, 1, minus=("a",)))
    with pytest.raises(ValueError, match="unit a is a part of itself"):
        circle.cost_nusd({"a": 1})


@pytest.mark.parametrize(
    ("input_tokens", "cost_nusd"),
    [
        (0, 5),
        (199_999, 199_999 + 5),
        (200_000, 200_000 + 5),
        (200_001, 400_002 + 7),
        (500_001, 1_500_003 + 7),
    ],
)
def test_a_tier_begins_above_its_start_and_reprices_everything(input_tokens, cost_nusd) -> None:
    tiered = price(
        # Deliberately not in order.
        UnitPrice("input_tokens", 1, 1, (PriceTier(500_000, 3), PriceTier(200_000, 2))),
        UnitPrice("output_tokens", 5, 1, (PriceTier(200_000, 7),)),
    )
    assert tiered.cost_nusd({"input_tokens": input_tokens, "output_tokens": 1}) == cost_nusd


def test_output_alone_is_priced_below_every_tier() -> None:
    tiered = price(UnitPrice("output_tokens", 5, 1, (PriceTier(0, 7),)))
    assert tiered.cost_nusd({"output_tokens": 1}) == 5
    assert tiered.cost_nusd({"output_tokens": 1, "input_tokens": 1}) == 7


def test_the_sum_is_rounded_up_once() -> None:
    thirds = price(UnitPrice("a", 1, 3), UnitPrice("b", 1, 7), UnitPrice("audio_seconds", 1, 3600))
    assert thirds.cost_nusd({"a": 1}) == 1
    assert thirds.cost_nusd({"a": 2, "b": 2}) == 1  # 2/3 + 2/7 = 20/21
    assert thirds.cost_nusd({"a": 2, "b": 3}) == 2  # 2/3 + 3/7 = 23/21
    assert thirds.cost_nusd({"audio_seconds": 3600, "a": 3}) == 2


def test_a_request_is_counted_once_unless_stated() -> None:
    per_request = price(UnitPrice("requests", 5_000, 1_000), UnitPrice("input_tokens", 2, 1))
    assert per_request.cost_nusd({}) == 5
    assert per_request.cost_nusd({"input_tokens": 1}) == 7
    assert per_request.cost_nusd({"requests": 0}) == 0
    assert per_request.cost_nusd({"requests": 3}) == 15


@pytest.mark.parametrize(
    ("counts", "billed_s"),
    [
        ({"audio_seconds": 0}, 0),
        ({"audio_seconds": 1}, 10),
        ({"audio_seconds": 10}, 10),
        ({"audio_seconds": 11}, 11),
        ({"audio_seconds": 3, "input_audio_seconds": 3}, 10),
        ({"input_audio_seconds": 20, "audio_seconds": 20}, 20),
        ({"input_audio_seconds": 3}, 10),
        ({"input_audio_seconds": 0}, 0),
        ({"output_tokens": 1}, 0),
    ],
)
def test_little_audio_is_billed_as_the_least_there_is(counts, billed_s) -> None:
    whisper = price(
        UnitPrice("audio_seconds", 111_000_000, 3600, minus=("input_audio_seconds",), at_least=10),
        UnitPrice("input_audio_seconds", 111_000_000, 3600),
    )
    assert whisper.cost_nusd(counts) == -(-billed_s * 111_000_000 // 3600)


def test_a_least_amount_needs_no_parts() -> None:
    plain = price(UnitPrice("audio_seconds", 1, 1, at_least=10))
    assert plain.cost_nusd({"audio_seconds": 4}) == 10


def test_amounts_past_the_largest_are_exact_and_left_to_the_caller() -> None:
    dear = price(UnitPrice("input_tokens", AMOUNT_MAX, 1))
    assert dear.cost_nusd({"input_tokens": 1}) == AMOUNT_MAX
    assert dear.cost_nusd({"input_tokens": AMOUNT_MAX}) == AMOUNT_MAX**2


def test_one_nano_dollar_for_a_million_costs_one_for_any_use() -> None:
    cheap = price(UnitPrice("input_tokens", 1, MTOK))
    assert [cheap.cost_nusd({"input_tokens": n}) for n in (0, 1, MTOK, MTOK + 1)] == [0, 1, 1, 2]


def test_a_price_without_units_is_free() -> None:
    assert price().cost_nusd({"input_tokens": 10**9}) == 0


def test_a_price_survives_its_encoding_and_ignores_what_it_remembers() -> None:
    CLAUDE.cost_nusd({"input_tokens": 1})
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(CLAUDE), type=Price)
    assert again == CLAUDE
    assert hash(again) == hash(CLAUDE)
    assert again.cost_nusd({"input_tokens": 1}) == 3_000
