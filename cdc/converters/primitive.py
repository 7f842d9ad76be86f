"""The converters of one primitive type each: numbers, booleans and bytes.

``org.apache.kafka.connect.converters.{Short,Integer,Long,Float,Double,Boolean,ByteArray}Converter``:
Java's big-endian forms. What Connect says is its DataException's text.
"""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar, Self

from cdc.config import ConfigDef
from cdc.converters.contract import Form, HeadersAsValues, SchemaAndValue
from schemas import DataError, Moment, Schema
from schemas.floats import nearest_single
from schemas.java import class_name
from schemas.model import type_name


class Primitive(HeadersAsValues):
    """What they share: no options, and bytes that are no text."""

    CONFIG: ClassVar[ConfigDef] = ConfigDef(())
    form: ClassVar[Form] = "bytes"

    @classmethod
    def from_config(cls, options: Mapping[str, Any]) -> Self:
        """From options without prefix: there are none."""
        cls.CONFIG.parse(options)
        return cls()

    def text_of(self, data: bytes) -> str:
        """Base64."""
        return b64encode(data).decode()


class NumberConverter(Primitive):
    """One type of numbers. As in Connect, a schema is not looked at, only the value's class."""

    TYPE: ClassVar[str]
    NAME: ClassVar[str]
    READER: ClassVar[str]
    FORMAT: ClassVar[struct.Struct]

    def __init__(self) -> None:
        self._schema = Schema(self.TYPE, optional=True)

    def from_connect(self, _topic: str, schema: Schema | None, value: Any) -> bytes | None:
        """The number's bytes. An int without a schema may be any that fits."""
        if value is None:
            return None
        other = schema is not None and schema.type != self.TYPE
        kind = float if self.TYPE in ("float", "double") else int
        if isinstance(value, kind) and not isinstance(value, bool | Moment) and not other:
            with suppress(struct.error):  # too large: it is named as a wider number, below
                return self.FORMAT.pack(nearest_single(value) if self.TYPE == "float" else value)
        shown = class_name(value, schema)
        raise DataError(f"Failed to serialize to {self.NAME} (was class {shown}): ")

    def to_connect(self, _topic: str, data: bytes | None) -> SchemaAndValue:
        """An optional number. Raises DataError where the number of bytes is another."""
        if data is None:
            return SchemaAndValue(self._schema, None)
        if len(data) != self.FORMAT.size:
            why = f"Size of data received by {self.READER} is not {self.FORMAT.size}"
            raise DataError(f"Failed to deserialize {self.NAME}: ") from ValueError(why)
        return SchemaAndValue(self._schema, self.FORMAT.unpack(data)[0])


def _number(name: str, type_: str, code: str, reader: str) -> type[NumberConverter]:
    members = {
        "TYPE": type_,
        "NAME": name.lower(),
        "READER": reader,
        "FORMAT": struct.Struct(f">{code}"),
        "__doc__": f"``org.apache.kafka.connect.converters.{name}Converter``.",
        "__module__": __name__,
    }
    return type(f"{name}Converter", (NumberConverter,), members)


ShortConverter = _number("Short", "int16", "h", "ShortDeserializer")
IntegerConverter = _number("Integer", "int32", "i", "IntegerDeserializer")
LongConverter = _number("Long", "int64", "q", "LongDeserializer")
FloatConverter = _number("Float", "float", "f", "Deserializer")
DoubleConverter = _number("Double", "double", "d", "Deserializer")


class BooleanConverter(Primitive):
    """One byte: 0 or 1."""

    SCHEMA: ClassVar[Schema] = Schema("boolean", optional=True)

    def from_connect(self, _topic: str, schema: Schema | None, value: Any) -> bytes | None:
        """The boolean's byte."""
        _check_type(schema, "boolean", "BooleanConverter")
        if value is None:
            return None
        if not isinstance(value, bool):
            kind = class_name(value, schema)
            raise DataError(f"BooleanConverter is not compatible with objects of type class {kind}")
        return b"\x01" if value else b"\x00"

    def to_connect(self, _topic: str, data: bytes | None) -> SchemaAndValue:
        """An optional boolean. Raises DataError for other bytes."""
        if data is not None and data not in (b"\x00", b"\x01"):
            raise DataError("Failed to deserialize boolean: ") from ValueError(
                "Size of data received by BooleanDeserializer is not 1"
                if len(data) != 1
                else f"Unexpected byte received by BooleanDeserializer: {data[0]}"
            )
        return SchemaAndValue(self.SCHEMA, None if data is None else data == b"\x01")


class ByteArrayConverter(Primitive):
    """Bytes as they are."""

    SCHEMA: ClassVar[Schema] = Schema("bytes", optional=True)

    def from_connect(self, _topic: str, schema: Schema | None, value: Any) -> bytes | None:
        """The bytes."""
        _check_type(schema, "bytes", "ByteArrayConverter")
        if value is not None and not isinstance(value, bytes):
            kind = class_name(value, schema)
            raise DataError(
                f"ByteArrayConverter is not compatible with objects of type class {kind}"
            )
        return value

    def to_connect(self, _topic: str, data: bytes | None) -> SchemaAndValue:
        """Optional bytes."""
        return SchemaAndValue(self.SCHEMA, data)


def _check_type(schema: Schema | None, wanted: str, converter: str) -> None:
    if schema is not None and schema.type != wanted:
        raise DataError(f"Invalid schema type for {converter}: {type_name(schema)}")
