"""Where a long text is cut into segments that are traced one by one.

Notable: a segment ends where a sentence, or so many words, end, so that white space begins the next one, as it begins
the tokens of most tokenizers. Segments joined are the text.
"""

import re
from typing import Final

from proponent.ingest.sentences import JoinedTexts
from proponent.schema.errors import SettingsError

SENTENCES: Final = "sentences"


def segment_rule(given: str | int) -> str | int:
    """Return how a text is to be cut: `sentences`, or after so many words. Raises SettingsError for anything else."""
    n = int(given) if isinstance(given, str) and given.isdecimal() else given
    if n == SENTENCES or (isinstance(n, int) and not isinstance(n, bool) and n > 0):
        return n
    raise SettingsError(f"segments are {SENTENCES!r} or a number of words, 1 or more, not {given!r}")


def segment_ends(text: str, rule: str | int) -> list[int]:
    """Return where the segments of a text end, in characters, the last at its end.

    What is only white space is in a segment with its neighbour; a text of nothing else is one segment.
    """
    if isinstance(rule, str):
        ends = JoinedTexts([text]).sentences().stops.tolist()
    else:
        ends = [word.end() for word in re.finditer(r"\S+", text)][rule - 1 :: rule]
    # What is behind the last full number of words is a segment; white space alone is not.
    if ends and not text[ends[-1] :].strip():
        ends.pop()
    return [*ends, len(text)]
