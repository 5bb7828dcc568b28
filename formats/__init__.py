"""The three kinds of format: what comes in (records), what it becomes (templates), what lies on disk (shards)."""
