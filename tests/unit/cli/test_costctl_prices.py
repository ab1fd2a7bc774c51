"""prices and price, and how a cost is split by unit."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costd.cli.breakdown import breakdown
from costd.model.money import ceil_div
from costd.model.price import Price, PriceSource, PriceTier, UnitPrice
from costd.pricing import PriceBook

OPENAI_BODY = {
    "object": "chat.completion",
    "model": "gpt-4o-mini",
    "usage": {
        "prompt_tokens": 1_201,
        "completion_tokens": 333,
        "prompt_tokens_details": {"cached_tokens": 500},
    },
}
OWN_PRICE = """\
version: 1
prices:
  - models: acme/own-model
    input: $1
    output: $3
"""


def test_price_splits_the_cost_of_a_response_body(costctl, tmp_path):
    file = tmp_path / "body.json"
    file.write_text(json.dumps(OPENAI_BODY))
    out = costctl("price", file, "--provider", "openai").out
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["gpt-4o-mini", "cost", "$0.00034245"]
    assert ["input_tokens", "701", "$0.00010515"] in lines
    assert ["cache_read_tokens", "500", "$0.0000375"] in lines
    assert ["output_tokens", "333", "$0.0001998"] in lines
    assert "openai/gpt-4o-mini by catalogue genai-prices" in out


def test_price_reads_standard_input_and_finds_the_provider(costctl):
    for arguments in (("price",), ("price", "-")):
        document = costctl(*arguments, "--json", text=json.dumps(OPENAI_BODY)).json()
        assert document["cost_nusd"] == 342_450
        assert document["price"]["provider"] == "openai"
        exact = [int(unit["cost_nusd_exact"]) for unit in document["units"]]
        assert sum(exact) == 342_450


def test_price_uses_a_policys_own_prices(costctl, tmp_path):
    (tmp_path / "policy.yaml").write_text(OWN_PRICE)
    body = json.dumps(OPENAI_BODY | {"model": "own-model"})
    unknown = costctl("price", "--provider", "acme", text=body)
    assert unknown.code == 1
    assert "nobody knows the price of 'own-model' at acme" in unknown.err
    options = ("--provider", "acme", "--policy", tmp_path / "policy.yaml", "--json")
    document = costctl("price", *options, text=body).json()
    assert document["cost_nusd"] == 1_201 * 1_000 + 333 * 3_000
    assert document["price"]["source"] == "policy"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "must be a JSON object"),
        ("{}", "its form is not known"),
        (json.dumps({"object": "chat.completion", "model": "gpt-4o"}), "no usage in it"),
        (json.dumps({"usage": OPENAI_BODY["usage"]}), "add --model"),
    ],
)
def test_a_body_that_cannot_be_priced_says_why(costctl, text, said):
    refused = costctl("price", text=text)
    assert refused.code == 1
    assert said in refused.err


def test_a_file_that_cannot_be_read_is_named(costctl, tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert "binary is not UTF-8 text (byte 0)" in costctl("price", tmp_path / "binary").err
    assert "Is a directory" in costctl("price", tmp_path).err
    assert "none cannot be read: No such file" in costctl("price", tmp_path / "none").err


def test_prices_finds_models_by_words(costctl):
    out = costctl("prices", "openai gpt-4o-mini", "--limit", "1").out
    assert "openai/gpt-4o-mini" in out
    assert "input_tokens $0.15 per 1,000,000" in out
    assert "catalogue genai-prices" in out
    assert "raise --limit" in out
    models = costctl("prices", "gpt-4o-mini", "--json").json()["models"]
    assert all("gpt-4o-mini" in f"{each['model']} {each['name']}".lower() for each in models)
    assert "http" not in out
    assert "http" in costctl("prices", "openai gpt-4o-mini", "--limit", "1", "--full").out


def test_prices_that_nobody_has_says_so(costctl):
    found = costctl("prices", "no such [bold]model")
    assert found.code == 0
    assert found.out == "the catalogue has no model with 'no such [bold]model'; try fewer letters\n"


KNOWN = [
    PriceBook().find(provider, model, wall_ns=1_772_323_200_000_000_000)
    for provider, model in (
        ("openai", "gpt-4o-mini"),
        ("anthropic", "claude-opus-4-5"),
        ("google", "gemini-2.5-pro"),
        ("openai", "gpt-4o-audio-preview"),
    )
]
MADE_UP = Price(
    "id",
    (
        UnitPrice("input_tokens", 7, 3, tiers=(PriceTier(100, 11),), minus=("cache_read_tokens",)),
        UnitPrice("cache_read_tokens", 1, 7, minus=("cache_audio_read_tokens",)),
        UnitPrice("cache_audio_read_tokens", 5, 13),
        UnitPrice("output_tokens", 13, 3_600, at_least=20),
        UnitPrice("requests", 17, 1_000),
    ),
    PriceSource("policy", "", "", ""),
)


@pytest.mark.parametrize("price", [*KNOWN, MADE_UP])
@given(counts=st.lists(st.integers(0, 10**7), min_size=8, max_size=8))
def test_the_lines_of_a_breakdown_sum_to_the_cost(price, counts):
    assert price is not None
    nested = sorted(counts[:3])
    used = {
        "input_tokens": nested[2],
        "cache_read_tokens": nested[1],
        "cache_audio_read_tokens": nested[0],
        "output_tokens": counts[3],
        "web_searches": counts[4],
    }
    total = sum((line.cost_nusd for line in breakdown(price, used)), start=0)
    whole = ceil_div(*(total.as_integer_ratio()))
    assert whole == price.cost_nusd(used)


def test_a_breakdown_shows_what_was_used_and_nothing_else():
    lines = breakdown(MADE_UP, {"input_tokens": 101, "cache_read_tokens": 101})
    assert [(line.unit, line.count) for line in lines] == [
        ("cache_read_tokens", 101),
        ("requests", 1),
    ]
