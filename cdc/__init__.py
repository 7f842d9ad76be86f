"""A change data capture engine: database logs in, Debezium's events out.

``cdc.capture`` is the library's front door; everything else is reached through the
command line or the modules named in the README's architecture section. Kept cheap to
import: no driver is loaded until it is needed.
"""

import sys
from typing import TYPE_CHECKING, Any

if sys.version_info < (3, 11):  # noqa: UP036 - of a checkout that pip did not look at
    raise ImportError("cdc needs Python 3.11 or newer")
if sys.platform == "win32":  # pragma: no cover - no Windows machine to run it on
    raise ImportError("cdc runs on Linux and macOS; on Windows use WSL 2 or the container image")

if TYPE_CHECKING:
    from cdc.capture import capture

__version__ = "0.1.0"
__all__ = ["__version__", "capture"]


def __getattr__(name: str) -> Any:
    if name == "capture":
        from cdc.capture import capture

        return capture
    raise AttributeError(f"module 'cdc' has no attribute {name!r}")
