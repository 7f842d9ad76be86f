"""Settings: what the source needs of its configuration, in the source's own terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cdc.block import CREATE, DELETE, TRUNCATE, UPDATE
from cdc.config import Config
from cdc.postgres.config import stream_params
from cdc.postgres.dsn import conninfo
from cdc.postgres.events import EventOptions
from cdc.postgres.filters import ColumnFilter, KeyColumns, Lists, TableFilter
from cdc.postgres.topics import TopicNaming
from cdc.postgres.values import ValueOptions

_OPERATIONS = {"c": CREATE, "u": UPDATE, "d": DELETE, "t": TRUNCATE}


@dataclass(frozen=True)
class Settings:
    """One connector's settings. Keys and defaults are documented in :mod:`cdc.postgres.config`."""

    conninfo: Mapping[str, Any]
    database: str
    slot: str
    publication: str
    autocreate: str
    via_root: bool
    snapshot_mode: str
    naming: TopicNaming
    tables: TableFilter
    columns: ColumnFilter
    keys: KeyColumns
    snapshot_tables: Lists
    prefixes: Lists
    values: ValueOptions
    events: EventOptions
    skipped: frozenset[int]
    skipped_set: bool
    tombstones: bool
    context: Mapping[str, str]
    batch_rows: int
    chunk_rows: int
    snapshot_readers: int
    status_interval_s: float
    slot_retry_s: float
    slot_failover: bool
    drop_slot_on_stop: bool
    stream_params: Mapping[str, str] = field(default_factory=dict)

    @property
    def published(self) -> str:
        """The operations that are captured, as ``publish`` lists them."""
        names = {"c": "insert", "u": "update", "d": "delete", "t": "truncate"}
        return ",".join(n for letter, n in names.items() if _OPERATIONS[letter] not in self.skipped)


def settings_of(config: Config, *, run_id: str) -> Settings:
    """From a parsed configuration. Raises ConfigError for lists that are no expressions."""
    lists = _texts(config)
    prefix, database = config["topic.prefix"], config["database.dbname"]
    skipped = {o.strip() for o in config["skipped.operations"]} - {"none", ""}
    return Settings(
        conninfo=conninfo(config),
        database=database,
        slot=config["slot.name"],
        publication=config["publication.name"],
        autocreate=config["publication.autocreate.mode"],
        via_root=config["publish.via.partition.root"],
        snapshot_mode=config["snapshot.mode"],
        naming=TopicNaming(prefix, config["topic.delimiter"]),
        tables=TableFilter.of(lists),
        columns=ColumnFilter.of(lists),
        keys=KeyColumns.of(lists),
        snapshot_tables=Lists.of(
            {"table.include.list": lists.get("snapshot.include.collection.list", "")}, "table"
        ),
        prefixes=Lists.of(lists, "message.prefix"),
        values=_values(config),
        events=EventOptions(
            prefix,
            database,
            config["schema.name.adjustment.mode"],
            config["field.name.adjustment.mode"],
        ),
        skipped=frozenset(_OPERATIONS[letter] for letter in skipped),
        skipped_set="skipped.operations" in config.raw and bool(skipped),
        tombstones=config["tombstones.on.delete"],
        context=_context(config, run_id),
        batch_rows=config["max.batch.size"],
        chunk_rows=config["snapshot.chunk.rows"],
        snapshot_readers=config["snapshot.max.threads"],
        status_interval_s=config["status.update.interval.ms"] / 1000,
        slot_retry_s=config["slot.max.retries"] * config["slot.retry.delay.ms"] / 1000,
        slot_failover=config["slot.failover"],
        drop_slot_on_stop=config["slot.drop.on.stop"],
        stream_params=stream_params(config["slot.stream.params"] or ""),
    )


def _values(config: Config) -> ValueOptions:
    return ValueOptions(
        decimal_handling_mode=config["decimal.handling.mode"],
        time_precision_mode=config["time.precision.mode"],
        binary_handling_mode=config["binary.handling.mode"],
        hstore_handling_mode=config["hstore.handling.mode"],
        interval_handling_mode=config["interval.handling.mode"],
        money_fraction_digits=config["money.fraction.digits"],
        include_unknown_datatypes=config["include.unknown.datatypes"],
        unavailable_value_placeholder=config["unavailable.value.placeholder"],
        failure_mode=config["event.converting.failure.handling.mode"],
    )


def _context(config: Config, run_id: str) -> dict[str, str]:
    """The headers of facts §1.9; none where they are switched off."""
    if not config["extended.headers.enabled"]:
        return {}
    return {
        "__debezium.context.connectorLogicalName": config["topic.prefix"],
        "__debezium.context.taskId": "0",
        "__debezium.context.connectorName": "postgresql",
        "__debezium.context.runId": run_id,
    }


def _texts(config: Config) -> dict[str, str]:
    """The list-valued keys as Debezium writes them, which is what the filters parse."""
    out = {}
    for name, value in config.items():
        if isinstance(value, tuple):
            out[name] = ",".join(str(item).replace(",", "\\,") for item in value)
        elif isinstance(value, str):
            out[name] = value
    out["table.ignore.builtin"] = str(config["table.ignore.builtin"]).lower()
    return out
