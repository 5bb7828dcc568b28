import sys
from pathlib import Path

# Helpers beside the tests (`jobs`, `slurm_cluster`) are imported by their names.
sys.path.insert(0, str(Path(__file__).parent))
