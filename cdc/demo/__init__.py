"""The demonstration: a real PostgreSQL, a small shop, a worker, and what is killed."""
