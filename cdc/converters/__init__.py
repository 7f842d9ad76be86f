"""Converters: typed records to bytes and back, used only where bytes leave or come in."""
