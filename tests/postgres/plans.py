"""Columns' plans for the value tests: every type by its name."""

from __future__ import annotations

from cdc.postgres.types import PgType, TypeCatalog
from cdc.postgres.values import ColumnPlan, ValueOptions, plan_column
from schemas import Column

USER_TYPES = [
    PgType(90001, "hstore", "public"),
    PgType(90002, "mood", "public", "e", "E", labels=("a", "b", "c")),
    PgType(90003, "_mood", "public", category="A", element=90002),
    PgType(90004, "cents", "public", "d", "N", base=1700, base_modifier=(12 << 16 | 4) + 4),
    PgType(90005, "small_cents", "public", "d", "N", base=90004),
    PgType(90006, "geometry", "public"),
    PgType(90007, "geography", "public"),
    PgType(90008, "vector", "public"),
    PgType(90009, "halfvec", "public"),
    PgType(90010, "sparsevec", "public"),
    PgType(90011, "ltree", "public"),
    PgType(90012, "citext", "public"),
    PgType(90013, "_cents", "public", category="A", element=90004),
    PgType(90014, "Mood", "other", "e", "E", labels=("x",)),
]
TYPES = TypeCatalog(USER_TYPES)
OIDS = {known.name: known.oid for known in TYPES._types.values()}


def numeric(precision: int, scale: int) -> int:
    return (precision << 16 | scale & 0x7FF) + 4


def plan(
    type_name: str,
    modifier: int = -1,
    *,
    nullable: bool = True,
    default: str | None = None,
    **options: object,
) -> ColumnPlan:
    column = Column("c", OIDS[type_name], modifier, nullable, default)
    made = plan_column(column, TYPES, ValueOptions(**options))  # type: ignore[arg-type]
    assert made is not None
    return made


def load(type_name: str, raw: bytes, modifier: int = -1, **options: object) -> str:
    made = plan(type_name, modifier, **options)  # type: ignore[arg-type]
    return (made.load(raw) if made.load else raw).decode()
