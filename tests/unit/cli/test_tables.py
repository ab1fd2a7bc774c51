"""Tables fit the terminal and stay readable: nothing is cut, and no word is broken."""

import io

import pytest
from rich.console import Console

from costd.cli.render import table
from costd.cli.tables import spread

COLUMNS = ("id", "state", "note", ">cost", "reason")
ROWS = [
    ["00ff00ff00ff00ff", "HELD", "holds money for a call that runs", "$1.50", ""],
    ["11ee11ee11ee11ee", "SETTLED", "", "$12.00", ""],
]


def draw(width, rows=ROWS, columns=COLUMNS, spare=()):
    screen = Console(file=io.StringIO(), width=width, color_system=None)
    screen.print(table(columns, rows, spare))
    return [line.rstrip() for line in screen.file.getvalue().splitlines()]


def test_where_there_is_room_every_column_is_there():
    head, _, first, second = draw(90)
    assert head.split() == ["id", "state", "note", "cost", "reason"]
    assert first.split("   ")[0] == "00ff00ff00ff00ff"
    assert second.endswith("$12.00")


def test_a_column_of_nothing_goes_before_anything_folds():
    head, _, first, _ = draw(72)
    assert "reason" not in head
    assert first == "00ff00ff00ff00ff   HELD      holds money for a call that runs    $1.50"


def test_what_may_be_spared_goes_next():
    head, _, first, _ = draw(50, spare=["note"])
    assert head.split() == ["id", "state", "cost"]
    assert first == "00ff00ff00ff00ff  HELD      $1.50"


def test_cells_fold_at_words():
    assert draw(54) == [
        "id                state    note                   cost",
        "─" * 54,
        "00ff00ff00ff00ff  HELD     holds money for a     $1.50",
        "                           call that runs",
        "11ee11ee11ee11ee  SETTLED                       $12.00",
    ]


def test_where_words_do_not_fit_each_row_is_a_block():
    assert draw(36) == [
        "00ff00ff00ff00ff  HELD",
        "  note holds money for a call that",
        "  runs",
        "  cost $1.50",
        "11ee11ee11ee11ee  SETTLED",
        "  cost $12.00",
    ]


def test_a_text_that_would_become_a_tower_is_a_block_instead():
    rows = [["2026-03-01", "file", "word " * 40]]
    drawn = draw(60, rows, ("at", "actor", "detail"))
    assert drawn[0] == "2026-03-01  file"
    assert len(drawn) == 5


@pytest.mark.parametrize("width", range(20, 120))
def test_no_line_is_longer_than_the_screen_and_no_word_is_lost(width):
    drawn = draw(width)
    assert max(map(len, drawn)) <= width
    said = " ".join(drawn).split()
    for row in ROWS:
        for cell in row:
            assert set(cell.split()) <= set(said)


def test_room_is_shared_by_those_who_want_it():
    assert spread([2, 5, 3], [9, 5, 4], 14) == [5, 5, 4]
    assert spread([2, 5], [3, 6], 100) == [3, 6]
    assert spread([4, 4], [9, 9], 8) == [4, 4]
