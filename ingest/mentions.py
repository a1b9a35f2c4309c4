"""Mentions of the entities that a corpus names for its documents.

A name that the corpus gives a document is true of each of its passages: where the passage spells it, every place is a
mention with offsets; where it does not, one mention without offsets keeps the passage findable by the entity.
"""

import re
from typing import Any


def corpus_mentions(passage_id: str, doc_id: str, text: str, entities: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the rows for table `mentions` of one passage."""
    rows = []
    for entity in entities:
        places: list[tuple[int | None, int | None]] = [
            match.span() for match in re.finditer(rf"(?<!\w){re.escape(entity)}(?!\w)", text)
        ]
        rows += [
            {
                "passage_id": passage_id,
                "doc_id": doc_id,
                "entity": entity,
                "surface": entity if start is not None else None,
                "type": None,
                "origin": "corpus",
                "char_start": start,
                "char_end": end,
            }
            for start, end in places or [(None, None)]
        ]
    return rows
