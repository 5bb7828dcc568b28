"""A real Slurm of two virtual nodes on loopback, for tests: Debian's packages, a folder of its own, no trace elsewhere.

    with SlurmCluster(folder) as cluster:
        cluster.run("sbatch", "job.sh")
        cluster.kill_node("n1")

A job in the partition `urgent` takes the nodes away from one in the partition `cpu`.

Run by itself it starts a cluster and prints what to put into the environment to use it. It needs root.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobRequeue=1
ReturnToService=2
SlurmdTimeout=5
SlurmctldTimeout=5
InactiveLimit=0
KillWait=1
MessageTimeout=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{second}] CPUs=1 RealMemory=2000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=cpu Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=120
PartitionName=urgent Nodes=n[1-2] MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
"""


def install() -> None:
    """Install Debian's packages where a program is missing."""
    if all(
        shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")
        for name in ("slurmctld", "slurmd", "sbatch", "munged")
    ):
        return
    # The packages' own services stay off: the tests start what they need.
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        quiet = {"check": True, "stdout": subprocess.DEVNULL, "env": environment}
        subprocess.run(["apt-get", "update"], **quiet)
        subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES], **quiet)
    finally:
        if ours:
            policy.unlink()


def _keeper(pid: int) -> int | None:
    """The `slurmstepd` that started a process, if it is its parent."""
    with contextlib.suppress(OSError, IndexError):
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        if Path(f"/proc/{parent}/comm").read_text().strip() == "slurmstepd":
            return parent
    return None


def free_ports(count: int) -> list[int]:
    """Neighbouring ports that nobody listens on."""
    for first in range(16800 + os.getpid() % 400 * 20, 32000, count):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    one = stack.enter_context(socket.socket())
                    one.bind(("127.0.0.1", port))
            except OSError:
                continue
            return list(range(first, first + count))
    raise RuntimeError("no free ports")


class SlurmCluster:
    """slurmctld and two slurmd, each stopped by its own process id."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = socket.gethostname().split(".")[0]
        self.environment = {
            **os.environ,
            "PATH": os.environ["PATH"] + ":/usr/sbin",
            "SLURM_CONF": str(folder / "slurm.conf"),
        }
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "SlurmCluster":
        install()
        port, first, second = free_ports(3)
        (self.folder / "state").mkdir(parents=True)
        self.folder.chmod(0o755)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        values = {"host": self.host, "port": port, "first": first, "second": second, "folder": self.folder}
        (self.folder / "slurm.conf").write_text(CONF.format(**values))
        try:
            self._start("munged", "munged", "--foreground", "--force", *(
                f"--{name}={self.folder}/munge.{ending}"
                for name, ending in (("socket", "socket"), ("key-file", "key"), ("pid-file", "pid"),
                                     ("log-file", "log"), ("seed-file", "seed"))
            ))  # fmt: skip
            self._await("munge", lambda: (self.folder / "munge.socket").exists())
            self._start("slurmctld", "slurmctld", "-D", "-c", "-f", self.environment["SLURM_CONF"])
            for node in ("n1", "n2"):
                self.start_node(node)
            self._await("both nodes", lambda: set(self.run("sinfo", "-h", "-o", "%T", check=False).split()) == {"idle"})
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(subprocess.CalledProcessError, FileNotFoundError):
            self.run("scancel", "--user=root", check=False)
        for name in ("n1", "n2", "slurmctld", "munged"):
            if name in self.daemons:
                self._stop(name, signal.SIGTERM)

    def start_node(self, node: str) -> None:
        """Start a node's daemon."""
        self._start(node, "slurmd", "-D", "-N", node, "-f", self.environment["SLURM_CONF"])

    def kill_node(self, node: str) -> None:
        """Let a node be lost: its daemon and all that runs on it are killed, and Slurm is told that it is down."""
        self._stop(node, signal.SIGKILL)
        steps = self._steps(node)
        # Those that watch over the steps go first: alive, they would report a step that was killed, which is no lost node.
        for pid in (*filter(None, map(_keeper, steps)), *steps):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=killed")

    def run(self, *command: object, check: bool = True, **options: object) -> str:
        """Run a command of Slurm in this cluster; its standard output."""
        done = subprocess.run(
            list(map(str, command)), env=self.environment, capture_output=True, text=True, check=False, timeout=60,
            **options,
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"{command}: {done.stderr}"
        return done.stdout

    def await_end(self, *jobs: str, seconds: float = 120) -> None:
        """Wait until Slurm has none of the jobs any more."""

        def ended() -> bool:
            return not [state for state in self.states(*jobs) if state not in ("COMPLETED", "FAILED", "CANCELLED")]

        self._await(f"jobs {', '.join(jobs)}", ended, seconds)

    def await_log(self, job: str, log: Path, words: str, seconds: float = 120) -> str:
        """Wait until `words` (a regular expression) stand in a job's log; the log."""

        def there() -> bool:
            self.states(job)
            return log.exists() and re.search(words, log.read_text()) is not None

        self._await(f"{words!r} in {log}", there, seconds)
        return log.read_text()

    def states(self, *jobs: str) -> list[str]:
        """The states of those jobs that are in the queue; one that was requeued starts at once and not in minutes."""
        lines = [line.split() for line in self.run("squeue", "-h", "-o", "%A %F %T %r").splitlines()]
        mine = [line for line in lines if line[1] in jobs or line[0] in jobs]
        for number, _, _, reason in mine:
            if reason == "BeginTime":
                self.run("scontrol", "update", f"JobId={number}", "StartTime=now", check=False)
        return [line[2] for line in mine]

    def _steps(self, node: str) -> list[int]:
        """Everything that a node runs: what its job steps started has SLURMD_NODENAME in its environment."""
        found = []
        mark = f"SLURMD_NODENAME={node}\0".encode()
        own = f"SLURM_CONF={self.environment['SLURM_CONF']}\0".encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    environment = (entry / "environ").read_bytes()
                    if mark in environment and own in environment:
                        found.append(int(entry.name))
        return found

    def _start(self, name: str, *command: str) -> None:
        log = open(self.folder / f"{name}.out", "ab")  # noqa: SIM115
        self.daemons[name] = subprocess.Popen(
            command, env=self.environment, stdout=log, stderr=log, start_new_session=True
        )

    def _stop(self, name: str, how: signal.Signals) -> None:
        daemon = self.daemons.pop(name)
        daemon.send_signal(how)
        try:
            daemon.wait(timeout=10)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def _await(self, what: str, done, seconds: float = 30) -> None:
        until = time.monotonic() + seconds
        while not done():
            if time.monotonic() > until:
                logs = "".join(path.read_text(errors="replace")[-1500:] for path in sorted(self.folder.glob("*.log")))
                raise AssertionError(f"waited {seconds} s for {what}\n{self.run('squeue', check=False)}\n{logs}")
            time.sleep(0.1)


if __name__ == "__main__":
    with SlurmCluster(Path(tempfile.mkdtemp()) / "slurm") as cluster:
        sys.stdout.write(f"export SLURM_CONF={cluster.environment['SLURM_CONF']} PATH=$PATH:/usr/sbin\n")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
