"""Run `sft-preprocess`; print, last of all, the peak MiB of its largest process, and the CPU seconds of the first."""

import resource
import subprocess
import sys

done = subprocess.run(
    [sys.executable, "-m", "sft_shards.preprocess.cli", *sys.argv[1:]],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
)
if done.returncode:
    sys.stderr.write(done.stderr)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime)
sys.exit(done.returncode)
