"""What a converter is: Connect's ``Converter`` and ``HeaderConverter``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from cdc.config import ConfigDef
from schemas import Schema

# What the bytes are, for those who write lines of text: JSON, other text, or neither.
Form = Literal["json", "text", "bytes"]


class SchemaAndValue(NamedTuple):
    """A Connect value (see :mod:`schemas.struct`) with its schema; None: it has none."""

    schema: Schema | None
    value: Any


class HeaderConverter(Protocol):
    """Values of headers to bytes and back."""

    CONFIG: ClassVar[ConfigDef]
    form: ClassVar[Form]

    def from_connect_header(
        self, topic: str, name: str, schema: Schema | None, value: Any
    ) -> bytes | None:
        """A header's bytes; None for null. Raises DataError for what cannot be written."""
        ...

    def to_connect_header(self, topic: str, name: str, data: bytes | None) -> SchemaAndValue:
        """The inverse. Raises DataError for bytes that cannot be read."""
        ...

    def text_of(self, data: bytes) -> str:
        """Written bytes as text: the text itself, or base64 of what is none."""
        ...


class Converter(HeaderConverter, Protocol):
    """Keys and values to bytes and back. Its options carry no prefix.

    Not safe to share between threads.
    """

    def from_connect(self, topic: str, schema: Schema | None, value: Any) -> bytes | None:
        """A key's or value's bytes; None: null. Raises DataError for what cannot be written."""
        ...

    def to_connect(self, topic: str, data: bytes | None) -> SchemaAndValue:
        """The inverse. Raises DataError for bytes that cannot be read."""
        ...


class HeadersAsValues(ABC):
    """Headers are converted as values are: what all converters share but SimpleHeaderConverter."""

    @abstractmethod
    def from_connect(self, topic: str, schema: Schema | None, value: Any, /) -> bytes | None:
        """See Converter."""

    @abstractmethod
    def to_connect(self, topic: str, data: bytes | None, /) -> SchemaAndValue:
        """See Converter."""

    def from_connect_header(
        self, topic: str, _name: str, schema: Schema | None, value: Any
    ) -> bytes | None:
        """See HeaderConverter."""
        return self.from_connect(topic, schema, value)

    def to_connect_header(self, topic: str, _name: str, data: bytes | None) -> SchemaAndValue:
        """See HeaderConverter."""
        return self.to_connect(topic, data)
