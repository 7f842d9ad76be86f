"""JsonConverter: rows by joining fragments, single values by plans, and back leniently."""

from cdc.converters.json.converter import JsonConverter

__all__ = ["JsonConverter"]
