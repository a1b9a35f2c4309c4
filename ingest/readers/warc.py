"""WARC: web archives, and the texts of them that Common Crawl hands out as WET.

Notable: what is no document of text is no row: requests, metadata, redirects, errors, pictures. What is a document
but cannot be decoded is a row with the reason.
"""

import codecs
from collections.abc import Iterator
from email.message import Message
from typing import Any, Final

from proponent.schema.errors import CorpusError

from .html_text import read_html
from .row import Opened, RawRow, Reader, too_large

_RECORDS: Final = ("response", "resource", "conversion")
_HTML: Final = ("text/html", "application/xhtml+xml")
_TEXT: Final = ("text/plain", *_HTML)


class Warc(Reader):
    """Reads `.warc` and `.wet` files with the library warcio.

    A row has `id` (the record's), `url`, `date`, `content_type` and `text`, and `title` and `language` where the
    record says them.
    """

    name = "warc"
    suffixes = (".warc", ".wet")
    magic = (b"WARC/",)

    def rows(self, opened: Opened) -> Iterator[RawRow]:
        """Yield a row for every document of text, numbered by its record, from 1."""
        try:
            from warcio.archiveiterator import WARCIterator
            from warcio.exceptions import ArchiveLoadFailed
        except ImportError as error:
            raise CorpusError("reading WARC needs warcio: pip install 'proponent[warc]'") from error
        records = WARCIterator(opened.file)
        try:
            for number, record in enumerate(records, start=1):
                if _is_document(record):
                    yield _row(number, record, opened.max_row_bytes)
                _require_whole(record, number)
                if records.err_count:
                    raise CorpusError(f"what follows record {number - 1} is no WARC record")
        except ArchiveLoadFailed as error:
            raise CorpusError(f"not WARC: {error}") from error


def _content_type(record: Any) -> Message:
    """Return the type of a record's document, parsed: that of the page, not that of the HTTP answer around it."""
    headers = record.http_headers or record.rec_headers
    message = Message()
    message["Content-Type"] = headers.get_header("Content-Type") or "application/octet-stream"
    return message


def _is_document(record: Any) -> bool:
    if record.rec_type not in _RECORDS or _content_type(record).get_content_type() not in _TEXT:
        return False
    return record.http_headers is None or str(record.http_headers.get_statuscode()).startswith("2")


def _require_whole(record: Any, number: int) -> None:
    stream = record.raw_stream
    while stream.read(1 << 16):
        pass
    if getattr(stream, "limit", 0) > 0:
        raise CorpusError(f"record {number} is cut short")


def _row(number: int, record: Any, limit: int) -> RawRow:
    payload: bytes = record.content_stream().read(limit + 1)
    if len(payload) > limit:
        return RawRow(number, payload, None, too_large(limit))
    content_type = _content_type(record)
    charset = content_type.get_content_charset() or "utf-8"
    try:
        text = payload.decode(codecs.lookup(charset).name).removeprefix("\ufeff")
    except (LookupError, ValueError) as error:
        return RawRow(number, payload, None, f"its text is not {charset}, as it says: {error}")
    headers = record.rec_headers
    fields = {
        "id": headers.get_header("WARC-Record-ID"),
        "url": headers.get_header("WARC-Target-URI"),
        "date": headers.get_header("WARC-Date"),
        "language": headers.get_header("WARC-Identified-Content-Language"),
        "content_type": content_type.get_content_type(),
        "text": text,
    }
    if fields["content_type"] in _HTML:
        fields["title"], fields["text"] = read_html(text)
    return RawRow(number, payload, fields)
