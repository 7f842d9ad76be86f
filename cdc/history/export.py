"""A stretch of a journal as a file: JSON lines or Parquet. The file is whole or not there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from cdc.block import Block
from cdc.durable import sync
from cdc.errors import CdcError, ConfigError
from cdc.history.render import Renderer
from cdc.history.tail import Filter, blocks, renderer_of
from cdc.javaregex import JavaPattern
from cdc.log import Gap, JournalReader
from cdc.lsn import lsn_text

FORMATS = ("jsonl", "parquet")
# What is in memory at once: of narrow rows by their number, of wide ones by their bytes.
ROWS_PER_GROUP, BYTES_PER_GROUP = 50_000, 16 << 20


def export(
    reader: JournalReader,
    target: Path | BinaryIO,
    *,
    first: int,
    end: int,
    format_: str = "jsonl",
    tables: JavaPattern | None = None,
    dropped: Callable[[Gap], None] | None = None,
) -> int:
    """Write the events of ``[first, end)``; their number. Replaces the file at the end.

    A target that is open already gets JSON lines as they come.

    JSON lines are the records that the console and file sinks write. Parquet has a row per
    event: offset, LSNs, commit time, transaction, operation, table, topic, whether it is of a
    snapshot, and key, before and after as JSON; of what transforms have made, the images as
    sinks understand them. Raises ConfigError without pyarrow.
    """
    wanted = Filter(tables)
    kept = (block for b in blocks(reader, first, end=end, dropped=dropped) if (block := wanted(b)))
    if format_ == "parquet":
        _pyarrow()
    if isinstance(target, Path):
        with _replacing(target) as part:
            return _write_parquet(kept, part) if format_ == "parquet" else _write_file(kept, part)
    if format_ == "parquet":
        raise ConfigError("Parquet is written to a file", key="--output", remedy="Name one")
    return _write_lines(kept, target)


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A new file beside the target, which takes its name, durably, once all is in it."""
    if target.is_dir():
        raise ConfigError(f"{target} is a folder", key="--output", remedy="Name a file in it")
    if target.exists() and not target.is_file():  # /dev/stdout would be replaced
        raise ConfigError(
            f"{target} is no file that can be replaced", key="--output",
            remedy="- is the standard output",
        )  # fmt: skip
    target = target.resolve()  # a link stays one
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield part
        sync(part)
        part.replace(target)
    except OSError as error:
        raise CdcError(
            f"{target} cannot be written: {error.strerror or error}", remedy="Nothing was changed"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _write_file(kept: Iterable[Block], path: Path) -> int:
    with path.open("wb") as file:
        return _write_lines(kept, file)


def _write_lines(kept: Iterable[Block], file: BinaryIO) -> int:
    render = renderer_of("record", tombstones=True)
    count = 0
    for block in kept:
        file.writelines(render(block))
        count += len(block)
    return count


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(
            "Parquet needs pyarrow, which is not installed",
            key="--format",
            remedy="pip install 'cdc-engine[parquet]', or use --format jsonl",
        ) from None
    assert pyarrow.parquet is not None
    return pa


def _schema(pa: Any) -> Any:
    long, text = pa.int64(), pa.string()
    return pa.schema(
        [
            pa.field("offset", long, nullable=False),
            pa.field("lsn", text, nullable=False),
            pa.field("commit_lsn", text, nullable=False),
            pa.field("commit_time", pa.timestamp("us", tz="UTC"), nullable=False),
            pa.field("transaction", long),
            pa.field("op", text, nullable=False),
            pa.field("table", text, nullable=False),
            pa.field("topic", text, nullable=False),
            pa.field("snapshot", pa.bool_(), nullable=False),
            pa.field("key", text),
            pa.field("before", text),
            pa.field("after", text),
        ]
    )


def _write_parquet(kept: Iterable[Block], path: Path) -> int:
    pa = _pyarrow()
    schema, renderer = _schema(pa), Renderer()
    count = 0
    with pa.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        waiting: list[Any] = []
        for block in kept:
            columns = [
                pa.array(column, field.type)
                for column, field in zip(_columns(block, renderer), schema, strict=True)
            ]
            waiting.append(pa.record_batch(columns, schema=schema))
            count += len(block)
            rows = sum(batch.num_rows for batch in waiting)
            if rows >= ROWS_PER_GROUP or sum(b.nbytes for b in waiting) >= BYTES_PER_GROUP:
                writer.write_table(pa.Table.from_batches(waiting))
                waiting = []
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting))
    return count


def _columns(block: Block, renderer: Renderer) -> Iterator[list[Any]]:
    rows = range(len(block))
    schemas = [block.schemas[i] for i in block.schema]
    transactions = [block.transactions[i] for i in block.transaction]
    yield list(block.offsets)
    yield [lsn_text(lsn) for lsn in block.lsn]
    yield [lsn_text(t.commit_lsn) for t in transactions]
    yield [t.commit_us for t in transactions]
    yield [t.xid or None for t in transactions]
    yield [chr(op) for op in block.op]
    yield ["" if s.kind == "message" else str(s.table) for s in schemas]
    yield [s.destination for s in schemas]
    yield [block.marker_of(row) != "false" for row in rows]
    befores, afters = block.befores, block.afters
    if any(schema.kind == "record" for schema in block.schemas):
        found = [renderer.images(block, row) for row in rows]
        befores, afters = [images.before for images in found], [images.after for images in found]
    for column in (block.keys, befores, afters):
        yield [None if text is None else text.decode() for text in column]
