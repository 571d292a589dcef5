"""State: the SQL database, blobs and the online key-value store."""

from typing import TYPE_CHECKING

from noria.lazy import lazily

if TYPE_CHECKING:
    from noria.store.blobs import BlobStore
    from noria.store.database import Database, Transaction
    from noria.store.keyvalue import KeyValueStore, open_keyvalue

__all__ = ["BlobStore", "Database", "KeyValueStore", "Transaction", "open_keyvalue"]

__getattr__ = lazily(
    __name__,
    {
        "BlobStore": "blobs",
        **dict.fromkeys(("Database", "Transaction"), "database"),
        **dict.fromkeys(("KeyValueStore", "open_keyvalue"), "keyvalue"),
    },
)
