"""Errors without the values of rows: what is logged, or shown in a status, quotes none.

Connect's texts quote them here and there (``Value (…) was out of range``). Such an error says so
itself (:class:`schemas.DataError`), and keeps its class and the shape of its text; what a library
says of a record is nobody's to tell apart, and is left out whole. ``errors.log.include.messages``
lets all of it through. A dead letter holds the record, so it has the text as it is.
"""

from __future__ import annotations

from typing import Final

from schemas import HIDDEN

_OWN: Final = frozenset(("cdc", "schemas", "sinks"))


def without_values(error: BaseException, *, of_record: bool = True) -> BaseException:
    """The error as it may be shown, with its causes; itself where there is nothing to hide.

    ``of_record``: it was raised for one record, so that any text may quote it.
    """
    cause = error.__cause__
    shown = None if cause is None else without_values(cause, of_record=of_record)
    text = getattr(error, "shape", None)
    if text is None and of_record and str(error) and not _is_own(error):
        text = HIDDEN
    if text is None and shown is cause:
        return error
    clone = _clone(error, text)
    clone.__cause__, clone.__traceback__ = shown, error.__traceback__
    return clone


def _is_own(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in _OWN


def _clone(error: BaseException, text: str | None) -> BaseException:
    """Of the same class. A library's own attributes may hold what its text does."""
    try:
        clone = type(error).__new__(type(error))
    except TypeError:  # it insists on arguments
        clone = ValueError()
    if _is_own(error):
        clone.__dict__.update(error.__dict__)
    clone.args = error.args if text is None else (text,)
    return clone
