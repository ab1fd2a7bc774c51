from decimal import Decimal

import pytest

from costd.model.money import AMOUNT_MAX, ceil_div, format_nusd, usd_to_nusd


@pytest.mark.parametrize(
    ("text", "nusd"),
    [
        ("1.25", 1_250_000_000),
        ("$1,250.00", 1_250_000_000_000),
        (" 3 ", 3_000_000_000),
        (2, 2_000_000_000),
        (Decimal("0.5"), 500_000_000),
        ("0.000000001", 1),
        ("0", 0),
        ("1e-9", 1),
        ("9223372036.854775807", AMOUNT_MAX),
    ],
)
def test_dollars_are_read_as_people_write_them(text, nusd: int):
    assert usd_to_nusd(text) == nusd


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ten", "not an amount"),
        ("", "not an amount"),
        ("NaN", "not a finite amount"),
        ("-Infinity", "not a finite amount"),
        ("0.0000000001", "more than nine decimals"),
        ("-1", r"outside \$0\.00 … \$9,223,372,036\.854775807"),
        ("1e400", r"outside \$0\.00 … \$9,223,372,036\.854775807"),
        ("9223372036.854775808", r"outside \$0\.00 … \$9,223,372,036\.854775807"),
    ],
)
def test_what_is_no_amount_is_refused(text: str, says: str):
    with pytest.raises(ValueError, match=says):
        usd_to_nusd(text)


@pytest.mark.parametrize(
    ("nusd", "text"),
    [
        (0, "$0.00"),
        (1, "$0.000000001"),
        (1_250_000_000, "$1.25"),
        (-1_500_000_000, "-$1.50"),
        (1_234_567_000_000_000, "$1,234,567.00"),
        (AMOUNT_MAX, "$9,223,372,036.854775807"),
    ],
)
def test_dollars_are_written_without_rounding(nusd: int, text: str):
    assert format_nusd(nusd) == text


def test_costs_round_up():
    assert [ceil_div(n, 3) for n in (0, 1, 3, 4, -1, -4)] == [0, 1, 1, 2, 0, -1]
