"""Answers for programs: one JSON document with the proto's field names."""

import json
from typing import Any

import typer
from google.protobuf.message import Message


def emit(document: Message | dict[str, Any]) -> None:
    """Print one JSON document; ASCII only, so that no value can steer a terminal."""
    value = as_document(document) if isinstance(document, Message) else document
    typer.echo(json.dumps(value, indent=2, ensure_ascii=True))


def as_document(message: Message) -> dict[str, Any]:
    """Turn a message into plain values.

    Shape: every field of the message is there, in the proto's order; numbers are JSON numbers,
    also 64-bit ones; enums are their proto names; what is absent is null.
    """
    return {field.name: _field_value(message, field) for field in message.DESCRIPTOR.fields}


def _field_value(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        items = entry.fields_by_name["value"]
        return {key: _value(value[key], items) for key in sorted(value)}
    if field.is_repeated:
        return [_value(each, field) for each in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _value(value, field)


def _value(value: Any, field: Any) -> Any:
    if field.message_type is not None:
        return as_document(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value
    return value
