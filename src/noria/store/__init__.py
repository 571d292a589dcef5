"""State: the SQL database, blobs and the online key-value store."""

from noria.store.blobs import BlobStore
from noria.store.database import Database, Transaction
from noria.store.keyvalue import KeyValueStore, open_keyvalue

__all__ = ["BlobStore", "Database", "KeyValueStore", "Transaction", "open_keyvalue"]
