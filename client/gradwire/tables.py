"""HTML tables for notebooks. Every text is escaped: names come from models."""

from collections.abc import Iterable, Sequence

_CELL = "text-align:left;padding:2px 10px"


def html_table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[str]], notes: Iterable[str] = ()
) -> str:
    """Return a titled HTML table with notes below it.

    Args:
        title: stands above the table.
        header: a name for each column.
        rows: as many texts as there are columns, each.
        notes: lines of small text below.
    """
    from html import escape  # here: its table of entities would be read with every import of the client

    head = "".join(f'<th style="{_CELL}">{escape(name)}</th>' for name in header)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{escape(cell)}</td>' for cell in row) + "</tr>" for row in rows
    )
    return (
        f'<div><b>{escape(title)}</b><table style="margin:4px 0">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{html_notes(notes)}</div>"
    )


def html_notes(lines: Iterable[str]) -> str:
    """Return lines of small text as HTML."""
    from html import escape

    return "".join(f'<div style="font-size:90%">{escape(line)}</div>' for line in lines)
