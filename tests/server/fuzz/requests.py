"""Mutated requests of every call. Request i of a world is always the same."""

from __future__ import annotations

from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from gradwire_wire.framing import bytes_field
from tests.server.fuzz.world import KINDS, World

MESSAGE_BYTES = (4 << 20) - 1024
"""What the transport takes; larger messages are refused by gRPC itself."""

NUMBERS = (0, 1, -1, 2, 3, 7, 64, 65, 255, 2**16, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, 2**64 - 1)
TEXTS = (
    "",
    "\0",
    "\n",
    "%",
    "x" * 300,
    "\N{SNOWMAN}" * 900,
    "x.tangent.2",
    "../../etc/passwd",
    "a" * 100_000,
)
REPEATS = (1, 2, 3, 17, 65, 300, 5000, 100_000)
FIELD = FieldDescriptor


def generate(world: World, method: str, index: int) -> list[bytes]:
    """Return request `index` of a call: its messages, as bytes."""
    random = Random(f"{method} {index}")
    chosen = random.random()
    if chosen < 0.004:
        return [_endless(method, random)]
    messages = [_copy(one) for one in random.choice(world.seeds[method])]
    if chosen < 0.75:
        for _ in range(random.choice((1, 1, 1, 2, 4))):
            _mutate(random.choice(messages), world, random)
    data = [message.SerializeToString()[:MESSAGE_BYTES] for message in messages]
    if 0.68 <= chosen < 0.9:
        at = random.randrange(len(data))
        data[at] = _mutated_bytes(data[at], world, random)
    if len(data) > 1 and random.random() < 0.2:
        _reorder(data, random)
    return data


def _copy(message: Message) -> Any:
    return type(message).FromString(message.SerializeToString())


def _endless(method: str, random: Random) -> bytes:
    """A message as long as the transport takes, of fields as short as they can be."""
    number, inner = random.randrange(1, 20), random.choice((b"", b"\x0a\x00", b"\x12\x00", b"\x10\x01"))
    one = random.choice((bytes_field(number, inner), bytes((number << 3, 1)) if number < 16 else b"\x78\x01"))
    many = one * ((MESSAGE_BYTES - 20) // len(one))
    return random.choice((many, bytes_field(random.choice((1, 2)), many)))


def _reorder(data: list[bytes], random: Random) -> None:
    match random.randrange(3):
        case 0:
            random.shuffle(data)
        case 1:
            del data[random.randrange(len(data))]
        case _:
            data.insert(random.randrange(len(data)), random.choice(data))


def _mutate(message: Any, world: World, random: Random) -> None:
    """Change one field of a message, or of one within it."""
    fields = [field for field, _ in message.ListFields()]
    if not fields or random.random() < 0.15:
        fields = list(message.DESCRIPTOR.fields)
    if not fields:
        return
    field = random.choice(fields)
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        _mutate_map(value, world, random)
    elif field.is_repeated:
        _mutate_repeated(value, field, world, random)
    elif field.message_type is not None:
        if random.random() < 0.9 and message.HasField(field.name):
            _mutate(value, world, random)
        elif random.random() < 0.5:
            message.ClearField(field.name)
        else:
            value.CopyFrom(_another(field, world, random))
    elif random.random() < 0.1:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _value(field, world, random))


def _mutate_map(value: Any, world: World, random: Random) -> None:
    names = list(value)
    match random.randrange(5):
        case 0 if names:
            del value[random.choice(names)]
        case 1:
            value[_text(world, random)].SetInParent()
        case 2 if names:
            most = MESSAGE_BYTES // (value[names[0]].ByteSize() + 16)
            for index in range(min(most, random.choice(REPEATS) // 8)):
                value[f"n{index}"].CopyFrom(value[names[0]])
        case _ if names:
            _mutate(value[random.choice(names)], world, random)


def _mutate_repeated(items: Any, field: FieldDescriptor, world: World, random: Random) -> None:
    times = random.choice(REPEATS)
    at = random.randrange(len(items)) if items else None
    match random.randrange(5):
        case 0 if at is not None:
            del items[at]
        case 1 if at is not None:
            size = items[at].ByteSize() if field.message_type is not None else len(str(items[at]))
            items.extend([items[at]] * min(times, MESSAGE_BYTES // (size + 12)))
        case 2 if field.message_type is None:
            items.extend([_value(field, world, random)] * min(times, 65))
        case 3 if at is not None and field.message_type is None:
            items[at] = _value(field, world, random)
        case 4 if at is not None and field.message_type is not None:
            _mutate(items[at], world, random)
        case _ if field.message_type is not None:
            items.append(_another(field, world, random))
        case _:
            items.append(_value(field, world, random))


def _another(field: FieldDescriptor, world: World, random: Random) -> Any:
    """A message for a field: out of another request where one has it, else empty."""
    seed = random.choice(random.choice(world.seeds[random.choice(list(KINDS))]))
    waiting: list[Any] = [seed]
    while waiting:
        message = waiting.pop()
        if message.DESCRIPTOR is field.message_type:
            return message
        for inner, value in message.ListFields():
            if inner.message_type is None:
                continue
            if inner.message_type.GetOptions().map_entry:
                waiting.extend(value.values())
            else:
                waiting.extend(value if inner.is_repeated else [value])
    return _empty(field)


def _empty(field: FieldDescriptor) -> Any:
    return field.message_type._concrete_class()


def _value(field: FieldDescriptor, world: World, random: Random) -> Any:
    if field.type == FIELD.TYPE_STRING:
        return _text(world, random)
    if field.type == FIELD.TYPE_BYTES:
        return random.choice((b"", random.randbytes(random.choice((1, 8, 24, 48, 4096))), bytes(1 << 20)))
    if field.type == FIELD.TYPE_BOOL:
        return random.random() < 0.5
    if field.type == FIELD.TYPE_ENUM:
        return random.choice((*range(-1, 17), 2**31 - 1))
    if field.type in (FIELD.TYPE_DOUBLE, FIELD.TYPE_FLOAT):
        return random.choice((0.0, -1.0, 1e300, float("inf"), float("nan")))
    number = random.choice((*NUMBERS, random.randrange(-9, 9)))
    bits = 32 if field.type in (FIELD.TYPE_INT32, FIELD.TYPE_UINT32) else 64
    if field.type in (FIELD.TYPE_UINT32, FIELD.TYPE_UINT64):
        return number % 2**bits
    return (number + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


def _text(world: World, random: Random) -> str:
    return random.choice(world.names) if random.random() < 0.6 else random.choice(TEXTS)


def _mutated_bytes(data: bytes, world: World, random: Random) -> bytes:
    result = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8))):
        at = random.randrange(len(result) + 1)
        length = random.choice((1, 1, 2, 4, 16, 64))
        match random.randrange(6):
            case 0:
                del result[at : at + length]
            case 1:
                result[at : at + length] = random.randbytes(length)
            case 2:
                result[at:at] = random.randbytes(length)
            case 3:
                result[at:at] = result[at : at + length] * random.choice((2, 30, 3000))
            case 4:
                del result[at:]
            case _:
                seed = random.choice(random.choice(world.seeds[random.choice(list(KINDS))]))
                result[at:at] = seed.SerializeToString()
    return bytes(result[:MESSAGE_BYTES])
