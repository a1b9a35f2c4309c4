"""Arrow: IPC files (Feather) and IPC streams, as Hugging Face datasets have them on disk."""

from collections.abc import Iterator

import pyarrow as pa

from .row import Opened, RawRow, Reader

_BATCH_ROWS = 64
_FILE, _STREAM = b"ARROW1", b"\xff\xff\xff\xff"


class Arrow(Reader):
    """Reads `.arrow`, `.feather`, `.ipc` and `.arrows` files, batch by batch."""

    name = "arrow"
    suffixes = (".arrow", ".feather", ".ipc", ".arrows")
    magic = (_FILE, _STREAM)
    seeks = True

    def rows(self, opened: Opened) -> Iterator[RawRow]:
        """Yield every row, numbered from 1."""
        is_file = opened.file.read(len(_FILE)) == _FILE
        opened.file.seek(0)
        return batch_rows(_validated(_file_batches(opened) if is_file else _stream_batches(opened)))


def _file_batches(opened: Opened) -> Iterator[pa.RecordBatch]:
    with pa.ipc.open_file(opened.file) as file:
        for number in range(file.num_record_batches):
            yield file.get_batch(number)


def _stream_batches(opened: Opened) -> Iterator[pa.RecordBatch]:
    with pa.ipc.open_stream(opened.file) as stream:
        yield from stream


def _validated(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        batch.validate(full=True)  # a damaged offset would be read as an address, and end the process
        yield batch


def batch_rows(batches: Iterator[pa.RecordBatch], *, first: int = 1) -> Iterator[RawRow]:
    """Yield the rows of record batches; `first` is the number of the first."""
    number = first - 1
    for batch in batches:
        for start in range(0, batch.num_rows, _BATCH_ROWS):
            for fields in batch.slice(start, _BATCH_ROWS).to_pylist():
                number += 1
                yield RawRow(number, None, fields)
