"""The `gradwire` command: runs the command line, or says what to install for it."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    try:
        import typer  # noqa: F401
    except ImportError:
        sys.exit("the gradwire command needs more than the light client: pip install 'gradwire[cli]'")
    from gradwire_server.cli.app import app

    app()
