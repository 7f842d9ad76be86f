"""TimestampRouter: another topic by the record's own timestamp."""

from __future__ import annotations

from dataclasses import replace

from cdc.config import Config, ConfigDef
from cdc.record import Record, record_text
from cdc.transforms import options
from cdc.transforms.dateformat import DateFormat
from schemas import DataError

TOPIC, TIMESTAMP = "${topic}", "${timestamp}"


class TimestampRouter:
    """The timestamp is written in UTC; the partition stays."""

    CONFIG = ConfigDef(
        (
            options.text(
                "topic.format",
                "Format string which can contain ${topic} and ${timestamp}.",
                importance="HIGH",
                default="${topic}-${timestamp}",
            ),
            options.text(
                "timestamp.format",
                "Format string for the timestamp, as for java.text.SimpleDateFormat.",
                importance="HIGH",
                default="yyyyMMdd",
            ),
        )
    )

    def __init__(self, config: Config) -> None:
        self._topic: str = config["topic.format"]
        self._pattern: str = config["timestamp.format"]
        self._format: DateFormat | None = None

    def apply(self, record: Record) -> Record:
        """The record with its new topic. Raises DataError where it has no timestamp."""
        if record.timestamp is None:
            raise DataError.quoting("Timestamp missing on record: {}", record_text(record))
        if self._format is None:  # as in Connect, a wrong pattern is the first record's error
            self._format = DateFormat(self._pattern)
        text = self._format.format(record.timestamp)
        topic = self._topic.replace(TOPIC, record.topic).replace(TIMESTAMP, text)
        return replace(record, topic=topic)
