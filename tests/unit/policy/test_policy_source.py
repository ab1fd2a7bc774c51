"""YAML in, plain data with lines out; hostile files are refused while they are read."""

import os

import pytest

from costd.errors import InvalidPolicy
from costd.policy.source import BYTES_MAX, NODES_MAX, read_file, read_source


def refusal(text):
    with pytest.raises(InvalidPolicy) as caught:
        read_source(text, "p.yaml")
    return str(caught.value)


def test_scalars_stay_the_text_that_was_written():
    source = read_source('{a: 0.10, b: 007, c: true, d: "x", e: 1e3, f: .nan}', "p.yaml")
    assert source.data == {"a": "0.10", "b": "007", "c": "true", "d": "x", "e": "1e3", "f": ".nan"}


def test_only_an_unquoted_nothing_is_nothing():
    source = read_source("a:\nb: ~\nc: null\nd: ''\ne: 'null'\n", "p.yaml")
    assert source.data == {"a": None, "b": None, "c": None, "d": "", "e": "null"}


def test_every_value_knows_its_line():
    source = read_source("a: 1\nb:\n  - c: 2\n    d: 3\n  - 4\n", "p.yaml")
    assert source.line(()) == 1
    assert source.line(("b",)) == 2
    assert source.line(("b", 0, "d")) == 4
    assert source.line(("b", 1)) == 5


def test_a_value_that_is_not_there_has_the_line_of_what_should_hold_it():
    source = read_source("a: 1\nb:\n  - c: 2\n", "p.yaml")
    assert source.line(("b", 0, "missing")) == 3
    assert source.line(("missing", 3)) == 1


def test_an_alias_stands_for_the_value_it_names():
    source = read_source("a: &x {k: [1, 2]}\nb: *x\nc: &y hi\nd: *y\n", "p.yaml")
    assert source.data["b"] == {"k": ["1", "2"]}
    assert source.data["d"] == "hi"
    assert source.line(("b", "k", 1)) == 1


def test_an_alias_may_name_a_key():
    assert read_source("&k a: 1\nb: *k\n", "p.yaml").data == {"a": "1", "b": "a"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "p.yaml:1: (file): the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("a: 1\nb: 2\na: 3\n", "p.yaml:3: (file): 'a' was given before, on line 1"),
        ("a: {b: 1,\n  b: 2}\n", "p.yaml:2: (file): 'b' was given before, on line 1"),
        ("a: 1\n---\nb: 2\n", "p.yaml:2: (file): a second document begins"),
        ("%YAML 1.1\n---\na: 1\n", "only YAML 1.2"),
        ("a: &x [*x]\n", "*x contains itself"),
        ("a: 1\nb: *nope\n", "p.yaml:2: (file): *nope is not defined; define it above"),
        ("a: &x k\n*x : 1\n", "an alias cannot be a key"),
        ("base: &x {a: 1}\nb:\n  <<: *x\n", "p.yaml:3: (file): merge keys"),
        ("[a, b]: 1\n", "a key must be one word"),
        ("? {a: 1}\n: 2\n", "a key must be one word"),
        ("a: !!python/object/apply:os.system [ls]\n", "the tag"),
        ("a: !!int 5\n", "the tag"),
        ("a: [1, 2\nb: 3\n", "p.yaml:2: (file): not valid YAML"),
        ("a: 'unclosed\n", "not valid YAML"),
        ("a: 1\n\tb: 2\n", "p.yaml:2: (file): not valid YAML"),
        ("a: 1\nb: \x07\n", "p.yaml:2: (file): the character"),
        ("a: \ud800\n", "p.yaml:1: (file):"),
    ],
)
def test_what_a_policy_never_needs_is_refused_with_its_line(text, message):
    assert message in refusal(text)


@pytest.mark.parametrize("text", ["[" * 5000, "a: " + "{b: " * 5000, "- " * 5000 + "x"])
def test_deep_nesting_is_refused(text):
    assert "nested more than" in refusal(text)


def test_an_alias_bomb_is_refused():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert f"more than {NODES_MAX:,} values" in refusal("\n".join(lines))


def test_a_text_that_is_too_large_is_refused():
    assert "larger than 1,048,576 bytes" in refusal("#" * (BYTES_MAX + 1))


def test_a_file_that_is_too_large_is_refused(tmp_path):
    path = tmp_path / "big.yaml"
    path.write_text("#" * (BYTES_MAX + 1))
    with pytest.raises(InvalidPolicy, match="larger than"):
        read_file(path)


def test_a_file_that_is_not_utf8_is_refused_with_its_line(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(InvalidPolicy, match=r"latin\.yaml:2: .*byte 0xe9 is not UTF-8"):
        read_file(path)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_file(path) == "a: 1\n"


def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "missing.yaml", tmp_path, tmp_path / "pipe", tmp_path / ("x" * 300)):
        with pytest.raises(InvalidPolicy, match=r"no such file|cannot be read"):
            read_file(path)
