"""What a traced text stands for, once the texts of a conversation are in its gaps."""

from sft_shards.formats.templates.traced_text import Trace


def fill_gaps(written: str, trace: Trace, texts) -> str:
    """The text that was written, with what the trace does to each of the texts in place of its gap."""
    literals, gaps, changes = trace.split(written)
    out = literals[0]
    for literal, gap, own in zip(literals[1:], gaps, changes, strict=True):
        text = texts[gap]
        for change in own:
            text = change(text)
        out += text + literal
    return out
