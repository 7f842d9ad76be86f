"""StringConverter: ``org.apache.kafka.connect.storage.StringConverter``, Java's ``toString``."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from typing import Any, ClassVar

from cdc.config import ConfigDef, Key
from cdc.converters.contract import Form, HeadersAsValues, SchemaAndValue
from schemas import DataError, Schema
from schemas.java import REPLACED, text

OPTIONAL_STRING = Schema("string", optional=True)
# Java's names that Python has another codec for, or none.
_ENCODINGS = {
    "utf-16": "utf-16-be",
    "utf-32": "utf-32-be",
    "iso-8859-1": "latin-1",
    "windows-1252": "cp1252",
}


class StringConverter(HeadersAsValues):
    """Text of any value: ``Struct{a=1}``, ``{a=1}``, ``[1, 2]``; read back as a string.

    Java shows bytes by the address of the object; here it is their base64.
    """

    CONFIG: ClassVar[ConfigDef] = ConfigDef(
        (
            Key(
                "converter.encoding",
                default="UTF-8",
                doc="Java's name of the encoding.",
                importance="HIGH",
                width="MEDIUM",
                display_name="Encoding",
            ),
        )
    )
    form: ClassVar[Form] = "text"

    def __init__(self, encoding: str = "UTF-8") -> None:
        self.encoding = encoding
        try:
            self._codec = codecs.lookup(_ENCODINGS.get(encoding.lower(), encoding)).name
        except LookupError:
            self._codec = ""  # as in Connect, found out with the first value

    @classmethod
    def from_config(cls, options: Mapping[str, Any]) -> StringConverter:
        """From options without prefix."""
        return cls(cls.CONFIG.parse(options)["converter.encoding"])

    def from_connect(self, _topic: str, schema: Schema | None, value: Any) -> bytes | None:
        """The value's text; ``?`` for what the encoding has no character for."""
        if value is None:
            return None
        found = value if isinstance(value, str) else text(value, schema)
        encoded = found.encode(self._known(), "replace")
        # Java marks the byte order where the name does not tell it.
        marked = encoded and self.encoding.lower() == "utf-16"
        return codecs.BOM_UTF16_BE + encoded if marked else encoded

    def to_connect(self, _topic: str, data: bytes | None) -> SchemaAndValue:
        """An optional string; bytes that are none in the encoding become U+FFFD."""
        return SchemaAndValue(OPTIONAL_STRING, None if data is None else self.text_of(data))

    def text_of(self, data: bytes) -> str:
        """The text."""
        codec = self._known()
        if self.encoding.lower() == "utf-16" and data[:2] in (
            codecs.BOM_UTF16_BE,
            codecs.BOM_UTF16_LE,
        ):
            codec = "utf-16"
        return data.decode(codec, REPLACED)

    def _known(self) -> str:
        if not self._codec:
            raise DataError(f"Unsupported encoding {self.encoding}")
        return self._codec
