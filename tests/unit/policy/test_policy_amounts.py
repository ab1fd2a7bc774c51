"""How people write amounts: what is read, and what is refused with which advice."""

from fractions import Fraction

import pytest

from costd.model.money import AMOUNT_MAX
from costd.model.policy import RateUnit, Unit
from costd.policy import amounts

S = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "nusd"),
    [
        ("$0", 0),
        ("$0.000000001", 1),
        ("$1.25", 1_250_000_000),
        ("$ 5", 5_000_000_000),
        ("$1,250.50", 1_250_500_000_000),
        ("$9223372036.854775807", AMOUNT_MAX),
    ],
)
def test_money_is_read_exactly(text, nusd):
    assert amounts.read_nusd(text) == nusd


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("500", "write money like"),
        ("-$5", "is negative"),
        ("$-5", "is negative"),
        (".nan", "not a finite number"),
        ("$NaN", "not a finite number"),
        ("-.inf", "is negative"),
        ("$inf", "not a finite number"),
        ("five dollars", "cannot be read"),
        ("$1e3", "cannot be read"),
        ("$1,25", "cannot be read"),
        ("$0.0000000001", "more than nine decimals"),
        ("$1.0000000000000000000000000000001", "too many digits"),
        ("$9223372036.854775808", "outside $0.00 … $9,223,372,036.854775807"),
        ("$" + "9" * 500, "has 501 characters"),
        ("$٣", "cannot be read"),
        (None, "has no value"),
        (["$5"], "is a list"),
        ({"a": "$5"}, "is a mapping"),
    ],
)
def test_money_that_is_none_is_refused(text, message):
    with pytest.raises(ValueError, match=r"write money|decimals|outside|digits") as caught:
        amounts.read_nusd(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("007", 7), ("1,000", 1000), ("10k", 10_000), ("1.5k", 1500), ("2M", 2_000_000)],
)
def test_whole_numbers_take_suffixes(text, count):
    assert amounts.read_count(text) == count


@pytest.mark.parametrize("read", [amounts.read_count, amounts.read_fraction])
def test_a_number_of_too_many_digits_is_refused(read):
    with pytest.raises(ValueError, match="too many digits; shorten it"):
        read("1." + "0" * 40)


@pytest.mark.parametrize("text", ["1.5", "-1", "", "1e3", "2m", "1_000", "0x10", "9" * 20])
def test_other_numbers_are_not_whole(text):
    with pytest.raises(ValueError, match="whole number"):
        amounts.read_count(text)


def test_a_positive_number_is_not_zero():
    with pytest.raises(ValueError, match="at least 1"):
        amounts.read_positive("0")


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("$500", (500 * S, Unit.NUSD)),
        ("2M tokens", (2_000_000, Unit.TOKENS)),
        ("1,000 calls", (1000, Unit.CALLS)),
        ("0 calls", (0, Unit.CALLS)),
        ("unlimited", (None, Unit.NUSD)),
        ("unlimited tokens", (None, Unit.TOKENS)),
    ],
)
def test_limits_say_their_unit(text, limit):
    assert amounts.read_limit(text) == limit


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("500", "does not say of what"),
        ("500 requests", "budgets do not count 'requests'"),
        ("unlimited love", "names no unit"),
        ("-5 tokens", "is negative"),
        ("nan tokens", "not a finite number"),
        ("lots", "cannot be read"),
    ],
)
def test_limits_without_a_unit_of_budgets_are_refused(text, message):
    with pytest.raises(ValueError, match="unlimited") as caught:
        amounts.read_limit(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("60 requests / minute", (60, RateUnit.REQUESTS, 60 * S)),
        ("60 requests per minute", (60, RateUnit.REQUESTS, 60 * S)),
        ("100k prompt tokens/minute", (100_000, RateUnit.PROMPT_TOKENS, 60 * S)),
        ("10k output  tokens / 10 seconds", (10_000, RateUnit.OUTPUT_TOKENS, 10 * S)),
        ("1M tokens / day", (1_000_000, RateUnit.TOKENS, 86_400 * S)),
        ("$5 / hour", (5 * S, RateUnit.NUSD, 3600 * S)),
    ],
)
def test_rates_say_how_much_of_what_in_which_time(text, rate):
    assert amounts.read_rate(text) == rate


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("60", "is not a rate"),
        ("60 requests", "is not a rate"),
        ("60 / minute", "does not say of what"),
        ("60 calls / minute", "rates do not count 'calls'"),
        ("60 requests / month", "per what time?"),
        ("60 requests / 0 minutes", "per what time?"),
        ("0 requests / minute", "must let something through"),
        ("$0 / minute", "must let something through"),
        ("-1 requests / minute", "is negative"),
        ("words / minute", "cannot be read"),
    ],
)
def test_rates_that_cannot_work_are_refused(text, message):
    with pytest.raises(ValueError, match=r"write it like|write 20|let something") as caught:
        amounts.read_rate(text)
    assert message in str(caught.value)


def test_a_burst_may_leave_its_unit_to_the_limit():
    assert amounts.read_rate_amount("20") == (20, None)
    assert amounts.read_rate_amount("20 requests") == (20, RateUnit.REQUESTS)
    assert amounts.read_rate_amount("$2") == (2 * S, RateUnit.NUSD)


@pytest.mark.parametrize(("text", "bp"), [("80%", 8000), ("12.5 %", 1250), ("0.01%", 1)])
def test_shares_are_basis_points(text, bp):
    assert amounts.read_percent_bp(text) == bp


@pytest.mark.parametrize("text", ["80", "0.8", "-5%", "nan%", "0.001%", "%"])
def test_shares_need_a_percent_sign_and_two_decimals_at_most(text):
    with pytest.raises(ValueError, match=r"percentage|two decimals"):
        amounts.read_percent_bp(text)


@pytest.mark.parametrize(
    ("text", "reserve"),
    [
        ("20%", amounts.Reserve(share_bp=2000)),
        ("$50", amounts.Reserve(amount=50 * S)),
        ("100k tokens", amounts.Reserve(amount=100_000, unit=Unit.TOKENS)),
    ],
)
def test_a_reserve_is_a_share_or_an_amount(text, reserve):
    assert amounts.read_reserve(text) == reserve


@pytest.mark.parametrize("text", ["100%", "unlimited", "some"])
def test_a_reserve_of_everything_is_refused(text):
    with pytest.raises(ValueError, match=r"leaves nothing|unlimited|write"):
        amounts.read_reserve(text)


@pytest.mark.parametrize(
    ("text", "fraction"),
    [("1/5", Fraction(1, 5)), ("0.2", Fraction(1, 5)), ("20%", Fraction(1, 5)), ("2", Fraction(2))],
)
def test_fractions_are_exact_however_written(text, fraction):
    assert amounts.read_fraction(text) == fraction


@pytest.mark.parametrize("text", ["1/0", "-1/5", "nan", "a/b", "1/" + "3" * 40])
def test_what_is_no_fraction_is_refused(text):
    with pytest.raises(ValueError, match="write a fraction"):
        amounts.read_fraction(text)


def test_burn_rates_begin_at_the_pace_that_lasts():
    assert amounts.read_burn_bp("1.5") == 15_000
    for text in ("0.5", "1001", "1.00001"):
        with pytest.raises(ValueError, match="must lie in 1"):
            amounts.read_burn_bp(text)
    for text in ("fast", "150%", "-1"):
        with pytest.raises(ValueError, match="write a factor"):
            amounts.read_burn_bp(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("24h", 86_400), ("7d", 604_800), ("1h30m", 5400), ("2w", 1209600)],
)
def test_durations_are_written_with_their_units(text, seconds):
    assert amounts.read_duration_ns(text) == seconds * S


@pytest.mark.parametrize("text", ["10", "0s", "-5m", "5 minutes", "9999d", "1y", "1h 30m"])
def test_durations_without_sense_are_refused(text):
    with pytest.raises(ValueError, match=r"duration|10 years"):
        amounts.read_duration_ns(text)


def test_dates_are_midnight_utc_and_times_say_their_zone():
    assert amounts.read_time_ns("2026-03-01") == 1_772_323_200 * S
    assert amounts.read_time_ns("2026-03-01T10:00:00Z") == (1_772_323_200 + 36_000) * S
    assert amounts.read_time_ns("2026-03-01T11:00:00+01:00") == (1_772_323_200 + 36_000) * S
    with pytest.raises(ValueError, match="time zone"):
        amounts.read_time_ns("2026-03-01T10:00:00")
    for text in ("tomorrow", "2026-13-01"):
        with pytest.raises(ValueError, match="not a date"):
            amounts.read_time_ns(text)
    for text in ("1969-12-31", "2263-01-01", "0001-01-01T00:00:00+23:59"):
        with pytest.raises(ValueError, match="outside 1970"):
            amounts.read_time_ns(text)


def test_booleans_are_true_or_false_and_nothing_else():
    assert amounts.read_bool("true") is True
    assert amounts.read_bool("false") is False
    for text in ("yes", "1", "True", "on", ""):
        with pytest.raises(ValueError, match="neither true nor false"):
            amounts.read_bool(text)
