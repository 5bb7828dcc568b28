"""Versions of the libraries that a job's bytes may depend on. Python's own version is not among them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

LIBRARIES = ("sft-shards", "tokenizers", "fastokens", "transformers", "jinja2", "numpy", "pyarrow")


def versions() -> dict[str, str]:
    """Look up the version of each distribution, "unknown" where it is not installed."""
    out = {}
    for name in LIBRARIES:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            out[name] = "unknown"
    return out
