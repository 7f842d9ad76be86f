from __future__ import annotations

import json
import signal
import time
from pathlib import Path

from tests.capture import golden
from tests.capture.commands import Running, is_streaming, left_behind, until
from tests.capture.oracle import differing
from tests.fix_postgres import Database


def test_every_event_is_what_debezium_made_of_the_same_statements(
    database: Database, tmp_path: Path
) -> None:
    golden.prepare(database.dsn)
    out = tmp_path / "out.jsonl"
    sets = [arg for k, v in golden.PROPERTIES.items() for arg in ("--set", f"{k}={v}")]
    with Running(database.dsn, "--output", out, *sets) as running:
        until(lambda: is_streaming(database) and len(golden.lines_of(out)) >= golden.SNAPSHOT_ROWS)
        with database.connect() as connection:
            for statements in golden.paragraphs():
                connection.execute(statements.encode())
                if golden.is_ddl(statements):
                    time.sleep(0.3)  # what was changed before is decoded by the catalogue of then
        until(lambda: "the last one" in out.read_text(encoding="utf-8"))
        assert running.end(signal.SIGTERM) == 0
    assert left_behind(database) == ["golden"]
    ours = golden.normalised(golden.lines_of(out))
    theirs = [json.loads(line) for line in golden.GOLDEN.read_text(encoding="utf-8").splitlines()]
    if database.server.major < 14:  # pgoutput sends no messages there
        theirs = [event for event in theirs if not event["topic"].endswith(".message")]
    differences = [
        f"{number} {a['topic']} {a['key']}: {path}: Debezium {x!r}, ours {y!r}"
        for number, (a, b) in enumerate(zip(theirs, ours, strict=False))
        for path, x, y in differing(a, b, "")
    ]
    assert differences == []
    assert len(ours) == len(theirs)
