"""The versions of what a job's bytes may depend on; Python's own is not among them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

LIBRARIES = ("sft-shards", "tokenizers", "fastokens", "transformers", "jinja2", "numpy", "pyarrow")


def versions() -> dict[str, str]:
    """Version by distribution, "unknown" where there is none."""
    out = {}
    for name in LIBRARIES:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            out[name] = "unknown"
    return out
