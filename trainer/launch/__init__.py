"""Start the worker processes: on this machine, on several, or through Slurm.

    Target ──▶ launcher (plan, environment: amd or cpu) ──torchrun──▶ workers ◀──preemption── signals
       ├─▶ dry_run: the same plan as a shell script
       └─▶ slurm (container): a batch script that calls `sft-train` on each node

What a rehearsal with two workers would start, and the environment of its workers:

    from sft_shards.trainer.job import Job
    from sft_shards.trainer.launch.launcher import plan
    from sft_shards.trainer.launch.nodes import Nodes
    planned = plan(Job(shards=("shards",), device="cpu"), 2, Nodes())
    print(planned.torchrun(), *(variable.shell() for variable in planned.variables), sep="\\n")
"""
