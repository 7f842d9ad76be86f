"""JSON lines: what ``console``, ``file`` and ``cdc capture`` write.

Format ``record`` is ``{"topic":…,"key":…,"value":…,"headers":{…}}``, a tombstone with
``"value":null``; format ``value`` is the value alone, and no tombstones.
"""

from __future__ import annotations

import orjson

from cdc.block import Block
from cdc.config import Config, Key, Kind
from cdc.converters.json import Headers, JsonConverter, convert
from cdc.errors import ConfigError

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
            doc=f"Options of the JSON converter for the {part}: schemas.enable (false here, for"
            " people to read), replace.null.with.default, decimal.format.",
        )
        for part in ("key", "value")
    ),
)


class JsonLines:
    """Renders blocks as lines of text, each ending in a newline."""

    def __init__(
        self,
        key: JsonConverter,
        value: JsonConverter,
        format_: str = "record",
        *,
        tombstones: bool = True,
    ) -> None:
        if format_ not in FORMATS:
            raise ConfigError(
                f"unknown format {format_!r}", key="format", remedy="Use record or value"
            )
        self.key, self.value, self.format = key, value, format_
        self.tombstones = tombstones

    @classmethod
    def from_config(cls, config: Config) -> JsonLines:
        """As :data:`KEYS` say."""
        plain = {"schemas.enable": "false"}
        key, value = (
            JsonConverter.from_config(plain | config.subset(f"{part}.converter."))
            for part in ("key", "value")
        )
        return cls(key, value, config["format"], tombstones=config["tombstones.on.delete"])

    def render(self, block: Block) -> list[bytes]:
        """The lines of a block, in order."""
        if self.format == "value":
            return [value + b"\n" for value in self.value.values(block)]
        topics = {s.destination: orjson.dumps(s.destination) for s in block.schemas}
        headers: dict[Headers, bytes] = {}
        out = []
        for topic, key, value, named, _ in convert(
            block, self.key, self.value, tombstones=self.tombstones
        ):
            header_text = headers.get(named)
            if header_text is None:
                header_text = _headers(named)
                # Those of a key change differ per row: there is no use in keeping many.
                if len(headers) < 2:
                    headers[named] = header_text
            out.append(
                b'{"topic":%b,"key":%b,"value":%b,"headers":%b}\n'
                % (topics[topic], key or b"null", value or b"null", header_text)
            )
        return out


def _headers(named: Headers) -> bytes:
    return b"{%b}" % b",".join([b"%b:%b" % (orjson.dumps(name), text) for name, text in named])
