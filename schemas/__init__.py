"""What data looks like: Kafka Connect's schema model, tables, and the schemas of events.

Imports nothing of the engine; ``cdc`` and ``sinks`` build on it.
"""

from schemas.events import EventSchema
from schemas.model import Field, Schema, SchemaError
from schemas.table import Column, TableId, TableSchema

__all__ = ["Column", "EventSchema", "Field", "Schema", "SchemaError", "TableId", "TableSchema"]
