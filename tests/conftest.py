"""Lists the plug-ins; the fixtures themselves lie in ``tests/fix_*.py``, one topic a file."""

pytest_plugins = ["tests.fix_connect", "tests.fix_postgres", "tests.fix_proxy"]
