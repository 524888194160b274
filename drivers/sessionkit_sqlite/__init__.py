"""The SQLite driver: the embedded default, one file that several processes may share.

``opening`` reads the URL, ``store`` is the store, ``operations`` and ``leases`` what it does to the file,
``schema`` the file itself. A ``job`` is what one caller wants; a ``lane`` is a thread that serves jobs in
batches: ``writer`` commits a batch as one transaction, ``reader`` answers one from a single snapshot.
``errors`` is where sqlite3's errors become sessionkit's.
"""

from sessionkit_sqlite.opening import open_driver
from sessionkit_sqlite.store import SqliteStore

__all__ = ["SqliteStore", "open_driver"]
