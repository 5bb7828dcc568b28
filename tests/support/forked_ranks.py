"""Run jobs one after the other, each in forks of a process that has imported everything: seconds instead of tens.

    forked_ranks.py JOBS.json      [{"job": Job, "nproc": 2, "kill": "text" or null}, …]

Each rank is what torchrun would start (`sft_shards.trainer.worker.main` in its own process, with the same environment). With
`kill` all ranks get SIGKILL as soon as the text is printed. The last line of output is a JSON list of [exit statuses,
output].
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from warm_process import import_megatron

from sft_shards.trainer import worker


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return str(free.getsockname()[1])


def run(job: dict[str, Any], nproc: int, kill: str | None) -> tuple[list[int], str]:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        ranks = []
        for rank in range(nproc):
            pid = os.fork()
            if not pid:
                os.setsid()  # Megatron's checkpoint writers stay behind otherwise, half a gigabyte each
                child(job, nproc, rank, port, log)
            ranks.append(pid)
        while kill and kill not in (log.read_text() if log.exists() else ""):
            assert all(os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None for pid in ranks), (
                log.read_text()
            )
            time.sleep(0.02)
        for pid in ranks if kill else ():
            os.kill(pid, signal.SIGKILL)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in ranks]
        for pid in ranks:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        return codes, log.read_text()


def child(job: dict[str, Any], nproc: int, rank: int, port: str, log: Path) -> None:
    code = 70
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(nproc), LOCAL_WORLD_SIZE=str(nproc))
        os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=port)
        sys.argv = ["worker", json.dumps(job)]
        code = worker.main()
    except SystemExit as ended:  # Megatron's way out with --exit-interval
        code = int(ended.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main(path: str) -> None:
    import_megatron()
    found = [run(each["job"], each["nproc"], each.get("kill")) for each in json.loads(Path(path).read_text())]
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
