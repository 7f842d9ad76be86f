"""Tests of the runtime: real processes, a real journal, a small real source."""
