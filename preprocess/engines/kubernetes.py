"""A job on Kubernetes, as a manifest to pipe into `kubectl apply -f -`: an Indexed Job for the tasks, one to publish.

Nothing here talks to a cluster. The pods need an image with this package in it and a volume that all of them share,
on which inputs, tokenizer and output lie. Each pod plans for itself, which finds the plan that another one wrote;
the last Job waits until all tasks are finished. Kubernetes replaces pods that are evicted or lost.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WAIT = 7 * 24 * 3600
"""Seconds that finalize waits for the tasks, and Kubernetes for finalize."""


@dataclass(frozen=True, kw_only=True)
class Kubernetes:
    """How a job is put before Kubernetes."""

    image: str
    claim: str
    """Name of the PersistentVolumeClaim that all pods mount."""
    mount: str
    """Where they mount it."""
    pods: int
    workers: int
    """Processes, and CPUs, of a pod."""
    memory: str = "4Gi"
    """Memory of a pod."""
    name: str = "sft-shards"

    def manifest(self, output: Path, arguments: Sequence[str]) -> str:
        """Two Jobs in YAML's JSON form, which kubectl reads.

        Args:
            arguments: of `sft-preprocess plan`.
        """
        plan = ["sft-preprocess", "plan", *arguments, "--output", str(output), "--patience", "600"]
        task = ["sft-preprocess", "task", "--output", str(output), "--workers", str(self.workers)]
        finalize = ["sft-preprocess", "finalize", "--output", str(output), "--wait", str(WAIT)]
        tasks = self._job(
            f"{self.name}-tasks",
            self._pod(task, self.workers, first=plan),
            {
                "completionMode": "Indexed",
                "completions": self.pods,
                "parallelism": self.pods,
                "backoffLimitPerIndex": 5,
                "maxFailedIndexes": self.pods,
            },
        )
        last = self._job(f"{self.name}-finalize", self._pod(finalize, 1), {"backoffLimit": 5})
        return json.dumps({"apiVersion": "v1", "kind": "List", "items": [tasks, last]}, indent=2)

    def _job(self, name: str, pod: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name, "labels": {"app": self.name}},
            "spec": {**spec, "template": {"metadata": {"labels": {"app": self.name}}, "spec": pod}},
        }

    def _pod(self, command: list[str], cpus: int, first: list[str] | None = None) -> dict[str, Any]:
        size = {"cpu": str(cpus), "memory": self.memory}
        base = {
            "image": self.image,
            "workingDir": self.mount,
            "env": [{"name": "JOB_COMPLETIONS", "value": str(self.pods)}],
            "resources": {"requests": size, "limits": {"memory": self.memory}},
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
