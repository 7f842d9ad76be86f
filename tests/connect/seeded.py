"""Generated comparisons that are the same in every run: chosen by a seed, and by nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, seed, settings
from hypothesis.internal.conjecture.providers import HypothesisProvider
from hypothesis.internal.constants_ast import Constants

SEED_VARIABLE, TIMES_VARIABLE = "CDC_CONNECT_SEED", "CDC_CONNECT_TIMES"
SEED = int(os.environ.get(SEED_VARIABLE, "1"))
TIMES = int(os.environ.get(TIMES_VARIABLE, "1"))

# Hypothesis also draws the constants that it finds in all code that is imported by then: the
# same seed would choose otherwise after any change of the engine, or with other tests before.
assert hasattr(HypothesisProvider, "_local_constants"), "Hypothesis has them elsewhere now"
HypothesisProvider._local_constants = Constants()  # type: ignore[assignment]


def generated(examples: int) -> Callable[[Any], Any]:
    """A generated comparison: so many examples (times ``TIMES``), from the session's seed."""
    chosen = settings(
        max_examples=examples * TIMES,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    return lambda test: seed(SEED)(chosen(test))
