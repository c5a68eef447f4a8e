"""Inputs for fuzzing: models of the suite, mutated as bytes, messages or text. Input i is always the same."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tests.conformance import composed, suite

SEED_BYTES = 20_000
"""Largest size of a model that is mutated, in bytes."""

NUMBERS = (0, 1, -1, 2, 3, 7, 16, 21, 99, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, -(2**31), -(2**63))
FLOATS = (0.0, -1.0, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"))
WORDS = (
    "",
    "x",
    "y",
    "X",
    "ai.onnx",
    "gradwire.sci",
    "Loop",
    "If",
    "Scan",
    "Expand",
    "Tile",
    "Identity",
    "\ud7ff",
)
TOKENS = (
    *"<>(){}[],=:",
    "=>",
    "float",
    "int64",
    "double[9999999999]",
    "-1",
    "9" * 25,
    '"',
    "Loop",
    "\x00",
    "N",
)

WORLD = """<ir_version: 10, opset_import: ["" : 21]> agraph """


@cache
def models() -> tuple[bytes, ...]:
    """Returns the models that mutations start from."""
    small = {test.model.SerializeToString() for test in suite.tests() if test.category != "PyTorchConverted"}
    return tuple(sorted(data for data in small if len(data) <= SEED_BYTES))


@cache
def texts() -> tuple[str, ...]:
    """Returns the texts that mutations start from."""
    printed = []
    for data in models()[::7]:
        try:
            printed.append(onnx.printer.to_text(onnx.ModelProto.FromString(data)))
        except (RuntimeError, UnicodeDecodeError):
            continue  # Some element types have no textual form.
    return tuple(text for text in printed if len(text) <= SEED_BYTES) + tuple(
        WORLD + text for text in composed.TEXTS.values()
    )


def generate(index: int) -> tuple[bytes, bool]:
    """Returns input `index`: its bytes, and whether they are text."""
    random = Random(index)
    kind = random.choices(("bytes", "message", "numbers", "text"), (2, 4, 4, 2))[0]
    if kind == "text":
        return _mutated_text(random), True
    mutate = {"bytes": _mutated_bytes, "message": _mutated_message, "numbers": _mutated_numbers}[kind]
    return mutate(random.choice(models()), random), False


def _times(random: Random) -> int:
    return random.choice((1, 1, 1, 2, 3, 8))


def _mutated_bytes(data: bytes, random: Random) -> bytes:
    result = bytearray(data)
    for _ in range(_times(random)):
        at = random.randrange(len(result) + 1)
        length = random.choice((1, 1, 2, 4, 16, 64))
        match random.randrange(6):
            case 0:
                result[at : at + length] = random.randbytes(min(length, len(result) - at))
            case 1:
                del result[at : at + length]
            case 2:
                result[at:at] = random.randbytes(length)
            case 3:
                result[at:at] = result[at : at + length] * random.choice((1, 2, 50))
            case 4:
                del result[at:]
            case _:
                other = random.choice(models())
                start = random.randrange(len(other))
                result[at : at + length] = other[start : start + random.choice((16, 64, 512))]
    return bytes(result)


def _mutated_text(random: Random) -> bytes:
    text = random.choice(texts())
    for _ in range(_times(random)):
        at = random.randrange(len(text) + 1)
        length = random.choice((1, 1, 3, 10, 40))
        match random.randrange(5):
            case 0:
                text = text[:at] + random.choice(TOKENS) + text[at:]
            case 1:
                text = text[:at] + text[at + length :]
            case 2:
                text = text[:at] + random.choice(TOKENS) + text[at + length :]
            case 3:
                text = text[:at] + text[at : at + length] * random.choice((2, 30)) + text[at + length :]
            case _:
                words = text.split()
                text = text.replace(random.choice(words), random.choice((*words, *TOKENS)), 1)
    return text.encode(errors="surrogatepass")


def _mutated_message(data: bytes, random: Random) -> bytes:
    model = onnx.ModelProto.FromString(data)
    for _ in range(_times(random)):
        holder = _some_message(model, random)
        fields = [field for field, _ in holder.ListFields()] or list(holder.DESCRIPTOR.fields)
        if random.random() < 0.2:
            fields = list(holder.DESCRIPTOR.fields)
        _mutate_field(holder, random.choice(fields), random)
    return model.SerializePartialToString()


def _mutated_numbers(data: bytes, random: Random) -> bytes:
    """Changes attributes, constants and extents, so that the model may still pass the checker."""
    model = onnx.ModelProto.FromString(data)
    graph = model.graph
    for _ in range(_times(random)):
        choices: list[Any] = [item for node in graph.node for item in node.attribute]
        choices += graph.initializer
        values = (*graph.input, *graph.output)
        choices += [dim for value in values for dim in value.type.tensor_type.shape.dim if dim.dim_value]
        if not choices:
            break
        holder = random.choice(choices)
        if isinstance(holder, onnx.TensorProto):
            if holder.data_type == onnx.TensorProto.INT64 and len(holder.raw_data) >= 8:
                word = random.choice((*NUMBERS, random.randrange(-9, 9))).to_bytes(8, "little", signed=True)
                at = 8 * random.randrange(len(holder.raw_data) // 8)
                holder.raw_data = holder.raw_data[:at] + word + holder.raw_data[at + 8 :]
            continue
        names = {"dim_value", "i", "f", "s", "ints", "floats", "strings"}
        fields = [field for field, _ in holder.ListFields() if field.name in names]
        if fields:
            _mutate_field(holder, random.choice(fields), random)
    return model.SerializePartialToString()


def _some_message(message: Message, random: Random) -> Message:
    """Returns a nested message, found by a random descent."""
    while random.random() < 0.85:
        inner = []
        for field, value in message.ListFields():
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                inner.extend(value if field.is_repeated else [value])
        if not inner:
            break
        message = random.choice(inner)
    return message


def _mutate_field(holder: Any, field: FieldDescriptor, random: Random) -> None:
    if not field.is_repeated:
        if field.type == FieldDescriptor.TYPE_MESSAGE or random.random() < 0.1:
            holder.ClearField(field.name)
        else:
            setattr(holder, field.name, _value(field, random))
        return
    items = getattr(holder, field.name)
    at = random.randrange(len(items)) if items else None
    match random.randrange(4):
        case 0 if at is not None:
            del items[at]
        case 1 if at is not None:
            copy = items[at]
            for _ in range(random.choice((1, 1, 20))):
                items.append(copy)
        case 2 if at is not None and field.type != FieldDescriptor.TYPE_MESSAGE:
            items[at] = _value(field, random)
        case 3 if len(items) > 1:
            kept = list(items)
            random.shuffle(kept)
            copies = (
                [type(item).FromString(item.SerializePartialToString()) for item in kept]
                if isinstance(kept[0], Message)
                else kept
            )
            del items[:]
            items.extend(copies)
        case _ if field.type != FieldDescriptor.TYPE_MESSAGE:
            items.append(_value(field, random))
        case _:
            items.add()


def _value(field: FieldDescriptor, random: Random) -> Any:
    integers: dict[int, Callable[[int], int]] = {
        FieldDescriptor.TYPE_INT32: lambda value: (value + 2**31) % 2**32 - 2**31,
        FieldDescriptor.TYPE_INT64: lambda value: (value + 2**63) % 2**64 - 2**63,
        FieldDescriptor.TYPE_UINT64: lambda value: value % 2**64,
    }
    if field.type in integers:
        return integers[field.type](random.choice((*NUMBERS, random.randrange(-30, 30))))
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return random.choice((*FLOATS, random.uniform(-5, 5)))
    if field.type == FieldDescriptor.TYPE_ENUM:
        return random.choice([item.number for item in field.enum_type.values])
    if field.type == FieldDescriptor.TYPE_BYTES:
        return random.randbytes(random.choice((0, 1, 3, 8, 64)))
    return random.choice((*WORDS, *_names()))


@cache
def _names() -> tuple[str, ...]:
    """Returns names of operators, and of values in the suite's models."""
    return tuple(sorted({schema.name for schema in onnx.defs.get_all_schemas()}))
