"""Says what to do instead of pickling or copying what holds a connection."""

from typing import NoReturn


def refuse(thing: object, instead: str) -> NoReturn:
    """Raise the `TypeError` that pickle expects."""
    raise TypeError(
        f"a {type(thing).__name__} cannot be pickled or copied, for it holds a connection: {instead}"
    )


CLIENT = "in the other process, connect to its address again: gw.connect({address!r})"
FUNCTION = (
    "pickle the function of gw.connect or gw.local, or make it again of the same source: "
    "gw.connect({address!r}).function(...)"
)
