"""Shards that a test may damage; published ones are read-only."""

from pathlib import Path


def writable(path: Path) -> Path:
    """Give the right to write to a file, or to every file below a folder, and return the path."""
    for file in [path, *path.rglob("*")]:
        if file.is_file() and not file.is_symlink():
            file.chmod(file.stat().st_mode | 0o200)
    return path
