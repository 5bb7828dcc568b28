"""Run the command on each node of a Slurm job in a container: Pyxis, Apptainer or Docker.

The working directory and all folders that the call names (shards, configuration, checkpoints, the plan cache) are
mounted under the same paths, so that the call is the same inside and outside. The image contains `sft-train`, torch,
Megatron and ROCm's libraries; the driver and the devices are the node's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sft_shards.formats.cache_folder import cache_folder
from sft_shards.formats.errors import UsageError
from sft_shards.trainer.data.shards import parse_shards
from sft_shards.trainer.job import Job
from sft_shards.trainer.launch import amd
from sft_shards.trainer.mcore import attention_backends

RUNTIMES = ("pyxis", "apptainer", "docker")
"""What can run a container; the first is the default."""
FOLDERS = ("save", "load", "pretrained-checkpoint", "tensorboard-dir", "tokenizer-model")
"""Megatron's flags that name folders."""
CACHE = "SFT_SHARDS_CACHE"
PASSED = ("MASTER_ADDR", "MASTER_PORT", "SLURM_NNODES", "SLURM_NODEID", "NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")
"""Variables to pass on to a Docker container by name, beside those of `sft_shards.trainer.launch.amd`."""


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container image and how it is run."""

    image: str
    runtime: str
    """One of `RUNTIMES`."""
    mounts: tuple[str, ...] = ()
    """`SRC` or `SRC:DST`, beside the folders that the call names."""
    options: tuple[str, ...] = ()
    """More options of the runtime (for Pyxis: of srun)."""

    def command(self, job: Job) -> list[str]:
        """Return the words between `srun` and the command.

        Raises:
            UsageError: the name of a folder to mount holds a comma or a colon, with which the runtimes separate mounts
                and their parts.
        """
        mounts = [*(f"{folder}:{folder}" for folder in map(_mountable, folders(job))), *map(_mount, self.mounts)]
        if self.runtime == "pyxis":
            where = [f"--container-mounts={','.join(mounts)}", f"--container-workdir={os.getcwd()}"]
            return [f"--container-image={self.image}", *where, *self.options]
        if self.runtime == "apptainer":
            binds = [f"--bind={mount}" for mount in mounts]
            return ["apptainer", "exec", "--rocm", *binds, f"--pwd={os.getcwd()}", *self.options, self.image]
        known = dict.fromkeys(
            (
                *PASSED,
                *amd.MEGATRON,
                *amd.ROCM,
                *amd.DETERMINISTIC,
                *amd.DETERMINISTIC_ROCM,
                *attention_backends.VARIABLES,
            )
        )
        return [
            *("docker", "run", "--rm", "--init"),
            *("--device=/dev/kfd", "--device=/dev/dri", "--group-add=video"),
            *("--ipc=host", "--shm-size=64G", "--network=host", "--ulimit=memlock=-1"),
            *("--cap-add=SYS_PTRACE", "--security-opt=seccomp=unconfined"),
            *(f"--env={name}" for name in known),
            f"--env={CACHE}={_cache(job)}",
            *(f"--volume={mount}" for mount in mounts),
            f"--workdir={os.getcwd()}",
            *self.options,
            self.image,
        ]

    def folders_to_create(self, job: Job) -> list[Path]:
        """Return the folders that must exist before they can be mounted."""
        save = job.given("save")
        return [_cache(job), *([Path(os.path.abspath(save))] if isinstance(save, str) else [])]


def folders(job: Job) -> list[Path]:
    """Return the folders that the call names, as absolute paths, without those inside another one."""
    named = [Path.cwd(), _cache(job), *(Path(parse_shards(text)[0]) for text in job.shards)]
    for path in (job.config_path, job.hf_config, job.model):
        named += [Path(path) if Path(path).is_dir() else Path(path).parent] if path else []
    for flag in FOLDERS:
        value = job.given(flag)
        if isinstance(value, str) and (
            flag != "tokenizer-model" or Path(value).is_dir()
        ):  # otherwise a name on the Hub
            named.append(Path(value))
    every = sorted({Path(os.path.abspath(path)) for path in named})
    return [path for path in every if not any(other in path.parents for other in every)]


def check_image(image: str, runtime: str) -> None:
    """Raise UsageError if Apptainer's image is a file that does not exist."""
    if runtime == "apptainer" and "://" not in image and not Path(image).exists():
        raise UsageError(f"--container {image}: no such image; name a .sif file, or docker://IMAGE")


def _cache(job: Job) -> Path:
    return Path(os.path.abspath(job.cache_dir)) if job.cache_dir else cache_folder()


def _mount(text: str) -> str:
    """Return `SRC:DST` for `SRC` or `SRC:DST[:MODE]`, with an absolute source.

    Docker's MODE may be a list with commas.

    Raises:
        UsageError: a path holds a comma.
    """
    source, colon, target = text.partition(":")
    if "," in source or "," in target.partition(":")[0]:
        raise UsageError(
            f"--container-mount {text}: a comma would add another mount; give each in an option of its own"
        )
    source = str(_mountable(Path(os.path.abspath(source))))
    return f"{source}:{target if colon else source}"


def _mountable(folder: Path) -> Path:
    """Return a folder that a mount can name."""
    found = next((character for character in ",:" if character in str(folder)), None)
    if found is not None:
        raise UsageError(f"{folder}: a container cannot mount a folder with {found!r} in its name; rename it")
    return folder
