"""Passes over what is to be forgotten: slices of all, and none in another's way."""

import pytest

from costd.coordinator.forgetting import Passes
from costd.errors import CoordinatorUnavailable


class Noted:
    """A log that keeps its lines."""

    def __init__(self):
        self.lines = []

    def __getattr__(self, level):
        return lambda event, **named: self.lines.append((level, event, named.get("task")))


class Work:
    """A task that has so many slices to do, or fails."""

    def __init__(self, slices):
        self.slices = slices
        self.fails = None
        self.done = 0

    async def __call__(self):
        if self.fails is not None:
            raise self.fails
        self.done += 1
        return self.done < self.slices


@pytest.fixture
def log():
    return Noted()


async def passed(passes):
    """Go through one pass; returns in how many slices."""
    passes.begin()
    count = 1
    while await passes.slice():
        count += 1
    return count


async def test_a_pass_ends_when_nothing_has_more_to_do(log):
    long, short = Work(3), Work(1)
    assert await passed(Passes({"long": long, "short": short}, log)) == 3
    assert (long.done, short.done) == (3, 1)


async def test_one_that_fails_waits_for_the_next_pass_and_holds_up_no_other(log):
    bad, good = Work(2), Work(2)
    bad.fails = CoordinatorUnavailable("it took too long")
    passes = Passes({"bad": bad, "good": good}, log)
    assert await passed(passes) == 2
    assert (bad.done, good.done) == (0, 2)
    assert passes.problems == {"bad": "it took too long"}
    bad.fails = None
    await passed(passes)
    assert (bad.done, passes.problems) == (2, {})


async def test_what_fails_is_told_once_and_so_is_that_it_works_again(log):
    bad = Work(1)
    bad.fails = CoordinatorUnavailable("it took too long")
    passes = Passes({"bad": bad}, log)
    await passed(passes)
    await passed(passes)
    bad.fails = None
    await passed(passes)
    await passed(passes)
    assert log.lines == [
        ("warning", "not_forgotten", "bad"),
        ("info", "forgotten_again", "bad"),
    ]


async def test_a_bug_in_one_stops_no_other(log):
    bad, good = Work(1), Work(1)
    bad.fails = KeyError("x")
    await passed(Passes({"bad": bad, "good": good}, log))
    assert good.done == 1
    assert log.lines == [("error", "forgetting_failed", "bad")]
