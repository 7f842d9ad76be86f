"""From a URL, properties and a file to one source's configuration.

A capture is configured with Debezium's property names. What beats what: ``--set``, then the
URL, then the file. Names of slot and publication are made up where none are given: of the
state's folder, so that the next start finds them again, or by chance for a capture that
leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cdc.aliases import find_converter
from cdc.config import Config, ConfigDef, Key
from cdc.configfile import read_file
from cdc.converters.contract import Converter
from cdc.converters.factory import make_converter, make_header_converter
from cdc.converters.lines import FORMATS, JsonLines
from cdc.errors import ConfigError
from cdc.postgres.config import CONFIG
from cdc.postgres.dsn import from_url
from cdc.runtime import plugins

SOURCE: Final = "postgres"
CONVERTER_KEYS: Final = ConfigDef(
    [
        Key(
            "converter.*",
            doc="The converter of keys and values, and its options: key.converter and"
            " value.converter, and their options, beat it.",
            pattern=r"converter(\..+)?",
        )
    ]
)


@dataclass(frozen=True)
class CaptureSettings:
    """One capture. ``source`` is for the task, ``whole`` has the converters' keys as well.

    ``temporary``: slot and publication live no longer than the capture.
    """

    source: Config
    whole: Config
    temporary: bool

    def lines(self, format_: str) -> JsonLines:
        """What renders events as lines. Raises ConfigError for a converter nobody knows."""
        if format_ not in FORMATS:
            raise ConfigError(f"unknown format {format_!r}", key="--format",
                              remedy=f"Use {' or '.join(FORMATS)}")  # fmt: skip
        key, value = (self._converter(part) for part in ("key", "value"))
        header, named = None, self.whole.raw.get("header.converter")
        if named:
            header = make_header_converter(named, self.whole.subset("header.converter."))
        tombstones = self.source["tombstones.on.delete"]
        return JsonLines(key, value, format_, header=header, tombstones=tombstones)

    def _converter(self, part: str) -> Converter:
        raw, key = self.whole.raw, f"{part}.converter"
        both = raw.get("converter") or "json"
        if not raw.get(key):
            key = "converter"
        name = raw.get(key) or both
        options = dict(self.whole.subset(f"{part}.converter."))
        found = find_converter(name, key).name
        if found == find_converter(both, "converter").name:
            options = self.whole.subset("converter.") | options
        if found == "json":
            options = {"schemas.enable": "false"} | options
        return make_converter(name, options, key)


def make_settings(
    url: str | None,
    properties: Mapping[str, str] | None = None,
    *,
    file: str | Path | None = None,
    password: str | None = None,
    state: Path | None = None,
) -> CaptureSettings:
    """Read and check everything. Raises ConfigError, which names each problem."""
    given = dict(properties or {})
    written = dict(read_file(Path(file)).config) if file is not None else {}
    if url is not None:
        written |= from_url(url, given)
    elif file is None and "database.hostname" not in given:
        raise ConfigError(
            "no database is named", remedy="Write cdc capture postgresql://user@host/db"
        )
    else:
        written |= given
    # whoever captures owns all that can be read here; a password given as such is none of these
    written, secrets = plugins.resolve(written, {})
    if password is not None:
        written["database.password"] = password
    _fill_in(written, state)
    plugin = plugins.find(written["connector.class"])
    if plugin.name != SOURCE:
        raise ConfigError(
            f"{written['connector.class']} is no source, and cannot be captured",
            remedy="Give the file of a PostgreSQL source, or postgresql://user@host/db",
        )
    definition = plugin.definition() + CONVERTER_KEYS
    _refuse_unknown(given, definition)
    whole = definition.parse(written, secrets=secrets)
    # the source's own process parses what it needs, and knows nothing of converters
    own = {name: text for name, text in whole.raw.items() if CONFIG.find(name)}
    return CaptureSettings(CONFIG.parse(own, secrets=secrets), whole, temporary=state is None)


def _fill_in(written: dict[str, str], state: Path | None) -> None:
    if state is None:
        name = f"cdc_capture_{uuid.uuid4().hex[:12]}"
    else:
        folder = str(state.resolve()).encode()
        name = f"cdc_capture_{hashlib.blake2b(folder, digest_size=6).hexdigest()}"
    database = written.get("database.dbname", "")
    defaults = {
        "name": "capture",
        "connector.class": SOURCE,
        "slot.name": name,
        "publication.name": name,
    }
    if "database.server.name" not in written:
        defaults["topic.prefix"] = re.sub(r"[^A-Za-z0-9._-]", "_", database)
    for key, text in defaults.items():
        written.setdefault(key, text)


def _refuse_unknown(given: Mapping[str, str], definition: ConfigDef) -> None:
    """What was typed for this very run is not ignored, unlike keys in a file."""
    unknown = [name for name in given if definition.find(name) is None]
    if unknown:
        near = ", ".join(filter(None, map(definition.nearest, unknown)))
        remedy = f"Did you mean {near}?" if near else "cdc plugins postgres lists what there is"
        raise ConfigError(f"unknown configuration {', '.join(unknown)}", remedy=remedy)


def parse_sets(pairs: Sequence[str]) -> dict[str, str]:
    """``key=value`` as written after ``--set``; the value may hold further equals signs."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            # not quoted: it may be the half of a secret
            raise ConfigError("not of the form key=value", key="--set",
                              remedy="Write --set table.include.list=public.orders")  # fmt: skip
        found[name.strip()] = value.strip()
    return found


def read_password(path: Path) -> str:
    """The first line of a file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigError(f"{path} cannot be read: {reason}", key="--password-file") from None
    return text.partition("\n")[0].rstrip("\r")


def as_texts(properties: Mapping[str, Any] | None) -> dict[str, str]:
    """Properties of a Python caller as Connect would have written them."""
    from cdc.config import as_text

    return {name: as_text(value) for name, value in (properties or {}).items()
            if value is not None}  # fmt: skip
