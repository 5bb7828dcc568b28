"""Makes the helpers beside the tests importable (`from toy import …`), by pytest and by the scripts it starts."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plans are kept in a folder of this session, in this process and in those it starts."""
    os.environ["SFT_SHARDS_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    return Path(os.environ["SFT_SHARDS_CACHE"])
