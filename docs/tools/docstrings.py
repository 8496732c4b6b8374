"""Griffe extension: the roles and directives of reStructuredText in docstrings become Markdown."""

import re
from typing import Any

from griffe import Extension, Object

RULES = (
    (re.compile(r":math:`([^`]*)`"), r"\\(\1\\)"),
    (re.compile(r"^( *)\.\. math:: (.*)$", re.MULTILINE), r"\1\\[\2\\]"),
    (re.compile(r":(?:attr|class|data|func):`~?([^`]*?)(\w+)`"), r"[`\2`][\1\2]"),
    (re.compile(r"::$", re.MULTILINE), ":"),
)


class MarkdownDocstrings(Extension):
    """Rewrites each docstring before it is rendered."""

    def on_object(self, *, obj: Object, **_: Any) -> None:  # noqa: ANN401
        """Rewrite the docstring of an object."""
        if obj.docstring is not None:
            for pattern, replacement in RULES:
                obj.docstring.value = pattern.sub(replacement, obj.docstring.value)
