"""``cdc capture``: one source's events as JSON lines, without a worker and without a journal."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from cdc.capture.engine import LineTarget, Runner
from cdc.capture.output import STDOUT, Output, ReaderGone
from cdc.capture.settings import CaptureSettings, make_settings, parse_sets, read_password
from cdc.capture.state import CaptureState, StateFolder
from cdc.converters.lines import FORMATS
from cdc.durable import no_file
from cdc.errors import ConfigError
from cdc.postgres.dsn import warn_of_password

EXAMPLES = """\
examples:
  cdc capture postgresql://me@localhost/shop
  cdc capture postgresql://me@localhost/shop --until current --output shop.jsonl
  cdc capture postgresql://me@localhost/shop --state ./shop-state --output shop.jsonl
  cdc capture postgresql://me@localhost/shop --set table.include.list=public.orders --format value

Without --state everything is temporary: a replication slot and a publication with generated
names, gone at the end. With it, slot and publication stay, the server keeps the WAL until it
is written, and the next start goes on exactly behind the last line (on standard output: at
least once). There is no journal, so the stream waits until the snapshot is written.

--until current: what is committed now, then exit 0. SIGTERM and Ctrl-C end in order: what
was read is written and confirmed, and the exit code is 0; but 143 or 130 when --until was
not reached. A lost connection: with --state it is made again, else exit 1, naming the LSN.
"""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
JOIN_S = 0.2


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument(
        "url",
        metavar="URL",
        nargs="?",
        help="postgresql://user@host/database; a password in it is seen by others: PGPASSFILE",
    )
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="sets",
        help="a Debezium property, a converter's too; beats the URL; may be repeated",
    )  # fmt: skip
    parser.add_argument("--config", metavar="FILE", help="properties, JSON, YAML or TOML")
    parser.add_argument("--password-file", metavar="F", help="its first line is the password")
    parser.add_argument("--state", metavar="DIR", help="keep the position there, and go on")
    parser.add_argument("--output", metavar="FILE", default=STDOUT, help="- is standard output")
    parser.add_argument(
        "--format", choices=FORMATS, default=FORMATS[0],
        help="one object of topic, key, value and headers a line; or the value alone",
    )  # fmt: skip
    parser.add_argument(
        "--until", metavar="current|LSN", default="",
        help="end when all committed before that is written",
    )  # fmt: skip
    parser.epilog = EXAMPLES


def run(args: argparse.Namespace) -> int:
    """Capture until the end, a signal or an error."""
    logging.basicConfig(
        level=logging.INFO if args.verbose else logging.WARNING,
        format="%(levelname)s: %(message)s", stream=sys.stderr,
    )  # fmt: skip
    settings = _settings(args)
    lines = settings.lines(args.format)
    folder = StateFolder(Path(args.state)) if args.state else None
    try:
        stored = folder.load() if folder else CaptureState()
        output = open_output(args.output, stored, keep=folder is not None)
        try:
            target = LineTarget(lines, output, folder, stored)
            if folder is not None:
                target.begin()
            runner = Runner(settings, target, until=args.until, reconnect=folder is not None)
            return _run(runner, output, until=bool(args.until))
        finally:
            output.close()
    finally:
        if folder is not None:
            folder.close()


def _settings(args: argparse.Namespace) -> CaptureSettings:
    if args.until and args.until.lower() != "current":
        from cdc.postgres.linear import parse_until

        parse_until(args.until)
    warn_of_password(args.url, parse_sets(args.sets))
    password = read_password(Path(args.password_file)) if args.password_file else None
    settings = make_settings(
        args.url, parse_sets(args.sets), file=args.config, password=password,
        state=Path(args.state) if args.state else None,
    )  # fmt: skip
    for warning in settings.whole.warnings:
        logging.getLogger(__name__).warning("%s", warning)
    return settings


def open_output(target: str, stored: CaptureState, *, keep: bool) -> Output:
    """The output, cut to what the state covers when it is the same file as then."""
    if target == STDOUT:
        return Output(target)
    problem = no_file(target)
    if problem is not None:
        raise ConfigError(f"{target!r} cannot be written: {problem}", key="--output")
    path = str(Path(target).resolve())
    length = stored.output[1] if stored.output and stored.output[0] == path else None
    return Output(path, keep=keep, length=length)


def _run(runner: Runner, output: Output, *, until: bool) -> int:
    """In a thread, so that signals are heard whatever the source waits for."""
    received: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's shape
        received.append(number)
        if len(received) > 2:
            os._exit(128 + number)
        output.stopping.set()
        # the handler may have interrupted a holder of the locks that these take
        action = runner.stop if len(received) == 1 else runner.interrupt
        threading.Thread(target=action, daemon=True).start()

    before: dict[int, Any] = {s: signal.signal(s, end) for s in SIGNALS}
    try:
        thread = threading.Thread(target=runner.run, name="capture")
        thread.start()
        while thread.is_alive():
            thread.join(JOIN_S)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if isinstance(runner.error, ReaderGone):
        return 0
    if runner.error is not None:
        raise runner.error
    if received and until and not runner.finished:
        return 128 + received[0]
    return 0
