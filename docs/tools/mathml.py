"""MkDocs hook: formulas become MathML while the site is built, so that a page needs no script to show them."""

import re
from html import unescape

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(html: str, **_: object) -> str:
    """Replace each formula that the Markdown extension ``arithmatex`` has marked."""
    return FORMULA.sub(_mathml, html)


def _mathml(match: re.Match[str]) -> str:
    latex = unescape(match[3]).replace(r"\arg", r"\text{arg}\,")
    mathml = convert(latex, display="block" if match[2] == "[" else "inline")
    if "<mi>\\" in mathml:
        raise PluginError(f"the formula {latex} has a command that latex2mathml does not know: write it another way")
    return mathml
