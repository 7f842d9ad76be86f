"""Columns → plans: what a column's events look like and how its text becomes JSON.

A plan is made once per column of a relation (:func:`plan_column`) and run for every row. The
text is the server's, under the session settings the engine fixes (ISO dates, hex bytea, UTC,
UTF-8 …); the result is the fragment Debezium's JSON converter would have written. Pure: types
come from a :class:`TypeCatalog`, and the only side effect is one warning per failing column.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import md5
from uuid import UUID

import orjson

from cdc.errors import ConfigError, RecordError
from cdc.postgres import containers, scalars, temporal
from cdc.postgres.defaults import default_text
from cdc.postgres.types import PgType, TypeCatalog, numeric_size
from schemas import Column, Field, Schema

log = logging.getLogger(__name__)

Loader = Callable[[bytes], bytes]
# What a loader may raise: the text cannot be represented in the column's schema.
LOAD_ERRORS = (ValueError, LookupError, ArithmeticError)

_CHOICES = {
    "decimal.handling.mode": ("precise", "double", "string"),
    "time.precision.mode": temporal.MODES,
    "binary.handling.mode": tuple(scalars.BYTEA),
    "hstore.handling.mode": ("json", "map"),
    "interval.handling.mode": ("numeric", "string"),
    "event.converting.failure.handling.mode": ("warn", "fail", "skip"),
}


@dataclass(frozen=True)
class ValueOptions:
    """Debezium's options about values, with its defaults."""

    decimal_handling_mode: str = "precise"
    time_precision_mode: str = "adaptive"
    binary_handling_mode: str = "bytes"
    hstore_handling_mode: str = "json"
    interval_handling_mode: str = "numeric"
    money_fraction_digits: int = 2
    include_unknown_datatypes: bool = False
    unavailable_value_placeholder: str = "__debezium_unavailable_value"
    failure_mode: str = "warn"

    def __post_init__(self) -> None:
        for key, choices in _CHOICES.items():
            name = "failure_mode" if key.startswith("event") else key.replace(".", "_")
            if getattr(self, name) not in choices:
                problem = f"{getattr(self, name)!r} is not one of {', '.join(choices)}"
                raise ConfigError(problem, key=key)

    @property
    def placeholder(self) -> bytes:
        """``unavailable.value.placeholder`` as bytes; ``hex:`` spells them in hex."""
        text = self.unavailable_value_placeholder
        return bytes.fromhex(text[4:]) if text.startswith("hex:") else text.encode()

    @property
    def placeholder_json(self) -> bytes:
        """The placeholder as a JSON string; what is not UTF-8 in it is replaced, as in Java."""
        return orjson.dumps(self.placeholder.decode(errors="replace"))


@dataclass(frozen=True)
class TypePlan:
    """What holds for every column of one type and modifier. ``load`` None: text is JSON."""

    schema: Schema
    load: Loader | None
    fallback: bytes
    # JSON for an unchanged TOAST value; None where Debezium has no form for it.
    unavailable: bytes | None = None


@dataclass(frozen=True)
class ColumnPlan:
    """One column of one relation.

    ``load`` is None where the server's text is JSON as it is. ``fallback`` stands for SQL NULL
    in a NOT NULL column, ``unavailable`` for a TOASTed value the server did not send. A caller
    that catches one of LOAD_ERRORS asks :meth:`recover` for the fragment.
    """

    name: str
    schema: Schema
    load: Loader | None
    fallback: bytes
    unavailable: bytes
    failure_mode: str = "warn"
    table: str = ""  # for messages
    _warned: list[str] = field(default_factory=list, compare=False, repr=False)

    @property
    def null(self) -> bytes:
        """JSON for SQL NULL in this column."""
        return b"null" if self.schema.optional else self.fallback

    def recover(self, raw: bytes) -> bytes:
        """As ``load``, but an error is dealt with: the failure path of a row.

        Raises RecordError in mode ``fail``, and in any mode for text that is not UTF-8 and where
        the column is NOT NULL: null is refused there, as by Connect in Debezium, and another
        value would be taken for the row's. Arrays are left empty (Debezium's have nulls).
        """
        if self.load is None:
            return raw
        try:
            return self.load(raw)
        except UnicodeDecodeError as error:
            raise RecordError(
                f"column {self.name} holds bytes that are not UTF-8 (at byte {error.start})",
                remedy="The database's encoding is SQL_ASCII: repair the value or leave the "
                "column out with column.exclude.list",
            ) from error
        except LOAD_ERRORS as error:
            optional = self.schema.optional
            if self.failure_mode == "fail" or not (optional or self.schema.type == "array"):
                raise RecordError(
                    f"column {self.name} cannot be converted: its schema cannot hold the value"
                    f"{'' if optional else ', nor null'}",
                    remedy=self._remedy,
                ) from error
            if self.failure_mode == "warn" and not self._warned:
                self._warned.append(self.name)
                log.warning(
                    "column %s%s holds a value that its schema cannot hold (%s); such values "
                    "become %s, this is said once",
                    self.table and f"{self.table}.",
                    self.name,
                    type(error).__name__,
                    "null" if optional else "empty",
                )
            return self.null

    @property
    def _remedy(self) -> str:
        out = "Leave the column out with column.exclude.list"
        if "Decimal" not in (self.schema.name or ""):
            return out
        return f"decimal.handling.mode=string or double has a form for NaN and infinity. {out}"


def plan_column(
    column: Column, types: TypeCatalog, options: ValueOptions | None = None, table: str = ""
) -> ColumnPlan | None:
    """The plan of one column (of ``table``); None if its type has no form in events."""
    options = options or ValueOptions()
    plan = plan_type(column.type_id, column.modifier, types, options)
    if plan is None:
        return None
    schema = plan.schema
    if column.nullable:
        schema = schema.as_optional()
    default = default_fragment(column, plan, types)
    fallback = plan.fallback
    if default is not None:
        schema = replace(schema, default=orjson.loads(default))
        fallback = default
    null = b"null" if schema.optional else fallback
    return ColumnPlan(
        name=column.name,
        schema=schema,
        load=plan.load,
        fallback=fallback,
        unavailable=null if plan.unavailable is None else plan.unavailable,
        failure_mode=options.failure_mode,
        table=table,
    )


def default_fragment(column: Column, plan: TypePlan, types: TypeCatalog) -> bytes | None:
    """The column's default as a value would be written; None if there is none to be known."""
    if column.default is None or plan.schema.type == "struct":
        return None
    known = types.get(column.type_id)
    if known is None:
        return None
    try:
        text = default_text(column.default, known, column.modifier)
        if text is None:
            return None
        return (plan.load or scalars.load_int)(text)
    except LOAD_ERRORS:
        log.warning("the default of column %s cannot be evaluated", column.name)
        return None


def plan_type(
    oid: int, modifier: int, types: TypeCatalog, options: ValueOptions
) -> TypePlan | None:
    """The plan of a type below its domains; None if it has no form in events."""
    known, modifier = types.resolve(oid, modifier)
    if known is not None:
        if known.category == "A" and known.element:
            return _array_plan(known, modifier, types, options)
        if known.kind == "e":
            return _enum_plan(known, options)
        plan = _plan_by_name(known, modifier, options)
        if plan is not None:
            return plan
    return _opaque_plan(options) if options.include_unknown_datatypes else None


# --- one function per family ---

_STRING = Schema("string")
_DECIMAL = "org.apache.kafka.connect.data.Decimal"
_VARIABLE_DECIMAL = Schema(
    "struct",
    name="io.debezium.data.VariableScaleDecimal",
    version=1,
    doc="Variable scaled decimal",
    fields=(Field("scale", Schema("int32")), Field("value", Schema("bytes"))),
)
_WKB = (Field("wkb", Schema("bytes")), Field("srid", Schema("int32", optional=True)))
_POINT = Schema(
    "struct",
    name="io.debezium.data.geometry.Point",
    version=1,
    doc="Geometry (POINT)",
    fields=(
        Field("x", Schema("double")),
        Field("y", Schema("double")),
        Field("wkb", Schema("bytes", optional=True)),
        Field("srid", Schema("int32", optional=True)),
    ),
)
_SPARSE_VECTOR = Schema(
    "struct",
    name="io.debezium.data.SparseDoubleVector",
    version=1,
    doc="Sparse double vector",
    fields=(
        Field("dimensions", Schema("int16")),
        Field("vector", Schema("map", keys=Schema("int16"), values=Schema("double"))),
    ),
)
_VARBIT_UNLIMITED = 2147483647


def _named(type_: str, name: str) -> Schema:
    return Schema(type_, name=f"io.debezium.data.{name}", version=1)


# Types whose events are a JSON string: name → (schema, does the text need escaping).
_TEXTS: dict[str, tuple[Schema, bool]] = {
    **dict.fromkeys(
        ("bpchar", "varchar", "text", "name", "char", "citext", "isbn"), (_STRING, True)
    ),
    **dict.fromkeys(("inet", "cidr", "macaddr", "macaddr8"), (_STRING, False)),
    **dict.fromkeys(
        ("int4range", "int8range", "numrange", "tsrange", "tstzrange", "daterange"),
        (_STRING, True),
    ),
    "json": (_named("string", "Json"), True),
    "jsonb": (_named("string", "Json"), True),
    "xml": (_named("string", "Xml"), True),
    "uuid": (_named("string", "Uuid"), False),
    "ltree": (_named("string", "Ltree"), True),
    "tsvector": (_named("string", "Tsvector"), True),
}
_NUMBERS = {
    "int2": Schema("int16"),
    "int4": Schema("int32"),
    "int8": Schema("int64"),
    "oid": Schema("int64"),
}


def _plan_by_name(known: PgType, modifier: int, options: ValueOptions) -> TypePlan | None:
    name = known.name
    if name in _NUMBERS:
        return TypePlan(_NUMBERS[name], None, b"0")
    if name in _TEXTS:
        schema, escaped = _TEXTS[name]
        load = scalars.quoted if escaped else scalars.plain
        return _text_plan(schema, load, b'""', options)
    if name in ("date", "time", "timetz", "timestamp", "timestamptz", "interval"):
        return _temporal_plan(name, modifier, options)
    if name in ("float4", "float8"):
        schema = Schema("float" if name == "float4" else "double")
        return TypePlan(schema, scalars.load_float, b"0.0")
    if name == "bool":
        return TypePlan(Schema("boolean"), scalars.load_bool, b"false")
    if name == "numeric":
        return _numeric_plan(modifier, options)
    if name == "money":
        return _money_plan(options)
    if name == "bytea":
        return _bytea_plan(options)
    if name in ("bit", "varbit"):
        return _bits_plan(name, modifier)
    return _extension_plan(name, options)


def _temporal_plan(name: str, modifier: int, options: ValueOptions) -> TypePlan:
    mode = options.time_precision_mode
    if name == "date":
        schema, load = temporal.date_plan(mode)
        return TypePlan(schema, load, load(b"1970-01-01"))
    if name == "time":
        schema, load = temporal.time_plan(mode, modifier)
        return TypePlan(schema, load, load(b"00:00:00"))
    if name == "timetz":
        schema, load = temporal.zoned_time_plan()
        return TypePlan(schema, load, b'"00:00:00Z"')
    if name == "timestamp":
        schema, load = temporal.timestamp_plan(mode, modifier)
        return TypePlan(schema, load, load(b"1970-01-01"))
    if name == "timestamptz":
        schema, load = temporal.zoned_timestamp_plan(modifier)
        return TypePlan(schema, load, b'"1970-01-01T00:00:00Z"')
    schema, load = temporal.interval_plan(options.interval_handling_mode)
    return TypePlan(schema, load, load(b"00:00:00"))


def _text_plan(schema: Schema, load: Loader, fallback: bytes, options: ValueOptions) -> TypePlan:
    """A plan whose schema is a string, so that the placeholder fits."""
    return TypePlan(schema, load, fallback, options.placeholder_json)


def _numeric_plan(modifier: int, options: ValueOptions) -> TypePlan:
    precision, scale = numeric_size(modifier)
    mode = options.decimal_handling_mode
    if mode == "string":
        zero = b'"0.%b"' % (b"0" * scale) if scale > 0 else b'"0"'
        return _text_plan(_STRING, scalars.decimal_string, zero, options)
    if mode == "double":
        return TypePlan(Schema("double"), scalars.load_float, b"0.0")
    if precision < 0:
        zero = b'{"scale":0,"value":"AA=="}'
        return TypePlan(_VARIABLE_DECIMAL, scalars.variable_decimal, zero)
    parameters = {"scale": str(scale), "connect.decimal.precision": str(precision)}
    schema = Schema("bytes", name=_DECIMAL, version=1, parameters=parameters)
    return TypePlan(schema, scalars.decimal(scale), b'"AA=="')


def _money_plan(options: ValueOptions) -> TypePlan:
    digits = options.money_fraction_digits
    mode = options.decimal_handling_mode
    load = scalars.money(mode, digits)
    if mode == "double":
        return TypePlan(Schema("double"), load, b"0.0")
    if mode == "string":
        zero = b'"0.%b"' % (b"0" * digits) if digits > 0 else b'"0"'
        return TypePlan(_STRING, load, zero)
    schema = Schema("bytes", name=_DECIMAL, version=1, parameters={"scale": str(digits)})
    return TypePlan(schema, load, b'"AA=="')


def _bytea_plan(options: ValueOptions) -> TypePlan:
    mode = options.binary_handling_mode
    load = scalars.BYTEA[mode]
    unavailable: bytes | None = None
    if mode == "bytes":
        unavailable = scalars.base64_text(options.placeholder)
    elif mode == "hex":
        unavailable = options.placeholder_json
    schema = Schema("bytes") if mode == "bytes" else _STRING
    return TypePlan(schema, load, b'""', unavailable)


def _opaque_plan(options: ValueOptions) -> TypePlan:
    return replace(_bytea_plan(options), load=scalars.opaque(options.binary_handling_mode))


def _bits_plan(name: str, modifier: int) -> TypePlan:
    length = modifier if modifier > 0 else (1 if name == "bit" else _VARBIT_UNLIMITED)
    if length == 1:
        return TypePlan(Schema("boolean"), scalars.bit_bool, b"false")
    schema = replace(_named("bytes", "Bits"), parameters={"length": str(length)})
    return TypePlan(schema, scalars.bits, b'""')


def _enum_plan(known: PgType, options: ValueOptions) -> TypePlan:
    schema = replace(_named("string", "Enum"), parameters={"allowed": ",".join(known.labels)})
    load = scalars.EnumText(known.labels).__getitem__
    return _text_plan(schema, load, b'""', options)


def _extension_plan(name: str, options: ValueOptions) -> TypePlan | None:
    """Types of extensions, which have no fixed oid, and point."""
    if name == "hstore":
        return _hstore_plan(options)
    if name == "point":
        return TypePlan(_POINT, scalars.point, scalars.point(b"(0,0)"))
    if name in ("geometry", "geography"):
        kind = f"io.debezium.data.geometry.{name.capitalize()}"
        schema = Schema(
            "struct", optional=True, name=kind, version=1, doc=name.capitalize(), fields=_WKB
        )
        return TypePlan(schema, scalars.geometry, b"null")
    if name == "vector":
        schema = replace(_named("array", "DoubleVector"), items=Schema("double"))
        return TypePlan(schema, scalars.vector, b"[]")
    if name == "halfvec":
        schema = replace(_named("array", "FloatVector"), items=Schema("float"))
        return TypePlan(schema, scalars.vector, b"[]")
    if name == "sparsevec":
        return TypePlan(_SPARSE_VECTOR, scalars.sparse_vector, b'{"dimensions":0,"vector":[]}')
    return None


def _hstore_plan(options: ValueOptions) -> TypePlan:
    unavailable = b"{%b:%b}" % (options.placeholder_json, options.placeholder_json)
    if options.hstore_handling_mode == "map":
        schema = Schema("map", keys=_STRING, values=Schema("string", optional=True))
        return TypePlan(schema, containers.hstore_map, b"{}", unavailable)
    as_text = orjson.dumps(unavailable.decode())
    return TypePlan(_named("string", "Json"), containers.hstore_json, b'"{}"', as_text)


# --- arrays ---

# Elements Debezium leaves out by name, whatever the options say.
_NO_ARRAYS = frozenset(["money", "name", "interval", "varbit", "xml", "point", "refcursor"])
# Elements whose arrays hold no NULL in Debezium's schema: the ones it has no case for.
_REQUIRED_ITEMS = frozenset(["tsvector", "isbn"])
_VECTORS = frozenset(["oidvector", "int2vector"])


def _array_plan(
    known: PgType, modifier: int, types: TypeCatalog, options: ValueOptions
) -> TypePlan | None:
    element = types.get(known.element)
    name = element.name if element else ""
    if name in _NO_ARRAYS:
        return None
    plan = None
    if element and element.kind != "d":  # Debezium does not look below the domains of elements
        mapped = replace(options, include_unknown_datatypes=False)
        plan = plan_type(element.oid, modifier, types, mapped)
    if plan is None:
        if not options.include_unknown_datatypes:
            return None
        plan, required = _opaque_plan(options), True
    else:
        required = name in _REQUIRED_ITEMS or (element is not None and element.kind == "e")
    if known.name in _VECTORS:
        schema = Schema("array", items=plan.schema)
        return TypePlan(schema, containers.numbers_vector, b"[]")
    schema = Schema("array", items=plan.schema.as_optional(not required))
    if required and plan.load is not None:
        load = containers.array(plan.load, null=None)
    else:
        load = containers.array(plan.load) if plan.load else containers.numbers_array
    return TypePlan(schema, load, b"[]", _unavailable_array(name, options))


def _unavailable_array(element: str, options: ValueOptions) -> bytes | None:
    """Debezium's forms; a placeholder that does not fit the items makes the value null."""
    placeholder = options.placeholder
    if element in ("text", "varchar", "bpchar", "json", "jsonb"):
        return b"[%b]" % options.placeholder_json
    if element == "bytea" and options.binary_handling_mode == "bytes":
        return b"[%b]" % scalars.base64_text(placeholder)
    days = element == "date" and options.time_precision_mode not in ("connect", "isostring")
    if element in ("int4", "int8") or days:
        return orjson.dumps(list(placeholder))
    if element == "uuid":  # java.util.UUID.nameUUIDFromBytes
        digest = md5(placeholder, usedforsecurity=False).digest()
        return orjson.dumps([str(UUID(bytes=digest, version=3))])
    return None
