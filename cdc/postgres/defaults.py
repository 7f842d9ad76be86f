"""Column defaults: the catalogue's SQL expression → the text form of a value. Pure.

The rules are Debezium's, its mistakes included: a literal is what stands between the first
pair of quotes, a call becomes a placeholder of the type, and an expression it cannot read
becomes no default at all.
"""

from __future__ import annotations

import re

from cdc.postgres.scalars import rescaled
from cdc.postgres.types import PgType, numeric_size

_LITERAL = re.compile(r"'([^']*(?:''[^']*)*)'")
_CALL = re.compile(r"^[(]?[A-Za-z0-9_.]+\((?:.+(?:, ?.+)*)?\)")
_CLOCKS = frozenset(
    ["current_timestamp", "current_time", "current_date", "localtime", "localtimestamp"]
)
# Type → what stands for a default that only the server can compute.
_PLACEHOLDERS = {
    "bit": "00",
    "varbit": "0",
    "bool": "false",
    "bpchar": "",
    "varchar": "",
    "text": "",
    "numeric": "0.0",
    "float4": "0.0",
    "float8": "0.0",
    "int2": "0",
    "int4": "0",
    "int8": "0",
    "json": "{}",
    "jsonb": "{}",
    "xml": "",
    "uuid": "00000000-0000-0000-0000-000000000000",
    "date": "1970-01-01",
    "time": "00:00:00",
    "timestamp": "1970-01-01",
    "timestamptz": "1970-01-01",
    "interval": "00:00:00",
}
_INFINITE = frozenset(["date", "timestamp", "timestamptz"])
_TEXTS = frozenset(["bpchar", "varchar", "text", "json", "jsonb", "xml"])


def default_text(expression: str, known: PgType, modifier: int) -> bytes | None:
    """The default as the server would write a value of ``known``; None if it has none.

    Text that is no value of the type is left for the loader to refuse.
    """
    if known.kind == "e":
        return _enum_default(expression, known)
    placeholder = _PLACEHOLDERS.get(known.name)
    if placeholder is None:
        return None
    if known.name not in _TEXTS:
        expression = expression.strip()
    text = _literal(expression, placeholder)
    if text is None:
        return None
    if known.name == "bool":
        # Boolean.parseBoolean: anything but "true" is false.
        text = "t" if text.lower() == "true" else "f"
    if known.name == "numeric":
        text = _scaled(text, modifier)
    if known.name in _INFINITE and text.strip("-") == "infinity":
        # Debezium has none for timestamptz and an overflowed number for the others.
        return None
    return text.encode()


def _scaled(text: str, modifier: int) -> str:
    """With the fraction digits the column declares; ValueError if that would round."""
    precision, scale = numeric_size(modifier)
    if precision < 0 or scale < 0:
        return text
    digits = rescaled(text.encode(), scale)
    whole, fraction = divmod(abs(digits), 10**scale)
    sign = "-" if digits < 0 else ""
    return f"{sign}{whole}.{fraction:0{scale}d}" if scale else f"{sign}{whole}"


def _literal(expression: str, placeholder: str) -> str | None:
    if _CALL.match(expression) or expression.lower() in _CLOCKS:
        return placeholder
    if "'" not in expression:
        return None if expression.startswith("NULL::") else expression
    found = _LITERAL.search(expression)
    if found is None:
        raise ValueError(f"unbalanced quotes: {expression}")
    return found[1].replace("''", "'")


def _enum_default(expression: str, known: PgType) -> bytes | None:
    """``'label'::type``; Debezium takes the label as it is quoted, and only for that type."""
    value, cast, type_name = expression.rpartition("::")
    if not cast or _last_name(type_name) != known.name:
        return None
    if len(value) >= 2 and value[0] == "'" == value[-1]:
        return value[1:-1].encode()
    return None


def _last_name(type_name: str) -> str:
    """``s."T"`` → ``T``."""
    if type_name.endswith('"'):
        start = type_name.rfind('"', 0, -1)
        return type_name[start + 1 : -1].replace('""', '"')
    return type_name.rpartition(".")[2]
