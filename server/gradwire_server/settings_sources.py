"""Where settings come from: checks the environment's names, reads the file, and says what is wrong where."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

PREFIX = "GRADWIRE_"

NOT_SETTINGS = ("GRADWIRE_ADDRESS", "GRADWIRE_TOKEN", "GRADWIRE_PARENT_FD", "GRADWIRE_SOCKET")
"""Variables of the prefix that are no settings: address and token of clients, and what an embedder sets."""

_OF_KUBERNETES = re.compile(r"GRADWIRE_(SERVICE_HOST|SERVICE_PORT\w*|PORT_\d+_(TCP|UDP|SCTP)\w*)")

_UNITS = {
    f"{prefix}{base}b".lower(): (1024 if base else 1000) ** power
    for power, prefix in enumerate(("", "k", "M", "G", "T", "P"))
    for base in (("", "i") if prefix else ("",))
}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*")


class SettingsError(ValueError):
    """A setting is unknown or not valid; the message names it, and the source that it is from."""


def bytes_of(value: Any) -> Any:
    """Read a number of bytes with a unit, such as "512MB" or "2GiB"; anything else is left as it is.

    Raises:
        ValueError: the unit is unknown, or the bytes are not whole.
    """
    if isinstance(value, bool):
        raise ValueError("bytes are a number, not true or false")
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if match is None or not match[2]:
        return value
    unit = _UNITS.get(match[2].lower())
    if unit is None:
        raise ValueError(f"{match[2]!r} is no unit of bytes: write kB, MB, GB, TB, or KiB, MiB, GiB, TiB")
    whole, _, fraction = match[1].partition(".")
    scaled, rest = divmod(int(whole + fraction) * unit, 10 ** len(fraction))
    if rest:
        raise ValueError("it is no whole number of bytes")
    return scaled


def check_environment(environment: Mapping[str, str], fields: Collection[str]) -> None:
    """Refuse variables of the prefix that nothing reads, and empty ones.

    Args:
        environment: all variables.
        fields: the names of settings.

    Raises:
        SettingsError: a limit that somebody set would not be there.
    """
    known = [*(variable(field) for field in fields), *NOT_SETTINGS]
    problems = []
    for name, value in sorted(environment.items()):
        upper = name.upper()
        if not upper.startswith(PREFIX):
            continue
        if _OF_KUBERNETES.fullmatch(upper) or (upper == "GRADWIRE_PORT" and "://" in value):
            problems.append(
                f"{name}={value} (environment): Kubernetes sets it for a Service called gradwire; set "
                "enableServiceLinks: false in the pod, or call the Service otherwise"
            )
        elif upper not in known:
            problems.append(
                f"{name} (environment): there is no such setting{_near(upper, known)}; "
                f"names that begin with {PREFIX} are the server's"
            )
        elif not value:
            problems.append(f"{name} (environment): it is empty; give it a value, or unset it")
    if problems:
        raise SettingsError("\n".join(problems))


class FileSource(PydanticBaseSettingsSource):
    """The TOML file that the setting `config` names, as flags and the environment have it."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return nothing: the file is read as a whole."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Read the file; names may be written with hyphens or underscores.

        Raises:
            SettingsError: it cannot be read, or names a setting twice.
        """
        given = self.current_state.get("config")
        if given is None:
            return {}
        path = Path(given)
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:  # ValueError: not TOML, or not UTF-8
            named = variable("config") if os.environ.get(variable("config")) == str(given) else "--config"
            reason = error.strerror if isinstance(error, OSError) else error
            raise SettingsError(f"{named} names {path}, which cannot be read: {reason}") from None
        values: dict[str, Any] = {}
        for key, value in content.items():
            field = key.replace("-", "_")
            if field in values:
                raise SettingsError(f"{key} in {path}: the setting is there twice")
            if field == "config":
                raise SettingsError(f"{key} in {path}: a file cannot name another")
            values[field] = value
        return values


def explained(
    error: ValidationError, fields: Collection[str], arguments: Sequence[str], given: Mapping[str, Any]
) -> SettingsError:
    """Say what is wrong with settings, and where each wrong one comes from.

    Args:
        error: what is wrong.
        fields: the names of settings.
        arguments: the flags, with hyphens.
        given: the settings that a program gave.
    """
    reasons: dict[tuple[str, Any], list[str]] = {}
    for one in error.errors(include_url=False):
        # What no single setting is to blame for has no place.
        field = str(one["loc"][0]) if one["loc"] else ""
        message = str(one["msg"]).removeprefix("Value error, ")
        if one["type"] == "extra_forbidden":
            message = f"there is no such setting{_near(field, fields)}"
        reasons.setdefault((field, repr(one["input"])), []).append(message)
    file = _flag_value("config", arguments) or given.get("config") or os.environ.get(variable("config"))
    return SettingsError(
        "\n".join(
            f"{_source(field, value, file, arguments, given)}: {', or '.join(messages)}"
            if field
            else ", or ".join(messages)
            for (field, value), messages in reasons.items()
        )
    )


def variable(field: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + field.upper()


def _source(field: str, value: str, file: object, arguments: Sequence[str], given: Mapping[str, Any]) -> str:
    if _flag_value(field, arguments) is not None:
        return f"--{field.replace('_', '-')} {value} (flag)"
    if field in given:
        return f"{field}={value}"
    for name in os.environ:
        if name.upper() == variable(field):
            return f"{name}={value} (environment)"
    return f"{field} = {value} in {file}"


def _flag_value(field: str, arguments: Sequence[str]) -> str | None:
    return next((value for name, value in _flags(arguments) if name == field), None)


def _flags(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        if argument.startswith("--"):
            name, separator, value = argument[2:].partition("=")
            yield name.replace("-", "_"), value if separator else following


def _near(name: str, known: Collection[str]) -> str:
    return "".join(f", did you mean {near}?" for near in get_close_matches(name, list(known), n=1))
