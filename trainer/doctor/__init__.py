"""Examine whether this machine can train, and what is missing, without starting a run.

    cli ──imports (subjects, in a process of its own)──▶ Machine ──checks_*──▶ Finding ──▶ report

The same from Python:

    from sft_shards.trainer.doctor.examine import examine
    from sft_shards.trainer.doctor.imports import gather
    from sft_shards.trainer.doctor.machine import Machine
    for finding in examine(Machine(device="cpu", imported=gather())):
        print(finding.status, finding.name, finding.found, finding.remedy)

A check is a function from a `Machine` to findings that reads nothing else, so that tests can pass in made-up machines.
Checks need neither torch nor Megatron: these are imported in a process of their own, which may hang or abort.
"""
