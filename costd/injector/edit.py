"""A JSON patch that is written while it is carried out on a copy."""

import copy
from typing import Any

import msgspec

from costd.injector.outcome import Operation, Pod


class Edit:
    """One pod, what it becomes, and the operations that make it so."""

    def __init__(self, pod: Pod) -> None:
        # As JSON: forty times as fast as copying objects, and pods come in megabytes.
        self.pod: Any = msgspec.json.decode(msgspec.json.encode(pod))
        self.operations: list[Operation] = []

    def add(self, value: Any, *path: str | int) -> None:
        """Add a member, or an element before a position; the member is replaced if it is there."""
        owner = self._owner(path)
        if isinstance(owner, list):
            owner.insert(int(path[-1]), value)
        else:
            owner[path[-1]] = value
        self._write("add", path, value)

    def append(self, value: Any, *path: str | int) -> None:
        """Add an element to the end of a list."""
        self.add(value, *path, len(self._at(path)))

    def replace(self, value: Any, *path: str | int) -> None:
        """Replace what is there."""
        self._owner(path)[path[-1]] = value
        self._write("replace", path, value)

    def remove(self, *path: str | int) -> None:
        """Take away what is there."""
        del self._owner(path)[path[-1]]
        self._write("remove", path)

    def need(self, empty: dict[str, Any] | list[Any], *path: str | int) -> Any:
        """Make an empty list or mapping where there is none; return what is there."""
        if self._owner(path).get(path[-1]) is None:
            self.add(empty, *path)
        return self._at(path)

    def _owner(self, path: tuple[str | int, ...]) -> Any:
        return self._at(path[:-1])

    def _at(self, path: tuple[str | int, ...]) -> Any:
        found = self.pod
        for step in path:
            found = found[step]
        return found

    def _write(self, op: str, path: tuple[str | int, ...], *value: Any) -> None:
        pointer = "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in path)
        operation = Operation(op=op, path=pointer)
        if value:
            operation["value"] = copy.deepcopy(value[0])
        self.operations.append(operation)
