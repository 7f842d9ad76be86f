"""Include and exclude lists: which tables, which columns, which key columns. Pure.

Debezium's rules: a list is comma-separated Java regular expressions, ``\\,`` is a comma inside
one, matching is case-insensitive and anchored to the whole identifier, and of a kind either
the include or the exclude list may be set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cdc import javaregex
from cdc.errors import ConfigError
from cdc.javaregex import JavaPattern
from schemas import TableId, TableSchema

Patterns = tuple[JavaPattern, ...]

_SPLIT = re.compile(r"((?:[^\\,]|\\.)*)(?:,|\Z)", re.DOTALL)
SYSTEM_SCHEMAS = frozenset({"pg_catalog", "information_schema", "pg_toast"})
# Where the sinks sql and audit keep their positions, in the target's own transactions. A target
# that is captured itself would else have an event for each: that a sink of the same database has
# passed it would be the next one, without end.
POSITION_TABLES = frozenset({"cdc_offsets", "cdc_audit", "cdc_audit_retired"})


def compile_java(expression: str, key: str) -> JavaPattern:
    """A Java regular expression in any case; ConfigError, naming ``key``, if it is none."""
    try:
        return javaregex.compile(expression, any_case=True)
    except ValueError as error:
        raise ConfigError(f"{expression!r} is no regular expression: {error}", key=key) from error


def compile_list(text: str | None, key: str) -> Patterns:
    """The expressions of a comma-separated list; empty ones are skipped."""
    parts = (found[1].strip() for found in _SPLIT.finditer(text or ""))
    return tuple(compile_java(part.replace("\\,", ","), key) for part in parts if part)


def matches(patterns: Patterns, name: str) -> bool:
    """Does one of them match the whole name?"""
    return any(pattern.matches(name) for pattern in patterns)


@dataclass(frozen=True)
class Lists:
    """One kind's include and exclude list."""

    include: Patterns = ()
    exclude: Patterns = ()

    @classmethod
    def of(cls, config: Mapping[str, str], kind: str) -> Lists:
        """From ``<kind>.include.list`` and ``<kind>.exclude.list``. Raises ConfigError."""
        include, exclude = (config.get(f"{kind}.{side}.list") for side in ("include", "exclude"))
        if include and exclude:
            raise ConfigError(
                f"{kind}.include.list is set as well",
                key=f"{kind}.exclude.list",
                remedy="Set one of the two",
            )
        return cls(
            compile_list(include, f"{kind}.include.list"),
            compile_list(exclude, f"{kind}.exclude.list"),
        )

    def allows(self, name: str) -> bool:
        """Is the name captured?"""
        if self.include:
            return matches(self.include, name)
        return not matches(self.exclude, name)


@dataclass(frozen=True)
class TableFilter:
    """``schema.*`` and ``table.*`` lists; a table is captured if both allow it.

    System tables and those of our own sinks' positions never are.
    """

    schemas: Lists = Lists()
    tables: Lists = Lists()
    ignore_builtin: bool = True

    @classmethod
    def of(cls, config: Mapping[str, str]) -> TableFilter:
        """From a connector's configuration. Raises ConfigError."""
        ignore = config.get("table.ignore.builtin", "true").strip().lower() != "false"
        return cls(Lists.of(config, "schema"), Lists.of(config, "table"), ignore)

    def __call__(self, table: TableId) -> bool:
        """Is the table captured?"""
        if self.ignore_builtin and (
            table.schema in SYSTEM_SCHEMAS or table.schema.startswith(("pg_temp_", "pg_toast_"))
        ):
            return False
        if table.table in POSITION_TABLES:
            return False
        return self.schemas.allows(table.schema) and self.tables.allows(str(table))


@dataclass(frozen=True)
class ColumnFilter:
    """``column.*`` lists over ``schema.table.column``; they leave the key alone."""

    columns: Lists = Lists()

    @classmethod
    def of(cls, config: Mapping[str, str]) -> ColumnFilter:
        """From a connector's configuration. Raises ConfigError."""
        return cls(Lists.of(config, "column"))

    def __call__(self, table: TableId, column: str) -> bool:
        """Is the column in the row?"""
        return self.columns.allows(f"{table}.{column}")


_KEY_ENTRY = re.compile(r"\s*([^:]+):([^:,]+(?:,[^:,]+)*)\s*\Z")


@dataclass(frozen=True)
class KeyColumns:
    """``message.key.columns``: ``table:column,column;…``, expressions on both sides."""

    columns: Patterns = ()

    @classmethod
    def of(cls, config: Mapping[str, str]) -> KeyColumns:
        """From a connector's configuration. Raises ConfigError."""
        key = "message.key.columns"
        patterns = []
        for entry in filter(str.strip, (config.get(key) or "").split(";")):
            found = _KEY_ENTRY.match(entry)
            if found is None:
                raise ConfigError(f"{entry!r} is not table:column,column", key=key)
            patterns += [
                compile_java(f"{found[1].strip()}.{column.strip()}", key)
                for column in found[2].split(",")
            ]
        return cls(tuple(patterns))

    def of_table(self, table: TableSchema) -> tuple[str, ...] | None:
        """The columns that replace the table's key, in the order of the option; else None."""
        chosen = [
            name
            for pattern in self.columns
            for name in table.column_names
            if pattern.matches(f"{table.id}.{name}")
            or pattern.matches(f"{table.id.catalog}.{table.id}.{name}")
        ]
        return tuple(dict.fromkeys(chosen)) or None
