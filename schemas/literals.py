"""Values as text: Connect's ``Values.parseString`` and ``Values.convertToString``.

Headers travel so (``SimpleHeaderConverter``), and configurations name values so
(``InsertHeader``). Parsing infers the type; what cannot be parsed is a string. Kept as they
are: a fraction becomes a FLOAT32 where that is finite, and a whole number the smallest type;
numbers in an array are brought to the widest type, and elements that have no type in common
leave it without one. Temporal texts are in UTC, which Connect's images run in.

A difference: a map with an array or a map for a key stays a string here.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from decimal import Decimal
from math import isfinite
from typing import Any, NamedTuple

from schemas.codec import decimal_of, scale_of
from schemas.dates import DAY_MS, calendar, moment_of
from schemas.floats import nearest_single, single_of
from schemas.java import class_name, double_text, float_text, schema_text
from schemas.java import text as java_text
from schemas.model import DATE, DECIMAL, TIME, TIMESTAMP, DataError, Schema
from schemas.numbers import in_halves, trimmed
from schemas.struct import Moment, Struct

STRING, BOOLEAN = Schema("string"), Schema("boolean")
DATE_SCHEMA, TIME_SCHEMA = (Schema("int32", name=name, version=1) for name in (DATE, TIME))
TIMESTAMP_SCHEMA = Schema("int64", name=TIMESTAMP, version=1)

_DELIMITERS = frozenset(':,{}[]"')
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE]([+-]?\d{1,10}))?\Z")
_WIDTHS = (8, 16, 32, 64)
_LONG_DIGITS_MAX = 19
_NUMERIC = {"int8": 0, "int16": 1, "int32": 2, "int64": 3, "float": 4, "double": 5}


class Parsed(NamedTuple):
    """A schema and its value, both None for null."""

    schema: Schema | None
    value: Any


def parse_string(text: str | None) -> Parsed:
    """The value that a text means, with the schema inferred."""
    if text is None:
        return Parsed(None, None)
    if not text:
        return Parsed(STRING, text)
    return _parse(_Tokens(text), embedded=False) or Parsed(None, None)


# --- parsing ---


class _Tokens:
    """A text cut at its delimiters; a backslash takes the meaning from the next character."""

    def __init__(self, text: str) -> None:
        self.text, self._at = text, 0
        self._next: str | None = None
        self.previous: str | None = None

    def mark(self) -> int:
        return self._at - (len(self._next) if self._next is not None else 0)

    def rewind(self, to: int) -> None:
        self._at, self._next, self.previous = to, None, None

    @property
    def position(self) -> int:
        return self._at

    def more(self) -> bool:
        return self._next is not None or self._at < len(self.text)

    def take(self) -> str:
        found = self._cut() if self._next is None else self._next
        self.previous, self._next = found, None
        return found

    def take_more(self, count: int) -> str | None:
        start = self.mark()
        for _ in range(count):
            if not self.more():
                self.rewind(start)
                return None
            self.take()
        return self.text[start : self._at]

    def consume(self, expected: str) -> bool:
        """Take the next token that is not blank, if it is this one."""
        if self._next is None:
            if not self.more():
                return False
            self._next = self._cut()
        while not trimmed(self._next) and self._at < len(self.text):
            self._next = self._cut()
        if trimmed(self._next) != expected:
            return False
        self._next = None
        return True

    def _cut(self) -> str:
        start, text, escaped = self._at, self.text, False
        while self._at < len(text):
            char = text[self._at]
            if char == "\\":
                escaped = not escaped
            elif char in _DELIMITERS and not escaped:
                if start == self._at:
                    self._at += 1
                return text[start : self._at]
            else:
                escaped = False
            self._at += 1
        return text[start:]


def _parse(tokens: _Tokens, *, embedded: bool) -> Parsed | None:
    """One value; None for null, and where nothing is left."""
    if not tokens.more():
        return None
    if embedded and tokens.consume('"'):
        return _quoted(tokens)
    for literal, found in (
        ("null", None),
        ("true", Parsed(BOOLEAN, True)),
        ("false", Parsed(BOOLEAN, False)),
    ):
        start = tokens.mark()
        # Alone at the top ("true}" is a string); inside, the caller looks at what follows.
        if tokens.consume(literal) and (embedded or not tokens.more()):
            return found
        tokens.rewind(start)
    start = tokens.mark()
    try:
        if tokens.consume("["):
            return _array(tokens)
        if tokens.consume("{"):
            return _map(tokens)
    except DataError:
        tokens.rewind(start)
    return _scalar(tokens, embedded=embedded)


def _quoted(tokens: _Tokens) -> Parsed:
    parts = []
    while tokens.more() and not tokens.consume('"'):
        parts.append(tokens.take())
    content = "".join(parts)
    parsed = parse_string(content)
    temporal = parsed.schema is not None and parsed.schema.name in (DATE, TIME, TIMESTAMP)
    return parsed if temporal else Parsed(STRING, content)


def _array(tokens: _Tokens) -> Parsed:
    values: list[Any] = []
    common = _Common()
    while tokens.more():
        if tokens.consume("]"):
            items = common.schema
            if items is not None:
                values = [_convert(items, value) for value in values]
            return Parsed(Schema("array", items=items), values)
        if tokens.consume(","):
            raise DataError.quoting("Unable to parse an empty array element: {}", tokens.text)
        element = _parse(tokens, embedded=True)
        common.merge(element)
        values.append(None if element is None else element.value)
        at = tokens.mark()
        if tokens.consume("]"):
            tokens.rewind(at)
        elif not tokens.consume(","):
            raise DataError("Array elements missing ',' delimiter")
    raise DataError.quoting("Array is missing terminating ']': {}", tokens.text)


def _map(tokens: _Tokens) -> Parsed:
    entries: dict[Any, Any] = {}
    common, common_value = _Common(), _Common()
    while tokens.more():
        if tokens.consume("}"):
            keys = common.schema
            values = None if keys is None else common_value.schema
            return Parsed(Schema("map", keys=keys, values=values), _aligned(keys, values, entries))
        if tokens.consume(","):
            raise DataError.quoting(
                "Unable to parse a map entry with no key or value: {}", tokens.text
            )
        key = _parse(tokens, embedded=True)
        if key is None or key.value is None:
            raise DataError.quoting("Map entry may not have a null key: {}", tokens.text)
        if isinstance(key.value, list | dict):
            raise DataError.quoting("An array or a map is no key of a map here: {}", tokens.text)
        if not tokens.consume(":"):
            raise DataError.quoting(
                "Map entry is missing ':' at {at} in {}", tokens.text, at=tokens.position
            )
        value = _parse(tokens, embedded=True)
        entries[key.value] = None if value is None else value.value
        tokens.consume(",")
        common.merge(key)
        common_value.merge(value)
    raise DataError.quoting("Map is missing terminating '}}': {}", tokens.text)


def _aligned(keys: Schema | None, values: Schema | None, entries: dict[Any, Any]) -> dict[Any, Any]:
    if keys is None:
        return entries
    return {
        _convert(keys, k): v if values is None else _convert(values, v) for k, v in entries.items()
    }


def _scalar(tokens: _Tokens, *, embedded: bool) -> Parsed:
    raw = tokens.take()
    token = trimmed(raw)
    if not token:
        return Parsed(STRING, raw)
    digit = token[0].isdecimal() and token[0] <= "\uffff"
    if digit:
        at = tokens.mark()
        rest = tokens.take_more(4)  # a colon cuts a time of day into five
        found = None if rest is None else _temporal(token + rest)
        if found is not None:
            return found
        tokens.rewind(at)
        found = _temporal(token)
        if found is not None:
            return found
    if (digit or token[0] in "+-") and _is_number(token):
        return _number(Decimal(token))
    if embedded:
        raise DataError("Failed to parse embedded value")
    return Parsed(STRING, tokens.text)


def _temporal(token: str) -> Parsed | None:
    token = token.replace("\\:", ":")
    for pattern, length, schema in (
        ("HH:mm:ss.SSSZ", 13, TIME_SCHEMA),
        ("yyyy-MM-ddTHH:mm:ss.SSSZ", 24, TIMESTAMP_SCHEMA),
        ("yyyy-MM-dd", 10, DATE_SCHEMA),
    ):
        if len(token) == length:
            ms = moment_of(token, pattern)
            return None if ms is None else Parsed(schema, Moment(ms))
    return None


def _is_number(text: str) -> bool:
    """Whether BigDecimal reads it: its exponent must be an int."""
    found = _NUMBER.match(text)
    exponent = None if found is None or in_halves(text) else int(found[1] or "0")
    return exponent is not None and abs(exponent) < 1 << 31


def _number(number: Decimal) -> Parsed:
    scale = scale_of(number)
    if number.adjusted() < _LONG_DIGITS_MAX and number == (whole := _whole(number)):
        for width in _WIDTHS:
            if -(1 << width - 1) <= whole < 1 << width - 1:
                return Parsed(Schema(f"int{width}"), whole)
    if scale != 0:
        for kind, found in (("float", single_of(number)), ("double", float(number))):
            if abs(found) != float("inf"):
                return Parsed(Schema(kind), found)
    return Parsed(decimal_schema(scale), number)


def _whole(number: Decimal) -> int:
    """Its whole part; nought for what is smaller than one, however many zeros it has."""
    return int(number) if number.adjusted() >= 0 else 0


def decimal_schema(scale: int) -> Schema:
    """Connect's ``Decimal.schema``."""
    return Schema("bytes", name=DECIMAL, version=1, parameters={"scale": str(scale)})


class _Common:
    """The schema that all elements so far can be brought to; None: none, or no element yet."""

    def __init__(self) -> None:
        self.schema: Schema | None = None
        self._mixed = False

    def merge(self, latest: Parsed | None) -> None:
        if latest is None or latest.schema is None or self._mixed:
            return
        if self.schema is None or self.schema.type == latest.schema.type:
            self.schema = latest.schema
        elif {self.schema.type, latest.schema.type} <= _NUMERIC.keys():
            both = self.schema, latest.schema
            self.schema = max(both, key=lambda schema: _NUMERIC[schema.type])
        else:
            self.schema, self._mixed = None, True


# --- conversion ---


def _convert(to: Schema, value: Any) -> Any:
    """``Values.convertTo`` for a value whose schema is not known. Raises DataError."""
    if value is None:
        if to.optional:
            return None
        raise DataError("Unable to convert a null value to a schema that requires a value")
    if to.name == DECIMAL:
        return _to_decimal(to, value)
    if to.name in (DATE, TIME, TIMESTAMP):
        return _to_temporal(to, value)
    if to.type.startswith("int"):
        limit = 1 << int(to.type[3:]) - 1
        return (_as_long(value) + limit) % (2 * limit) - limit
    simple = _SIMPLE.get(to.type)
    if simple is not None:
        return simple(value)
    found = parse_string(value).value if isinstance(value, str) else value
    wanted: type = {"array": list, "map": dict}.get(to.type, bytes)
    if not isinstance(found, wanted):
        raise _inconvertible(to, value)
    return found


def _inconvertible(to: Schema, value: Any) -> DataError:
    shown, kind = java_text(value), class_name(value)
    text = "Unable to convert {} (class {kind}) to {to}"
    return DataError.quoting(text, shown, kind=kind, to=schema_text(to))


def _to_decimal(to: Schema, value: Any) -> Any:
    if isinstance(value, Decimal):
        return value
    if isinstance(value, bytes):
        return decimal_of(b64encode(value).decode(), int(to.parameters["scale"]))
    if isinstance(value, int | float) and not isinstance(value, bool | Moment):
        return Decimal(double_text(float(value)))
    raise _inconvertible(to, value)


def _to_temporal(to: Schema, value: Any) -> Moment:
    found = parse_string(value).value if isinstance(value, str) else value
    if isinstance(found, Moment):
        return found
    number = _as_long(found)
    if to.name == TIMESTAMP:
        return Moment(number)
    number = (number + (1 << 31)) % (1 << 32) - (1 << 31)
    if to.name == DATE:
        return Moment(number * DAY_MS)
    if not 0 <= number <= DAY_MS:
        raise DataError(
            "Time values must use number of milliseconds greater than 0 and less than 86400000"
        )
    return Moment(number)


def _to_boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        parsed = parse_string(value).value
        if isinstance(parsed, bool):
            return parsed
    return _as_long(value) != 0


def _as_long(value: Any) -> int:
    """``Number.longValue``: a fraction is cut, a decimal wraps, a float saturates."""
    if isinstance(value, str) and _is_number(value):
        value = Decimal(value)
    if isinstance(value, Decimal):
        if value.adjusted() > 400:  # more than 64 factors of two: nothing is left of it
            return 0
        return (int(value) + (1 << 63)) % (1 << 64) - (1 << 63)
    if isinstance(value, float):
        if value != value:  # noqa: PLR0124 (NaN)
            return 0
        return max(-(1 << 63), min(int(value), (1 << 63) - 1)) if isfinite(value) else _end(value)
    if isinstance(value, int) and not isinstance(value, bool | Moment):
        return value
    text = "Unable to convert {} (class {kind}) to a number"
    raise DataError.quoting(text, java_text(value), kind=class_name(value))


def _end(value: float) -> int:
    return (1 << 63) - 1 if value > 0 else -(1 << 63)


def _as_double(value: Any) -> float:
    if isinstance(value, float):
        return value
    if isinstance(value, str) and _is_number(value):
        return float(value)
    return float(value) if isinstance(value, Decimal) else float(_as_long(value))


# --- to text ---


def convert_to_string(value: Any, schema: Schema | None = None) -> str:
    """A value as text; what is inside arrays, maps and structs is quoted like JSON.

    ``schema`` tells numbers of single precision from doubles. Raises DataError for null.
    """
    if isinstance(value, str):
        return value
    return b64encode(value).decode() if isinstance(value, bytes) else _text(value, schema)


def _text(value: Any, schema: Schema | None) -> str:
    if value is None:
        return "null"
    kind = type(value)
    if kind is str:
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if kind is bytes:
        return f'"{b64encode(value).decode()}"'
    if kind is float:
        single = schema is not None and schema.type == "float"
        return float_text(value) if single else double_text(value)
    if kind is list:
        items = None if schema is None else schema.items
        return f"[{','.join([_text(each, items) for each in value])}]"
    if kind is dict:
        keys, values = (None, None) if schema is None else (schema.keys, schema.values)
        pairs = [f"{_text(k, keys)}:{_text(v, values)}" for k, v in value.items()]
        return f"{{{','.join(pairs)}}}"
    if kind is Struct:
        fields = value.schema.fields
        pairs = [f"{_text(f.name, None)}:{_text(value.get(f.name), f.schema)}" for f in fields]
        return f"{{{','.join(pairs)}}}"
    return temporal_text(value) if kind is Moment else java_text(value)


def temporal_text(moment: Moment) -> str:
    """Connect's guess at what a ``java.util.Date`` without a schema is: by its magnitude.

    Less than a day since the epoch (all before 1970 as well): a time of day; whole days: a
    date; else a timestamp.
    """
    year, at = calendar(moment)
    clock = f"{at:%H:%M:%S}.{at.microsecond // 1000:03d}Z"
    if moment < DAY_MS:
        return clock
    day = f"{year:04d}-{at:%m-%d}"
    return f"{day}T{clock}" if moment % DAY_MS else day


_SIMPLE: dict[str, Callable[[Any], Any]] = {
    "boolean": _to_boolean,
    "double": _as_double,
    "float": lambda value: nearest_single(_as_double(value)),
    "string": convert_to_string,
}
