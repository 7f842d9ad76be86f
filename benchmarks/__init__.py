"""Figures of the engine beside Debezium's and the server's limit: ``python -m benchmarks``."""
