"""How far estimates are from what real vocabularies make of a text."""

import pytest
from costd_client import Client, estimate
from costd_client.estimate import IMAGE_TOKENS, MESSAGE_TOKENS, estimate_schema
from pydantic import BaseModel
from token_samples import SAMPLES


@pytest.mark.parametrize("name", SAMPLES)
def test_an_estimate_leans_upward_but_stays_near(name):
    text, cl100k, o200k, anthropic = SAMPLES[name]
    guess = estimate(text)
    assert guess >= o200k, "too low for the vocabulary of current OpenAI models"
    assert guess >= 0.85 * cl100k
    assert guess >= 0.7 * anthropic
    assert guess <= 1.6 * max(cl100k, o200k, anthropic)


def test_over_a_mixed_prompt_the_estimate_is_within_a_quarter():
    texts = [SAMPLES[name][0] for name in ("english", "python", "sql", "json", "german", "chinese")]
    counts = [
        SAMPLES[name][1] for name in ("english", "python", "sql", "json", "german", "chinese")
    ]
    assert 1.0 <= estimate("\n".join(texts)) / sum(counts) <= 1.25


def test_messages_cost_more_than_their_text():
    text = "write five words"
    message = {"role": "user", "content": text}
    assert estimate([message]) == estimate(text) + MESSAGE_TOKENS
    assert estimate([message, message]) == 2 * estimate([message])
    blocks = [{"role": "user", "content": [{"type": "text", "text": text}]}]
    assert estimate(blocks) == estimate([message])


def test_images_count_as_images_and_not_as_their_bytes():
    image = {"type": "image", "source": {"type": "base64", "data": "A" * 100_000}}
    assert estimate([{"role": "user", "content": [image]}]) == IMAGE_TOKENS + MESSAGE_TOKENS


def test_anything_a_prompt_may_be_made_of_is_counted():
    class Block(BaseModel):
        text: str
        note: str | None = None

    assert estimate(None) == estimate("") == estimate([]) == 0
    assert estimate(Block(text="two words")) == estimate("two words")
    assert estimate(b"x" * 30) == 10
    assert estimate(12345) == estimate("12345")
    assert estimate({"type": "file", "file_data": "A" * 300}) == 100
    assert estimate_schema([{"name": "f", "schema": Block(text="x")}]) > 5
    assert estimate_schema(None) == 0
    assert estimate("\ud800") >= 1


def test_the_client_estimates_too():
    client = Client("unix:/nowhere", caller="t")
    assert client.estimate("two words") == estimate("two words")
