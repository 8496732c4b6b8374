"""MkDocs hook: the table of methods is written from the registry while the site is built."""

from typing import Any

from dgs_lightning.runs.methods import markdown_table

MARKER = "<!-- methods -->"


def on_page_markdown(markdown: str, **_: Any) -> str:  # noqa: ANN401
    """Replace the marker by the table."""
    return markdown.replace(MARKER, markdown_table())
