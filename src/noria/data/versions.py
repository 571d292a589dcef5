"""Dataset versions: snapshots named by the hash of their content."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, cast

from sqlalchemy import Row, insert, select

from noria import audit
from noria.clock import from_millis, to_millis
from noria.errors import NotFound
from noria.ids import DatasetVersionId
from noria.store.blobs import BlobStore
from noria.store.database import Transaction, from_json, to_json
from noria.store.tables import dataset_versions

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """An immutable set of rows; the id is the SHA-256 of its content."""

    dataset_version_id: DatasetVersionId
    name: str
    rows: int
    size_bytes: int
    since: datetime
    until: datetime
    columns: Mapping[str, str]
    created_at: datetime


def snapshot(
    tx: Transaction,
    blobs: BlobStore,
    frame: pl.DataFrame,
    *,
    name: str,
    event_time: str,
    at: datetime,
    actor: str,
) -> DatasetVersion:
    """Keep ``frame`` as a version; the same content is the same version and is written once."""
    version_id = content_hash(frame)
    known = tx.execute(select(dataset_versions).where(dataset_versions.c.dataset_version_id == version_id)).first()
    if known is not None:
        return _dataset(known)
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd")
    blobs.write(_key(version_id), buffer.getvalue())
    columns = {column: str(dtype) for column, dtype in frame.schema.items()}
    tx.execute(
        insert(dataset_versions).values(
            dataset_version_id=version_id,
            name=name,
            rows=frame.height,
            size_bytes=buffer.tell(),
            since=to_millis(cast(datetime, frame[event_time].min())),
            until=to_millis(cast(datetime, frame[event_time].max())),
            columns=to_json(columns),
            created_at=to_millis(at),
        )
    )
    detail = {"name": name, "rows": frame.height}
    audit.append(
        tx,
        at=at,
        actor=actor,
        action="dataset.snapshot",
        subject=f"dataset:{version_id}",
        detail=detail,
        changed=[(dataset_versions, (version_id,))],
    )
    return get_dataset(tx, version_id)


def get_dataset(tx: Transaction, version_id: DatasetVersionId) -> DatasetVersion:
    """The dataset version of that id. Raises NotFound."""
    row = tx.execute(select(dataset_versions).where(dataset_versions.c.dataset_version_id == version_id)).first()
    if row is None:
        raise NotFound(f"dataset version {version_id!r} does not exist", remedy="`noria audit show` lists snapshots.")
    return _dataset(row)


def list_datasets(tx: Transaction) -> list[DatasetVersion]:
    """All dataset versions, oldest first."""
    return [_dataset(row) for row in tx.execute(select(dataset_versions).order_by(dataset_versions.c.created_at))]


def load_dataset(blobs: BlobStore, version_id: DatasetVersionId) -> pl.DataFrame:
    """The rows of a version."""
    import polars as pl

    return pl.read_parquet(io.BytesIO(blobs.read(_key(version_id))))


def content_hash(frame: pl.DataFrame) -> DatasetVersionId:
    """SHA-256 of column names, types and values in order, whatever file they came from.

    Values are hashed as canonical text (shortest round-trip floats, a NUL for null), so that the hash does not hang on
    a binary format's version.
    """
    digest = hashlib.sha256(repr([(name, str(dtype)) for name, dtype in frame.schema.items()]).encode())
    digest.update(frame.write_csv(null_value="\0", quote_style="non_numeric").encode())
    return DatasetVersionId(digest.hexdigest())


def _key(version_id: str) -> str:
    return f"datasets/{version_id}.parquet"


def _dataset(row: Row[tuple[object, ...]]) -> DatasetVersion:
    return DatasetVersion(
        DatasetVersionId(row.dataset_version_id),
        row.name,
        row.rows,
        row.size_bytes,
        from_millis(row.since),
        from_millis(row.until),
        cast(dict[str, str], from_json(row.columns)),
        from_millis(row.created_at),
    )
