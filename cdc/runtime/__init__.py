"""The runtime: tasks in processes, their worker, its HTTP side. Knows plugins by name only."""
