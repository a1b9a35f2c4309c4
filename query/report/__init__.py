"""Attribution reports: what a trace found, as one file that can be handed to anybody.

- `build` collects the content from a lake, with `beside`, `sources` and `provenance`.
- `content` holds everything a report says, as plain values, and `compare` joins two of its traces; nothing below them
  reads a lake.
- `answers` finds the answers that some questions are the segments of.
- `render` turns that content into HTML or Markdown, by the templates in `templates/` that `filling` fills, `data` into
  JSON; `folder` makes an index and pages of it, and `write` the files.
- `text`, `marks`, `shown`, `wording`, `methods`, `numbers` and `charts` are the parts: escaping, marked words, a
  passage as it is shown, sentences and numbers, pictures.
- `verify` makes a report again, by the block of `data` that every file carries, and compares.
"""

from .content import (
    AskedPart,
    Beside,
    Group,
    Hit,
    Report,
    Share,
    Sources,
    TokenShare,
    TracedQuery,
    shares_by_source,
    shares_by_year,
)
from .render import render_html, render_markdown

__all__ = [
    "AskedPart",
    "Beside",
    "Group",
    "Hit",
    "Report",
    "Share",
    "Sources",
    "TokenShare",
    "TracedQuery",
    "render_html",
    "render_markdown",
    "shares_by_source",
    "shares_by_year",
]
