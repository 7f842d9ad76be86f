"""What a transform and a predicate are: Connect's ``Transformation`` and ``Predicate``.

A transform that depends on little says so by a further method, so that whole Blocks pass it
without becoming Records: :class:`Routing` by the topic alone, :class:`HeaderEditing` on the
headers alone, :class:`TopicPredicate` decided by the topic alone.
"""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

from cdc.config import Config, ConfigDef
from cdc.record import Header, Record


class Transform(Protocol):
    """Made once from its options; then called for every record, from one thread."""

    CONFIG: ClassVar[ConfigDef]

    def __init__(self, config: Config) -> None: ...

    def apply(self, record: Record) -> Record | None:
        """The changed record, or None: it is dropped. Raises what it cannot do."""


class Predicate(Protocol):
    """A question about a record, for the transforms that name it."""

    CONFIG: ClassVar[ConfigDef]

    def __init__(self, config: Config) -> None: ...

    def test(self, record: Record) -> bool:
        """Whether it holds for this record."""


@runtime_checkable
class Routing(Protocol):
    """A transform that changes nothing but the topic, and looks at nothing else."""

    def route(self, topic: str) -> str:
        """The new topic."""


@runtime_checkable
class HeaderEditing(Protocol):
    """A transform that changes nothing but the headers, and looks at nothing else."""

    def edit_headers(self, headers: tuple[Header, ...]) -> tuple[Header, ...]:
        """The new headers."""


@runtime_checkable
class TopicPredicate(Protocol):
    """A predicate that looks at nothing but the topic."""

    def test_topic(self, topic: str) -> bool:
        """Whether it holds for every record of this topic."""
