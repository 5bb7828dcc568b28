"""Engines run the tasks of a plan. Which one it is changes no byte of the result.

    plan ──engine──▶ every task finished

    local        this machine: one process, or several that share nothing
    slurm        an array of jobs, each of which is `sft-preprocess task` for its share of the tasks
    ray          a Ray task for each task of the plan, on a running cluster or on this machine
    kubernetes   an Indexed Job, printed

`engine` has the protocol and the registry. Under a scheduler each process takes its share of the tasks from the
environment:

    from sft_shards.preprocess.engines.task_share import find_share
    share = find_share(None, None, {"RANK": "1", "WORLD_SIZE": "4"})
    print(list(share.of(10)))  # tasks 1, 5 and 9
"""
