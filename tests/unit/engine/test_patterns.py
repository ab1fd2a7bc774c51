"""Patterns over models, in which only `*` is special."""

import pytest

from costd.engine.rules import model_matches


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("gpt-5.2", True),
        ("openai/gpt-5.2", True),
        ("gpt-5", False),
        ("openai/*", True),
        ("*/gpt-5*", True),
        ("*", True),
        ("**", True),
        ("*5*2", True),
        ("g*5*.*2", True),
        ("gpt-5.2*gpt-5.2", False),
        ("*2*5*", False),
        ("anthropic/*", False),
        ("gpt-?.2", False),
        ("gpt-[0-9].2", False),
        ("", False),
    ],
)
def test_a_pattern_matches_a_model_with_or_without_its_provider(pattern, matches):
    assert model_matches((pattern,), "openai", "gpt-5.2") is matches


def test_one_pattern_of_several_is_enough_and_none_matches_nothing():
    assert model_matches(("gpt-4o", "gpt-5.2"), "openai", "gpt-5.2")
    assert not model_matches((), "openai", "gpt-5.2")


def test_brackets_in_a_model_s_name_mean_themselves():
    assert model_matches(("model[1m]",), "acme", "model[1m]")
