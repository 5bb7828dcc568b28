"""Can this machine train, and if not, what is missing? Asked without starting a run.

    cli ─▶ imports (subjects, in a process of its own) ─▶ Machine ─▶ checks_* ─▶ Finding ─▶ report

In five lines:

    from sft_shards.trainer.doctor.examine import examine
    from sft_shards.trainer.doctor.imports import gather
    from sft_shards.trainer.doctor.machine import Machine
    for finding in examine(Machine(device="cpu", imported=gather())):
        print(finding.status, finding.name, finding.found, finding.remedy)

A check is a function from a `Machine` to findings and reads nothing but it, so that tests hand it machines that are
not there. It needs neither torch nor Megatron: what imports them runs apart, where it may hang or abort.
"""
