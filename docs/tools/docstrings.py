"""Griffe extension: the roles, directives and doctests of docstrings become Markdown."""

import re
from typing import Any

from griffe import Extension, Object

import dgs_lightning

RULES = (
    (re.compile(r":math:`([^`]*)`"), r"\\(\1\\)"),
    (re.compile(r"^( *)\.\. math:: (.*)$", re.MULTILINE), r"\1\\[\2\\]"),
    (re.compile(r":(?:attr|class|data|func):`~?([^`]*?)(\w+)`"), r"[`\2`][\1\2]"),
    (re.compile(r"::$", re.MULTILINE), ":"),
)
EXAMPLES = re.compile(r"^( *)(>>> .*(?:\n\1[^ \n].*|\n\1 +\S.*)*)$", re.MULTILINE)
PUBLIC_NAME = re.compile(r"\]\[dgs_lightning\.(\w+)\]")


class MarkdownDocstrings(Extension):
    """Rewrites each docstring before it is rendered."""

    def on_object(self, *, obj: Object, **_: Any) -> None:  # noqa: ANN401
        """Rewrite the docstring of an object."""
        if obj.docstring is not None:
            for pattern, replacement in RULES:
                obj.docstring.value = pattern.sub(replacement, obj.docstring.value)
            obj.docstring.value = EXAMPLES.sub(_fenced, obj.docstring.value)
            obj.docstring.value = PUBLIC_NAME.sub(_full_path, obj.docstring.value)


def _fenced(match: re.Match[str]) -> str:
    """A doctest as a block of code. An indented one outside of a section is a block in Markdown already."""
    if match[1] and not re.search(r"^Examples?:$", match.string[: match.start()], re.MULTILINE):
        return match[0]
    return f"{match[1]}```pycon\n{match[1]}{match[2]}\n{match[1]}```"


def _full_path(match: re.Match[str]) -> str:
    """Link to the module that defines a public name of the package."""
    if match[1] not in dgs_lightning.__all__:
        return match[0]
    return f"][{getattr(dgs_lightning, match[1]).__module__}.{match[1]}]"
