"""First on PYTHONPATH, it holds every process of a job in the middle of its work, until a test lets it go.

With SFT_SHARDS_HELD=FOLDER a process that is about to publish its second task leaves a file with its process id in FOLDER
and waits until the file FOLDER/go is there. So a test acts in the middle of a job, however fast or slow the machine is.
"""

import os
import time
from pathlib import Path

if folder := os.environ.get("SFT_SHARDS_HELD"):
    published = 0
    rename = os.rename

    def held(source, target, **options):
        """Rename; what lands in `.work/tasks` is a task that is published."""
        global published
        if Path(target).parent.name == "tasks":
            published += 1
            if published == 2:
                Path(folder, str(os.getpid())).touch()
                while not Path(folder, "go").exists():
                    time.sleep(0.01)
        rename(source, target, **options)

    os.rename = held
