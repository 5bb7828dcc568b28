"""What the tests of the trainer share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plans are kept in a folder of this session, in this process and in those it starts."""
    os.environ["SFT_SHARDS_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    return Path(os.environ["SFT_SHARDS_CACHE"])
