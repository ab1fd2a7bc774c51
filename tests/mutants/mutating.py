"""Generates mutants: copies of a module with one small thing wrong, by mutmut's operators.

Only its operators are used: its runner would rewrite every function of what it looks at, and knows
nothing of simulations. Here a mutant is one place and what comes there; the source stays as it is.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import libcst as cst
from libcst import matchers as m
from libcst.metadata import ByteSpanPositionProvider, MetadataWrapper
from mutmut.mutation import mutators

NUMBER_MAX = 1_000
"""One more than a number as large, of nanoseconds say, is the same to everybody."""
NOT_CODE = (
    cst.Annotation,
    cst.Decorator,
    cst.FormattedString,
    cst.Import,
    cst.ImportFrom,
    cst.Raise,
)
"""Types, wording, and names that no module could be loaded without."""


def skip_call(node: cst.Expr) -> Iterable[cst.Expr]:
    """Leave out a call that is made for what it does."""
    if m.matches(node.value, m.Call() | m.Await()):
        yield node.with_changes(value=cst.Name("None"))


def drop_argument(node: cst.Call) -> Iterable[cst.Call]:
    """Leave out a named argument, so that its default counts; without others, no call is one."""
    named = sum(arg.keyword is not None for arg in node.args)
    for fewer in mutators.operator_arg_removal(node):
        if sum(arg.keyword is not None for arg in fewer.args) < named:
            yield fewer


LEFT_OUT = {
    mutators.operator_string,  # what messages say
    mutators.operator_arg_removal,  # TypeError at once, but where a default counts instead
    mutators.operator_assignment,  # None where a number was: TypeError at once
    mutators.operator_symmetric_string_methods_swap,  # `lower` is no string's here
}
OPERATORS = [
    *(each for each in mutators.mutation_operators if each[1] not in LEFT_OUT),
    (cst.Call, drop_argument),
    (cst.Expr, skip_call),
]
CONDITION = m.Name() | m.Attribute() | m.Call()
"""What is turned round where it follows `if`; comparisons have operators of their own."""


class Mutant(NamedTuple):
    """One way to get a module wrong."""

    path: str
    function: str
    was: str
    """The lines that it changes, as they were."""
    now: str
    nth: int
    """Which of several that read alike in this function, from 1."""
    start: int
    end: int
    """In bytes: where `code` comes in place of what is there."""
    code: bytes

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        """What stays the same while other lines come and go."""
        return self[:5]

    def text(self, source: bytes) -> bytes:
        """The module with this mistake."""
        return source[: self.start] + self.code + source[self.end :]


def mutants_of(root: Path, path: str) -> list[Mutant]:
    """Generate every mutant of a module, in the order of its lines."""
    source = (root / path).read_bytes()
    wrapper = MetadataWrapper(cst.parse_module(source), unsafe_skip_copy=True)
    finder = Finder()
    wrapper.visit(finder)
    spans = wrapper.resolve(ByteSpanPositionProvider)
    mutants, seen = [], Counter()
    for function, node, mutated in finder.found:
        start, end = spans[node].start, spans[node].start + spans[node].length
        code = wrapper.module.code_for_node(mutated).encode()
        was, now = _difference(source, start, end, code)
        if was == now:
            continue
        seen[function, was, now] += 1
        nth = seen[function, was, now]
        mutants.append(Mutant(path, function, was, now, nth, start, end, code))
    return mutants


def _difference(source: bytes, start: int, end: int, code: bytes) -> tuple[str, str]:
    """The lines that differ, each side as one."""
    first, last = source.rfind(b"\n", 0, start) + 1, source.find(b"\n", end)
    was = _lines(source[first:last])
    now = _lines(source[first:start] + code + source[end:last])
    while was and now and was[0] == now[0]:
        was, now = was[1:], now[1:]
    while was and now and was[-1] == now[-1]:
        was, now = was[:-1], now[:-1]
    return " ".join(was), " ".join(now)


def _lines(text: bytes) -> list[str]:
    lines = (" ".join(re.sub(r"  #.*", "", line).split()) for line in text.decode().splitlines())
    return [line for line in lines if line]


class Finder(cst.CSTVisitor):
    """Collects (function, node, what comes in its place)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, cst.CSTNode, cst.CSTNode]] = []
        self._within: list[str] = []
        self._forms: list[cst.CSTNode] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, NOT_CODE) or _is_form(node) or any(node is one for one in self._forms):
            return False
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self._within.append(node.name.value)
        if isinstance(node, cst.ClassDef):
            self._forms = [*node.bases, *node.keywords]
        function = ".".join(self._within) or "(module)"
        for kind, operator in OPERATORS:
            if isinstance(node, kind):
                self.found += [(function, node, mutated) for mutated in operator(node)]
        if isinstance(node, cst.If) and m.matches(node.test, CONDITION):
            turned = cst.UnaryOperation(cst.Not(), node.test)
            self.found.append((function, node.test, turned))
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if isinstance(original_node, cst.FunctionDef | cst.ClassDef):
            self._within.pop()


def _is_form(node: cst.CSTNode) -> bool:
    """Whether this says of what form a thing is, and nothing of what is done with it."""
    if isinstance(node, cst.Integer):
        return node.evaluated_value > NUMBER_MAX
    if isinstance(node, cst.Arg):
        return node.keyword is not None and node.keyword.value == "strict"
    if isinstance(node, cst.Assign):  # another name for a type
        target = node.targets[0].target
        return isinstance(target, cst.Name) and bool(re.match("_?[A-Z]+[a-z]", target.value))
    return False
