"""Who holds what: allowances that are out, found by their session and by what they draw on."""

from collections.abc import Iterable
from typing import TypeVar

_Key = TypeVar("_Key")

_Ids = dict[bytes, None]
"""A set that keeps its order, so that what follows from it is the same in every process."""

_NONE: _Ids = {}


class Holdings:
    """An index in memory; ids come in when allowances are granted and leave when they close."""

    def __init__(self) -> None:
        self._on_counter: dict[bytes, _Ids] = {}
        self._of_session: dict[str, _Ids] = {}
        self._places: dict[bytes, tuple[str, tuple[bytes, ...]]] = {}
        """Where each id stands, so that it is found when it leaves."""

    def __len__(self) -> int:
        return len(self._places)

    def add(self, allowance_id: bytes, session_id: str, counter_keys: Iterable[bytes]) -> None:
        """Note an allowance."""
        counters = tuple(counter_keys)
        self._places[allowance_id] = (session_id, counters)
        self._of_session.setdefault(session_id, {})[allowance_id] = None
        for key in counters:
            self._on_counter.setdefault(key, {})[allowance_id] = None

    def remove(self, allowance_id: bytes) -> None:
        """Forget an allowance that is closed; one that is not known is none."""
        session_id, counters = self._places.pop(allowance_id, ("", ()))
        _take(self._of_session, session_id, allowance_id)
        for key in counters:
            _take(self._on_counter, key, allowance_id)

    def on(self, counter_key: bytes) -> Iterable[bytes]:
        """What is drawn on a counter."""
        return self._on_counter.get(counter_key, _NONE)

    def of(self, session_id: str) -> Iterable[bytes]:
        """What a session holds."""
        return self._of_session.get(session_id, _NONE)

    def sessions(self) -> frozenset[str]:
        """The sessions that hold anything."""
        return frozenset(self._of_session)


def _take(index: dict[_Key, _Ids], key: _Key, allowance_id: bytes) -> None:
    ids = index.get(key)
    if ids is not None:
        ids.pop(allowance_id, None)
        if not ids:
            del index[key]
