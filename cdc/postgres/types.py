"""PostgreSQL's types as the catalogue describes them: :class:`PgType`, :class:`TypeCatalog`.

Pure data: :mod:`cdc.postgres.catalog` reads pg_type and fills a catalogue; whoever plans a
relation asks it. A type that was created after the catalogue was read is fetched by the
injected ``lookup``, so that the decoder itself does no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PgType:
    """One row of pg_type.

    ``kind`` is typtype (b base, c composite, d domain, e enum, m multirange, p pseudo,
    r range), ``category`` typcategory. ``element`` is the element's oid of a true array, else
    0; ``base``/``base_modifier`` belong to domains; ``labels`` are an enum's, in sort order.
    """

    oid: int
    name: str
    schema: str = "pg_catalog"
    kind: str = "b"
    category: str = "U"
    element: int = 0
    base: int = 0
    base_modifier: int = -1
    labels: tuple[str, ...] = ()


_TYPMOD_OVERHEAD = 4

# Array oid by element; these numbers are part of the protocol and never change.
_BUILTIN = (
    ("bool", 16, 1000),
    ("bytea", 17, 1001),
    ("char", 18, 1002),
    ("name", 19, 1003),
    ("int8", 20, 1016),
    ("int2", 21, 1005),
    ("int4", 23, 1007),
    ("text", 25, 1009),
    ("oid", 26, 1028),
    ("xid", 28, 1011),
    ("json", 114, 199),
    ("xml", 142, 143),
    ("point", 600, 1017),
    ("lseg", 601, 1018),
    ("path", 602, 1019),
    ("box", 603, 1020),
    ("polygon", 604, 1027),
    ("line", 628, 629),
    ("cidr", 650, 651),
    ("float4", 700, 1021),
    ("float8", 701, 1022),
    ("circle", 718, 719),
    ("macaddr8", 774, 775),
    ("money", 790, 791),
    ("macaddr", 829, 1040),
    ("inet", 869, 1041),
    ("bpchar", 1042, 1014),
    ("varchar", 1043, 1015),
    ("date", 1082, 1182),
    ("time", 1083, 1183),
    ("timestamp", 1114, 1115),
    ("timestamptz", 1184, 1185),
    ("interval", 1186, 1187),
    ("timetz", 1266, 1270),
    ("bit", 1560, 1561),
    ("varbit", 1562, 1563),
    ("numeric", 1700, 1231),
    ("refcursor", 1790, 2201),
    ("uuid", 2950, 2951),
    ("txid_snapshot", 2970, 2949),
    ("pg_lsn", 3220, 3221),
    ("tsvector", 3614, 3643),
    ("tsquery", 3615, 3645),
    ("jsonb", 3802, 3807),
    ("int4range", 3904, 3905),
    ("numrange", 3906, 3907),
    ("tsrange", 3908, 3909),
    ("tstzrange", 3910, 3911),
    ("daterange", 3912, 3913),
    ("int8range", 3926, 3927),
    ("jsonpath", 4072, 4073),
)

TypeLookup = Callable[[int], PgType | None]


class TypeCatalog:
    """oid → :class:`PgType`. Starts with the built-in types, which no database can change."""

    def __init__(self, types: Iterable[PgType] = (), lookup: TypeLookup | None = None) -> None:
        self._types: dict[int, PgType] = {}
        for name, oid, array in _BUILTIN:
            self.add(PgType(oid, name))
            self.add(PgType(array, f"_{name}", category="A", element=oid))
        for known in types:
            self.add(known)
        self.lookup = lookup

    def add(self, known: PgType) -> None:
        """Take a type in, in place of what was known of its oid."""
        self._types[known.oid] = known

    def get(self, oid: int) -> PgType | None:
        """The type, looked up at most once; None if the server does not know it either."""
        known = self._types.get(oid)
        if known is None and self.lookup is not None:
            known = self.lookup(oid)
            if known is not None:
                self.add(known)
        return known

    def forget(self, oid: int) -> None:
        """Drop a user's type (an enum that got a label), to be looked up again."""
        self._types.pop(oid, None)

    def resolve(self, oid: int, modifier: int) -> tuple[PgType | None, int]:
        """The type below all domains, and the modifier that applies to it."""
        known = self.get(oid)
        while known is not None and known.base:
            modifier = known.base_modifier
            known = self.get(known.base)
        return known, modifier


def numeric_size(modifier: int) -> tuple[int, int]:
    """Precision and scale of a numeric's modifier; (-1, 0) if none is declared."""
    if modifier < _TYPMOD_OVERHEAD:
        return -1, 0
    packed = modifier - _TYPMOD_OVERHEAD
    # Eleven bits of scale, signed since PostgreSQL 15.
    return packed >> 16, ((packed & 0x7FF) ^ 0x400) - 0x400
