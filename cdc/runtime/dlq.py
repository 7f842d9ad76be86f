"""What commands and the REST API do with dead letters: look, ask for them again, drop them.

``POST /connectors/{connector}/dlq`` has the names of ``cdc dlq``: ``{"action": "replay",
"ids": [1, 2], "stale": false}``; without ``ids`` all letters. The answer counts the letters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, Final

from cdc.errors import CdcError, ConfigError
from cdc.runtime import plugins
from cdc.runtime.connector import Refused
from cdc.runtime.deadletters import DeadLetters, Letter
from cdc.runtime.state import DataDir
from cdc.runtime.worker import Worker

ACTIONS: Final = ("replay", "drop")
FIELDS: Final = ("action", "ids", "stale")


def read(data: DataDir, name: str, ids: list[int] | None = None) -> Iterator[Letter]:
    """A sink's letters in the journal's order. Raises ConfigError for one that is not there."""
    with _opened(data, name) as store:
        found = _find(store, name, ids)
        if store is not None:
            yield from store.letters(found)


@contextmanager
def _opened(data: DataDir, name: str) -> Iterator[DeadLetters | None]:
    """None for a sink that never ran."""
    path = data.sink(name)
    if not path.exists():
        yield None
        return
    with closing(DeadLetters(path)) as store:
        yield store


def _find(store: DeadLetters | None, name: str, ids: list[int] | None) -> list[int]:
    found = [] if store is None else store.find(ids)
    missing = set(ids or ()).difference(found)
    if missing:
        raise ConfigError(
            f"{name} has no dead letter {min(missing)}", remedy=f"cdc dlq {name} list names them"
        )
    return found


def change(data: DataDir, name: str, body: Any, config: Mapping[str, str]) -> dict[str, Any]:
    """Ask for letters again, or drop them; how many. Raises ConfigError. Reads none of them."""
    action, ids, stale = _request(body)
    with _opened(data, name) as store:
        if not _find(store, name, ids) or store is None:
            return {"connector": name, "action": action, "letters": 0}
        if action == "replay":
            _check_replay(name, config)
        count = store.ask(ids, stale=stale) if action == "replay" else store.drop(ids)
    return {"connector": name, "action": action, "letters": count}


def _check_replay(name: str, config: Mapping[str, str]) -> None:
    if not config.get("errors.deadletterqueue.topic.name"):
        raise ConfigError(
            f"{name} has dead letters, but no queue of them any more",
            key="errors.deadletterqueue.topic.name",
            remedy="Set it again: a letter that fails once more needs its place",
        )
    reason = plugins.find(config.get("connector.class", "")).load().no_redelivery
    if reason:
        raise ConfigError(
            f"the dead letters of {name} cannot be put again: {reason}",
            remedy="Replay the sink from the first of their offsets (cdc replay)",
        )


def answer(worker: Worker, name: str, body: Any) -> dict[str, Any]:
    """The same through a running worker, whose task then puts them. Raises Refused."""
    sink = worker.sink(name)
    try:
        found = change(worker.data, name, body, sink.config)
    except CdcError as error:
        raise Refused(400, str(error)) from error
    with worker.lock:
        process = worker.connector(name).task.process
        if process is not None and found["action"] == "replay":
            process.tell({"c": "redeliver"})
    return found | {"running": process is not None}


def _request(body: Any) -> tuple[str, list[int] | None, bool]:
    if not isinstance(body, Mapping):
        raise ConfigError("an object is expected", remedy=f"Its fields: {', '.join(FIELDS)}")
    for name in body:
        if name not in FIELDS:
            raise ConfigError(f"unknown field {name}", remedy=f"There are: {', '.join(FIELDS)}")
    action, ids, stale = body.get("action"), body.get("ids"), body.get("stale") or False
    if action not in ACTIONS:
        raise ConfigError("it is replay or drop", key="action")
    if ids is not None and not (isinstance(ids, list) and all(type(i) is int for i in ids)):
        raise ConfigError("a list of numbers is expected", key="ids")
    if not isinstance(stale, bool):
        raise ConfigError("it is true or false", key="stale")
    return str(action), ids, stale
