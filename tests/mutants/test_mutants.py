"""Mistakes are generated, caught or survive, and a survivor needs a word."""

import io

import pytest
from mutants import (
    ROOT,
    WORDS,
    Fate,
    Finding,
    entry_for,
    examine,
    lost_words,
    main,
    sample,
    verdict,
    words_from,
)
from mutating import mutants_of
from rich.console import Console

APPORTION = "costd/engine/apportion.py"
CAUGHT = ("if needed > room:", "if needed >= room:")
HARMLESS = ("_HALF = 2", "_HALF = 3")
RECEPTION = "costd/coordinator/reception.py"
ONE_NS_LATER = ("self.lends_from_ns = 0", "self.lends_from_ns = 1")
MODULE = '''
"""Says what > it does."""
ROUND_NS = 2_000_000_000

class Till(Base, frozen=True):
    def pay(self, cost: int | None, *, late=False) -> bool:
        if late:
            self.book(cost, note="too late")
        if cost > self.room:
            raise Refused(f"{cost + 1} is too much")
        self.book(cost)
        return True
'''


def mutants_in(folder, text):
    (folder / "till.py").write_text(text)
    return mutants_of(folder, "till.py")


def the(mutants, change):
    (found,) = [each for each in mutants if (each.was, each.now) == change]
    return found


def said(findings):
    console = Console(file=io.StringIO(), width=200)
    return verdict(console, findings), console.file.getvalue()


def test_a_mutant_is_one_place_of_code_that_reads_otherwise(tmp_path):
    mutants = mutants_in(tmp_path, MODULE)
    assert {(each.function, each.was, each.now, each.nth) for each in mutants} == {
        (
            "Till.pay",
            "def pay(self, cost: int | None, *, late=False) -> bool:",
            "def pay(self, cost: int | None, *, late=True) -> bool:",
            1,
        ),
        ("Till.pay", "if late:", "if not late:", 1),
        ("Till.pay", 'self.book(cost, note="too late")', "None", 1),
        ("Till.pay", 'self.book(cost, note="too late")', "self.book(cost, )", 1),
        ("Till.pay", "if cost > self.room:", "if cost >= self.room:", 1),
        ("Till.pay", "self.book(cost)", "None", 1),
        ("Till.pay", "return True", "return False", 1),
    }
    source = MODULE.encode()
    for each in mutants:
        text = each.text(source).decode()
        compile(text, "till.py", "exec")
        changed = zip(MODULE.splitlines(), text.splitlines(), strict=True)
        assert sum(before != after for before, after in changed) == 1


def test_a_mutant_is_known_again_though_lines_come_before_it(tmp_path):
    keys = {each.key for each in mutants_in(tmp_path, MODULE)}
    assert {each.key for each in mutants_in(tmp_path, "ONE = TWO\n" + MODULE)} == keys


def test_two_that_read_alike_are_told_apart(tmp_path):
    text = "def ask(a):\n    if a:\n        go(a)\n    if a:\n        go(a)\n"
    mutants = mutants_in(tmp_path, text)
    assert [(each.was, each.nth) for each in mutants] == [
        ("if a:", 1),
        ("go(a)", 1),
        ("if a:", 2),
        ("go(a)", 2),
    ]
    assert len({each.text(text.encode()) for each in mutants}) == 4


def test_a_sample_is_the_same_from_its_seed_and_stays_so_when_others_go():
    mutants = mutants_of(ROOT, APPORTION) + mutants_of(ROOT, "costd/engine/keys.py")
    chosen = sample(mutants, 1, 8)
    assert len(chosen) == 8
    assert chosen == sample(mutants, 1, 8) != sample(mutants, 2, 8)
    others = [each for each in mutants if each not in chosen]
    assert sample([each for each in mutants if each != others[0]], 1, 8) == chosen


@pytest.mark.slow
def test_a_mistake_is_caught_and_a_harmless_one_survives_and_the_source_stays_as_it_is():
    source = (ROOT / APPORTION).read_bytes()
    harmless_one = the(mutants_of(ROOT, RECEPTION), ONE_NS_LATER)
    wanted = [the(mutants_of(ROOT, APPORTION), CAUGHT), harmless_one]
    caught, harmless = examine(wanted, {wanted[1].key: "a matter of taste"}, jobs_count=1)
    assert caught.fate.is_caught
    assert caught.fate.by.startswith(("tests/unit/engine/test_lend.py", "tests/property/test_lend"))
    assert harmless == Finding(wanted[1], Fate(is_caught=False), "a matter of taste")
    assert (ROOT / APPORTION).read_bytes() == source
    assert said([caught, harmless])[0] == 0


def test_a_survivor_needs_a_word_and_is_told_where():
    survivor = the(mutants_of(ROOT, APPORTION), HARMLESS)
    status, report = said([Finding(survivor, Fate(is_caught=False), "")])
    assert status == 1
    assert "1 mutants: 0 caught, 1 survived, 1 of them without a word" in report
    assert entry_for(survivor) in report
    words = words_from(entry_for(survivor) + " a matter of taste")
    assert words == {survivor.key: "a matter of taste"}
    status, _ = said([Finding(survivor, Fate(is_caught=False), words[survivor.key])])
    assert status == 0


def test_what_has_a_word_and_is_caught_is_named():
    mutant = the(mutants_of(ROOT, APPORTION), HARMLESS)
    status, report = said([Finding(mutant, Fate(is_caught=True, by="a test"), "a matter of taste")])
    assert status == 0
    assert "its word can go" in report


@pytest.mark.parametrize("word", ["''", "' '"])
def test_an_empty_word_is_none(word):
    survivor = the(mutants_of(ROOT, APPORTION), HARMLESS)
    with pytest.raises(SystemExit, match="one word each"):
        words_from(f"{entry_for(survivor)} {word}")


def test_every_word_is_on_a_mutant_that_there_is():
    words = words_from(WORDS.read_text())
    mutants = [each for path in {key[0] for key in words} for each in mutants_of(ROOT, path)]
    assert lost_words(words, mutants) == []
    words[APPORTION, "apportion", "x = 1", "x = 2", 1] = "gone"
    (problem,) = lost_words(words, mutants)
    assert problem.startswith(f"words.yaml: {APPORTION} apportion: nothing turns 'x = 1' into")


def test_what_is_not_looked_at_is_refused():
    with pytest.raises(SystemExit, match=r"costd/clock\.py is not looked at; these are: costd/eng"):
        main(["--only", "costd/clock.py"])
