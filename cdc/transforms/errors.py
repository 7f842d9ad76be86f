"""What a transform raises, and the Java class that users and tools know it by.

The texts are Connect's and the JDK's. :func:`java_name` gives the class name that stands in
a dead letter's ``__connect.errors.exception.class.name`` header.
"""

from __future__ import annotations

from collections.abc import Mapping

from cdc.errors import CdcError, ConfigError
from schemas import DataError, SchemaBuilderError, SchemaError

CONNECT = "org.apache.kafka.connect.errors."


class ConnectError(ValueError):
    """Connect's ConnectException: what a transform cannot do with any such record."""


class IllegalArgument(ValueError):
    """Java's IllegalArgumentException, with its text."""


class IndexOutOfBounds(IndexError):
    """Java's IndexOutOfBoundsException, with its text."""


class NullPointer(ValueError):
    """Java's NullPointerException, with its text."""


class ClassCast(TypeError):
    """Java's ClassCastException, with its text."""


_NAMES: Mapping[type[BaseException], str] = {
    DataError: CONNECT + "DataException",
    SchemaError: CONNECT + "DataException",
    SchemaBuilderError: CONNECT + "SchemaBuilderException",
    ConnectError: CONNECT + "ConnectException",
    CdcError: CONNECT + "ConnectException",
    ConfigError: "org.apache.kafka.common.config.ConfigException",
    IllegalArgument: "java.lang.IllegalArgumentException",
    IndexOutOfBounds: "java.lang.IndexOutOfBoundsException",
    NullPointer: "java.lang.NullPointerException",
    ClassCast: "java.lang.ClassCastException",
    MemoryError: "java.lang.OutOfMemoryError",
    RecursionError: "java.lang.StackOverflowError",
    OSError: "java.io.IOException",
    ValueError: "java.lang.IllegalArgumentException",
    IndexError: "java.lang.IndexOutOfBoundsException",
    Exception: "java.lang.RuntimeException",
}


def java_name(error: BaseException) -> str:
    """The class name that Connect would report for ``error``: its nearest relative's."""
    if isinstance(error, CdcError) and error.retriable:
        return CONNECT + "RetriableException"
    found = (_NAMES[kind] for kind in type(error).__mro__ if kind in _NAMES)
    return next(found, "java.lang.Error")
