"""TimestampConverter: times as texts, Unix times, or Connect's Date, Time and Timestamp."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cdc.config import REQUIRED, Config, ConfigDef, Key, Kind
from cdc.transforms import options
from cdc.transforms.base import (
    Convert,
    Run,
    StructTransform,
    Values,
    converting,
    fields_of,
    refuse_first,
    require_struct,
)
from cdc.transforms.dateformat import DateFormat, Unparseable
from cdc.transforms.errors import ConnectError, IllegalArgument, NullPointer
from schemas import DataError, Field, Moment, Schema, Struct
from schemas.codec import dumper
from schemas.dates import DAY_MS
from schemas.java import class_name, class_of_schema, schema_text
from schemas.model import DATE, TIME, TIMESTAMP
from schemas.numbers import wrapped

STRING, UNIX = "string", "unix"
_LOGICAL = {"Date": DATE, "Time": TIME, "Timestamp": TIMESTAMP}
_KINDS = {name: kind for kind, name in _LOGICAL.items()}
TARGETS: Mapping[str, Schema] = {
    STRING: Schema("string"),
    UNIX: Schema("int64"),
    "Date": Schema("int32", name=DATE, version=1),
    "Time": Schema("int32", name=TIME, version=1),
    "Timestamp": Schema("int64", name=TIMESTAMP, version=1),
}
PRECISIONS = ("nanoseconds", "microseconds", "milliseconds", "seconds")
_LONG = 2**63 - 1
_NEEDS_FORMAT = (
    "TimestampConverter requires format option to be specified when using string timestamps"
)
_CAUSE = "java.lang.IllegalArgumentException"
_BAD_FORMAT = (
    "TimestampConverter requires a SimpleDateFormat-compatible pattern for string timestamps"
)


def _check(values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    pattern = values["format"] or ""
    if not pattern.strip():
        if values["target.type"] == STRING:
            yield "format", _NEEDS_FORMAT
        return
    try:
        DateFormat(pattern)
    except IllegalArgument as error:
        # Connect gives two arguments to an exception that takes them for a name and a value.
        yield (
            "format",
            f"Invalid value {_CAUSE}: {error} for configuration {_BAD_FORMAT}: {pattern}",
        )


class TimestampConverter(StructTransform):
    """One field, or all of the key or value. Everything below a millisecond is lost."""

    PURPOSE = "converting timestamp formats"
    CONFIG = ConfigDef(
        (
            options.text(
                "field",
                "The field containing the timestamp, or empty if the entire value is a timestamp.",
                importance="HIGH",
                default="",
            ),
            Key(
                "target.type",
                Kind.STRING,
                REQUIRED,
                "The desired timestamp representation: string, unix, Date, Time, or Timestamp.",
                importance="HIGH",
                validator=options.one_of(*TARGETS),
                may_be_empty=True,
            ),
            options.text(
                "format",
                "A format as for java.text.SimpleDateFormat. Used to write texts where the target "
                "is string, and to read them where the source is.",
                default="",
            ),
            Key(
                "unix.precision",
                Kind.STRING,
                "milliseconds",
                "The precision of Unix times, read or written.",
                importance="LOW",
                validator=options.one_of(*PRECISIONS),
            ),
            options.replace_null(),
        ),
        checks=(_check,),
    )

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._field: str = config["field"]
        self._type: str = config["target.type"]
        self._precision: str = config["unix.precision"]
        pattern = config["format"]
        self._format = DateFormat(pattern) if pattern.strip() else None
        self._defaults: bool = config[options.REPLACE_NULL]
        self._write = self._writer()

    def convert(self, schema: Schema | None, value: Any) -> tuple[Schema | None, Any]:
        """The value with its time converted; null stays null under the converted schema."""
        if schema is None:
            if value is None or not self._field:
                return None, None if value is None else self._plain(value)
            return super().convert(None, value)
        if not self._field:
            read = self._reader(schema)
            target = TARGETS[self._type].as_optional(schema.optional)
            return target, None if value is None else self._write(read(value))
        if value is not None:
            require_struct(value, schema, self.PURPOSE)
        _, changed, run = self.plan_of(schema)
        return changed, None if value is None else Struct(changed, run(value.values))

    def plan(self, schema: Schema) -> tuple[Schema, Run]:
        """The field's schema is the target's, as optional as it was; it has no default.

        The struct's own default is converted as any value is.
        """
        index = schema.field_index.get(self._field)
        fields = list(fields_of(schema))
        if index is None:
            run = converting(fields, fields, {}, defaults=self._defaults)
        else:
            target = TARGETS[self._type].as_optional(fields[index].schema.optional)
            fields[index] = Field(self._field, target)
            run = self._run(schema.fields, fields, index)
        if index is None and schema.default is None:
            return schema, run
        changed = replace(schema, fields=tuple(fields), default=None)
        if schema.default is None:
            return changed, run
        dump = dumper(changed)
        assert dump is not None, "a struct has a JSON form"
        default = Struct(changed, run(schema.default_value.values))
        return replace(changed, default=dump(default)), run

    def _run(self, fields: Sequence[Field], into: Sequence[Field], index: int) -> Run:
        try:
            read, write = self._reader(fields[index].schema), self._write
        except ValueError as error:
            return self._refusing(fields[:index], into, error)
        conversions = {index: lambda value: write(read(value))}
        return converting(fields, into, conversions, defaults=self._defaults)

    def _refusing(self, before: Sequence[Field], into: Sequence[Field], error: Exception) -> Run:
        """A field of no time is refused in every struct, unless one before it is."""

        def run(values: Values) -> Values:
            refuse_first(values, before, into, {}, defaults=self._defaults)
            raise error.with_traceback(None)

        return run

    def convert_map(self, value: dict[str, Any]) -> dict[str, Any]:
        """The map with the entry converted; an absent one becomes null."""
        plain = value.get(self._field)
        return {**value, self._field: None if plain is None else self._plain(plain)}

    def _plain(self, value: Any) -> Any:
        """A value without a schema, by its class."""
        if isinstance(value, Moment):
            return self._write(value)
        if isinstance(value, str):
            return self._write(self._parse(value))
        if isinstance(value, int) and not isinstance(value, bool):
            return self._write(self._from_unix(value))
        raise DataError(
            f"TimestampConverter does not support class {class_name(value)} objects as timestamps"
        )

    def _reader(self, schema: Schema) -> Convert:
        """How a value of the schema becomes a Moment. Raises ConnectError, or DataError."""
        kind = _KINDS.get(schema.name or "")
        if kind is not None:
            if class_of_schema(schema) == "java.util.Date":
                return _same
            raise DataError(f"Expected {kind} to be a java.util.Date")
        if schema.type == "string":
            return self._parse
        if schema.type == "int64":
            return self._from_unix
        raise ConnectError(
            f"Schema {schema_text(schema)} does not correspond to a known timestamp type format"
        )

    def _writer(self) -> Convert:
        if self._type == STRING:
            assert self._format is not None
            return self._format.format
        if self._type == UNIX:
            return self._to_unix
        return {"Date": _date, "Time": _time}.get(self._type, _same)

    def _parse(self, text: str) -> Moment:
        if self._format is None:
            raise NullPointer(_NO_FORMAT)
        try:
            return Moment(self._format.parse(text))
        except Unparseable:
            raise DataError.quoting(
                "Could not parse timestamp: value ({}) does not match pattern ({pattern})",
                text, pattern=self._format.pattern,
            ) from None  # fmt: skip

    def _from_unix(self, value: int) -> Moment:
        if self._precision == "seconds":
            return Moment(_saturated(value * 1000))
        divisor = {"milliseconds": 1, "microseconds": 1000, "nanoseconds": 10**6}[self._precision]
        return Moment(_cut(value, divisor))

    def _to_unix(self, value: Moment) -> int:
        if self._precision == "seconds":
            return _cut(value, 1000)
        factor = {"milliseconds": 1, "microseconds": 1000, "nanoseconds": 10**6}[self._precision]
        return _saturated(value * factor)


_NO_FORMAT = (
    'Cannot invoke "java.text.SimpleDateFormat.parse(String)" because "config.format" is null'
)


def _same(value: Any) -> Any:
    return value


def _date(value: Moment) -> Moment:
    return Moment(wrapped(value - value % DAY_MS, 64))


def _time(value: Moment) -> Moment:
    return Moment(value % DAY_MS)


def _cut(value: int, divisor: int) -> int:
    """Java's division: towards zero."""
    return value // divisor if value >= 0 else -(-value // divisor)


def _saturated(value: int) -> int:
    """Java's TimeUnit: what is beyond a long is the greatest or the least one."""
    return max(-_LONG - 1, min(_LONG, int(value)))


class TimestampConverterKey(TimestampConverter):
    """Of the key."""

    is_key = True


class TimestampConverterValue(TimestampConverter):
    """Of the value."""
