"""YAML text → plain data and the line of every value in it.

Built from the parser's events rather than by a constructor, for three reasons: scalars stay the
text that was written (`0.1` never becomes a float, `007` stays `007`; the schema gives them
types), lines are kept, and hostile files are refused while they are read.
Source: docs/adr/0005-policy-yaml.md.
"""

from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from costd.errors import InvalidPolicy
from costd.policy.problems import Path, Problem, refuse, show

BYTES_MAX = 1 << 20
DEPTH_MAX = 24
"""A policy needs about 8."""
NODES_MAX = 200_000
"""Values after aliases are expanded; 1,000 budgets with four steps each have about 50,000."""
NULLS = frozenset({"", "~", "null", "Null", "NULL"})


class Marks:
    """The line of a value, and the marks of what is inside it."""

    __slots__ = ("inside", "key_lines", "line")

    def __init__(self, line: int) -> None:
        self.line = line
        self.inside: dict[str | int, Marks] = {}
        self.key_lines: dict[str | int, int] = {}


class Source:
    """A file that was read: plain data (dict, list, str, None) and where each value stands."""

    __slots__ = ("data", "marks", "name")

    def __init__(self, name: str, data: Any, marks: Marks) -> None:
        self.name = name
        self.data = data
        self.marks = marks

    def line(self, path: Path) -> int:
        """Find the line of a value, or of the innermost thing on its path that exists."""
        marks, line = self.marks, self.marks.line
        for part in path:
            inside = marks.inside.get(part)
            if inside is None:
                return line
            line = marks.key_lines.get(part, inside.line)
            marks = inside
        return line


class _Refused(Exception):
    """The file cannot be used, for this reason at this line."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line
        self.text = text


class _Open:
    """A mapping or list whose end has not been seen."""

    __slots__ = ("anchor", "data", "key", "marks", "nodes_before")

    def __init__(self, data: Any, marks: Marks, anchor: str | None, nodes_before: int) -> None:
        self.data = data
        self.marks = marks
        self.anchor = anchor
        self.nodes_before = nodes_before
        self.key: str | None = None


class _Builder:
    """Puts events together to plain data; refuses what a policy never needs."""

    def __init__(self) -> None:
        self.root: tuple[Any, Marks] | None = None
        self.open: list[_Open] = []
        self.anchors: dict[str, tuple[Any, Marks, int]] = {}
        self.nodes_count = 0

    def take(self, event: Event) -> None:
        """Take the next event."""
        if isinstance(event, ScalarEvent):
            self._take_scalar(event)
        elif isinstance(event, (MappingStartEvent, SequenceStartEvent)):
            self._start(event)
        elif isinstance(event, (MappingEndEvent, SequenceEndEvent)):
            self._end()
        elif isinstance(event, AliasEvent):
            self._take_alias(event)
        elif isinstance(event, DocumentStartEvent):
            self._start_document(event)

    def _start_document(self, event: DocumentStartEvent) -> None:
        if self.root is not None:
            raise _Refused(_line(event), "a second document begins; keep one document per file")
        if event.version is not None and tuple(event.version) != (1, 2):
            raise _Refused(_line(event), "only YAML 1.2 is read; remove the %YAML line")

    def _take_scalar(self, event: ScalarEvent) -> None:
        _refuse_tag(event)
        line, text = _line(event), event.value
        if self.open and isinstance(self.open[-1].data, dict) and self.open[-1].key is None:
            self._take_key(text, line)
            if event.anchor:
                self.anchors[event.anchor] = (text, Marks(line), 1)
            return
        self._count(1, line)
        value = None if event.style is None and text in NULLS else text
        marks = Marks(line)
        if event.anchor:
            self.anchors[event.anchor] = (value, marks, 1)
        self._put(value, marks)

    def _take_key(self, key: str, line: int) -> None:
        parent = self.open[-1]
        if key == "<<":
            raise _Refused(line, "merge keys (<<) are not YAML 1.2; write the fields out")
        if key in parent.data:
            first = parent.marks.key_lines[key]
            raise _Refused(line, f"{show(key)} was given before, on line {first}; keep one of them")
        parent.key = key
        parent.data[key] = None
        parent.marks.key_lines[key] = line

    def _take_alias(self, event: AliasEvent) -> None:
        line = _line(event)
        if any(opened.anchor == event.anchor for opened in self.open):
            raise _Refused(line, f"*{event.anchor[:64]} contains itself; write the value out")
        if event.anchor not in self.anchors:
            raise _Refused(line, f"*{event.anchor[:64]} is not defined; define it above")
        if self.open and isinstance(self.open[-1].data, dict) and self.open[-1].key is None:
            raise _Refused(line, "an alias cannot be a key; write the key out")
        value, marks, nodes_count = self.anchors[event.anchor]
        self._count(nodes_count, line)
        self._put(value, marks)

    def _start(self, event: MappingStartEvent | SequenceStartEvent) -> None:
        _refuse_tag(event)
        line = _line(event)
        if self.open and isinstance(self.open[-1].data, dict) and self.open[-1].key is None:
            raise _Refused(line, "a key must be one word; this one is a mapping or a list")
        if len(self.open) == DEPTH_MAX:
            raise _Refused(line, f"values are nested more than {DEPTH_MAX} deep; flatten them")
        data: Any = {} if isinstance(event, MappingStartEvent) else []
        self.open.append(_Open(data, Marks(line), event.anchor, self.nodes_count))
        self._count(1, line)

    def _end(self) -> None:
        done = self.open.pop()
        if done.anchor:
            nodes_count = self.nodes_count - done.nodes_before
            self.anchors[done.anchor] = (done.data, done.marks, nodes_count)
        self._put(done.data, done.marks)

    def _put(self, value: Any, marks: Marks) -> None:
        if not self.open:
            self.root = (value, marks)
            return
        parent = self.open[-1]
        if isinstance(parent.data, list):
            parent.marks.inside[len(parent.data)] = marks
            parent.data.append(value)
        else:
            assert parent.key is not None
            parent.data[parent.key] = value
            parent.marks.inside[parent.key] = marks
            parent.key = None

    def _count(self, nodes_count: int, line: int) -> None:
        self.nodes_count += nodes_count
        if self.nodes_count > NODES_MAX:
            raise _Refused(
                line, f"more than {NODES_MAX:,} values, aliases included; split the file"
            )


def read_file(path: FilePath) -> str:
    """Read a policy file as text.

    Errors:  InvalidPolicy when it is missing, not a plain file, too large, or not UTF-8.
    """
    try:
        if not path.is_file():
            raise InvalidPolicy(f"{path}:1: (file): there is no such file; check the path")
        with path.open("rb") as file:
            raw = file.read(BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        raise InvalidPolicy(f"{path}:1: (file): cannot be read ({error}); check it") from error
    if len(raw) > BYTES_MAX:
        raise _too_large(str(path))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InvalidPolicy(
            f"{path}:{line}: (file): byte 0x{raw[error.start]:02x} is not UTF-8; save it as UTF-8"
        ) from error


def read_source(text: str, name: str) -> Source:
    """Read YAML 1.2 text into plain data whose scalars are text or None.

    Errors:  InvalidPolicy naming file and line for syntax errors, duplicate keys, tags, merge
             keys, undefined or recursive aliases, and anything too large or too deep.
    """
    if len(text) > BYTES_MAX:
        raise _too_large(name)
    builder = _Builder()
    try:
        for event in _events(text):
            builder.take(event)
    except _Refused as refused:
        raise refuse(name, [Problem(refused.line, "(file)", refused.text)]) from None
    except MarkedYAMLError as error:
        raise refuse(name, [_syntax_problem(error)]) from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = f"the character {error.character!r} is not allowed; remove it"
        raise refuse(name, [Problem(line, "(file)", what)]) from error
    except Exception as error:
        what = f"cannot be read as YAML ({type(error).__name__}: {error}); check its syntax"
        raise refuse(name, [Problem(1, "(file)", what)]) from error
    if builder.root is None:
        raise refuse(name, [Problem(1, "(file)", "the file is empty; start with `version: 1`")])
    return Source(name, *builder.root)


def _events(text: str) -> Iterator[Event]:
    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 2)
    yield from yaml.parse(text)


def _line(event: Event) -> int:
    return int(event.start_mark.line) + 1


def _refuse_tag(event: ScalarEvent | MappingStartEvent | SequenceStartEvent) -> None:
    if event.tag is not None:
        raise _Refused(_line(event), f"the tag {show(event.tag)} is not used here; remove it")


def _syntax_problem(error: MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    line = 1 if mark is None else int(mark.line) + 1
    what = " ".join(", ".join(part for part in (error.context, error.problem) if part).split())
    return Problem(line, "(file)", f"not valid YAML: {what}; check indentation, quotes, brackets")


def _too_large(name: str) -> InvalidPolicy:
    return InvalidPolicy(f"{name}:1: (file): larger than {BYTES_MAX:,} bytes; split the policy")
