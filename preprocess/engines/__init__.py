"""What runs the tasks of a plan, and in which order on what machine. No byte depends on it.

    local        this machine: one process, or several that share nothing
    slurm        an array of jobs, each of which is `sft-preprocess task` for its share of the tasks
    ray          a task of Ray for each task of the plan, on a cluster that is there or on this machine
    kubernetes   an Indexed Job, printed

The shares of Slurm and Kubernetes come from the scheduler's environment (`share`).
"""
