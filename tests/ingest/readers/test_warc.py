"""Web archives: every document of text is a row, what is none is no row, and what cannot be read is told."""

import gzip
from pathlib import Path
from typing import Any

import pytest

from proponent.ingest.readers import RawRow, read_file
from proponent.ingest.readers.html_text import read_html
from proponent.schema.errors import CorpusError
from proponent.schema.settings import ReadSettings

PAGE = """<html><head><title>A &amp; B</title><style>p {}</style></head>
<body><script>var x = "<p>no</p>";</script><h1>Head</h1><p>One <b>bold</b> caf\u00e9.<p>Two<br>lines</body></html>"""
URL = "https://example.org/page"


class Archive:
    """A WARC file in the making."""

    def __init__(self, *, packed: bool) -> None:
        self.data = b""
        self._packed = packed

    def add(self, kind: str, content_type: str, data: bytes) -> "Archive":
        headers = {
            "WARC-Type": kind,
            "WARC-Record-ID": f"<urn:uuid:{len(self.data)}>",
            "WARC-Target-URI": URL,
            "WARC-Date": "2024-05-06T07:08:09Z",
            "WARC-Identified-Content-Language": "eng",
            "Content-Type": content_type,
            "Content-Length": str(len(data)),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        record = f"WARC/1.0\r\n{head}\r\n".encode() + data + b"\r\n\r\n"
        self.data += gzip.compress(record) if self._packed else record
        return self

    def page(
        self, data: bytes, content_type: str = "text/html", status: str = "200 OK", *, encoding: str = "identity"
    ) -> "Archive":
        head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Encoding: {encoding}\r\n\r\n"
        return self.add("response", "application/http; msgtype=response", head.encode() + data)


def read(tmp_path: Path, archive: Archive | bytes, name: str = "a.warc.gz", **settings: Any) -> list[RawRow]:
    (tmp_path / name).write_bytes(archive if isinstance(archive, bytes) else archive.data)
    return list(read_file(tmp_path / name, ReadSettings(**settings)))


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz", "a.warc.wet.gz", "unnamed"])
def test_texts_of_all_kinds_of_records_are_rows(tmp_path: Path, name: str) -> None:
    archive = Archive(packed=name.endswith(".gz"))
    archive.page(PAGE.encode()).add("conversion", "text/plain", "caf\u00e9".encode()).add(
        "resource", "text/plain", b"x"
    )
    page, conversion, resource = read(tmp_path, archive, name)
    assert page.fields is not None
    assert conversion.fields is not None
    assert page.fields["id"].startswith("<urn:uuid:")
    assert {key: value for key, value in page.fields.items() if key != "id"} == {
        "url": URL,
        "date": "2024-05-06T07:08:09Z",
        "language": "eng",
        "content_type": "text/html",
        "title": "A & B",
        "text": "Head\nOne bold caf\u00e9.\nTwo\nlines",
    }
    assert (conversion.fields["text"], conversion.fields["content_type"]) == ("caf\u00e9", "text/plain")
    assert "title" not in conversion.fields
    assert [row.row for row in (page, conversion, resource)] == [1, 2, 3]


def test_what_is_no_document_of_text_is_no_row(tmp_path: Path) -> None:
    archive = Archive(packed=True)
    archive.add("warcinfo", "application/warc-fields", b"software: x").page(b"no", status="404 Not Found")
    archive.page(b"\x89PNG", "image/png").add("metadata", "text/plain", b"x").page(b"", status="301 Moved")
    archive.page(b"taken", "text/plain; charset=utf-8")
    assert [(row.row, row.fields and row.fields["text"]) for row in read(tmp_path, archive)] == [(6, "taken")]


def test_content_is_decoded_as_it_says(tmp_path: Path) -> None:
    archive = Archive(packed=True)
    archive.page("caf\u00e9".encode("latin-1"), "text/plain; charset=ISO-8859-1")
    archive.page(gzip.compress(b"packed"), "text/plain", encoding="gzip")
    archive.page(b"caf\xe9", "text/plain").page(b"x", "text/plain; charset=nonsense")
    latin, packed, undeclared, unknown = read(tmp_path, archive)
    assert [row.fields and row.fields["text"] for row in (latin, packed)] == ["caf\u00e9", "packed"]
    assert (undeclared.error or "").startswith("its text is not utf-8, as it says")
    assert (unknown.error or "").startswith("its text is not nonsense, as it says")


def test_a_document_larger_than_the_limit_is_rejected(tmp_path: Path) -> None:
    archive = Archive(packed=True).page(b"x" * 1000, "text/plain").page(b"y", "text/plain")
    large, good = read(tmp_path, archive, max_row_bytes=100)
    assert "larger than 100 bytes" in (large.error or "")
    assert good.fields is not None


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("cut", [10, 200])
def test_a_truncated_archive_is_refused(tmp_path: Path, cut: int, packed: bool) -> None:
    archive = Archive(packed=packed).page(PAGE.encode()).page(b"some text " * 100, "text/plain")
    name = "a.warc.gz" if packed else "a.warc"
    with pytest.raises(CorpusError, match=rf"{name} cannot be read"):
        read(tmp_path, archive.data[:-cut], name)


def test_an_archive_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    data = Archive(packed=False).page(b"x", "text/plain").data
    with pytest.raises(CorpusError, match=r"a\.warc cannot be read after row 1"):
        read(tmp_path, data + b"nonsense\r\n" + data, "a.warc")


@pytest.mark.parametrize(
    ("html", "title", "text"),
    [
        ("", None, ""),
        ("just text & more", None, "just text & more"),
        ("<title>One</title><p>x<svg><title>Two</title></svg>", "One", "x"),
        ("<table><tr><td>a<td>b<tr><td>c</table>", None, "a\nb\nc"),
        ("<p>a&nbsp;b&#8212;c &lt;d&gt;", None, "a b\u2014c <d>"),
        ("<head><meta x><body>shown", None, "shown"),
        ("<!-- no --><p>a  \n b</p><style>no</style><noscript>no</noscript>", None, "a b"),
        ("<pre>a\n  b</pre><p>c\nd", None, "a\nb\nc d"),
    ],
)
def test_html_gives_its_title_and_its_lines(html: str, title: str | None, text: str) -> None:
    assert read_html(html) == (title, text)
