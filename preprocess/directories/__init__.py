"""Commands on finished shard directories: show, verify, compare, merge."""
