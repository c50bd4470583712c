"""Records of any kind from a source's rows, in order; what is left out is counted. What a kind is, its format says."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Generic, NamedTuple, TypeVar

from lit_pref.data.reading.rows import OnBadRow, ReadValues, Row, RowError, SkippedRows, refuse
from lit_pref.data.reading.sources import Source, read_rows
from lit_pref.errors import UserError

Record = TypeVar("Record")  # a frozen dataclass with a `location`


class RecordsRead(NamedTuple, Generic[Record]):
    """All records of a source, and the rows that gave none."""

    records: list[Record]
    skipped: SkippedRows


def read_records(
    convert: Callable[[Row, Any], Record], source: Source, split: str, keys: Any, on_bad_row: OnBadRow
) -> RecordsRead[Record]:
    """All records of a source; Raises UserError for the first bad row, or when skipping leaves no record.

    convert: a row, and the user's key names or None, to a record. Raises RowError.
    """
    skipped = SkippedRows()
    return RecordsRead(list(iterate_records(convert, source, split, keys, on_bad_row, skipped)), skipped)


def iterate_records(
    convert: Callable[[Row, Any], Record],
    source: Source,
    split: str,
    keys: Any,
    on_bad_row: OnBadRow,
    skipped: SkippedRows,
) -> Iterator[Record]:
    """As `read_records`, one at a time; rows left out are counted in `skipped` on the way."""
    usable = False
    for row in read_rows(source, split, on_bad_row, skipped):
        values = ReadValues(row.values)
        try:
            record = convert(Row(row.location, values), keys)
        except RowError as error:
            refuse(error, on_bad_row, skipped)
            continue
        skipped.note_columns(row.location, values)
        usable = True
        yield replace(record, location=row.location)  # type: ignore[type-var]
    if not usable:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.counts.most_common())
        raise UserError(f"{source}: no usable row is left ({reasons}); the first: {skipped.messages[0]}")
