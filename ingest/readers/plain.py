"""Plain text: a document a file, or several with a line between them."""

from collections.abc import Iterator

from .lines import lines
from .row import Opened, RawRow, Reader, too_large


class PlainText(Reader):
    """Reads `.txt` files; a row has an `id`, the file's name below the folder that was given, and a `text`."""

    name = "text"
    suffixes = (".txt",)

    def rows(self, opened: Opened) -> Iterator[RawRow]:
        """Yield one row, or one for every run of lines between separators that is not blank.

        With a separator ids end in the number of the document in its file, and rows are numbered by their first line.
        """
        count = 0
        for number, data in _documents(opened):
            if opened.separator is not None and not data.strip():
                continue
            count += 1
            name = opened.name if opened.separator is None else f"{opened.name}#{count}"
            yield _row(number, name, data, opened.max_row_bytes)


def _documents(opened: Opened) -> Iterator[tuple[int, bytes]]:
    first, taken, size = 1, list[bytes](), 0
    for number, data in lines(opened):
        if opened.separator is not None and _is_separator(data, opened.separator):
            yield first, b"".join(taken)
            first, taken, size = number + 1, [], 0
            continue
        size += len(data)
        if size <= opened.max_row_bytes + len(data):  # the first line too many is kept, the ones after it are not
            taken.append(data)
    if opened.separator is None or taken:
        yield first, b"".join(taken)


def _is_separator(line: bytes, separator: str) -> bool:
    return line.strip() == separator.strip().encode("utf-8", "surrogateescape")


def _row(number: int, name: str, data: bytes, limit: int) -> RawRow:
    if len(data) > limit:
        return RawRow(number, data, None, too_large(limit))
    try:
        return RawRow(number, data, {"id": name, "text": data.decode("utf-8")})
    except UnicodeDecodeError as error:
        return RawRow(number, data, None, f"not UTF-8 at byte {error.start} of the document")
