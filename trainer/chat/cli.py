"""The command `sft-train chat`."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator

import click

from sft_shards.formats.errors import UsageError
from sft_shards.formats.shards.manifest import SPLITS
from sft_shards.formats.template_arguments import parse_arguments
from sft_shards.formats.terminal import printable_text, say
from sft_shards.trainer.chat import generation, references, scores
from sft_shards.trainer.chat.generation import Answer, ChatModel, Messages
from sft_shards.trainer.job import DEVICES

AGAIN = "/new"


@click.command()
@click.argument("folder", metavar="DIR")
@click.option("--adapter", metavar="DIR", help="A PEFT folder to put on the model in DIR.")
@click.option("-p", "--prompt", "prompts", multiple=True, metavar="TEXT", help="Ask this and end; repeatable.")
@click.option("--system", metavar="TEXT", help="A system message before the conversation.")
@click.option("--shards", metavar="DIR", help="Answer rows of this shard directory, beside their references.")
@click.option("--rows", metavar="ROWS", help="with --shards: rows, such as 0-3,17 (default: the first 8).")
@click.option("--split", type=click.Choice(SPLITS), help="with --shards: of which split (default: train).")
@click.option(
    "--template-arg",
    "template_args",
    multiple=True,
    metavar="NAME=JSON",
    help="Give the chat template an argument; repeatable (default: what the model was trained with).",
)
@click.option("--max-tokens", type=click.IntRange(min=1), default=512, show_default=True, help="Cut an answer here.")
@click.option("--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True, help="0: no sampling.")
@click.option("--device", type=click.Choice(DEVICES), help="(default: a GPU where there is one).")
@click.option("--json", "as_json", is_flag=True, help="Write each answer as a line of JSON.")
@click.pass_context
def chat(
    ctx: click.Context,
    /,
    folder: str,
    adapter: str | None,
    prompts: tuple[str, ...],
    system: str | None,
    shards: str | None,
    rows: str | None,
    split: str | None,
    template_args: tuple[str, ...],
    max_tokens: int,
    temperature: float,
    device: str | None,
    as_json: bool,
) -> None:
    """Ask the model in DIR, and see whether it stops by itself.

    Without -p and --shards it is a conversation on the terminal, one line a turn; /new starts over, Ctrl-D ends it.

    \b
    sft-train chat out -p "What is a shard?"
    sft-train chat base --adapter out
    sft-train chat out --shards shards --split valid --rows 0-9
    """
    if ctx.meta.get("flags"):
        raise UsageError("chat takes no Megatron flags; leave out what stands after --")
    if prompts and shards:
        raise UsageError("-p and --shards are two ways to ask; leave one of them out")
    for name, value in (("rows", rows), ("split", split)):
        if value is not None and shards is None:
            raise UsageError(f"--{name} is for --shards; add --shards DIR, or leave it out")
    if template_args and shards:
        raise UsageError("--template-arg is for -p and conversations; rows of --shards are rendered already")
    arguments = parse_arguments(template_args, "--template-arg")
    scorer = scores.Scorer() if shards else None
    loaded = generation.load(folder, adapter=adapter, device=device, arguments=arguments)
    asking = Asking(chat=loaded, system=system, limit=max_tokens, temperature=temperature, as_json=as_json)
    if scorer is not None and shards is not None:
        compare(asking, scorer, shards=shards, split=split or "train", rows=rows)
    elif prompts:
        for prompt in prompts:
            asking.ask(asking.start(), prompt)
    else:
        converse(asking)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asking:
    """How questions are put to a model, and answers shown."""

    chat: ChatModel
    system: str | None
    limit: int
    temperature: float
    as_json: bool

    def start(self) -> Messages:
        """A conversation before its first turn."""
        return [] if self.system is None else [{"role": "system", "content": self.system}]

    def ask(self, messages: Messages, text: str) -> None:
        """Ask, show the answer as it comes, and add both to the conversation."""
        messages.append({"role": "user", "content": text})
        answer = self.generate(self.chat.prompt(messages), shown=not self.as_json)
        messages.append({"role": "assistant", "content": answer.text})
        if self.as_json:
            click.echo(json.dumps({"prompt": text, **dataclasses.asdict(answer)}, ensure_ascii=False))
        else:
            click.echo()
            say(f"[{ending(answer)}]", err=True)

    def generate(self, prompt: list[int], *, shown: bool) -> Answer:
        """The model's answer to token ids."""
        show = (lambda text: click.echo(printable_text(text), nl=False)) if shown else None
        return self.chat.answer(prompt, limit=self.limit, temperature=self.temperature, show=show)


def ending(answer: Answer) -> str:
    """How an answer ended, in words."""
    if answer.stop:
        return f"stopped by itself with {answer.stop} after {answer.tokens} tokens"
    return f"did not stop: cut off at {answer.tokens} tokens"


def converse(asking: Asking) -> None:
    """A conversation of several turns, read line by line from standard input."""
    messages = asking.start()
    for line in _lines():
        if line.strip() == AGAIN:
            messages = asking.start()
        elif line.strip():
            asking.ask(messages, line)


def _lines() -> Iterator[str]:
    while True:
        if sys.stdin.isatty():
            click.echo("> ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            return
        yield line.rstrip("\n")


def compare(asking: Asking, scorer: scores.Scorer, *, shards: str, split: str, rows: str | None) -> None:
    """Show the model's answers beside the references of a shard directory, and what they come to together."""
    found: list[tuple[Answer, scores.Score]] = []
    for question in references.open_rows(shards, split, rows, asking.chat):
        answer = asking.generate(list(question.prompt), shown=False)
        reference = asking.chat.text(question.reference)
        score = scorer(answer.text, reference)
        found.append((answer, score))
        if asking.as_json:
            place = {"row": question.row, "turn": question.turn, "reference": reference}
            values = {**place, **dataclasses.asdict(answer), **dataclasses.asdict(score)}
            click.echo(json.dumps(values, ensure_ascii=False))
            continue
        say(f"{split} row {question.row}, answer {question.turn} of {question.turns}")
        say(f"  asked:     {_tail(asking.chat.text(question.prompt))}")
        say(f"  reference: {_head(reference)}")
        say(f"  model:     {_head(answer.text)}")
        equal = "equal" if score.exact else f"not equal, ROUGE-L {score.rouge_l:.3f}, chrF {score.chrf:.1f}"
        say(f"  {equal}; {ending(answer)}")
    stopped, exact = sum(bool(answer.stop) for answer, _ in found), sum(score.exact for _, score in found)
    total = f"{len(found)} answers: {exact} equal to the reference, {stopped} stopped by themselves"
    rouge, chrf = (sum(getattr(score, name) for _, score in found) / len(found) for name in ("rouge_l", "chrf"))
    click.echo(f"{total}; mean ROUGE-L {rouge:.3f}, mean chrF {chrf:.1f}", err=asking.as_json)


def _head(text: str, size: int = 400) -> str:
    """The beginning of a text, on one line."""
    text = text.replace("\n", "↵")
    return text if len(text) <= size else f"{text[:size]}…"


def _tail(text: str, size: int = 200) -> str:
    """The end of a text, on one line."""
    text = " ".join(text.split())
    return text if len(text) <= size else f"…{text[-size:]}"
