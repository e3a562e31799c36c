"""From tables to encoded rows: sources, schema inference, encoders, statistics, shards."""
