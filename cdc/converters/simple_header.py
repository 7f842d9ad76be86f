"""SimpleHeaderConverter: ``org.apache.kafka.connect.storage.SimpleHeaderConverter``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from cdc.config import ConfigDef
from cdc.converters.contract import Form, SchemaAndValue
from schemas import Schema
from schemas.java import REPLACED
from schemas.literals import convert_to_string, parse_string


class SimpleHeaderConverter:
    """Headers as text whose type is inferred when it is read (:mod:`schemas.literals`)."""

    CONFIG: ClassVar[ConfigDef] = ConfigDef(())
    form: ClassVar[Form] = "text"

    @classmethod
    def from_config(cls, options: Mapping[str, Any]) -> Self:
        """From options without prefix: there are none."""
        cls.CONFIG.parse(options)
        return cls()

    def from_connect_header(
        self, _topic: str, _name: str, schema: Schema | None, value: Any
    ) -> bytes | None:
        """The text of a header's value."""
        return None if value is None else convert_to_string(value, schema).encode()

    def to_connect_header(self, _topic: str, _name: str, data: bytes | None) -> SchemaAndValue:
        """The value that the text means; a string where it means nothing else."""
        text = None if data is None else data.decode(errors=REPLACED)
        return SchemaAndValue(*parse_string(text))

    def text_of(self, data: bytes) -> str:
        """The text."""
        return data.decode(errors=REPLACED)
