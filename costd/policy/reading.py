"""Plain data → checked specs: pydantic's findings in our words, with their lines."""

from difflib import get_close_matches
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from costd.policy.problems import PROBLEMS_SHOWN_MAX, Path, Problem, refuse, show, write_path
from costd.policy.source import Source

SpecT = TypeVar("SpecT", bound=BaseModel)

FIELD_LENGTH_MAX = 32

_SHAPES = {
    "dict_type": "must be a mapping (`key: value` lines)",
    "model_type": "must be a mapping (`key: value` lines)",
    "list_type": "must be a list (`- item` lines, or [a, b])",
}


def read_spec(source: Source, kind: type[SpecT]) -> SpecT:
    """Check a whole file against its schema.

    Errors:  InvalidPolicy listing every problem as `FILE:LINE: path: what; what to do`.
    """
    try:
        return kind.model_validate(source.data)
    except ValidationError as error:
        errors = [dict(each) for each in error.errors(include_url=False)]
        # A file of nothing but mistakes has a hundred thousand; words are found for the first.
        errors.sort(key=lambda each: source.line(_path(each)))
        found = [_problem(source, kind, each) for each in errors[:PROBLEMS_SHOWN_MAX]]
        raise refuse(source.name, found, len(errors) - len(found)) from error


def problem_at(source: Source, path: Path, text: str) -> Problem:
    """Put a problem at the line of what it is about."""
    return Problem(source.line(path), write_path(path), text)


def _problem(source: Source, kind: type[BaseModel], error: dict[str, Any]) -> Problem:
    path = _path(error)
    found, wrong = error["type"], error["input"]
    if found == "value_error":
        return problem_at(source, path, str(error["ctx"]["error"]))
    if found == "missing":
        return problem_at(source, path, "is missing; add it")
    if found == "extra_forbidden" and str(path[-1]).isdecimal():
        return problem_at(source, path, 'inside {…} a comma ends a value; quote it, like "$2,500"')
    if found == "extra_forbidden":
        known = _fields_at(kind, path[:-1])
        close = get_close_matches(str(path[-1])[:FIELD_LENGTH_MAX], known, n=1)
        advice = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
        return problem_at(source, path, f"there is no such field; {advice}")
    if found == "literal_error":
        what = "has no value" if wrong is None else f"{show(wrong)} is not known here"
        return problem_at(source, path, f"{what}; write {error['ctx']['expected']}")
    what = "has no value" if wrong is None else f"is {show(wrong)}"
    return problem_at(source, path, f"{what}; it {_SHAPES.get(found, error['msg'])}")


def _path(error: dict[str, Any]) -> Path:
    return tuple(part for part in error["loc"] if part != "[key]")


def _fields_at(kind: type[BaseModel], path: Path) -> list[str]:
    """Name the fields of the model that stands at a path of the schema."""
    here: Any = kind
    for part in path:
        if isinstance(here, type) and issubclass(here, BaseModel):
            by_name = {_spelling(here, name): field for name, field in here.model_fields.items()}
            here = by_name[str(part)].annotation
        else:
            here = get_args(here)[-1]
        while hasattr(here, "__metadata__"):
            here = get_args(here)[0]
    return [_spelling(here, name) for name in here.model_fields]


def _spelling(model: type[BaseModel], name: str) -> str:
    return model.model_fields[name].alias or name
