"""Makes the helpers beside the tests importable (`from toy import …`), by pytest and by the scripts it starts."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
