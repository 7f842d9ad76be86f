"""JSON lines: what ``console``, ``file`` and ``cdc capture`` write.

Format ``record`` is ``{"topic":…,"key":…,"value":…,"headers":{…}}``, a tombstone with
``"value":null``; format ``value`` is the value alone, and no tombstones.

A line is always text. What a converter other than JsonConverter writes stands in a record as
a JSON string: text as it is, the bytes of numbers, booleans and byte arrays as base64. A value
alone is the text without quotes, or the base64. Headers are JSON unless ``header.converter``
names another converter.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from cdc.aliases import find_converter
from cdc.block import Block
from cdc.config import Config, Key, Kind
from cdc.converters.contract import Converter, HeaderConverter
from cdc.converters.factory import make_converter, make_header_converter
from cdc.converters.json import JsonConverter
from cdc.converters.rows import Headers, convert, convert_values
from cdc.errors import ConfigError
from cdc.jackson import escape

FORMATS = ("record", "value")

KEYS = (
    Key(
        "format",
        default="record",
        choices=FORMATS,
        doc="record: one object of topic, key, value and headers per line; value: the value alone,"
        " without tombstones.",
    ),
    Key(
        "tombstones.on.delete",
        Kind.BOOLEAN,
        default=True,
        doc="Whether a delete is followed by a record with the same key and a null value.",
    ),
    *(
        Key(
            f"{part}.converter.<option>",
            pattern=rf"{part}\.converter\..+",
            doc=f"Options of {part}.converter; of JSON: schemas.enable (false here, for people to"
            " read), replace.null.with.default, decimal.format.",
        )
        for part in ("key", "value")
    ),
)
_PLAIN_JSON = JsonConverter(schemas_enable=False)


class JsonLines:
    """Renders blocks as lines of text, each ending in a newline."""

    def __init__(
        self,
        key: Converter,
        value: Converter,
        format_: str = "record",
        *,
        header: HeaderConverter | None = None,
        tombstones: bool = True,
    ) -> None:
        if format_ not in FORMATS:
            raise ConfigError(
                f"unknown format {format_!r}", key="format", remedy="Use record or value"
            )
        self.key, self.value, self.header, self.format = key, value, header, format_
        self.tombstones = tombstones

    @classmethod
    def from_config(cls, config: Config) -> JsonLines:
        """As :data:`KEYS` say, by the converters that the connector's configuration names."""
        raw = config.raw
        key, value = (
            make_converter(*_named(raw, f"{part}.converter"), f"{part}.converter")
            for part in ("key", "value")
        )
        header = None
        if raw.get("header.converter"):
            header = make_header_converter(*_named(raw, "header.converter"))
        tombstones = config["tombstones.on.delete"]
        return cls(key, value, config["format"], header=header, tombstones=tombstones)

    def render(self, block: Block) -> list[bytes]:
        """The lines of a block, in order."""
        if self.format == "value":
            values = convert_values(block, self.value)
            return [_line(self.value, value) for value in values if value is not None]
        topics = {s.destination: orjson.dumps(s.destination) for s in block.schemas}
        headers: dict[Headers, bytes] = {}
        out = []
        for topic, key, value, named, _ in convert(
            block, self.key, self.value, self.header, tombstones=self.tombstones
        ):
            header_text = headers.get(named)
            if header_text is None:
                header_text = self._headers(named)
                # Those of a key change differ per row: there is no use in keeping many.
                if len(headers) < 2:
                    headers[named] = header_text
            key_text, value_text = _member(self.key, key), _member(self.value, value)
            out.append(
                b'{"topic":%b,"key":%b,"value":%b,"headers":%b}\n'
                % (topics[topic], key_text, value_text, header_text)
            )
        return out

    def _headers(self, named: Headers) -> bytes:
        converter = self.header or _PLAIN_JSON
        members = [b"%b:%b" % (orjson.dumps(n), _member(converter, text)) for n, text in named]
        return b"{%b}" % b",".join(members)


def _named(raw: Mapping[str, str], key: str) -> tuple[str, dict[str, str]]:
    """The name of a converter (JSON where none is set) and its options, without prefix."""
    name, prefix = raw.get(key) or "json", f"{key}."
    options = {n.removeprefix(prefix): text for n, text in raw.items() if n.startswith(prefix)}
    if find_converter(name, key).name == "json":
        options = {"schemas.enable": "false"} | options
    return name, options


def _member(converter: HeaderConverter, data: bytes | None) -> bytes:
    if data is None or converter.form == "json":
        return data or b"null"
    return escape(orjson.dumps(converter.text_of(data)))


def _line(converter: Converter, data: bytes) -> bytes:
    return (converter.text_of(data).encode() if converter.form == "bytes" else data) + b"\n"
