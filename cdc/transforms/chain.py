"""A connector's chain: ``transforms``, ``predicates`` and the options below their aliases.

Each alias is validated by one declaration: its type, its predicate, and the options of its
class, under their full names. Texts of errors are Connect's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from cdc.config import REQUIRED, STRICT, Check, ConfigDef, Key, KeyResult, Kind, inert, split_list
from cdc.errors import ConfigError
from cdc.record import Record
from cdc.secrets import HIDDEN, RawConfig, hide, show_name
from cdc.transforms import PREDICATES, TRANSFORMS, UnknownClass, find_predicate, find_transform
from cdc.transforms.contract import Predicate, Transform
from schemas.numbers import trimmed

log = logging.getLogger(__name__)

Problem = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Step:
    """One transform, and the predicate that decides whether a record gets it."""

    alias: str
    java_class: str
    transform: Transform
    predicate: Predicate | None = None
    negate: bool = False

    def apply(self, record: Record) -> Record | None:
        """The transformed record, or the record itself where the predicate says so.

        None: dropped, and the chain ends.
        """
        if self.predicate is None or self.predicate.test(record) is not self.negate:
            return self.transform.apply(record)
        return record


@dataclass(frozen=True, slots=True)
class GuardedStep(Step):
    """A step with options that config providers gave: what it raises does not quote them."""

    secrets: tuple[str, ...] = ()

    def apply(self, record: Record) -> Record | None:
        """As Step's; errors go on to logs, dead letters and traces."""
        try:
            return Step.apply(self, record)
        except Exception as error:
            hide(error, self.secrets)
            raise


def parse_chain(raw: RawConfig) -> tuple[Step, ...]:
    """The steps in their order. Raises ConfigError with every problem, one per line."""
    problems = validate_chain(raw)
    if problems:
        error = ConfigError("\n".join(dict.fromkeys(text for _, text in problems)))
        error.key = problems[0][0]
        raise error
    for result in chain_results(raw):
        for warning in result.warnings:
            log.warning("%s", warning)
    return tuple(_step(raw, alias) for alias in aliases(raw, "transforms"))


def validate_chain(raw: RawConfig) -> list[Problem]:
    """(key, text) of every problem."""
    return [(result.name, text) for result in chain_results(raw) for text in result.errors]


def chain_results(raw: RawConfig) -> list[KeyResult]:
    """What Connect's validation answers for the keys of transforms and predicates."""
    results = []
    for kind in ("transforms", "predicates"):
        found = aliases(raw, kind)
        shown = HIDDEN if kind in raw.secrets else f"[{', '.join(found)}]"
        if len(set(found)) != len(found):
            text = f"Invalid value {shown} for configuration {kind}: Duplicate alias provided."
            results.append(KeyResult(kind, raw.show(kind), [text], [], []))
        for alias in dict.fromkeys(found):
            prefix = f"{kind}.{alias}."
            own = _results(raw, prefix, definition(raw, kind, alias))
            if kind == "transforms":
                _check_negate(raw, prefix, own)
            if kind in raw.secrets:  # then its parts are in names of keys, but in no text
                own = [_renamed(result, prefix, f"{kind}.{HIDDEN}.") for result in own]
            results += own
        results += _unlisted(raw, kind, found)
    return results


def _unlisted(raw: RawConfig, kind: str, found: Sequence[str]) -> Iterator[KeyResult]:
    """Options of an alias that is not in the list, so that nothing would apply them."""
    strict = raw.get(STRICT.name, "").strip().lower() == "true"
    known = tuple(f"{kind}.{alias}." for alias in found)
    for name in raw:
        if not name.startswith(f"{kind}.") or name.startswith(known):
            continue
        alias = name.split(".")[1]
        near = [] if kind in raw.secrets else get_close_matches(alias, found, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        unknown, why = f"Unknown configuration {show_name(name)}", f"{kind} does not name {alias}"
        error, warning = f"{unknown}: {why}{hint}", f"{unknown} is ignored: {why}{hint}"
        told = ([error], []) if strict else ([], [warning])
        yield KeyResult(show_name(name), raw.show(name), *told, [])


def _renamed(result: KeyResult, prefix: str, shown: str) -> KeyResult:
    errors, warnings = (
        [text.replace(prefix, shown) for text in texts]
        for texts in (result.errors, result.warnings)
    )
    return replace(
        result, name=result.name.replace(prefix, shown, 1), errors=errors, warnings=warnings
    )


def aliases(raw: RawConfig, kind: str) -> tuple[str, ...]:
    """The aliases of ``transforms`` or ``predicates``, in their order."""
    return split_list(trimmed(raw.get(kind, "")))


def definition(raw: RawConfig, kind: str, alias: str) -> ConfigDef:
    """The keys of one alias under their full names: as far as its class is known."""
    prefix = f"{kind}.{alias}."
    transforms = kind == "transforms"
    find: Callable[[str], tuple[str, Any]] = find_transform if transforms else find_predicate
    own = _own_keys(prefix, find, TRANSFORMS if transforms else PREDICATES, transforms)
    checks = [_class_check(prefix, find)]
    if transforms:
        checks.append(_predicate_check(raw, prefix))
    try:
        options: ConfigDef = find(raw.get(prefix + "type", ""))[1].CONFIG
    except ValueError:
        options = ConfigDef(())
        own = own[:2]  # without a class there is nothing that a predicate could be for
    implied = {"type", "plugin.version", *(("predicate", "negate") if transforms else ())}
    keys = [k for name, k in options.keys.items() if name not in {*implied, STRICT.name}]
    group = f"{kind.capitalize()}: {alias}"
    whole = [*own, *(_below(prefix, k) for k in keys)]
    grouped = [replace(k, group=group, order=n) for n, k in enumerate(whole)]
    return _Embedded(prefix, grouped, (*checks, *(_full(prefix, c) for c in options.checks)))


def _below(prefix: str, key: Key) -> Key:
    older = tuple(prefix + name for name in key.aliases)
    return replace(key, name=prefix + key.name, display_name=key.name, aliases=older)


class _Embedded(ConfigDef):
    """A declaration below a prefix: what it knows is compared without the prefix."""

    def __init__(self, prefix: str, keys: Iterable[Key], checks: Iterable[Check]) -> None:
        super().__init__(keys, checks=checks)
        self._bare = ConfigDef(
            replace(
                k,
                name=k.name.removeprefix(prefix),
                aliases=tuple(older.removeprefix(prefix) for older in k.aliases),
            )
            for k in self.keys.values()
        )
        self._prefix = prefix

    def nearest(self, name: str) -> str:
        """The known key that a misspelt one most likely means, or an empty text."""
        found = self._bare.nearest(name.removeprefix(self._prefix))
        return found and self._prefix + found


def _own_keys(
    prefix: str, find: Callable[[str], Any], known: Mapping[str, str], transforms: bool
) -> list[Key]:
    """What every transform or predicate has, whatever its class."""

    def known_class(value: Any) -> str | None:
        try:
            find(value)
        except UnknownClass as error:
            return str(error)
        except ValueError:
            return None  # another text: the check's
        return None

    kind = "transformation" if transforms else "predicate"
    keys = [
        Key(
            prefix + "type",
            Kind.CLASS,
            REQUIRED,
            f"Class of the {kind}.",
            importance="HIGH",
            validator=known_class,
            may_be_empty=True,
            recommender=lambda: tuple(known),
            width="LONG",
        ),
        inert(
            prefix + "plugin.version",
            Kind.STRING,
            None,
            "Version of the plugin.",
            note="there is one version of each transform and predicate here",
        ),
    ]
    if transforms:
        keys += [
            Key(
                prefix + "predicate",
                Kind.STRING,
                None,
                "The alias of a predicate used to determine whether to apply this transformation.",
            ),
            Key(
                prefix + "negate",
                Kind.BOOLEAN,
                False,
                "Whether the configured predicate should be negated.",
            ),
        ]
    return keys


def _class_check(prefix: str, find: Callable[[str], Any]) -> Check:
    def check(values: Mapping[str, Any]) -> Iterator[Problem]:
        text = values[prefix + "type"]
        if text is not None:
            try:
                find(text)
            except ValueError as error:
                yield prefix + "type", str(error)

    return check


def _check_negate(raw: RawConfig, prefix: str, results: Iterable[KeyResult]) -> None:
    """Connect says it of the class, whatever else is wrong with that."""
    negate, named = prefix + "negate", prefix + "predicate"
    if negate in raw and named not in raw:
        provided = f"Config '{negate}' was provided but there is no config '{named}'"
        (of_class,) = (result for result in results if result.name == prefix + "type")
        of_class.errors.append(f"{provided} defining a predicate to be negated.")


def _predicate_check(raw: RawConfig, prefix: str) -> Check:
    named = prefix + "predicate"

    def check(values: Mapping[str, Any]) -> Iterator[Problem]:
        alias = values.get(named)
        if alias is not None and alias not in aliases(raw, "predicates"):
            yield named, f"Unknown configuration 'predicates.{alias}.type'"

    return check


def _full(prefix: str, check: Check) -> Check:
    """A class's own check, for the keys' full names."""

    def prefixed(values: Mapping[str, Any]) -> Iterator[Problem]:
        own = {name.removeprefix(prefix): value for name, value in values.items()}
        for name, text in check(own):
            full = text.replace(f"Configuration '{name}'", f"Configuration '{prefix}{name}'")
            yield prefix + name, full

    return prefixed


def _results(raw: RawConfig, prefix: str, keys: ConfigDef) -> list[KeyResult]:
    own = {name: text for name, text in raw.items() if name.startswith(prefix)}
    if STRICT.name in raw:
        own[STRICT.name] = raw[STRICT.name]
    found = keys.validate(own, secrets=raw.secrets)
    return [result for result in found if result.name != STRICT.name]


def _step(raw: RawConfig, alias: str) -> Step:
    prefix = f"transforms.{alias}."
    java_class, kind = find_transform(raw[prefix + "type"])
    options = _options(raw, prefix)
    named = options.pop("predicate", None)
    negate = options.pop("negate", "false").strip().lower() == "true"
    transform = kind(kind.CONFIG.parse(options))
    predicate, below = None, prefix
    if named is not None:
        below = f"predicates.{trimmed(named)}."
        asked = find_predicate(raw[below + "type"])[1]
        predicate = asked(asked.CONFIG.parse(_options(raw, below)))
    given = (raw[n] for n in raw if n in raw.secrets and n.startswith((prefix, below)))
    secrets = {part for text in given for part in (text, *split_list(trimmed(text))) if part}
    step = (alias, java_class, transform, predicate, negate and named is not None)
    return GuardedStep(*step, tuple(sorted(secrets, key=len)[::-1])) if secrets else Step(*step)


def _options(raw: RawConfig, prefix: str) -> dict[str, str]:
    found = {n.removeprefix(prefix): text for n, text in raw.items() if n.startswith(prefix)}
    return {name: text for name, text in found.items() if name not in ("type", "plugin.version")}
