"""Frozen values: what the rules read and what they return.

Values are `msgspec.Struct`s: frozen, made in a tenth of the time of a frozen dataclass, and
their own storage format (docs/adr/0002-values-msgspec.md). No I/O and no clock below this line.
"""
