"""Run a job in steps: plan, tasks, finalize; and what each step keeps on disk."""
