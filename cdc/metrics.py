"""Metric names and Prometheus' text format.

Names are Kafka Connect's (JMX type and attribute, as the usual exporters join them), plus
the engine's own, which start with ``cdc_``. A task reports values by these names; the
worker adds the labels ``connector`` and ``task``.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

# --- the engine's own
SOURCE_LAG_BYTES: Final = "cdc_source_lag_bytes"
SOURCE_LAG_MS: Final = "cdc_source_lag_ms"
SLOT_RETAINED_BYTES: Final = "cdc_slot_retained_bytes"
SLOT_WAL_STATUS: Final = "cdc_slot_wal_status"
# What pg_replication_slots.wal_status says; the metric is the number in this order.
WAL_STATUS: Final = ("reserved", "extended", "unreserved", "lost")
SLOT_SAFE_WAL_BYTES: Final = "cdc_slot_safe_wal_bytes"
SLOT_WAL_KEEP_BYTES: Final = "cdc_slot_wal_keep_bytes"
SLOT_XMIN_AGE: Final = "cdc_slot_xmin_age_transactions"
SOURCE_OLDEST_TRANSACTION: Final = "cdc_source_oldest_transaction_seconds"
SLOT_ORPHANED: Final = "cdc_slot_orphaned"
JOURNAL_BYTES: Final = "cdc_journal_bytes"
JOURNAL_WRITTEN_BYTES: Final = "cdc_journal_written_bytes_total"
JOURNAL_DROPPED_RECORDS: Final = "cdc_journal_dropped_records_total"
SINK_DEAD_LETTERS: Final = "cdc_sink_dead_letters"
SINK_LAG_RECORDS: Final = "cdc_sink_lag_records"
SNAPSHOT_ROWS: Final = "cdc_snapshot_rows"
TASK_RESTARTS_TOTAL: Final = "cdc_task_restarts_total"
TASK_MEMORY_BYTES: Final = "cdc_task_memory_bytes"
TASK_PID: Final = "cdc_task_pid"

# --- kafka.connect:type=connector-metrics
_CONNECTOR = "kafka_connect_connector_metrics_"
CONNECTOR_STATUS: Final = _CONNECTOR + "status"
CONNECTOR_TYPE: Final = _CONNECTOR + "connector_type"
CONNECTOR_CLASS: Final = _CONNECTOR + "connector_class"

# --- type=connector-task-metrics
_TASK = "kafka_connect_connector_task_metrics_"
TASK_STATUS: Final = _TASK + "status"
RUNNING_RATIO: Final = _TASK + "running_ratio"
PAUSE_RATIO: Final = _TASK + "pause_ratio"
OFFSET_COMMIT_MAX_TIME_MS: Final = _TASK + "offset_commit_max_time_ms"
OFFSET_COMMIT_AVG_TIME_MS: Final = _TASK + "offset_commit_avg_time_ms"
BATCH_SIZE_MAX: Final = _TASK + "batch_size_max"
BATCH_SIZE_AVG: Final = _TASK + "batch_size_avg"
OFFSET_COMMIT_FAILURE_PERCENTAGE: Final = _TASK + "offset_commit_failure_percentage"
OFFSET_COMMIT_SUCCESS_PERCENTAGE: Final = _TASK + "offset_commit_success_percentage"

# --- type=source-task-metrics
_SOURCE = "kafka_connect_source_task_metrics_"
SOURCE_RECORD_POLL_TOTAL: Final = _SOURCE + "source_record_poll_total"
SOURCE_RECORD_POLL_RATE: Final = _SOURCE + "source_record_poll_rate"
SOURCE_RECORD_WRITE_TOTAL: Final = _SOURCE + "source_record_write_total"
SOURCE_RECORD_WRITE_RATE: Final = _SOURCE + "source_record_write_rate"
POLL_BATCH_MAX_TIME_MS: Final = _SOURCE + "poll_batch_max_time_ms"
POLL_BATCH_AVG_TIME_MS: Final = _SOURCE + "poll_batch_avg_time_ms"
SOURCE_RECORD_ACTIVE_COUNT: Final = _SOURCE + "source_record_active_count"
SOURCE_RECORD_ACTIVE_COUNT_MAX: Final = _SOURCE + "source_record_active_count_max"
SOURCE_RECORD_ACTIVE_COUNT_AVG: Final = _SOURCE + "source_record_active_count_avg"
# A transaction is what is stored at once: a batch of rows with its position.
TRANSACTION_SIZE_MIN: Final = _SOURCE + "transaction_size_min"
TRANSACTION_SIZE_MAX: Final = _SOURCE + "transaction_size_max"
TRANSACTION_SIZE_AVG: Final = _SOURCE + "transaction_size_avg"

# --- type=sink-task-metrics
_SINK = "kafka_connect_sink_task_metrics_"
SINK_RECORD_READ_TOTAL: Final = _SINK + "sink_record_read_total"
SINK_RECORD_READ_RATE: Final = _SINK + "sink_record_read_rate"
SINK_RECORD_SEND_TOTAL: Final = _SINK + "sink_record_send_total"
SINK_RECORD_SEND_RATE: Final = _SINK + "sink_record_send_rate"
SINK_RECORD_LAG_MAX: Final = _SINK + "sink_record_lag_max"
PARTITION_COUNT: Final = _SINK + "partition_count"
OFFSET_COMMIT_SEQ_NO: Final = _SINK + "offset_commit_seq_no"
OFFSET_COMMIT_COMPLETION_TOTAL: Final = _SINK + "offset_commit_completion_total"
OFFSET_COMMIT_COMPLETION_RATE: Final = _SINK + "offset_commit_completion_rate"
# Commits that came too late, behind a newer one: none, since a flush is waited for.
OFFSET_COMMIT_SKIP_TOTAL: Final = _SINK + "offset_commit_skip_total"
OFFSET_COMMIT_SKIP_RATE: Final = _SINK + "offset_commit_skip_rate"
PUT_BATCH_MAX_TIME_MS: Final = _SINK + "put_batch_max_time_ms"
PUT_BATCH_AVG_TIME_MS: Final = _SINK + "put_batch_avg_time_ms"
SINK_RECORD_ACTIVE_COUNT: Final = _SINK + "sink_record_active_count"
SINK_RECORD_ACTIVE_COUNT_MAX: Final = _SINK + "sink_record_active_count_max"
SINK_RECORD_ACTIVE_COUNT_AVG: Final = _SINK + "sink_record_active_count_avg"

# --- type=task-error-metrics
_ERROR = "kafka_connect_task_error_metrics_"
TOTAL_RECORD_FAILURES: Final = _ERROR + "total_record_failures"
TOTAL_RECORD_ERRORS: Final = _ERROR + "total_record_errors"
TOTAL_RECORDS_SKIPPED: Final = _ERROR + "total_records_skipped"
TOTAL_RETRIES: Final = _ERROR + "total_retries"
TOTAL_ERRORS_LOGGED: Final = _ERROR + "total_errors_logged"
DEADLETTERQUEUE_PRODUCE_REQUESTS: Final = _ERROR + "deadletterqueue_produce_requests"
DEADLETTERQUEUE_PRODUCE_FAILURES: Final = _ERROR + "deadletterqueue_produce_failures"
LAST_ERROR_TIMESTAMP: Final = _ERROR + "last_error_timestamp"

# --- type=connect-worker-metrics
_WORKER = "kafka_connect_connect_worker_metrics_"
CONNECTOR_COUNT: Final = _WORKER + "connector_count"
TASK_COUNT: Final = _WORKER + "task_count"
CONNECTOR_STARTUP: Final = _WORKER + "connector_startup"  # see Startups
TASK_STARTUP: Final = _WORKER + "task_startup"
CONNECTOR_TOTAL_TASK_COUNT: Final = _WORKER + "connector_total_task_count"
CONNECTOR_RUNNING_TASK_COUNT: Final = _WORKER + "connector_running_task_count"
CONNECTOR_PAUSED_TASK_COUNT: Final = _WORKER + "connector_paused_task_count"
CONNECTOR_FAILED_TASK_COUNT: Final = _WORKER + "connector_failed_task_count"
CONNECTOR_UNASSIGNED_TASK_COUNT: Final = _WORKER + "connector_unassigned_task_count"
# Connect's state of a deleted task, which nobody is ever shown.
CONNECTOR_DESTROYED_TASK_COUNT: Final = _WORKER + "connector_destroyed_task_count"
CONNECTOR_RESTARTING_TASK_COUNT: Final = _WORKER + "connector_restarting_task_count"

HELP: Final[Mapping[str, str]] = {
    SOURCE_LAG_BYTES: "Log written by the server and not yet journalled, in bytes.",
    SOURCE_LAG_MS: "Age of the newest transaction read and not yet journalled; 0 without one.",
    SLOT_RETAINED_BYTES: "WAL the server keeps for the slot, in bytes.",
    SLOT_WAL_STATUS: "wal_status of the slot: "
    + ", ".join(f"{number} {name}" for number, name in enumerate(WAL_STATUS))
    + ".",
    SLOT_SAFE_WAL_BYTES: "WAL that can be written before the slot is lost, in bytes.",
    SLOT_WAL_KEEP_BYTES: "max_slot_wal_keep_size, in bytes; missing when there is no limit.",
    SLOT_XMIN_AGE: "Transactions since the slot's catalog_xmin.",
    SOURCE_OLDEST_TRANSACTION: "Age of the oldest writing transaction open at the server.",
    SLOT_ORPHANED: "1 while a slot lives whose connector was deleted, or reads another one.",
    JOURNAL_BYTES: "Size of the journal on disk.",
    JOURNAL_WRITTEN_BYTES: "Bytes appended to the journal since the task started.",
    JOURNAL_DROPPED_RECORDS: "Records dropped by journal.full.policy=drop.",
    SINK_LAG_RECORDS: "Journalled records the sink has not stored yet.",
    SINK_DEAD_LETTERS: "Dead letters that wait in the sink's store.",
    SNAPSHOT_ROWS: "Rows read by the running or last snapshot.",
    TASK_RESTARTS_TOTAL: "Automatic restarts of the task since the worker started.",
    TASK_MEMORY_BYTES: "Memory of the task's process, as its proportional set size.",
    TASK_PID: "Process id of the task, while it has a process.",
}

# A rate is its total's growth a second, over Connect's window (metrics.sample.window.ms).
RATES: Final[Mapping[str, str]] = {
    SOURCE_RECORD_POLL_TOTAL: SOURCE_RECORD_POLL_RATE,
    SOURCE_RECORD_WRITE_TOTAL: SOURCE_RECORD_WRITE_RATE,
    SINK_RECORD_READ_TOTAL: SINK_RECORD_READ_RATE,
    SINK_RECORD_SEND_TOTAL: SINK_RECORD_SEND_RATE,
    OFFSET_COMMIT_COMPLETION_TOTAL: OFFSET_COMMIT_COMPLETION_RATE,
    OFFSET_COMMIT_SKIP_TOTAL: OFFSET_COMMIT_SKIP_RATE,
}
RATE_WINDOW_S: Final = 30.0

Labels = Mapping[str, str]


class Rates:
    """Rates of the totals in RATES, from what they were up to RATE_WINDOW_S ago."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, dict[str, float]]] = deque()

    def of(self, values: Mapping[str, float], now_s: float | None = None) -> dict[str, float]:
        """The rates at this moment, by metric name."""
        now_s = time.monotonic() if now_s is None else now_s
        totals = {name: values[name] for name in RATES if name in values}
        self._samples.append((now_s, totals))
        while now_s - self._samples[0][0] > RATE_WINDOW_S:
            self._samples.popleft()
        first_s, first = self._samples[0]
        return {
            RATES[name]: (total - first.get(name, 0.0)) / max(now_s - first_s, 1e-9)
            for name, total in totals.items()
        }


@dataclass(slots=True)
class Spread:
    """The least, the most and the mean of what was noted; all 0 before there was anything."""

    least: float = 0.0
    most: float = 0.0
    total: float = 0.0
    count: int = 0

    def note(self, value: float) -> None:
        """One more value, not negative."""
        self.least = min(self.least, value) if self.count else value
        self.most = max(self.most, value)
        self.total += value
        self.count += 1

    @property
    def mean(self) -> float:
        """Over all that was noted."""
        return self.total / max(self.count, 1)


@dataclass(slots=True)
class Startups:
    """Connect's counters of starts, of connectors or of tasks."""

    success: int = 0
    failure: int = 0

    def count(self, succeeded: bool) -> None:
        """One start has ended, well or not."""
        self.success += succeeded
        self.failure += not succeeded

    def metrics(self, name: str) -> dict[str, float]:
        """By metric name; a percentage is a share of 1, as Connect's Frequencies has it."""
        attempts = self.success + self.failure
        return {
            f"{name}_attempts_total": attempts,
            f"{name}_success_total": self.success,
            f"{name}_success_percentage": self.success / max(attempts, 1),
            f"{name}_failure_total": self.failure,
            f"{name}_failure_percentage": self.failure / max(attempts, 1),
        }


@dataclass(slots=True)
class Exposition:
    """Samples of one scrape; ``text`` puts those of one name together, as the format asks."""

    _families: dict[str, list[tuple[Labels, float]]] = field(default_factory=dict)

    def add(self, name: str, value: float, labels: Labels | None = None) -> None:
        """One sample."""
        self._families.setdefault(name, []).append((labels or {}, value))

    def add_all(self, values: Mapping[str, float], labels: Labels | None = None) -> None:
        """Samples by name, all with the same labels."""
        for name, value in values.items():
            self.add(name, value, labels)

    def text(self) -> str:
        """Text exposition format 0.0.4."""
        lines: list[str] = []
        for name in sorted(self._families):
            if name in HELP:
                lines.append(f"# HELP {name} {HELP[name]}")
            lines.append(f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}")
            lines += [
                f"{name}{_labels(labels.items())} {_number(value)}"
                for labels, value in self._families[name]
            ]
        return "\n".join(lines) + "\n"


def _labels(pairs: Iterable[tuple[str, str]]) -> str:
    inner = ",".join(f'{name}="{_escape(value)}"' for name, value in pairs)
    return f"{{{inner}}}" if inner else ""


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(float(value))
