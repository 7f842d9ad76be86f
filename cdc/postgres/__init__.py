"""The PostgreSQL source: replication stream, decoder, values, catalogue, snapshot."""
