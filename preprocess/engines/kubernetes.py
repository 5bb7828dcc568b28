"""A job on Kubernetes, printed to be piped into `kubectl apply -f -`: an Indexed Job for the tasks, one to publish.

Nothing here talks to a cluster. The pods need an image with this package in it, and a volume that all of them mount
and on which inputs, tokenizer and output lie. Each pod plans for itself: one writes the plan, the others find it. The
last Job waits until all tasks are finished. Kubernetes replaces pods that are evicted or lost.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import click

from sft_shards.formats.errors import UsageError
from sft_shards.formats.scripts import checked
from sft_shards.preprocess.engines.engine import ARRAY, EngineJob
from sft_shards.preprocess.options import Option

WAIT = 7 * 24 * 3600
"""Seconds that finalize waits for the tasks."""
PATIENCE = 600
"""Seconds that a pod waits while another one plans."""
MEMORY = "4Gi"
"""Memory of a pod."""
NAME = "sft-shards"


@dataclass(frozen=True, kw_only=True)
class Kubernetes:
    """Prints two Jobs; the fields are the values of the options."""

    array: int
    """Pods; any number will do, whatever the number of tasks."""
    image: str
    claim: str
    """Name of the PersistentVolumeClaim that all pods mount."""
    mount: str
    """The path at which they mount it, and their working directory."""

    options: ClassVar[Sequence[click.Option]] = (
        ARRAY,
        Option(["--image"], default="sft-shards", help="Image of the pods."),
        Option(["--claim"], default="data", help="Volume claim that holds inputs and output."),
        Option(["--mount"], default="/data", help="Where the pods mount the volume."),
    )

    def run(self, job: EngineJob) -> None:
        """Print the Jobs; nothing is planned here."""
        click.echo(self.script(job))

    def script(self, job: EngineJob) -> str:
        """Give both Jobs as a list in JSON, which is YAML that kubectl reads.

        Raises:
            UsageError: the pods could not plan this job, or a value holds a control character.
        """
        for name in ("image", "claim", "mount"):
            checked(getattr(self, name), f"--{name}")
        if ":" in self.mount:
            raise UsageError(f"--mount {self.mount}: Kubernetes takes no path with a colon; choose another")
        for argument, remedy in (("-", "name a file on the volume"), ("--overwrite", "remove the directory yourself")):
            if argument in job.arguments:
                raise UsageError(f"{argument}: cannot be used with --engine kubernetes, every pod plans; {remedy}")
        workers = job.workers or 1
        limit = ["--max-rejects", job.max_rejects] if job.max_rejects else []
        output = ["--output", str(job.output)]
        output = [_literal(word, "--output") for word in output]
        arguments = [_literal(word, "the call") for word in job.arguments]
        plan = ["sft-preprocess", "plan", *arguments, *output, "--patience", str(PATIENCE)]
        task = ["sft-preprocess", "task", *output, "--workers", str(workers)]
        finalize = ["sft-preprocess", "finalize", *output, "--wait", str(WAIT), *limit]
        indexed = {
            "completionMode": "Indexed",
            "completions": self.array,
            "parallelism": self.array,
            "backoffLimitPerIndex": 5,
            "maxFailedIndexes": self.array,
        }
        items = [
            _job(f"{NAME}-tasks", self._pod(task, workers, first=plan), indexed),
            _job(f"{NAME}-finalize", self._pod(finalize, 1), {"backoffLimit": 5}),
        ]
        return json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=2)

    def _pod(self, command: list[str], cpus: int, first: list[str] | None = None) -> dict[str, Any]:
        base = {
            "image": self.image,
            "workingDir": self.mount,
            "env": [{"name": "JOB_COMPLETIONS", "value": str(self.array)}],
            "resources": {"requests": {"cpu": str(cpus), "memory": MEMORY}, "limits": {"memory": MEMORY}},
            "volumeMounts": [{"name": "data", "mountPath": self.mount}],
        }
        pod: dict[str, Any] = {
            "restartPolicy": "Never",
            "containers": [{"name": "run", "command": command, **base}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": self.claim}}],
        }
        if first:
            pod["initContainers"] = [{"name": "plan", "command": first, **base}]
        return pod


def _literal(word: str, where: str) -> str:
    """Return a word of a command as Kubernetes must be given it, which replaces `$(NAME)` in commands."""
    return checked(word, where).replace("$(", "$$(")


def _job(name: str, pod: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    labels = {"app": NAME}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},
        "spec": {**spec, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }
