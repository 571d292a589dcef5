"""Feature files in the order in which joins read them fastest."""

from __future__ import annotations

from pathlib import Path

from noria.errors import InvalidData
from noria.features.definitions import FeatureView
from noria.features.sources import CREATED, EVENT

_ROWS_PER_GROUP = 2**17


def write_sorted(view: FeatureView, folder: Path, path: Path) -> None:
    """All rows of ``view`` to a Parquet file at ``path``, sorted by join keys and event time.

    A join then reads only the parts that hold its entities, and looks up each entity once instead of once a row. Rows
    that tie keep their order, so every join gives what it gave before. The file has the names of the view: read it by
    ``FileSource(path=...)``. It may replace the source's own file; ``path`` changes only when all is written. Raises
    InvalidData.
    """
    import polars as pl

    rows = view.source.rows(folder, keys=view.join_keys, fields=view.features)
    ordered = rows.sort(*view.join_keys, EVENT, CREATED, maintain_order=True)
    part = path.with_name(f"{path.name}.part")
    try:
        ordered.sink_parquet(part, row_group_size=_ROWS_PER_GROUP)
    except (OSError, pl.exceptions.PolarsError) as error:
        part.unlink(missing_ok=True)
        raise InvalidData(
            f"feature view {view.name!r} cannot be written to {path}: {error}",
            remedy="Check that its columns have the types of the schema, and that the folder exists and has room.",
        ) from error
    part.replace(path)
