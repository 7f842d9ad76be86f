"""DropHeaders and InsertHeader: what changes nothing but headers."""

from __future__ import annotations

from dataclasses import replace

from cdc.config import Config, ConfigDef
from cdc.record import Header, Record
from cdc.transforms import options
from schemas.literals import parse_string

Headers = tuple[Header, ...]


class DropHeaders:
    """Removes every header that has one of these names."""

    CONFIG = ConfigDef(
        (options.names("headers", "The name of the headers to be removed."),),
        checks=(options.named("headers"),),
    )

    def __init__(self, config: Config) -> None:
        self._names = frozenset(config["headers"])

    def apply(self, record: Record) -> Record:
        """The record without these headers."""
        return replace(record, headers=self.edit_headers(record.headers))

    def edit_headers(self, headers: Headers) -> Headers:
        """The headers that stay."""
        return tuple(header for header in headers if header.name not in self._names)


class InsertHeader:
    """Adds one header to every record; one of the same name stays too."""

    CONFIG = ConfigDef(
        (
            options.text("header", "The name of the header.", importance="HIGH"),
            options.text(
                "value.literal",
                "The literal value that is to be set as the header value on all records; "
                "numbers, booleans, dates, arrays and maps are recognised as such.",
                importance="HIGH",
            ),
        )
    )

    def __init__(self, config: Config) -> None:
        schema, value = parse_string(config["value.literal"])
        self._header = Header(config["header"], value, schema)

    def apply(self, record: Record) -> Record:
        """The record with the header."""
        return replace(record, headers=self.edit_headers(record.headers))

    def edit_headers(self, headers: Headers) -> Headers:
        """The headers and the new one, last."""
        return (*headers, self._header)
