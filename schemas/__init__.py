"""What data looks like: Kafka Connect's schema model, tables, and the schemas of events.

Imports nothing of the engine; ``cdc`` and ``sinks`` build on it.
"""

from schemas.events import EventSchema
from schemas.model import HIDDEN, DataError, Field, Schema, SchemaBuilderError, SchemaError
from schemas.struct import Moment, Struct
from schemas.table import Column, TableId, TableSchema

__all__ = [
    "HIDDEN",
    "Column",
    "DataError",
    "EventSchema",
    "Field",
    "Moment",
    "Schema",
    "SchemaBuilderError",
    "SchemaError",
    "Struct",
    "TableId",
    "TableSchema",
]
