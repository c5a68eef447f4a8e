"""`gradwire token`: makes, lists and revokes the tokens of a server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from gradwire_server.access.tokens import (
    COMPUTE,
    SCOPES,
    Token,
    TokenError,
    TokenSet,
    new_token,
    read_tokens,
    write_tokens,
)

app = typer.Typer(
    help="Make, list and revoke the tokens that clients show to a server.",
    no_args_is_help=True,
    add_completion=False,
)

TokenFile = Annotated[
    Path,
    typer.Option(
        "--file",
        envvar="GRADWIRE_TOKEN_FILE",
        dir_okay=False,
        help="the server's file of tokens, its setting token-file",
    ),
]
Scopes = Annotated[
    list[str] | None, typer.Option("--scope", help=f"what it allows: {' or '.join(SCOPES)}; may repeat")
]


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="what to call it, such as laptop or ci")],
    file: TokenFile,
    tenant: Annotated[str, typer.Option(help="whose it is; its name by default")] = "",
    scope: Scopes = None,
    expires: Annotated[str, typer.Option(help="valid for so long: 12h, 90d or 4w; default: for ever")] = "",
    calls: Annotated[int | None, typer.Option(help="calls that its tenant may have open at once")] = None,
    held_bytes: Annotated[
        int | None, typer.Option("--bytes", help="bytes that its tenant may have the server hold")
    ] = None,
) -> None:
    """Make a token and print it, once: the file has only a hash of it."""
    with _errors_in_a_line():
        token, text = new_token(name, tenant, scope or [COMPUTE], expires, calls, held_bytes)
        held = read_tokens(file) if file.exists() else TokenSet()
        write_tokens(file, held.added(token))
    print(text)
    typer.echo(
        f"{_described(token)}. It is not shown again; clients pass it as token= or in GRADWIRE_TOKEN.",
        err=True,
    )


@app.command(name="list")
def show(file: TokenFile) -> None:
    """List the tokens, without their secrets."""
    with _errors_in_a_line():
        tokens = read_tokens(file).tokens
    for token in tokens:
        print(f"{token.id}  {_described(token)}")


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="the token's name or id")],
    file: TokenFile,
) -> None:
    """Take a token out of the file: a running server refuses it within a second."""
    with _errors_in_a_line():
        held = read_tokens(file)
        token = held.named(name)
        write_tokens(file, held.without(name))
    typer.echo(f"revoked {token.name} of tenant {token.tenant}", err=True)


def _described(token: Token) -> str:
    parts = [token.name, f"tenant {token.tenant}", " and ".join(token.scopes)]
    if token.expires is not None:
        word = "expires" if token.is_current(datetime.now(UTC)) else "EXPIRED"
        parts.append(f"{word} {token.expires:%Y-%m-%d %H:%M} UTC")
    if token.calls is not None:
        parts.append(f"at most {token.calls} calls")
    if token.held_bytes is not None:
        parts.append(f"at most {token.held_bytes} bytes")
    return ", ".join(parts)


@contextmanager
def _errors_in_a_line() -> Iterator[None]:
    try:
        yield
    except (TokenError, OSError) as error:
        typer.echo(f"gradwire: {error}", err=True)
        raise typer.Exit(1) from None
