"""Offsets over HTTP, Connect's KIP-875: show, alter and reset, in Connect's shapes and texts.

A sink's partition is ``{"kafka_topic": <source>, "kafka_partition": 0}``, its offset
``{"kafka_offset": <journal offset>}``. A source's partition is ``{"server": <prefix>}``, its
offset the position stored with the newest batch; it cannot be set from outside, since the
journal would then hold a gap or a double.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from cdc.runtime import plugins
from cdc.runtime.connector import Connector, Refused
from cdc.runtime.offsets import Offsets
from cdc.runtime.worker import Worker

ALTERED = "The offsets for this connector have been altered successfully"
RESET = "The offsets for this connector have been reset successfully"


def show(worker: Worker, name: str) -> dict[str, Any]:
    """GET: in any state."""
    with worker.lock:
        connector = worker.connector(name)
        if connector.kind == "sink":
            stored = worker.stored_positions(name)
            return {
                "offsets": [
                    {
                        "partition": {"kafka_partition": 0, "kafka_topic": journal},
                        "offset": {"kafka_offset": offset},
                    }
                    for journal, offset in sorted(stored.items())
                ]
            }
        position = newest_position(worker.data.journal(name))
        server = connector.relevant.get("topic.prefix", name)
        if position is None:
            return {"offsets": []}
        return {"offsets": [{"partition": {"server": server}, "offset": position}]}


def newest_position(journal: Path) -> dict[str, Any] | None:
    """The position of the newest batch of a journal's newest stream lane."""
    from cdc.log.files import STREAM, listing
    from cdc.log.segment import SegmentReader

    for entry in reversed(listing(journal)):
        if entry.lane == STREAM and not entry.gap:
            segment = SegmentReader(journal, entry)
            try:
                stored = segment.state().position
            finally:
                segment.close()
            return None if stored is None else dict(orjson.loads(stored))
    return None


def alter(worker: Worker, name: str, body: Any) -> dict[str, str]:
    """PATCH: the connector must be stopped."""
    if not isinstance(body, dict) or not body.get("offsets"):
        raise Refused(400, "Partitions / offsets need to be provided for an alter offsets request")
    with worker.lock:
        connector = _stopped(worker, name)
        _check_movable(worker, connector)
        moves = [_move(worker, entry) for entry in _entries(body["offsets"])]
        _store(worker, connector, dict(moves))
    return {"message": ALTERED}


def reset(worker: Worker, name: str) -> dict[str, str]:
    """DELETE: the sink begins again, as ``start.from`` says."""
    with worker.lock:
        connector = _stopped(worker, name)
        _check_movable(worker, connector)
        _store(worker, connector, dict.fromkeys(worker.stored_positions(name)))
    return {"message": RESET}


def _stopped(worker: Worker, name: str) -> Connector:
    connector = worker.connector(name)
    if connector.saved.target != "STOPPED" or connector.task.process is not None:
        raise Refused(
            400,
            "Connectors must be in the STOPPED state before their offsets can be modified. This"
            " can be done for the specified connector by issuing a 'PUT' request to the"
            f" '/connectors/{name}/stop' endpoint",
        )
    return connector


def _check_movable(worker: Worker, connector: Connector) -> None:
    """A source's position is its journal's; some sinks' targets cannot be written again."""
    if connector.kind != "sink":
        raise _unsupported(connector.name)
    plugin, _ = plugins.configure(connector.saved.config, worker.settings.texts)
    if plugin.load().no_seek:
        raise _unsupported(connector.name)


def _unsupported(name: str) -> Refused:
    return Refused(
        500,
        f"Failed to modify offsets for connector {name} because it doesn't support external"
        " modification of offsets",
    )


def _store(worker: Worker, connector: Connector, moves: Mapping[str, int | None]) -> None:
    offsets = Offsets(worker.data.sink(connector.name))
    try:
        for journal, offset in moves.items():
            offsets.move(journal, offset)
    finally:
        offsets.close()
    connector.task.positions.clear()


def _entries(offsets: Any) -> Iterable[dict[str, Any]]:
    if not isinstance(offsets, list) or not all(isinstance(entry, dict) for entry in offsets):
        raise Refused(500, "Cannot deserialize the offsets: a list of objects is expected")
    return offsets


def _move(worker: Worker, entry: Mapping[str, Any]) -> tuple[str, int | None]:
    partition, offset = entry.get("partition"), entry.get("offset")
    if not isinstance(partition, dict):
        raise Refused(400, "The partition for a sink connector offset cannot be null or missing")
    for key in ("kafka_topic", "kafka_partition"):
        if partition.get(key) is None:
            raise Refused(
                400,
                "The partition for a sink connector offset must contain the keys 'kafka_topic'"
                f" and 'kafka_partition'; {key} is missing or null",
            )
    journal = str(partition["kafka_topic"])
    if _integer(partition["kafka_partition"], "partition") != 0:
        raise Refused(400, f"A journal has partition 0 only, not {partition['kafka_partition']}")
    if journal not in worker.data.journals():
        known = ", ".join(worker.data.journals()) or "none"
        raise Refused(400, f"There is no journal {journal}: kafka_topic names one of {known}")
    if offset is None:
        return journal, None
    if not isinstance(offset, dict) or "kafka_offset" not in offset:
        raise Refused(
            400,
            "The offset for a sink connector should either be null or contain the key"
            " 'kafka_offset'",
        )
    return journal, _in_bounds(worker, journal, _integer(offset["kafka_offset"], "offset"))


def _integer(value: Any, what: str) -> int:
    try:
        if isinstance(value, bool | float):
            raise TypeError
        return int(value)
    except (TypeError, ValueError):
        raise Refused(
            400,
            f"Failed to parse the following value for the {what}: {value}. Must be an integer.",
        ) from None


def _in_bounds(worker: Worker, journal: str, offset: int) -> int:
    from cdc.log.reader import JournalReader

    with JournalReader(worker.data.journal(journal)) as reader:
        first, after = reader.bounds()
    if not first <= offset <= after:
        raise Refused(
            400, f"Journal {journal} holds offsets {first} to {after - 1}: {offset} is not there"
        )
    return offset
