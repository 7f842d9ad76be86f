"""The tests. Servers are real: ``tests/servers.py`` says where they come from."""
