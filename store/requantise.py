"""Requantising: an encoder's stored vectors in a coarser format, without the model.

Notable: the vectors become the contents of a new version of the same table, so earlier snapshots read the finer ones as
long as their version is kept. The way back needs the model, since what a coarser format left out is gone.
"""

from collections.abc import Callable

import lance
import pyarrow as pa

from proponent.schema import catalog as models
from proponent.schema.errors import LakeBusyError, NotFoundError, SettingsError
from proponent.schema.settings import CODES, require_codes
from proponent.schema.tables import code_columns, codes_of, encodings_schema, encodings_table

from .codes import codes_arrays, dequantise, quantise, read_codes
from .commit import Change, WrittenBatch, committing, finish_interrupted, write_batch
from .fidelity import FidelitySample
from .lake import LakeStore
from .leases import lease
from .runs import recorded_run
from .snapshots import latest_snapshot

_AT_ONCE = 1024
"""Vectors decoded at a time."""


def requantise(
    lake: LakeStore, encoder: models.Encoder, codes: str, *, progress: Callable[[int], object] = lambda _n: None
) -> models.Encoder:
    """Store an encoder's vectors in a coarser format, in one new snapshot; return what the catalog then says of it.

    Raises SettingsError unless the format is coarser than the present one, NotFoundError when nothing is encoded,
    LakeBusyError while another process encodes with the same encoder.
    """
    name, table = encoder.name, encodings_table(encoder.name)
    with lease(lake.catalog, f"encode {name}", wait_s=5) as held:
        finish_interrupted(lake)
        before = latest_snapshot(lake.catalog)
        if not before.has(table):
            raise NotFoundError(f"encoder {name!r} has encoded nothing yet; run `proponent encode`")
        stored = lake.table(table, at=before)
        present = codes_of(stored.schema)
        require_coarser(codes, than=present, encoder=name)
        settings = {"encoder": name, "codes": codes, "from": present}
        with recorded_run(lake.catalog, "requantise", settings) as run:
            sample, schema = FidelitySample(), encodings_schema(encoder.dim, codes)
            batches = _requantised(lake, stored, schema, table=table, sample=sample, progress=progress)
            found = sample.measure(codes, against=present)
            with committing(lake, under=[held]) as committer:
                if latest_snapshot(lake.catalog).versions[table] != before.versions[table]:
                    raise LakeBusyError(f"table {table!r} was changed meanwhile; start again")
                amended = models.Encoder(name=name, codes=codes, fidelity=found)
                committer.publish(run.run_id, [Change(table, tuple(batches), schema=schema)], amend=[amended])
            run.counts = {"rows": sum(batch.n_rows for batch in batches)}
    with lake.catalog.read() as session:
        return session.get_one(models.Encoder, name)


def require_coarser(codes: str, *, than: str, encoder: str) -> None:
    """Raise SettingsError unless one code format is coarser than another, which an encoder has."""
    if CODES.index(require_codes(codes)) <= CODES.index(than):
        raise SettingsError(
            f"encoder {encoder!r} has {than} codes, which {codes} codes cannot be made of: what a format left out is "
            f"gone; make another encoder with `proponent encode LAKE --encoder NAME --seed N --codes {codes}`"
            if codes != than
            else f"encoder {encoder!r} has {codes} codes already"
        )


def _requantised(
    lake: LakeStore,
    stored: lance.LanceDataset,
    schema: pa.Schema,
    *,
    table: str,
    sample: FidelitySample,
    progress: Callable[[int], object],
) -> list[WrittenBatch]:
    """Write all rows anew, with the vectors in the format of the schema and everything else as it was."""
    batches = []
    for rows in stored.scanner(batch_size=_AT_ONCE, scan_in_order=True).to_batches():
        unit = dequantise(read_codes(rows))
        sample.offer(unit)
        data = pa.Table.from_batches([rows]).drop_columns(code_columns(rows.schema))
        for column, values in codes_arrays(quantise(unit, codes_of(schema))).items():
            data = data.append_column(column, values)
        batches.append(write_batch(lake, table, data, schema=schema))
        progress(rows.num_rows)
    return batches
