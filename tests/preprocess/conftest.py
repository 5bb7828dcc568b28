import sys
from pathlib import Path

# Helpers beside the tests (`jobs`) are imported by their names.
sys.path.insert(0, str(Path(__file__).parent))
