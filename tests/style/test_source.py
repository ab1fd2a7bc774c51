"""Tests of the source itself: sizes, dead modules, links, words, and docs that must keep up."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from costd.model.decision import Reason
from costd.model.grant import GrantRefusal
from costd.wire.pb import admission_pb2 as pb

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path
    for folder in ("costd", "clients/python/costd_client")
    for path in (ROOT / folder).rglob("*.py")
    if "pb" not in path.parts
)
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
POSITIONAL_MAX = 5

MODULES_LARGER: dict[str, str] = {}
"""Modules past the ceiling, with the reason. This list may only shrink."""

FUNCTIONS_LONGER: dict[str, str] = {
    "costd/engine/admit.py:hold": "one decision and one reservation, field by field",
}
"""Functions past the ceiling, with the reason. This list may only shrink."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text())
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    documented = ast.get_docstring(node, clean=False) or ""
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    return lines - documented.count("\n") - bool(documented)


def test_modules_stay_under_the_ceiling():
    large = {name_of(p) for p in SOURCES if len(p.read_text().splitlines()) > MODULE_LINES_MAX}
    assert large == set(MODULES_LARGER)


def test_functions_stay_under_the_ceiling():
    long = {
        f"{name_of(path)}:{node.name}"
        for path in SOURCES
        for node in functions(path)
        if body_lines(node) > FUNCTION_LINES_MAX
    }
    assert long == set(FUNCTIONS_LONGER)


def test_functions_take_at_most_five_positional_parameters():
    greedy = [
        f"{name_of(path)}:{node.name}"
        for path in SOURCES
        for node in functions(path)
        if len(node.args.posonlyargs) + len(node.args.args) - _is_method(node) > POSITIONAL_MAX
    ]
    assert not greedy


def _is_method(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return bool(node.args.args) and node.args.args[0].arg in {"self", "cls"}


def test_booleans_are_keyword_only():
    loose = [
        f"{name_of(path)}:{node.name}({argument.arg})"
        for path in SOURCES
        for node in functions(path)
        for argument in node.args.args
        if isinstance(argument.annotation, ast.Name) and argument.annotation.id == "bool"
        if not node.name.startswith("__")
    ]
    assert not loose


def test_every_module_is_imported_by_something():
    everything = "\n".join(
        path.read_text()
        for folder in ("costd", "clients", "bench", "tests")
        for path in (ROOT / folder).rglob("*.py")
    )
    everything += (ROOT / "pyproject.toml").read_text() + (ROOT / "Makefile").read_text()
    named = {
        dotted[:end]
        for dotted in set(re.findall(r"\w+(?:\.\w+)+", everything))
        for end in [*(dot.start() for dot in re.finditer(r"\.", dotted)), len(dotted)]
    }
    for parent, names in re.findall(r"from ([\w.]+) import (\([^)]*\)|[^\n]*)", everything):
        named |= {f"{parent}.{name}" for name in re.findall(r"\w+", names)}
    packages = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removeprefix("clients.python.")
        for path in SOURCES
        if path.name not in {"__init__.py", "__main__.py"}
    }
    assert not packages - named


@pytest.mark.parametrize("word", ["utils", "helpers", "common", "manager", "misc"])
def test_no_module_is_named_after_nothing(word: str):
    assert not [name_of(path) for path in SOURCES if path.stem == word or word in path.parts]


def test_links_in_the_documents_lead_somewhere():
    broken = []
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("clients/**/*.md")]
    for document in documents:
        if "node_modules" in document.parts:
            continue
        targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text())
        broken += [
            f"{name_of(document)} -> {target}"
            for target in targets
            if "://" not in target and not (document.parent / target).exists()
        ]
    assert not broken


def test_sources_named_in_docstrings_exist():
    missing = [
        f"{name_of(path)} -> {target}"
        for path in SOURCES
        for target in re.findall(r"docs/[\w/.-]+\.md", path.read_text())
        if not (ROOT / target).exists()
    ]
    assert not missing


def test_sources_named_in_the_documents_exist():
    missing = [
        f"{name_of(path)} -> {target}"
        for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
        for target in re.findall(
            r"`((?:costd|tests|bench|clients|deploy)/[\w/.-]+\.\w+)`", path.read_text()
        )
        if not (ROOT / target).exists()
    ]
    assert not missing


def test_the_model_and_the_wire_agree_on_every_number():
    assert {f"REASON_{reason.name}": int(reason) for reason in Reason} | {
        "REASON_UNSPECIFIED": 0
    } == dict(pb.Reason.items())
    assert {f"GRANT_REFUSAL_{refusal.name}": int(refusal) for refusal in GrantRefusal} | {
        "GRANT_REFUSAL_UNSPECIFIED": 0
    } == dict(pb.GrantRefusal.items())


def test_every_reason_has_a_section_of_its_own_and_no_section_is_left_over():
    text = (ROOT / "docs/reference/reasons.md").read_text()
    reasons, refusals = text.split("# Grant refusals")
    assert re.findall(r"^## (\w+)$", reasons, re.MULTILINE) == [reason.name for reason in Reason]
    assert re.findall(r"^## (\w+)$", refusals, re.MULTILINE) == [r.name for r in GrantRefusal]


def test_every_field_of_the_contract_is_commented():
    """On its own line, or on the line above it."""
    bare = []
    field = re.compile(r"\s*(repeated |optional )?(map<[\w, ]+>|[\w.]+) \w+ = \d+;(?P<comment>.*)")
    for proto in sorted((ROOT / "proto/costd/v1").glob("*.proto")):
        above = ""
        for number, line in enumerate(proto.read_text().splitlines(), 1):
            found = field.fullmatch(line)
            if found and "//" not in found["comment"] and not above.strip().startswith("//"):
                bare.append(f"{proto.name}:{number}: {line.strip()}")
            above = line
    assert not bare


def test_nothing_names_a_registrys_host():
    words = re.compile(r"pythonhoste[d]|pypi\.or[g]|npmj[s]")
    named = []
    patterns = ("**/*.py", "**/*.md", "**/*.yaml", "**/*.toml", "**/*.proto", "Makefile", ".ci/run")
    for pattern in patterns:
        for path in ROOT.glob(pattern):
            if {".venv", "build", "node_modules"} & set(path.parts):
                continue
            if words.search(path.read_text(errors="replace")):
                named.append(name_of(path))
    assert not named


def test_test_modules_have_names_of_their_own():
    """The runner imports them by their bare names, and two of one name shadow each other."""
    names = [path.stem for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
