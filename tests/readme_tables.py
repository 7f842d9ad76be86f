"""The README's configuration tables, from the declarations: ``python -m tests.readme_tables``.

Writes them into README.md in place; ``tests/test_readme.py`` checks that they are current.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import sinks.audit
import sinks.console
import sinks.file
import sinks.search
import sinks.sql_config
from cdc.cli.plugins import every
from cdc.config import ConfigDef, Key, to_text
from cdc.connectors import SINK_CONFIG, SOURCE_CONFIG
from cdc.converters.json import JsonConverter
from cdc.converters.string import StringConverter
from cdc.log.config import JOURNAL_CONFIG
from cdc.postgres.config import CONFIG as POSTGRES
from cdc.runtime.config import WORKER_CONFIG

README = Path(__file__).resolve().parent.parent / "README.md"
START, END = "<!-- configuration tables -->", "<!-- end of tables -->"

TABLES: dict[str, ConfigDef] = {
    "PostgreSQL source": POSTGRES,
    "Journal (in the source's configuration)": JOURNAL_CONFIG,
    "SQL sink": sinks.sql_config.CONFIG,
    "Audit sink": sinks.audit.CONFIG,
    "Search sink": sinks.search.CONFIG,
    "File sink": sinks.file.CONFIG,
    "Console sink": sinks.console.CONFIG,
    "JSON converter": JsonConverter.CONFIG,
    "String converter": StringConverter.CONFIG,
    **{
        f"{plugin.name} ({plugin.type})": plugin.definition()
        for plugin in every()
        if plugin.type in ("transformation", "predicate")
    },
    "Every source": SOURCE_CONFIG,
    "Every sink": SINK_CONFIG,
    "Worker": WORKER_CONFIG,
}


def render() -> str:
    """All tables, as they stand in the README."""
    return "\n".join(
        line for title, keys in TABLES.items() for line in section(title, keys.keys.values())
    )


def section(title: str, keys: Iterable[Key]) -> Iterator[str]:
    """One plugin: used keys as a table, refused ones with their reasons, inert ones listed."""
    keys = list(keys)
    yield f"<details><summary>{title}</summary>\n"
    yield "| key | default | meaning |\n|---|---|---|"
    for key in keys:
        if key.effect == "used":
            yield f"| `{key.name}` | {default(key)} | {cell(key.doc)} |"
    refused = [key for key in keys if key.effect == "refused"]
    if refused:
        yield "\nRefused, unless left at their defaults:\n"
        yield from (f"* `{key.name}`: {key.note}" for key in refused)
    inert = ", ".join(f"`{key.name}`" for key in keys if key.effect == "inert")
    if inert:
        yield f"\nAccepted without effect: {inert}."
    yield "\n</details>\n"


def default(key: Key) -> str:
    """The default as a table cell."""
    if key.required:
        return "**required**"
    text = to_text(key.default, key)
    return f"`{cell(text)}`" if text else "–"


def cell(text: str) -> str:
    """Text that does not end a table's cell."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def updated(readme: str) -> str:
    """The README with current tables between its markers."""
    head, _, rest = readme.partition(START)
    tail = rest.partition(END)[2]
    return f"{head}{START}\n\n{render()}\n{END}{tail}"


if __name__ == "__main__":
    README.write_text(updated(README.read_text()))
