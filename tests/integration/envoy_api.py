"""Compare costd's rate-limit messages with Envoy's own; run apart, with these on its path.

Prints a line for each difference, and how many fields and values were compared.
"""

from envoy.service.ratelimit.v3 import rls_pb2 as theirs
from google.protobuf import json_format

from costd.wire.pb import ratelimit_pb2 as ours

compared = []
"""The names of all fields and values that were compared."""


def compare(mine, other, seen):
    """Compare a message with the one of theirs it stands for, and all messages in it."""
    if mine.full_name in seen:
        return
    seen.add(mine.full_name)
    for field in mine.fields:
        name = f"{mine.full_name}.{field.name}"
        compared.append(name)
        same = other.fields_by_name.get(field.name)
        if same is None:
            print(f"{name}: there is no such field")
            continue
        for what in ("number", "type", "is_repeated", "has_presence"):
            if getattr(field, what) != getattr(same, what):
                print(f"{name}: {what} differs")
        if field.enum_type is not None:
            compare_values(field.enum_type, same.enum_type)
        elif field.message_type is not None:
            if field.message_type.file.package != "google.protobuf":
                compare(field.message_type, same.message_type, seen)
            elif field.message_type.full_name != same.message_type.full_name:
                print(f"{name}: another message")


def compare_values(mine, other):
    """Compare the values of an enum."""
    compared.extend(f"{mine.full_name}.{value.name}" for value in mine.values)
    if {(v.name, v.number) for v in mine.values} != {(v.name, v.number) for v in other.values}:
        print(f"{mine.full_name}: other values")


def filled(message):
    """Set every field, once over in what repeats."""
    for number, field in enumerate(message.DESCRIPTOR.fields, start=1):
        if field.message_type is not None:
            child = getattr(message, field.name)
            if field.message_type.full_name == "google.protobuf.Struct":
                child.update({"verdict": "deny", "hold_nusd": 5})
            else:
                filled(child.add() if field.is_repeated else child)
        elif field.type == field.TYPE_STRING:
            setattr(message, field.name, field.name)
        elif field.type == field.TYPE_BYTES:
            setattr(message, field.name, b"body")
        elif field.enum_type is not None:
            setattr(message, field.name, field.enum_type.values[-1].number)
        else:
            setattr(message, field.name, number)
    return message


service = theirs.DESCRIPTOR.services_by_name["RateLimitService"]
print(f"service {service.full_name}/{service.methods[0].name}")
for name in ("RateLimitRequest", "RateLimitResponse"):
    mine, other = getattr(ours, name), getattr(theirs, name)
    compare(mine.DESCRIPTOR, other.DESCRIPTOR, set())
    message = filled(mine())
    read = other.FromString(message.SerializeToString())
    if json_format.MessageToDict(read) != json_format.MessageToDict(message):
        print(f"{name}: they read something else")
    if mine.FromString(read.SerializeToString()) != message:
        print(f"{name}: it comes back as something else")
print(f"compared {len(compared)}")
