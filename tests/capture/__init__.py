"""``cdc capture`` and the library, on real servers."""
