"""Chains of Connect's transforms on Blocks: on either side of the journal, into a real copy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cdc.block import CREATE, DELETE, UPDATE, Block
from cdc.connectors import SOURCE_CONFIG
from cdc.converters.json import JsonConverter
from cdc.converters.rows import convert
from cdc.event import events
from cdc.images import RowImages
from cdc.record import from_offset
from cdc.runtime.chain import Chain, configured_steps, source_chain
from cdc.runtime.tolerance import NotTolerated, Operator
from schemas import EventSchema
from tests.blocks import INT32, STRING, Source, decimal, optional, unscaled
from tests.runtime.sinking import Copy

PACKAGE = "org.apache.kafka.connect.transforms."
RAW = {"name": "shop", "connector.class": "postgres"}


def chain_config(
    *steps: tuple[str, dict[str, str]], **predicates: dict[str, str]
) -> dict[str, str]:
    """``transforms`` of (class without package, options); predicates by alias."""
    names = [f"t{number}" for number in range(len(steps))]
    config = {"transforms": ",".join(names)}
    for name, (kind, options) in zip(names, steps, strict=True):
        config[f"transforms.{name}.type"] = PACKAGE + kind
        config |= {f"transforms.{name}.{key}": value for key, value in options.items()}
    if predicates:
        config["predicates"] = ",".join(predicates)
    for alias, options in predicates.items():
        config[f"predicates.{alias}.type"] = f"{PACKAGE}predicates.{options['type']}"
        config |= {
            f"predicates.{alias}.{key}": value for key, value in options.items() if key != "type"
        }
    return config


def chain_of(config: dict[str, str], *, sink: bool = True) -> Chain:
    steps = configured_steps(SOURCE_CONFIG.parse({**RAW, **config}))
    return Chain(steps, Operator(), sink=sink)


ROUTE = ("RegexRouter", {"regex": r"srv\.public\.(.*)", "replacement": "x_$1"})
HEADER = ("InsertHeader", {"header": "from", "value.literal": "5"})
AFTER = ("ExtractField$Value", {"field": "after"})
FLATTEN = ("Flatten$Value", {})


class Shop:
    """One table, some changes of it, a message and a truncate of another table."""

    def __init__(self) -> None:
        self.source = Source(context={"run": "7"})
        self.orders: EventSchema = self.source.table(
            "orders", id=INT32, note=optional(STRING), price=optional(decimal(10, 2)),
            doc=optional(STRING),
        )  # fmt: skip

    def changes(self) -> Block:
        source, orders = self.source, self.orders
        source.begin()
        source.insert(orders, id=1, note="a", price=unscaled(150), doc="long")
        source.insert(orders, id=2, note="b", price=unscaled(250), doc="long")
        source.insert(orders, id=3, note="c", price=None, doc=None)
        source.commit()
        source.update(orders, unchanged=["doc"], id=1, note="aa", price=unscaled(151))
        source.delete(orders, id=2, note="b", price=unscaled(250), doc="long")
        source.change_key(
            orders, {"id": 3, "note": "c"}, {"id": 4, "note": "d", "price": unscaled(5)}
        )
        return source.block()


@pytest.fixture
def shop() -> Shop:
    return Shop()


# --- what stays whole


def test_no_transforms_are_no_chain() -> None:
    assert source_chain(SOURCE_CONFIG.parse(RAW), "shop") is None


def test_a_chain_that_changes_nothing_gives_the_very_block(shop: Shop) -> None:
    block = shop.changes()
    router = ("RegexRouter", {"regex": "other", "replacement": "x"})
    assert chain_of(chain_config(router)).apply(block) is block


def test_routing_and_headers_leave_the_rows_as_they_are(shop: Shop) -> None:
    block = shop.changes()
    found = chain_of(chain_config(ROUTE, HEADER)).apply(block)
    assert found is not None
    assert found.afters is block.afters
    assert [s.kind for s in found.schemas] == ["table"]
    first, *_ = list(events(found))
    assert first.topic == "x_orders"
    assert {name: value for name, (value, _) in first.headers.items()} == {"run": "7", "from": 5}
    again = chain_of(chain_config(ROUTE)).apply(shop.changes())
    assert again is not None
    assert again.schemas[0] == found.schemas[0]


def test_a_topic_without_a_name_is_refused_in_a_source_and_a_sinks_own_matter(shop: Shop) -> None:
    nothing = chain_config(("RegexRouter", {"regex": ".*", "replacement": ""}))
    with pytest.raises(NotTolerated) as caught:
        chain_of(nothing, sink=False).apply(shop.changes())
    assert str(caught.value.__cause__) == ("Topic name is invalid: the empty string is not allowed")
    found = chain_of(nothing).apply(shop.changes())
    assert found is not None
    assert {event.topic for event in events(found)} == {""}


def test_a_moved_rows_own_header_stands_beside_a_new_one(shop: Shop) -> None:
    found = chain_of(chain_config(HEADER)).apply(shop.changes())
    assert found is not None
    moved = [e for e in events(found) if "__debezium.newkey" in e.headers]
    assert moved[0].headers["__debezium.newkey"][0] == {"id": 4}
    assert moved[0].headers["from"][0] == 5


def test_a_predicate_by_topic_leaves_other_tables_whole(shop: Shop) -> None:
    people = shop.source.table("people", id=INT32, note=optional(STRING))
    shop.source.insert(people, id=7, note="x")
    shop.source.insert(shop.orders, id=9, note="y")
    shop.source.delete(people, id=7, note="x")
    kind, options = AFTER
    config = chain_config(
        (kind, {**options, "predicate": "p"}),
        p={"type": "TopicNameMatches", "pattern": ".*orders"},
    )
    found = chain_of(config).apply(shop.source.block())
    assert found is not None
    assert {str(s.table): s.kind for s in found.schemas} == {
        "public.people": "table", "public.orders": "record",
    }  # fmt: skip
    values = [(e.topic.rpartition(".")[2], e.value) for e in events(found)]
    assert values[1] == ("orders", {"id": 9, "note": "y", "price": None, "doc": None})
    assert values[-1] == ("people", None)  # the tombstone of a table's row is still implied


# --- records


def written(block: Block | None) -> list[tuple[bytes | None, bytes | None]]:
    if block is None:
        return []
    json = JsonConverter(schemas_enable=True)
    return [(record.key, record.value) for record in convert(block, json, json)]


def test_records_that_no_step_changes_are_written_as_the_rows_were(shop: Shop) -> None:
    """Values of all types, schemas, tombstones: there and back is the same, byte for byte."""
    block = shop.changes()
    config = chain_config(
        ("MaskField$Value", {"fields": "op", "predicate": "never"}),
        never={"type": "HasHeaderKey", "name": "no such header"},
    )
    found = chain_of(config).apply(block)
    assert found is not None
    assert [s.kind for s in found.schemas] == ["record"] * 2  # envelopes, and tombstones
    assert written(found) == written(block)
    assert [e.headers for e in events(found)] == [e.headers for e in events(block)]


def test_a_delete_and_its_tombstone_keep_their_offset_and_are_cut_together(shop: Shop) -> None:
    found = chain_of(chain_config(("ReplaceField$Value", {"exclude": "ts_us"}))).apply(
        shop.changes()
    )
    assert found is not None
    assert list(found.offsets) == [0, 1, 2, 3, 4, 4, 5, 5, 6]
    rest = from_offset(found, 4)
    assert rest is not None
    assert list(rest.offsets) == [4, 4, 5, 5, 6]


def test_in_a_source_a_record_has_neither_offset_nor_time(shop: Shop) -> None:
    seen: list[Any] = []

    class Look:
        java_class, transform, predicate, negate = "x", None, None, False

        def apply(self, record: Any) -> Any:
            seen.append((record.partition, record.timestamp, record.offset))
            return record

    Chain([Look()], Operator(), sink=False).apply(shop.changes())
    assert set(seen) == {(None, None, -1)}
    seen.clear()
    Chain([Look()], Operator(), sink=True).apply(shop.changes())
    assert seen[0] == (0, 1_700_000_000_123, 7)


def test_unsent_values_are_known_under_another_name(shop: Shop) -> None:
    rename = ("ReplaceField$Value", {"renames": "doc:text"})
    block = chain_of(chain_config(AFTER, rename)).apply(shop.changes())
    assert block is not None
    schema = block.schemas[block.schema[3]]
    assert [schema.row.fields[i].name for i in block.unchanged[3]] == ["text"]


# --- what sinks make of records


def test_a_flat_struct_is_an_upsert_and_null_a_delete(shop: Shop) -> None:
    block = chain_of(chain_config(AFTER)).apply(shop.changes())
    assert block is not None
    rows = RowImages().apply(block)
    assert rows is not None
    assert {s.kind for s in rows.schemas} == {"table"}
    assert bytes(rows.op) == bytes([CREATE, CREATE, CREATE, UPDATE, DELETE, DELETE, CREATE])
    assert list(rows.keys)[4] == b'{"id":2}'


def test_an_envelope_with_something_put_on_top_keeps_its_images(shop: Shop) -> None:
    insert = ("InsertField$Value", {"static.field": "origin", "static.value": "x"})
    before = shop.changes()
    block = chain_of(chain_config(insert)).apply(before)
    assert block is not None
    rows = RowImages().apply(block)
    assert rows is not None
    assert bytes(rows.op) == bytes(before.op)
    assert list(rows.afters) == list(before.afters)
    assert list(rows.befores) == list(before.befores)
    assert rows.unchanged == before.unchanged
    assert rows.schemas[0].row == before.schemas[0].row


# --- into a copy, from both sides

PLAIN = [
    {"id": 1, "note": "aa", "price": "1.51", "doc": "long"},
    {"id": 4, "note": "d", "price": "0.05", "doc": None},
]
NAMED = {"table.name.format": "${topic}"}


def renamed(**names: Any) -> list[dict[str, Any]]:
    return [{names.get(k, k): v for k, v in row.items()} for row in PLAIN]


def without(name: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != name} for row in PLAIN]


CHAINS: dict[str, tuple[dict[str, str], str, list[dict[str, Any]]]] = {
    "ExtractField": (chain_config(AFTER), "srv_public_orders", PLAIN),
    "ReplaceField": (
        chain_config(AFTER, ("ReplaceField$Value", {"exclude": "note", "renames": "doc:text"})),
        "srv_public_orders",
        [{("text" if k == "doc" else k): v for k, v in row.items()} for row in without("note")],
    ),
    "MaskField with a predicate": (  # it takes no null, in Connect either
        chain_config(
            AFTER,
            (
                "MaskField$Value",
                {"fields": "note", "replacement": "*", "predicate": "dead", "negate": "true"},
            ),
            dead={"type": "RecordIsTombstone"},
        ),
        "srv_public_orders",
        [row | {"note": "*"} for row in PLAIN],
    ),
    "Flatten": (chain_config(AFTER, FLATTEN), "srv_public_orders", PLAIN),
    "InsertField": (
        chain_config(
            AFTER, ("InsertField$Value", {"static.field": "shop", "static.value": "main"})
        ),
        "srv_public_orders",
        [row | {"shop": "main"} for row in PLAIN],
    ),
    "InsertField on the envelope": (
        chain_config(("InsertField$Value", {"static.field": "shop", "static.value": "main"})),
        "srv_public_orders",
        PLAIN,
    ),
    "RegexRouter": (chain_config(ROUTE), "x_orders", PLAIN),
    "Filter of tombstones": (
        chain_config(("Filter", {"predicate": "dead"}), AFTER, dead={"type": "RecordIsTombstone"}),
        "srv_public_orders",
        PLAIN,
    ),
    "Filter of everything else": (
        chain_config(
            ("Filter", {"predicate": "dead", "negate": "true"}), dead={"type": "RecordIsTombstone"}
        ),
        "srv_public_orders",
        [],
    ),
}


def comparable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [dict(sorted(row.items())) for row in rows]


@pytest.mark.parametrize("side", ["source", "sink"])
@pytest.mark.parametrize("name", CHAINS)
def test_a_copy_holds_what_the_chain_leaves(
    tmp_path: Path, shop: Shop, name: str, side: str
) -> None:
    config, table, expected = CHAINS[name]
    copy = Copy(tmp_path, {**NAMED, "topics.regex": ".*", **(config if side == "sink" else {})})
    block: Block | None = shop.changes()
    if side == "source":
        assert block is not None
        block = chain_of(config, sink=False).apply(block)
    copy.append(*([] if block is None else [block]))
    copy.run()
    assert comparable(copy.rows(table)) == comparable(expected)


def test_a_block_that_a_filter_empties_still_moves_the_position(tmp_path: Path, shop: Shop) -> None:
    config = chain_config(("Filter", {}))
    copy = Copy(tmp_path, config)
    end = copy.append(shop.changes())
    copy.run()
    assert copy.position() == end
    assert copy.rows() == []


def test_topics_are_chosen_before_the_chain_renames_them(tmp_path: Path, shop: Shop) -> None:
    copy = Copy(tmp_path, {**NAMED, "topics.regex": "srv.*", **chain_config(ROUTE)})
    copy.append(shop.changes())
    copy.run()
    assert len(copy.rows("x_orders")) == 2


def test_a_source_stores_the_position_of_a_batch_that_its_chain_has_emptied(
    tmp_path: Path, source_config: Callable[..., Any]
) -> None:
    from cdc.log.journal import Journal
    from cdc.runtime.source_loop import SourceLoop
    from tests.plugins import counter

    chain = chain_of(chain_config(("Filter", {})), sink=False)
    with Journal.open(tmp_path / "journal") as journal:
        task = counter.CounterSourceTask(source_config(rows=300), "count")
        loop = SourceLoop(task, journal, chain=chain)
        polled = loop.metrics

        class Until(type(loop._events)):  # type: ignore[misc]
            def measured(self, values: Any) -> None:
                if journal.state().stream_position == {"next": 300}:
                    loop.stop()

        loop._events = Until()
        loop.run()
        assert journal.state().stream_position == {"next": 300}
        assert polled()["kafka_connect_source_task_metrics_source_record_poll_total"] == 300
        assert polled()["kafka_connect_source_task_metrics_source_record_write_total"] == 0
