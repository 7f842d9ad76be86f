"""What Kafka Connect itself knows of a connector: its common keys, and its converters'."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from cdc import javaregex
from cdc.config import REQUIRED, Check, ConfigDef, Key, Kind, at_least, grouped, inert
from cdc.config import java_regexes as regex
from cdc.converters.factory import make_converter, make_header_converter
from cdc.errors import ConfigError

BOOLEAN, CLASS, INT, LIST = Kind.BOOLEAN, Kind.CLASS, Kind.INT, Kind.LIST
LONG, SHORT, STRING = Kind.LONG, Kind.SHORT, Kind.STRING


def _name(value: Any) -> str | None:
    controls = [str(ord(c)) for c in value if ord(c) < 32 or 127 <= ord(c) < 160]
    said = "String may not contain control sequences but had the following ASCII chars: "
    return said + ", ".join(controls) if controls else None


def _aliases(value: Any) -> str | None:
    return None if len(set(value)) == len(value) else "Duplicate alias provided."


def converter(value: Any) -> str | None:
    """Whether ``key.converter`` or ``value.converter`` names one that there is."""
    return _converter_problem(value, make_converter)


def header_converter(value: Any) -> str | None:
    """The same for ``header.converter``, which may also name one for headers only."""
    return _converter_problem(value, make_header_converter)


def _converter_problem(value: Any, make: Callable[[str, dict[str, str]], object]) -> str | None:
    try:
        if value:
            make(value, {})
    except ConfigError as error:
        if error.problem.startswith("Failed to find"):
            return error.problem
        return f"{error.problem.rpartition(': ')[2]}. {error.remedy}"
    return None


KAFKA_ONLY: Final = "It belongs to Kafka clients; the log here is the journal."

COMMON_KEYS: Final = (
    Key("name", STRING, REQUIRED, "The connector's name.", "HIGH", validator=_name),
    Key("connector.class", STRING, REQUIRED, "Short name or Java class.", "HIGH"),
    inert("connector.plugin.version", STRING, None, "Version of the plugin."),
    inert(
        "tasks.max",
        INT,
        1,
        "Most tasks.",
        "A connector has one task, since order is total.",
        importance="HIGH",
        validator=at_least(1),
    ),
    inert("tasks.max.enforce", BOOLEAN, True, "Whether more tasks are an error.", importance="LOW"),
    *(
        key
        for part in ("key", "value")
        for key in (
            Key(
                f"{part}.converter",
                CLASS,
                None,
                "What writes bytes (console, file, cdc capture); the worker's where not set.",
                "LOW",
                validator=converter,
            ),
            inert(f"{part}.converter.plugin.version", STRING, None, "Version of the converter.",
                  importance="LOW"),
            Key(
                f"{part}.converter.*",
                STRING,
                None,
                f"An option of {part}.converter.",
                "LOW",
                pattern=rf"{part}\.converter\..+",
            ),
        )
    ),
    Key("header.converter", CLASS, None, "What writes headers (console, file, cdc capture);"
        " JSON where neither the connector nor the worker names one.", "LOW",
        validator=header_converter),
    inert("header.converter.plugin.version", STRING, None, "Version of the converter.",
          importance="LOW"),
    Key("header.converter.*", STRING, None, "An option of header.converter.", "LOW",
        pattern=r"header\.converter\..+"),
)  # fmt: skip

TRANSFORM_KEYS: Final = (
    Key("transforms", LIST, (), "Aliases of the transforms, in the order they are applied in.",
        "LOW", validator=_aliases),
    Key("transforms.*", STRING, None, "A transform: transforms.<alias>.type, its options, and "
        "predicate and negate.", "LOW", pattern=r"transforms\..+"),
    Key("predicates", LIST, (), "Aliases of the predicates that transforms name.",
        "LOW", validator=_aliases),
    Key("predicates.*", STRING, None, "A predicate: predicates.<alias>.type and its options.",
        "LOW", pattern=r"predicates\..+"),
)  # fmt: skip

ERROR_KEYS: Final = (
    Key("errors.retry.timeout", LONG, 0, "How long a failed operation on one record is tried "
        "again, in ms; 0 not at all, -1 without end.", validator=at_least(-1)),
    Key("errors.retry.delay.max.ms", LONG, 60000, "Longest wait between two attempts, in ms: it "
        "begins at 300 and doubles.", validator=at_least(0)),
    Key("errors.tolerance", STRING, "none", "Whether a bad record stops the task (none) or is "
        "left out (all).", choices=("none", "all")),
    Key("errors.log.enable", BOOLEAN, False, "Whether every bad record is logged, with its "
        "error."),
    Key("errors.log.include.messages", BOOLEAN, False, "Whether the log says which record it was; "
        "of a source also key and value. Errors then quote values, in the status too."),
)  # fmt: skip

SINK_KEYS: Final = (
    Key("topics", LIST, (), "Topics to take.", "HIGH"),
    Key("topics.regex", STRING, "", "Topics to take: a whole name must match.", "HIGH",
        validator=regex),
    Key("errors.deadletterqueue.topic.name", STRING, "", "Turns dead letters on: records that "
        "cannot be delivered are kept, under this name, in the sink's own store (cdc dlq)."),
    inert("errors.deadletterqueue.topic.replication.factor", SHORT, 3, "Replicas.", KAFKA_ONLY),
    Key("errors.deadletterqueue.context.headers.enable", BOOLEAN, False, "Whether what happened "
        "counts among a dead letter's headers (__connect.errors.*); it is kept in any case."),
    Key(
        "start.from",
        STRING,
        None,
        "Where a new sink starts: at the oldest record (earliest), at the newest snapshot, or "
        "with what comes next (latest). Not set: at the beginning, or an error once that is gone.",
        choices=("earliest", "snapshot", "latest"),
    ),
    Key("source", LIST, (), "Names of the sources to read; not set: every source that fits."),
)  # fmt: skip

SOURCE_KEYS: Final = (
    inert("topic.creation.groups", LIST, (), "Groups of topics.", KAFKA_ONLY, validator=_aliases,
          importance="LOW"),
    inert("topic.creation.*", STRING, None, "Their options.", pattern=r"topic\.creation\..+"),
    inert(
        "topic.creation.enable", BOOLEAN, True, "Whether topics are created.", importance="LOW"
    ),
    inert("exactly.once.support", STRING, "requested", "The journal is always exactly once.",
          choices=("requested", "required")),
    inert("transaction.boundary", STRING, "poll", "A block is stored in one transaction.",
          choices=("poll", "interval", "connector")),
    inert("transaction.boundary.interval.ms", LONG, None, "Time between transactions.",
          importance="LOW"),
    inert("offsets.storage.topic", STRING, None, "Topic of offsets.", KAFKA_ONLY,
          importance="LOW"),
)  # fmt: skip

CLIENT_KEYS: Final = tuple(
    inert(f"{client}.override.*", STRING, None, f"Options of the {client}.", KAFKA_ONLY,
          pattern=rf"{client}\.override\..+")
    for client in ("producer", "consumer", "admin")
)  # fmt: skip

RELOAD: Final = inert("config.action.reload", STRING, "restart", "When a provider's value changes.",
                      choices=("none", "restart"), importance="LOW")  # fmt: skip


def _topics(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    topics, pattern = values.get("topics"), values.get("topics.regex")
    problem = ""
    if topics and pattern:
        problem = "topics and topics.regex are mutually exclusive options, but both are set."
    elif not topics and not pattern:
        problem = "Must configure one of topics or topics.regex"
    if problem:  # on both keys, as in Connect, which counts it twice
        yield "topics", problem
        yield "topics.regex", problem


def _converters(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The options of each converter, as that converter understands them."""
    for part in ("key", "value", "header"):
        key = f"{part}.converter"
        options = {
            name.removeprefix(f"{key}."): str(text)
            for name, text in values.items()
            if name.startswith(f"{key}.") and text is not None and not name.endswith("*")
        }
        make = make_header_converter if part == "header" else make_converter
        try:
            if options:
                make(values.get(key) or "json", options, key)
        except ConfigError as error:
            yield error.key or key, error.problem


def _dead_letters(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    name = values.get("errors.deadletterqueue.topic.name")
    topics, pattern = values.get("topics") or (), values.get("topics.regex")
    start, end = f"The DLQ topic '{name}' may not be", "consumed by the connector"
    if name and name in topics:
        shown = f"('topics=[{', '.join(topics)}]')"
        yield "topics", f"{start} included in the list of topics {shown} {end}"
    if name and pattern and javaregex.compile(pattern).matches(name):
        shown = f"('topics.regex={pattern}')"
        yield "topics.regex", f"{start} matched by the regex for the topics {shown} {end}"


# Where a user interface shows the keys that are Connect's, and what it calls them: group, order,
# width and display name, as Connect 4.3 declares them.
_SHOWN: Final[Mapping[str, tuple[str, int, str, str]]] = {
    "name": ("Common", 1, "MEDIUM", "Connector name"),
    "connector.class": ("Common", 2, "LONG", "Connector class"),
    "connector.plugin.version": ("Common", 3, "MEDIUM", "Connector version"),
    "tasks.max": ("Common", 4, "SHORT", "Tasks max"),
    "tasks.max.enforce": ("Common", 5, "SHORT", "Enforce tasks max"),
    "key.converter": ("Common", 6, "SHORT", "Key converter class"),
    "key.converter.plugin.version": ("Common", 7, "SHORT", "Key converter version"),
    "value.converter": ("Common", 8, "SHORT", "Value converter class"),
    "value.converter.plugin.version": ("Common", 9, "SHORT", "Value converter version"),
    "header.converter": ("Common", 10, "SHORT", "Header converter class"),
    "header.converter.plugin.version": ("Common", 11, "SHORT", "Header converter version"),
    "transforms": ("Transforms", 12, "LONG", "Transforms"),
    "predicates": ("Predicates", 13, "LONG", "Predicates"),
    "config.action.reload": ("Common", 14, "MEDIUM", "Reload Action"),
    "topics": ("Common", 4, "LONG", "Topics"),
    "topics.regex": ("Common", 4, "LONG", "Topics regex"),
    "errors.retry.timeout": ("Error Handling", 1, "MEDIUM", "Retry Timeout for Errors"),
    "errors.retry.delay.max.ms":
        ("Error Handling", 2, "MEDIUM", "Maximum Delay Between Retries for Errors"),
    "errors.tolerance": ("Error Handling", 3, "SHORT", "Error Tolerance"),
    "errors.log.enable": ("Error Handling", 4, "SHORT", "Log Errors"),
    "errors.log.include.messages": ("Error Handling", 5, "SHORT", "Log Error Details"),
    "errors.deadletterqueue.topic.name":
        ("Error Handling", 6, "MEDIUM", "Dead Letter Queue Topic Name"),
    "errors.deadletterqueue.topic.replication.factor":
        ("Error Handling", 7, "MEDIUM", "Dead Letter Queue Topic Replication Factor"),
    "errors.deadletterqueue.context.headers.enable":
        ("Error Handling", 8, "MEDIUM", "Enable Error Context Headers"),
    "topic.creation.groups": ("Topic Creation", 1, "LONG", "Topic Creation Groups"),
    "exactly.once.support": ("Exactly Once Support", 2, "SHORT", "Exactly once support"),
    "transaction.boundary": ("Exactly Once Support", 3, "SHORT", "Transaction Boundary"),
    "transaction.boundary.interval.ms":
        ("Exactly Once Support", 4, "SHORT", "Transaction boundary interval"),
    "offsets.storage.topic": ("offsets.topic", 1, "LONG", "Offsets topic"),
}  # fmt: skip
_OWN_FROM: Final = 15  # in their group, our own keys stand behind Connect's


def _shown(name: str, keys: Iterable[Key]) -> Iterator[Key]:
    """Connect's keys where Connect shows them, the others behind them in the group ``name``."""
    for order, key in enumerate(keys, _OWN_FROM):
        group, place, width, display_name = _SHOWN.get(key.name, (name, order, "", ""))
        found = replace(key, group=group, order=place)
        yield replace(found, width=width, display_name=display_name) if width else found


def _definition(special: Iterable[Key], checks: Iterable[Check] = ()) -> ConfigDef:
    return ConfigDef(
        (
            *_shown("Common", (*COMMON_KEYS, *special, RELOAD)),
            *_shown("Transforms", TRANSFORM_KEYS),
            *_shown("Error Handling", ERROR_KEYS),
            *grouped("Clients", CLIENT_KEYS),
        ),
        checks=checks,
    )


# A connector's whole declaration is one of these + its plugin's own CONFIG.
SOURCE_CONFIG: Final = _definition(SOURCE_KEYS, (_converters,))
SINK_CONFIG: Final = _definition(SINK_KEYS, (_topics, _dead_letters, _converters))
