"""The coordinator's named queries, from the `.sql` files beside this module."""

from pathlib import Path
from typing import Any, Final

import aiosql

SQL_FOLDER: Final = Path(__file__).parent / "sql"

_QUERIES: Final = aiosql.from_path(
    SQL_FOLDER, "apsycopg", mandatory_parameters=False
)


def query(name: str) -> Any:
    """Return the text of a named query, with parameters as psycopg writes them."""
    return getattr(_QUERIES, name).sql


def query_names() -> list[str]:
    """List the named queries."""
    return sorted(name for name in _QUERIES.available_queries if not name.endswith("_cursor"))
