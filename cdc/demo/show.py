"""What the demo prints: steps, progress, one line per event, tables.

On a terminal with colours and bars; elsewhere (a CI's log) plain lines without control codes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH: Final = 110
PLAIN_EVERY_S: Final = 1.0
VALUE_LENGTH_MAX: Final = 26
SAMPLE_LENGTH_MAX: Final = 60
COLUMNS_SHOWN: Final = 3  # of a row that was not sent whole
UNCHANGED: Final = "__debezium_unavailable_value"
DAYS: Final = ("born", "ship_on")  # the shop's dates, which events hold as days since 1970
EPOCH: Final = date(1970, 1, 1).toordinal()

# operation → (word, colour)
OPERATIONS: Final = {
    "r": ("read", "bright_black"),
    "c": ("create", "green"),
    "u": ("update", "yellow"),
    "d": ("delete", "red"),
    "t": ("truncate", "magenta"),
}


class Show:
    """Where the demo prints to."""

    def __init__(self, console: Console | None = None) -> None:
        console = console or Console(highlight=False, emoji=False)
        if not console.is_terminal:
            console = Console(
                file=console.file, highlight=False, emoji=False, width=PLAIN_WIDTH,
                no_color=True, force_terminal=False,
            )  # fmt: skip
        self.console = console
        self._began = time.monotonic()
        self._steps = 0

    @property
    def lively(self) -> bool:
        """Whether somebody watches a terminal."""
        return self.console.is_terminal

    @property
    def seconds(self) -> float:
        """Since the demo began."""
        return time.monotonic() - self._began

    def step(self, title: str) -> None:
        """A new part of the story."""
        self._steps += 1
        text = Text.assemble(
            (f"\n{self._steps}  {title}", "bold"), (f"   {self.seconds:.1f} s", "bright_black")
        )
        self.console.print(text)

    def say(self, text: str, style: str = "") -> None:
        """A line of it."""
        self.console.print(Text(f"   {text}", style=style), soft_wrap=True)

    def command(self, text: str) -> None:
        """Something one could type."""
        self.console.print(Text.assemble("   ", ("$ ", "bright_black"), (text, "cyan")),
                           soft_wrap=True)  # fmt: skip

    def output(self, lines: Sequence[str], most: int) -> None:
        """The first lines of what a command printed, each cut to the screen's width."""
        for line in lines[:most]:
            text = Text(f"   {line}")
            text.truncate(self.console.width, overflow="ellipsis")
            self.console.print(text, no_wrap=True)
        if len(lines) > most:
            self.say(f"… and {len(lines) - most:,} lines more", "bright_black")

    def event(self, record: Mapping[str, Any], *, values: bool = True) -> None:
        """One event on one line, cut to the screen's width; without values: names only."""
        line = event_line(record, values=values)
        line.truncate(self.console.width, overflow="ellipsis")
        self.console.print(line, no_wrap=True)

    def sample(self, record: Mapping[str, Any]) -> None:
        """One event as it is, long texts cut."""
        value = shortened(record["value"])
        shown = {"topic": record["topic"], "key": record["key"], "value": value}
        text = json.dumps(shown, ensure_ascii=False, separators=(", ", ": "))
        for part in ("value", "after", "source", "op"):
            text = text.replace(f' "{part}": ', f'\n     "{part}": ', 1)
        self.console.print(Text(f"   {text}", style="bright_black"), soft_wrap=True)

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Texts in columns; all but the first are numbers."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=any(heads),
                      header_style="bright_black")  # fmt: skip
        for number, head in enumerate(heads):
            table.add_column(head, justify="right" if number else "left", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        self.console.print(Padding(table, (0, 0, 0, 3), expand=False))

    @contextmanager
    def progress(self, bars: Mapping[str, int]) -> Iterator[Callable[[str, float], None]]:
        """A bar per name; the caller tells how far each is."""
        if not self.lively:
            yield _PlainProgress(self, bars)
            return
        columns = (
            TextColumn("   {task.description:<18}"), BarColumn(bar_width=36), TaskProgressColumn(),
            TextColumn("{task.completed:>9,.0f} of {task.total:,.0f} rows"), TimeElapsedColumn(),
        )  # fmt: skip
        with Progress(*columns, console=self.console) as progress:
            ids = {name: progress.add_task(name, total=total) for name, total in bars.items()}
            yield lambda name, done: progress.update(ids[name], completed=done)

    @contextmanager
    def status(self) -> Iterator[Callable[[str], object]]:
        """A last line that changes, on a terminal."""
        if not self.lively:
            yield str
            return
        with self.console.status("") as status:
            yield lambda text: status.update(Text(text, style="cyan"))


class _PlainProgress:
    def __init__(self, show: Show, bars: Mapping[str, int]) -> None:
        self._show, self._bars = show, bars
        self._said: dict[str, tuple[float, float]] = {}

    def __call__(self, name: str, done: float) -> None:
        said, at = self._said.get(name, (0.0, 0.0))
        now, total = time.monotonic(), self._bars[name]
        complete = done >= total
        if done > said and (complete or now - at >= PLAIN_EVERY_S):
            self._said[name] = done, now
            self._show.say(f"{name}: {done:,.0f} of {total:,} rows")


# --- events -------------------------------------------------------------------------------


def event_line(record: Mapping[str, Any], *, values: bool = True) -> Text:
    """Time, operation, table, key, changed columns."""
    value = record["value"]
    word, colour = OPERATIONS.get(value["op"], (value["op"], ""))
    at = datetime.fromtimestamp(value["source"]["ts_us"] / 1e6, tz=UTC)
    key = " ".join(f"{name}={part}" for name, part in (record["key"] or {}).items())
    shown = f"{key:<22} {changes(value, set(record['key'] or ()))}"
    return Text.assemble(
        (f"   {at:%H:%M:%S.%f}"[:-3], "bright_black"),
        (f"  {word:<7}", colour),
        (f"{value['source']['table']:<12} ", "bold"),
        shown if values else f"{', '.join(value['after'] or value['before'] or ())}",
    )


def changes(value: Mapping[str, Any], key: set[str]) -> str:
    """What an event's row image tells, in few words."""
    before, after = value["before"], value["after"]
    if after is None:
        return _pairs(before or {}, key)
    if value["op"] == "u" and before:
        return ", ".join(
            f"{name}: {_short(name, before.get(name))} → {_short(name, new)}"
            for name, new in after.items()
            if before.get(name) != new
        )
    not_sent = [name for name, new in after.items() if new == UNCHANGED]
    if not_sent:
        few = dict(list(after.items())[:COLUMNS_SHOWN])
        return f"{_pairs(few, key)} …   unchanged, not sent: {', '.join(not_sent)}"
    return _pairs(after, key)


def _pairs(image: Mapping[str, Any], key: set[str]) -> str:
    shown = [(name, value) for name, value in image.items() if value is not None]
    return ", ".join(f"{name}={_short(name, value)}" for name, value in shown if name not in key)


def _short(name: str, value: Any) -> str:
    if value is None:
        return "NULL"
    if name in DAYS and isinstance(value, int):
        return date.fromordinal(EPOCH + value).isoformat()
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= VALUE_LENGTH_MAX else f"{text[: VALUE_LENGTH_MAX - 1]}…"


def shortened(value: Any) -> Any:
    """The same with long texts cut."""
    if isinstance(value, dict):
        return {name: shortened(part) for name, part in value.items()}
    if isinstance(value, str) and len(value) > SAMPLE_LENGTH_MAX:
        return f"{value[:SAMPLE_LENGTH_MAX]}…"
    return value


class Tail:
    """New lines of a growing file of JSON records, from its end on."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._file.seek(0, 2)
        self._rest = b""

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def lines(self) -> list[bytes]:
        """What has come, whole lines, without tombstones."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        return [line for line in lines if b'"value":null' not in line]


def by_operation(lines: Iterable[bytes]) -> list[list[bytes]]:
    """Lines of records, sorted by operation: so that the rare ones are shown too."""
    marks = [f'"op":"{letter}"'.encode() for letter in OPERATIONS]
    groups = [[line for line in lines if mark in line] for mark in marks]
    return [group for group in groups if group]
