"""Attribution reports: what a trace found, as one file that can be handed to anybody.

- `content` holds everything a report says, as plain values; nothing below it reads a lake.
- `render` turns that content into one HTML file or one Markdown file, by the templates in `templates/`.
- `text`, `marks`, `wording` and `charts` are the parts: escaping, marked words, sentences and numbers, pictures.
"""

from .content import AskedPart, Hit, Report, Share, TracedQuery, shares_by_source, shares_by_year
from .render import render_html, render_markdown

__all__ = [
    "AskedPart",
    "Hit",
    "Report",
    "Share",
    "TracedQuery",
    "render_html",
    "render_markdown",
    "shares_by_source",
    "shares_by_year",
]
