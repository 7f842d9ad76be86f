"""Configuration declared once: keys, kinds, defaults, and what becomes of each.

A plugin declares a :class:`ConfigDef`, a list of :class:`Key`. The same declaration parses
what a user wrote, answers Connect's validation endpoint, fills the README's tables, and
says honestly what a key does here: ``used``, ``inert`` (tuning of the Java engine: accepted
and listed) or ``refused`` (ignoring it would change events or guarantees).

Texts of errors are Kafka Connect's where it has one, since tools and people know them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final

from cdc import javaregex
from cdc.errors import ConfigError
from cdc.secrets import HIDDEN, RawConfig, Secret, mask_url, show_name
from schemas.numbers import NumberFormat, parse_double, parse_integer, trimmed

__all__ = [
    "HIDDEN",
    "REQUIRED",
    "Check",
    "Config",
    "ConfigDef",
    "Key",
    "KeyResult",
    "Kind",
    "RawConfig",
    "Scalar",
    "Secret",
    "Validator",
    "as_text",
    "at_least",
    "between",
    "grouped",
    "inert",
    "java_regexes",
    "mask_url",
    "refused",
    "split_list",
    "split_regexes",
    "to_text",
]

Scalar = str | int | float | bool | None
# A check over one value: the reason why it cannot be, or None.
Validator = Callable[[Any], str | None]
# A check over several values: (key, whole text) of each problem. Missing values are None.
Check = Callable[[Mapping[str, Any]], Iterable[tuple[str, str]]]


class _Unfit(ValueError):
    """What a validator says of a value: it may quote a part of it."""


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Final = _Required()


class Kind(Enum):
    """Connect's ``ConfigDef.Type``."""

    STRING = "STRING"
    INT = "INT"
    LONG = "LONG"
    SHORT = "SHORT"
    DOUBLE = "DOUBLE"
    BOOLEAN = "BOOLEAN"
    LIST = "LIST"
    CLASS = "CLASS"
    PASSWORD = "PASSWORD"  # noqa: S105 - the name of a kind


def split_list(text: str) -> tuple[str, ...]:
    """Connect's LIST: commas cannot be escaped, an empty text is an empty list."""
    return tuple(re.split(r"\s*,\s*", text, flags=re.ASCII)) if text else ()


def split_regexes(text: str) -> tuple[str, ...]:
    r"""Debezium's lists of regular expressions: ``\,`` is a comma inside an expression."""
    parts = (part.strip() for part in re.findall(r"(?:\\.|[^,\\]|\\$)+", text))
    plain = (re.sub(r"\\(.)", lambda m: "," if m[1] == "," else m[0], part) for part in parts)
    return tuple(part for part in plain if part)


@dataclass(frozen=True)
class Key:
    """One configuration key.

    ``note`` is the reason of ``inert`` and ``refused``; ``refused_values`` gives a reason
    for single values of a key that is otherwise used. A key with ``pattern`` stands for the
    whole family of names that match it; its ``name`` is for the documentation. A required
    text must not be empty unless it ``may_be_empty``. ``recommender`` gives the values that a
    user interface offers; by default ``choices``. ``aliases`` are older names, ``synonyms`` not.
    """

    name: str
    kind: Kind = Kind.STRING
    default: Any = None
    doc: str = ""
    importance: str = "MEDIUM"
    group: str | None = None
    order: int = -1
    width: str = "NONE"
    display_name: str = ""
    choices: tuple[str, ...] = ()
    validator: Validator | None = None
    aliases: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()
    value_aliases: Mapping[str, str] = field(default_factory=dict)
    refused_values: Mapping[str, str] = field(default_factory=dict)
    effect: str = "used"
    note: str = ""
    pattern: str | None = None
    splitter: Callable[[str], tuple[str, ...]] = split_list
    may_be_empty: bool = False
    recommender: Callable[[], tuple[str, ...]] | None = None

    def __post_init__(self) -> None:
        if self.effect not in {"used", "inert", "refused"}:
            raise ValueError(f"{self.name}: unknown effect {self.effect!r}")
        if self.effect == "refused" and not self.note:
            raise ValueError(f"{self.name}: a refused key needs its reason")
        if not self.display_name:
            object.__setattr__(self, "display_name", self.name)

    @property
    def required(self) -> bool:
        """Whether it must be set."""
        return self.default is REQUIRED

    def parse(self, text: str) -> Any:
        """The typed value; ``ValueError`` with Connect's reason. Knows no defaults."""
        value = _parse_kind(self, trimmed(text))
        if self.choices:
            value = self._choose(value)
        if self.required and value == "" and not self.may_be_empty:
            raise ValueError("String must be non-empty")
        reason = self.validator(value) if self.validator else None
        if reason:
            raise _Unfit(reason)
        return value

    def _choose(self, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(self._choose(item) for item in value)
        if value == "" and self.default in (None, ""):
            return value
        wanted = str(value).lower()
        for refused, reason in self.refused_values.items():
            if wanted == refused.lower():
                raise ValueError(reason)
        for choice in self.choices:
            if wanted == choice.lower():
                return choice
        raise ValueError(f"String must be one of: {', '.join(self.choices)}")


_TEXTS = (Kind.STRING, Kind.LIST, Kind.CLASS)
_BITS = {Kind.SHORT: 16, Kind.INT: 32, Kind.LONG: 64}


def _parse_kind(key: Key, text: str) -> Any:
    kind = key.kind
    if kind in _BITS or kind is Kind.DOUBLE:
        try:  # as Java: no underscores, no exponent in a whole number, 1d is a double
            return parse_integer(text, _BITS[kind]) if kind in _BITS else parse_double(text)
        except NumberFormat:
            raise ValueError(f"Not a number of type {kind.value}") from None
    if kind is Kind.BOOLEAN:
        if text.lower() not in {"true", "false"}:
            raise ValueError("Expected value to be either true or false")
        return text.lower() == "true"
    if kind is Kind.LIST:
        return key.splitter(text)
    return Secret(text) if kind is Kind.PASSWORD else text


def at_least(minimum: int) -> Validator:
    """A number not below ``minimum``."""
    return lambda value: None if value >= minimum else f"Value must be at least {minimum}"


def between(minimum: int, maximum: int) -> Validator:
    """A number from ``minimum`` to ``maximum``."""

    def check(value: Any) -> str | None:
        if value < minimum:
            return f"Value must be at least {minimum}"
        return f"Value must be no more than {maximum}" if value > maximum else None

    return check


def java_regexes(value: Any) -> str | None:
    """A regular expression in Java's syntax, or a list of them: Connect's and Debezium's keys."""
    for expression in (value,) if isinstance(value, str) else value:
        try:
            javaregex.compile(expression)
        except ValueError as error:
            return f"{expression!r} is not a regular expression: {error}"
    return None


class Config(Mapping[str, Any]):
    """Typed values by key name, defaults filled in.

    ``raw`` is what was written; ``inert`` names the keys that were set and do nothing here.
    Lists are tuples, passwords are :class:`Secret`.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        raw: RawConfig,
        warnings: Iterable[str] = (),
        inert: Iterable[str] = (),
    ) -> None:
        self._values = dict(values)
        self.raw = raw
        self.warnings = list(warnings)
        self.inert = list(inert)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def subset(self, prefix: str) -> RawConfig:
        """The raw texts below ``prefix``, without it: what a nested plugin parses itself."""
        found = {n[len(prefix) :]: v for n, v in self.raw.items() if n.startswith(prefix)}
        hidden = {n[len(prefix) :] for n in self.raw.secrets if n.startswith(prefix)}
        return RawConfig(found, hidden)

    def safe(self) -> dict[str, str]:
        """What was written, for people and logs: no secret in it."""
        return self.raw.safe()

    def __repr__(self) -> str:
        return f"Config({self.safe()!r})"


@dataclass(frozen=True)
class KeyResult:
    """One key's row in the answer of Connect's validation endpoint. Secrets are hidden."""

    name: str
    value: str | None
    errors: list[str]
    warnings: list[str]
    recommended: list[str]
    visible: bool = True


def inert(name: str, kind: Kind, default: Any, doc: str, note: str = "", **more: Any) -> Key:
    """A key that is accepted and does nothing here; with a ``note``, setting it is a warning."""
    return Key(name, kind, default, doc, effect="inert", note=note, **more)


def refused(name: str, kind: Kind, default: Any, doc: str, note: str, **more: Any) -> Key:
    """A key that may only have its default, since ignoring another value would do harm."""
    return Key(name, kind, default, doc, effect="refused", note=note, **more)


def grouped(group: str, keys: Iterable[Key]) -> tuple[Key, ...]:
    """``keys`` as one group of Connect's validation answer, in their order."""
    return tuple(replace(key, group=group, order=n) for n, key in enumerate(keys, 1))


STRICT = Key(
    "config.strict", Kind.BOOLEAN, False,
    "Refuse keys that nobody knows, instead of warning about them.", importance="LOW",
)  # fmt: skip


class ConfigDef:
    """The keys a plugin understands, in the order they are shown."""

    def __init__(self, keys: Iterable[Key], *, checks: Iterable[Check] = ()) -> None:
        self.keys: dict[str, Key] = {}
        for key in (*keys, STRICT):
            self.keys.pop(key.name, None)  # a later declaration wins, in its later place
            self.keys[key.name] = key
        self.checks = tuple(dict.fromkeys(checks))
        self._patterns = [(re.compile(k.pattern), k) for k in self.keys.values() if k.pattern]
        self._aliases = {a: k for k in self.keys.values() for a in k.aliases + k.synonyms}

    def __add__(self, other: ConfigDef) -> ConfigDef:
        return ConfigDef(
            (*self.keys.values(), *other.keys.values()), checks=(*self.checks, *other.checks)
        )

    def find(self, name: str) -> Key | None:
        """The key that ``name`` means: its own, an older spelling's, or its family's."""
        key = self.keys.get(name)
        if key and not key.pattern:
            return key
        if name in self._aliases:
            return self._aliases[name]
        return next((key for regex, key in self._patterns if regex.fullmatch(name)), None)

    def nearest(self, name: str) -> str:
        """The known key that a misspelt one most likely means, or an empty text."""
        known = [*(k for k, key in self.keys.items() if not key.pattern), *self._aliases]
        return next(iter(difflib.get_close_matches(name, known, 1, 0.75)), "")

    def parse(
        self, raw: Mapping[str, Scalar], *, strict: bool = False, secrets: Collection[str] = ()
    ) -> Config:
        """Typed values, or one ConfigError that lists every problem, one per line.

        ``secrets`` names further keys whose values must not be shown: those that a config
        provider has filled in. A ``None`` counts as not set.
        """
        run = _Run(self, raw, strict, secrets)
        problems = [(name, text) for name, texts in run.errors.items() for text in texts]
        if problems:
            error = ConfigError("\n".join(dict.fromkeys(text for _, text in problems)))
            error.key = problems[0][0]
            raise error
        warnings = [text for texts in run.warnings.values() for text in texts]
        return Config(run.values, run.raw, warnings, run.inert)

    def validate(
        self, raw: Mapping[str, Scalar], *, secrets: Collection[str] = ()
    ) -> list[KeyResult]:
        """One result per declared key, then one per key of ``raw`` that has a warning or error."""
        run = _Run(self, raw, False, secrets)
        names = [name for name, key in self.keys.items() if not key.pattern]
        names += [n for n in (*run.values, *run.warnings, *run.errors) if n not in names]
        return [run.result(name) for name in dict.fromkeys(names)]


class _Run:
    """One pass of a declaration over what a user wrote."""

    def __init__(
        self,
        definition: ConfigDef,
        raw: Mapping[str, Scalar],
        strict: bool,
        secrets: Collection[str],
    ) -> None:
        self.definition = definition
        written = {name: as_text(value) for name, value in raw.items() if value is not None}
        keys = {name: definition.find(name) for name in written}
        passwords = {name for name, key in keys.items() if key and key.kind is Kind.PASSWORD}
        more = written.get("custom.sanitize.pattern")  # Debezium's way to name further secrets
        if more and not java_regexes(more):
            pattern = javaregex.compile(more, any_case=True)
            passwords |= {name for name in written if pattern.matches(name)}
        self.raw = RawConfig(written, passwords.union(secrets))
        # A Secret and a number are in no text; of these values an error could quote a part.
        texts = [name for name, key in keys.items() if key and key.kind in _TEXTS]
        self.quotable = {name for name in texts if self.raw.show(name) == HIDDEN}
        self.strict = strict or self.raw.get(STRICT.name, "").strip().lower() == "true"
        self.values: dict[str, Any] = {}
        self.errors: dict[str, list[str]] = {}
        self.warnings: dict[str, list[str]] = {}
        self.inert: list[str] = []
        self.invalid = False
        for name in self.raw:
            self._take(name)
        self._fill_defaults()
        if not self.invalid:  # a check over a value that is wrong would say it twice, or wrongly
            seen = {**dict.fromkeys(definition.keys), **self.values}
            for check in definition.checks:
                for name, text in check(seen):
                    self._error(name, self._without_secrets(name, text))

    def _take(self, name: str) -> None:
        key = self.definition.find(name)
        if key is None:
            self._unknown(name)
            return
        target = name if key.pattern and name not in key.aliases else key.name
        if target != name:
            if target in self.raw:
                self._warn(target, f"{name} is ignored, since {target} is set too")
                return
            if name not in key.synonyms:
                self._warn(target, f"{name} is an older name of {target}; use that")
        text = trimmed(self.raw[name])
        if newer := key.value_aliases.get(text.lower()):
            self._warn(target, f"{target}={text} is an older spelling of {newer}; use that")
            text = newer
        try:
            self.values[target] = value = key.parse(text)
        except ValueError as error:
            hide = isinstance(error, _Unfit) and name in self.quotable
            self._invalid(name, target, "" if hide else str(error))
            return
        if not _is_default(key, value):
            self._note_effect(name, target, key)

    def _note_effect(self, name: str, target: str, key: Key) -> None:
        if key.effect == "inert":
            self.inert.append(target)
            if key.note:
                self._warn(target, f"{show_name(target)} has no effect: {key.note}")
        elif key.effect == "refused":
            self._invalid(name, target, key.note)

    def _invalid(self, name: str, target: str, reason: str) -> None:
        self.invalid = True
        key, shown = self.definition.find(name), self.raw.show(name)
        if key and key.kind is Kind.LIST and shown != HIDDEN:  # as Java shows a list
            shown = f"[{', '.join(key.splitter(trimmed(shown)))}]"
        problem = f"Invalid value {shown} for configuration {show_name(target)}"
        self._error(target, f"{problem}: {reason}" if reason else problem)

    def _without_secrets(self, name: str, text: str) -> str:
        """What a check says: it may quote its key's value in part, others' as a whole."""
        values = (self.raw[key].strip() for key in self.quotable)
        if name not in self.quotable and not any(value and value in text for value in values):
            return text
        return f"Invalid value {HIDDEN} for configuration {show_name(name)}"

    def _unknown(self, name: str) -> None:
        nearest = self.definition.nearest(name)
        hint = f"; did you mean {nearest}?" if nearest else ""
        key = self.definition.find(nearest) if nearest else None
        needed = {key.name, *key.aliases, *key.synonyms} if key and key.required else set()
        if self.strict or (needed and needed.isdisjoint(self.raw)):  # why that one is missing
            self._error(name, f"Unknown configuration {show_name(name)}{hint}")
        else:
            self._warn(name, f"Unknown configuration {show_name(name)} is ignored{hint}")

    def _fill_defaults(self) -> None:
        for name, key in self.definition.keys.items():
            if key.pattern or name in self.values or name in self.errors:
                continue
            if key.required:
                text = f'Missing required configuration "{name}" which has no default value.'
                self._error(name, text)
            else:
                self.values[name] = _default(key)

    def _error(self, name: str, text: str) -> None:
        self.errors.setdefault(name, []).append(text)

    def _warn(self, name: str, text: str) -> None:
        self.warnings.setdefault(name, []).append(text)

    def result(self, name: str) -> KeyResult:
        key = self.definition.find(name)
        value = to_text(self.values.get(name), key)
        if value is None or (name in self.raw and self.raw.show(name) == HIDDEN):
            value = self.raw.show(name) if name in self.raw else None
        return KeyResult(
            show_name(name),
            value,
            list(self.errors.get(name, ())),
            list(self.warnings.get(name, ())),
            list(key.recommender() if key.recommender else key.choices) if key else [],
        )


def as_text(value: Scalar) -> str:
    """The text that Connect would have been given: JSON's true is ``true``."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def to_text(value: Any, key: Key | None = None) -> str | None:
    """A typed value as Connect shows it: lists joined, secrets hidden, None for nothing."""
    if value is None or (key and not key.default and value == ()):
        return None
    if isinstance(value, Secret) or (key and key.kind is Kind.PASSWORD):
        return HIDDEN
    if isinstance(value, tuple):
        return mask_url(",".join(str(item) for item in value))
    return mask_url(as_text(value))


def _default(key: Key) -> Any:
    if key.kind is Kind.LIST and not key.required:
        return tuple(key.default or ())
    if key.kind is Kind.PASSWORD and isinstance(key.default, str):
        return Secret(key.default)
    return key.default


def _is_default(key: Key, value: Any) -> bool:
    return bool(value == _default(key) or (value == "" and key.default is None))
