"""How fast are conversations turned into token and mask shards, beside what people use today?

    python benchmarks/preprocess.py DATA TOKENIZER                       the contenders, one pinned core each
    python benchmarks/preprocess.py DATA TOKENIZER --mode scaling        our command with 1 and 2 processes
    python benchmarks/preprocess.py DATA TOKENIZER --mode where          where our time goes
    python benchmarks/preprocess.py DATA TOKENIZER --mode formats        our command on each record format

The corpus is every conversation of DATA that all contenders can take (texts only; no conversation twice, no control
token typed by anybody), shuffled and cut at `--megabytes` of rendered text. A contender runs in a fresh process, on
one core, over text that it has not seen: twice over one record, then over the corpus, then over one record again (the
more often a process loads a tokenizer, the longer it takes). What is reported is the CPU time of the corpus less the
mean of the two around it, children included, so imports and loading a tokenizer cost nobody anything and a busy
machine little. The order of the contenders changes from round to round.
Slow ones get the first quarter of the corpus. Fast ones run over that quarter too, in another process: what the rest
of the corpus takes beyond it is the rate at which a large job goes on, what is done once in a process left aside.

Ids and masks of each are compared with the reference, `apply_chat_template` of the same messages with a version of
the template in which `{% generation %}` stands around each answer. A contender that needs a checkout
(`--checkout gpt-neox=PATH`) or another environment (`--python trl=PROGRAM`) and has none says so in its row.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import json
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# This file bears the package's name: take its folder off the path, and give the package to a script beside it.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
if __name__ == "preprocess":
    del sys.modules[__name__]
    importlib.import_module(__name__)

OUTPUT = "BENCHMARK-OUTPUT "
BATCH_CHARACTERS = 1 << 18
"""Characters that a bare engine is given at once."""
QUIET = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
QWEN_TURN = "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
QWEN_MARKED = (
    "{%- if message.role == 'assistant' %}{{- '<|im_start|>assistant\\n' }}{% generation %}"
    "{{- message.content + '<|im_end|>' }}{% endgeneration %}{{- '\\n' }}{%- else %}" + QWEN_TURN + "{%- endif %}"
)
"""Qwen2.5's way to write a turn, and the same with its answer marked for Hugging Face's mask."""

Spec = dict[str, Any]
Sequences = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8] | None]
"""Lengths int64[S], ids int64[tokens], loss mask u8[tokens] (None where a contender makes none)."""


# The contenders. Each takes the benchmark's settings and gives two functions: one that reads a folder with
# `messages.jsonl` and `text.jsonl` and writes into another, and one that reads the latter back to be compared.

Contender = tuple[Callable[[Path, Path], None], Callable[[Path], Sequences]]


def ours(spec: Spec) -> Contender:
    """`sft-preprocess run`, in this process."""
    options = ["--tokenizer", spec["tokenizer"], "--format", spec.get("format", "openai"), "--workers", "1"]
    if spec.get("engine"):
        options += ["--tokenizer-engine", spec["engine"]]
    name = spec.get("file", "messages.jsonl")
    return (lambda source, target: our_command([str(source / name), "--output", str(target / "out"), *options])), (
        lambda target: read_ours(target / "out")
    )


def our_task(spec: Spec) -> Contender:
    """The same, of which only the task's time counts: reading, rendering, tokenizing, masking and writing a shard."""
    import sft_shards.preprocess.tasks.task

    work, read = ours(spec)
    run_task, spent = sft_shards.preprocess.tasks.task.run_task, [0.0]

    def clocked(*arguments: Any, **more: Any) -> Any:
        before = cpu_seconds()
        try:
            return run_task(*arguments, **more)
        finally:
            spent.append(cpu_seconds() - before)

    for module in list(sys.modules.values()):
        if getattr(module, "run_task", None) is run_task:
            module.run_task = clocked  # type: ignore[attr-defined]

    def alone(source: Path, target: Path) -> None:
        spent.clear()
        work(source, target)
        assert spent, "the task ran in this process"

    alone.spent = spent  # type: ignore[attr-defined]
    return alone, read


def our_command(arguments: list[str]) -> None:
    """Our command with its words kept to itself."""
    from sft_shards.preprocess.cli import cli

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        cli(["run", *arguments], standalone_mode=False)


def read_ours(output: Path) -> Sequences:
    """What a shard directory holds."""
    from sft_shards.formats.shards import ShardDirectory

    train = ShardDirectory(output).split("train")
    rows = [train[row] for row in range(len(train))]
    ids, masks = zip(*rows, strict=True)
    return train.lengths().astype(np.int64), np.concatenate(ids).astype(np.int64), np.concatenate(masks)


def hf_loop(spec: Spec) -> Contender:
    """The loop that people write: `json.loads`, `apply_chat_template` with its mask, arrays to a file."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(spec["marked"])

    def work(source: Path, target: Path) -> None:
        lengths: list[int] = []
        with (
            open(source / "messages.jsonl", encoding="utf-8") as file,
            open(target / "ids.bin", "wb") as ids,
            open(target / "mask.bin", "wb") as masks,
        ):
            for line in file:
                row = tokenizer.apply_chat_template(
                    json.loads(line)["messages"], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
                )
                np.asarray(row["input_ids"], dtype=np.int32).tofile(ids)
                np.asarray(row["assistant_masks"], dtype=np.uint8).tofile(masks)
                lengths.append(len(row["input_ids"]))
        np.save(target / "lengths.npy", np.asarray(lengths))

    return work, read_raw


def read_raw(target: Path) -> Sequences:
    """What the loops of this file write."""
    ids = np.fromfile(target / "ids.bin", dtype=np.int32).astype(np.int64)
    path = target / "mask.bin"
    return np.load(target / "lengths.npy"), ids, np.fromfile(path, dtype=np.uint8) if path.is_file() else None


def hf_map(spec: Spec) -> Contender:
    """`datasets`: `load_dataset("json")` and `map` with `apply_chat_template`."""
    from datasets import Dataset, disable_progress_bars, load_dataset, load_from_disk
    from transformers import AutoTokenizer

    disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(spec["marked"])

    def tokenize(row: dict[str, Any]) -> dict[str, Any]:
        out = tokenizer.apply_chat_template(
            row["messages"], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        return {"input_ids": out["input_ids"], "assistant_masks": out["assistant_masks"]}

    def work(source: Path, target: Path) -> None:
        files, cache = str(source / "messages.jsonl"), str(target / "cache")
        data = load_dataset("json", data_files=files, split="train", cache_dir=cache)
        data.map(tokenize, remove_columns=data.column_names).save_to_disk(str(target / "out"))

    def read(target: Path) -> Sequences:
        data: Dataset = load_from_disk(str(target / "out"))
        return from_lists(data["input_ids"], data["assistant_masks"])

    return work, read


def from_lists(ids: Any, masks: Any = None) -> Sequences:
    """Flat arrays from lists of lists."""
    ids = [np.asarray(one, dtype=np.int64) for one in ids]
    lengths = np.asarray([len(one) for one in ids], dtype=np.int64)
    flat = None if masks is None else np.concatenate([np.asarray(one, dtype=np.uint8) for one in masks])
    return lengths, np.concatenate(ids), flat


def trl(spec: Spec) -> Contender:
    """TRL: building `SFTTrainer(assistant_only_loss=True)` maps its data set; the model has one tiny layer."""
    from datasets import disable_progress_bars, load_dataset
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM
    from trl import SFTConfig, SFTTrainer

    disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(spec["marked"])
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1}
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), **sizes, **heads))
    made: dict[Path, Any] = {}

    def work(source: Path, target: Path) -> None:
        files, cache = str(source / "messages.jsonl"), str(target / "cache")
        options: dict[str, Any] = {"use_cpu": True, "bf16": False, "report_to": [], "max_length": None}
        made[target] = SFTTrainer(
            model,
            args=SFTConfig(output_dir=str(target / "out"), assistant_only_loss=True, **options),
            train_dataset=load_dataset("json", data_files=files, split="train", cache_dir=cache),
            processing_class=tokenizer,
        ).train_dataset

    def read(target: Path) -> Sequences:
        data = made[target]
        return from_lists(data["input_ids"], [[label != -100 for label in row] for row in data["labels"]])

    return work, read


def gpt_neox(spec: Spec) -> Contender:
    """gpt-neox's tools/datasets/preprocess_data_with_chat_template.py, as it is, with one worker."""
    checkout = need_checkout(spec, "tools/datasets/preprocess_data_with_chat_template.py")
    for name in ("megatron", "megatron.data"):  # the packages without their __init__, which wants DeepSpeed
        module = types.ModuleType(name)
        module.__path__ = [str(checkout / name.replace(".", "/"))]
        sys.modules[name] = module
    sys.modules["megatron"].print_rank_0 = print  # type: ignore[attr-defined]
    sys.path.insert(0, str(checkout / "tools/datasets"))
    script = importlib.import_module("preprocess_data_with_chat_template")

    def work(source: Path, target: Path) -> None:
        call = ["--input", str(source / "messages.jsonl"), "--output-prefix", str(target / "out")]
        call += ["--jsonl-keys", "messages", "--tokenizer-path", spec["tokenizer"], "--workers", "1"]
        run_script(script.main, call)

    def read(target: Path) -> Sequences:
        lengths, ids = read_megatron(target / "out_messages_document")
        labels = read_megatron(target / "out_messages_label_document")[1]
        return lengths, ids, (labels != -100).astype(np.uint8)

    return work, read


def megatron(spec: Spec) -> Contender:
    """Megatron-LM's tools/preprocess_data.py, as it is, on rendered text, with one worker."""
    checkout = need_checkout(spec, "tools/preprocess_data.py")
    sys.path[:0] = [str(checkout / "tools"), str(checkout)]
    script = importlib.import_module("preprocess_data")  # by its name: its workers are sent what it defines

    def work(source: Path, target: Path) -> None:
        call = ["--input", str(source / "text.jsonl"), "--output-prefix", str(target / "out"), "--workers", "1"]
        call += ["--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model", spec["tokenizer"]]
        run_script(script.main, call)

    return work, lambda target: (*read_megatron(target / "out_text_document"), None)


def run_script(main: Callable[[], None], call: list[str]) -> None:
    """A script's `main` with arguments, and nothing of it on the terminal."""
    before, sys.argv = sys.argv, ["script", *call]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            main()
    finally:
        sys.argv = before


def need_checkout(spec: Spec, path: str) -> Path:
    """The checkout of a contender; an error where none was given or the script is not in it."""
    if not (checkout := spec.get("checkout")):
        raise FileNotFoundError("needs --checkout NAME=PATH")
    if not (Path(checkout) / path).is_file():
        raise FileNotFoundError(f"no {path} in the checkout")
    return Path(checkout)


def read_megatron(prefix: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lengths and ids of a Megatron indexed data set, document by document."""
    index = Path(f"{prefix}.idx").read_bytes()
    kinds = {1: "u1", 2: "i1", 3: "i2", 4: "i4", 5: "i8", 8: "u2"}
    count = int(np.frombuffer(index, "<u8", 1, 18)[0])
    lengths = np.frombuffer(index, "<i4", count, 34).astype(np.int64)
    return lengths, np.fromfile(f"{prefix}.bin", dtype=kinds[index[17]]).astype(np.int64)


def datatrove(spec: Spec) -> Contender:
    """datatrove's JsonlReader and MegatronDocumentTokenizer on rendered text."""
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens.megatron_tokenizer import MegatronDocumentTokenizer
    from datatrove.utils.logging import logger

    logger.remove()

    def work(source: Path, target: Path) -> None:
        reader = JsonlReader(str(source), glob_pattern="text.jsonl")
        name = str(Path(spec["tokenizer"]) / "tokenizer.json")
        writer = MegatronDocumentTokenizer(str(target), "out", tokenizer_name_or_path=name, eos_token=None)
        writer.run(reader.run())

    return work, lambda target: (*read_megatron(next(target.glob("*.idx")).with_suffix("")), None)


def engine_hf(spec: Spec) -> Contender:
    """The floor of Hugging Face's engine: `encode_batch_fast` of rendered texts that are in memory already."""
    from tokenizers import Tokenizer

    engine = Tokenizer.from_file(str(Path(spec["tokenizer"]) / "tokenizer.json"))

    def encode(batch: list[str]) -> tuple[NDArray[Any], NDArray[Any]]:
        rows = engine.encode_batch_fast(batch, add_special_tokens=False)
        ids = [np.asarray(row.ids, dtype=np.int32) for row in rows]
        return np.concatenate(ids), np.asarray([len(one) for one in ids])

    return bare_engine(encode)


def engine_fastokens(spec: Spec) -> Contender:
    """The floor: fastokens' `encode_batch_flat` of rendered texts that are in memory already."""
    import fastokens

    engine = fastokens.Tokenizer.from_file(str(Path(spec["tokenizer"]) / "tokenizer.json"))

    def encode(batch: list[str]) -> tuple[NDArray[Any], NDArray[Any]]:
        ids, offsets = engine.encode_batch_flat(batch)
        return np.frombuffer(ids, np.uint32), np.diff(np.frombuffer(offsets, np.uint64).astype(np.int64))

    return bare_engine(encode)


def bare_engine(encode: Callable[[list[str]], tuple[NDArray[Any], NDArray[Any]]]) -> Contender:
    """An engine alone; `prepare` reads the texts before the clock starts, and nothing is written while it runs."""
    made: dict[Path, Any] = {}

    def work(source: Path, target: Path) -> None:
        made[target] = [encode(batch) for batch in made.pop(source)]

    def prepare(source: Path) -> None:
        made[source] = list(batches(source / "text.jsonl"))

    def read(target: Path) -> Sequences:
        ids, lengths = zip(*made[target], strict=True)
        return np.concatenate(lengths), np.concatenate(ids).astype(np.int64), None

    work.prepare = prepare  # type: ignore[attr-defined]
    return work, read


def batches(path: Path) -> Iterator[list[str]]:
    """The texts of a file, about `BATCH_CHARACTERS` at a time."""
    batch: list[str] = []
    size = 0
    with open(path, encoding="utf-8") as file:
        for line in file:
            batch.append(json.loads(line)["text"])
            size += len(batch[-1])
            if size >= BATCH_CHARACTERS:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


REFERENCE = "hf-loop"
SLOW = {"share": "quarter"}
CONTENDERS: dict[str, tuple[Callable[[Spec], Contender], dict[str, Any], str]] = {
    REFERENCE: (hf_loop, SLOW, "json + apply_chat_template with its mask, a record at a time"),
    "datasets-map": (hf_map, SLOW, "datasets.map with the same"),
    "trl": (trl, SLOW, "TRL SFTTrainer, assistant_only_loss"),
    "gpt-neox": (gpt_neox, SLOW, "gpt-neox preprocess_data_with_chat_template.py"),
    "megatron": (megatron, SLOW, "Megatron-LM tools/preprocess_data.py, rendered text, no mask"),
    "datatrove": (datatrove, SLOW, "datatrove Megatron writer, rendered text, no mask"),
    "ours": (ours, {}, "sft-preprocess run"),
    "ours-task": (our_task, {}, "the task of it alone, without plan, start and end"),
    "ours-hf": (ours, {"engine": "hf"}, "sft-preprocess run --tokenizer-engine hf"),
    "ours-fastokens": (ours, {"engine": "fastokens"}, "sft-preprocess run --tokenizer-engine fastokens"),
    "engine-hf": (engine_hf, SLOW, "the bare engine of Hugging Face tokenizers, texts in memory"),
    "engine-fastokens": (engine_fastokens, {}, "the bare engine of fastokens, texts in memory"),
}
"""By name: what makes it, settings of its own (`share`: a part of the corpus, for slow ones), and what it is called."""


# One contender in a process of its own.


def cpu_seconds() -> float:
    """CPU time, user and system, of this process and its finished children."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def peak_megabytes() -> float:
    """The most memory that this process, or the largest of its children, held."""
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024


def timed(work: Callable[[Path, Path], None], source: Path, target: Path) -> tuple[float, float]:
    """CPU and wall seconds of a run."""
    target.mkdir(parents=True)
    getattr(work, "prepare", lambda source: None)(source)
    cpu, wall = cpu_seconds(), time.perf_counter()
    work(source, target)
    cpu, wall = cpu_seconds() - cpu, time.perf_counter() - wall
    return sum(getattr(work, "spent", [cpu])), wall


def one_core() -> None:
    """Keep to one core: the last of those that this process may use."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def child(spec: Spec) -> dict[str, Any]:
    """Run a contender over one record, then over the corpus, and compare what it wrote."""
    one_core()
    scratch = Path(spec["scratch"])
    if spec["kind"] == "where":
        return where(spec, scratch)
    make, own, _ = CONTENDERS[spec["name"]]
    work, read = make({**own, **spec})
    one = Path(spec["one"])
    timed(work, one, scratch / "imports")
    before = timed(work, one, scratch / "before")[0]
    cpu, wall = timed(work, Path(spec["corpus"]), scratch / "all")
    peak = peak_megabytes()
    overhead = (before + timed(work, one, scratch / "after")[0]) / 2
    found = read(scratch / "all")
    if spec.get("keep"):
        np.savez(spec["keep"], lengths=found[0], ids=found[1], mask=found[2])
    out = {"cpu": cpu - overhead, "start": overhead, "wall": wall, "peak": peak, "tokens": int(found[0].sum())}
    return out | (compare(found, spec["reference"]) if spec.get("reference") else {})


def compare(found: Sequences, path: str) -> dict[str, Any]:
    """How many sequences have the reference's ids, the same with more behind them, and its mask (None: none made)."""
    with np.load(path) as kept:
        lengths, ids, mask = kept["lengths"], kept["ids"], kept["mask"]
    starts, own = np.cumsum(lengths) - lengths, np.cumsum(found[0]) - found[0]
    equal, longer, masks = 0, 0, 0
    for row in range(min(len(lengths), len(found[0]))):
        a, b = slice(starts[row], starts[row] + lengths[row]), slice(own[row], own[row] + found[0][row])
        equal += bool(np.array_equal(ids[a], found[1][b]))
        longer += lengths[row] < found[0][row] and bool(np.array_equal(ids[a], found[1][b][: lengths[row]]))
        masks += found[2] is not None and bool(np.array_equal(mask[a], found[2][b]))
    masks_equal = None if found[2] is None else int(masks)
    return {"rows": len(found[0]), "ids_equal": equal, "longer": int(longer), "masks_equal": masks_equal}


STAGES: tuple[tuple[str, str, str], ...] = (
    ("formats/records", "", "parse"),
    ("preprocess/sources", "", "parse"),
    ("preprocess/pipeline/read.py", "", "parse"),
    ("preprocess/pipeline/conversations.py", "", "parse"),
    ("formats/templates", "", "render"),
    ("formats/conversation", "", "render"),
    ("preprocess/pipeline/masks.py", "", "mask"),
    ("preprocess/pipeline/tokenize.py", "", "tokenize"),
    ("preprocess/pipeline/render.py", "", "render"),
    ("preprocess/pipeline/skeleton_table.py", "", "render"),
    ("preprocess/tokenizer/nfc.py", "", "tokenize"),
    ("preprocess/tokenizer/byte_lengths.py", "", "mask"),
    ("preprocess/tokenizer/offsets.py", "", "tokenize"),
    ("preprocess/tokenizer/backends.py", "", "tokenize"),
    ("preprocess/tokenizer/tokenizer.py", "", "load the tokenizer"),
    ("preprocess/tasks/task.py", "", "write"),
    ("preprocess/tasks/writer.py", "", "write"),
    ("formats/shards", "", "write"),
)
"""Where a task's time belongs: by a part of the file's path and a function's name (empty: any), the first that fits,
from the innermost frame outwards. A file of ours that is not listed is reported under its own name."""
APART = {"verify": "check of records against Hugging Face", "_trace": "sequences of roles met for the first time"}
"""Functions of ours with all that they call."""


def where(spec: Spec, scratch: Path) -> dict[str, Any]:
    """Sample our run: each sample weighs the CPU time since the one before, so long calls into C count in full."""
    seconds: Counter[str] = Counter()
    last = time.process_time()

    def sample(_signal: int, frame: types.FrameType | None) -> None:
        nonlocal last
        now = time.process_time()
        seconds[stage(frame)] += now - last
        last = now

    work, _ = ours(spec)
    timed(work, Path(spec["one"]), scratch / "imports")
    signal.signal(signal.SIGPROF, sample)
    last = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
    cpu, _ = timed(work, Path(spec["corpus"]), scratch / "all")
    signal.setitimer(signal.ITIMER_PROF, 0)
    return {"cpu": cpu, "stages": dict(seconds)}


def stage(frame: types.FrameType | None) -> str:
    """The stage that a stack belongs to."""
    stack: list[tuple[str, str]] = []
    while frame is not None:
        stack.append((frame.f_code.co_filename, frame.f_code.co_name))
        frame = frame.f_back
    if not any(path.endswith("preprocess/tasks/task.py") and name == "run_task" for path, name in stack):
        return "outside of the task: plan, tokenizer, check of the engine, end"
    for path, name in stack:
        if name in APART and "/preprocess/" in path:
            return APART[name]
    for path, name in stack:
        for part, function, found in STAGES:
            if part in path and function in ("", name):
                return found
        if "/preprocess/" in path:
            return f"other: preprocess/{path.rpartition('/preprocess/')[2]}"
    return "other"


# The corpus, the rounds and the tables.


def prepare(data: Path, folder: Path, tokenizer: Path, marked: Path | None, roles: dict[str, str], size: float) -> Spec:
    """Write the corpus and the two tokenizer folders; what they hold, for the report."""
    from transformers import PreTrainedTokenizerFast

    from sft_shards.formats.errors import RecordError, UsageError
    from sft_shards.formats.records import FieldMap, detect
    from sft_shards.preprocess.sources import find_sources, sample

    plain = PreTrainedTokenizerFast.from_pretrained(str(tokenizer))
    control = [token for token in plain.all_special_tokens if token]
    fields, found, left = FieldMap(roles=roles), {}, Counter[str]()
    for source in find_sources([str(data)]):
        rows = [(number, row) for number, row in sample(source, 1 << 40) if not isinstance(row, RecordError)]
        try:
            form = detect(rows[:200], fields, source.path)
        except UsageError:
            left["in files of no known format"] += len(rows)
            continue
        for _, row in rows:
            try:
                messages = [_bare(message) for message in form.read(row, fields).messages()]
                text = _text(plain, messages, control)
            except (RecordError, ValueError) as error:
                left[str(error) if isinstance(error, ValueError) else "that are no conversation"] += 1
                continue
            left["that were there already"] += text in found
            found.setdefault(text, messages)
    order = list(found.items())
    random.Random(0).shuffle(order)
    kept = _write(order, folder, int(size * 1e6))
    for name, template in (("plain", None), ("marked", _marked(plain.chat_template, marked))):
        shutil.copytree(tokenizer, folder / name, copy_function=shutil.copyfile)
        os.chmod(folder / name, 0o755)
        if template:
            path = folder / name / "tokenizer_config.json"
            path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"chat_template": template}), "utf-8")
    return {"conversations": len(kept), "bytes": sum(len(text.encode()) for text, _ in kept), "left_out": dict(left)}


def _bare(message: dict[str, Any]) -> dict[str, Any]:
    """A message without Alpaca's fields, whose texts its content holds as well."""
    return {key: value for key, value in message.items() if key not in ("instruction", "input")}


def _text(tokenizer: Any, messages: list[dict[str, Any]], control: list[str]) -> str:
    """The rendering of messages that every contender can take; ValueError with what is in the way."""
    if any(set(message) - {"role", "content"} or not message["content"] for message in messages):
        raise ValueError("with tools, reasoning, names or silent turns")
    if any(token in message["content"] for message in messages for token in control):
        raise ValueError("with a typed control token")
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False))
    except Exception:
        raise ValueError("that the template refuses") from None


def _marked(template: str, path: Path | None) -> str:
    if path is not None:
        return path.read_text("utf-8")
    if QWEN_TURN not in template:
        raise SystemExit("the template is not like Qwen2.5's; give its {% generation %} version with --marked FILE")
    return template.replace(QWEN_TURN, QWEN_MARKED)


def _write(order: list[tuple[str, Any]], folder: Path, limit: int) -> list[tuple[str, Any]]:
    """The corpus, cut at a number of bytes, its first quarter, and one record that is not in it."""
    kept, size = [], 0
    while size < limit and len(order) > len(kept) + 1:
        kept.append(order[len(kept)])
        size += len(kept[-1][0].encode())
    for name, rows in (("corpus", kept), ("quarter", kept[: len(kept) // 4]), ("one", order[-1:])):
        (folder / name).mkdir(parents=True)
        with (
            open(folder / name / "messages.jsonl", "w", encoding="utf-8") as messages,
            open(folder / name / "text.jsonl", "w", encoding="utf-8") as texts,
        ):
            for text, conversation in rows:
                messages.write(json.dumps({"messages": conversation}, ensure_ascii=False) + "\n")
                texts.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    return kept


def start(spec: Spec, program: str) -> dict[str, Any]:
    """A child's result, or why there is none."""
    environment = {**os.environ, **QUIET, "HF_HOME": str(Path(spec["scratch"]) / "home")}
    done = subprocess.run(
        [program, __file__, "--child", json.dumps(spec)], capture_output=True, text=True, env=environment
    )
    shutil.rmtree(spec["scratch"], ignore_errors=True)
    for line in done.stdout.splitlines():
        if line.startswith(OUTPUT):
            found: dict[str, Any] = json.loads(line[len(OUTPUT) :])
            return found
    return {"error": (done.stderr.strip().splitlines() or ["it printed nothing"])[-1][:160]}


class Run:
    """The settings of a run, and the corpus that was made for it."""

    def __init__(self, folder: Path, corpus: Spec, checkouts: dict[str, str], programs: dict[str, str]) -> None:
        self.folder = folder
        self.corpus = corpus
        self.checkouts = checkouts
        self.programs = programs
        self._number = 0

    def spec(self, name: str, **more: Any) -> Spec:
        """What a child is told."""
        self._number += 1
        return {
            "kind": "contender",
            "name": name,
            "scratch": str(self.folder / f"run-{self._number}"),
            "tokenizer": str(self.folder / "plain"),
            "marked": str(self.folder / "marked"),
            "corpus": str(self.folder / "corpus"),
            "one": str(self.folder / "one"),
            "checkout": self.checkouts.get(name),
            **more,
        }

    def program(self, name: str) -> str:
        """The Python that runs a contender."""
        return self.programs.get(name, sys.executable)


def contenders(run: Run, names: list[str], rounds: int) -> list[dict[str, Any]]:
    """Every contender in turn, `rounds` times, each round in another order; a row for each."""
    reference = str(run.folder / "reference.npz")
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    first = start(run.spec(REFERENCE, keep=reference), run.program(REFERENCE))
    if "error" in first:
        raise SystemExit(f"{REFERENCE}: {first['error']}")
    sizes = {part: _size(run.folder / part, reference) for part in ("corpus", "quarter")}
    for turn in range(rounds):
        shift = turn * (1 + len(names) // rounds) % len(names)
        for name in names[shift:] + names[:shift]:
            if results[name] and "error" in results[name][0]:
                continue
            share = CONTENDERS[name][1].get("share", "corpus")
            found = start(run.spec(name, reference=reference, corpus=str(run.folder / share)), run.program(name))
            if share == "corpus" and "error" not in found:
                quarter = start(run.spec(name, corpus=str(run.folder / "quarter")), run.program(name))
                found = quarter if "error" in quarter else {**found, "rest": found["cpu"] - quarter["cpu"]}
            results[name].append(found)
            print(f"round {turn + 1}: {name}: {_brief(found)}", file=sys.stderr)
    rows = []
    for name in names:
        row: dict[str, Any] = {"name": name, "what": CONTENDERS[name][2]}
        if failed := next((one for one in results[name] if "error" in one), None):
            rows.append(row | failed)
            continue
        count, tokens, size = sizes[CONTENDERS[name][1].get("share", "corpus")]
        cpu = statistics.median(one["cpu"] for one in results[name])
        row |= {"cpu": cpu, "cpu_all": [one["cpu"] for one in results[name]], "tokens": tokens}
        row |= {"m_tokens_per_s": tokens / cpu / 1e6, "mb_per_s": size / cpu / 1e6}
        row |= {"peak_mb": max(one["peak"] for one in results[name])}
        row |= {"start_s": statistics.median(one["start"] for one in results[name])}
        if "rest" in results[name][0]:
            beyond = sizes["corpus"][1] - sizes["quarter"][1]
            row |= {"going_on": beyond / statistics.median(one["rest"] for one in results[name]) / 1e6}
        rows.append(row | {"correct": _correct(results[name][0], count)})
    return rows


def _size(part: Path, reference: str) -> tuple[int, int, int]:
    """Conversations, tokens and bytes of rendered text in a part of the corpus."""
    with open(part / "text.jsonl", encoding="utf-8") as file:
        sizes = [len(json.loads(line)["text"].encode()) for line in file]
    with np.load(reference) as kept:
        return len(sizes), int(kept["lengths"][: len(sizes)].sum()), sum(sizes)


def _brief(result: dict[str, Any]) -> str:
    return (
        result["error"] if "error" in result else f"{result['cpu']:.2f} s of CPU, {result['wall']:.2f} s on the clock"
    )


def _correct(result: dict[str, Any], expected: int) -> str:
    """What a row says of a contender's ids and masks."""
    words = []
    if result["rows"] != expected:
        words.append(f"{result['rows']:,} of {expected:,} sequences")
    wrong = expected - result["ids_equal"]
    words.append("ids equal" if not wrong else f"IDS DIFFER in {wrong:,} of {expected:,}")
    if result["longer"]:
        words[-1] += f" (in {result['longer']:,} by tokens added at the end)"
    if result["masks_equal"] is None:
        words.append("no mask")
    else:
        wrong = expected - result["masks_equal"]
        words.append("masks equal" if not wrong else f"MASKS DIFFER in {wrong:,} of {expected:,}")
    return ", ".join(words)


def print_contenders(rows: list[dict[str, Any]]) -> None:
    """The table, in the form that docs/performance.md holds."""
    base = next((row["m_tokens_per_s"] for row in rows if row["name"] == REFERENCE and "cpu" in row), None)
    floor = next((row["m_tokens_per_s"] for row in rows if row["name"] == "engine-fastokens" and "cpu" in row), None)
    lasting = next((row["going_on"] for row in rows if row["name"] == "engine-fastokens" and "going_on" in row), None)
    print(
        "| contender | M tokens/s (range) | MB/s | ratio | time of the floor "
        "| going on, M tokens/s | ratio | time of the floor | peak MB | ids and masks |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        if "error" in row:
            print(f"| {row['what']} | not run: {row['error']} | | | | | | | | |")
            continue
        speed = row["m_tokens_per_s"]
        ratio = f"{speed / base:.1f}" if base else ""
        times = f"{floor / speed:.1f}" if floor else ""
        spread = [row["tokens"] / cpu / 1e6 for cpu in sorted(row["cpu_all"], reverse=True)]
        shown = f"{speed:.2f} ({spread[0]:.2f}–{spread[-1]:.2f})"
        cells = [row["what"], shown, f"{row['mb_per_s']:.1f}", ratio, times]
        going = row.get("going_on")
        cells += [
            f"{going:.2f}" if going else "",
            f"{going / base:.1f}" if going and base else "",
            f"{lasting / going:.1f}" if going and lasting else "",
            f"{row['peak_mb']:,.0f}",
        ]
        print(f"| {' | '.join(cells)} | {row['correct']} |")


def scaling(run: Run, processes: list[int], rounds: int, pieces: int = 8, times: int = 6) -> list[dict[str, Any]]:
    """The command over the corpus in several files, with so many cores and `--workers`, on the clock; and over files
    that hold the same several times, so that what a job takes once is told from the rate at which it goes on."""
    lines = (run.folder / "corpus" / "messages.jsonl").read_text("utf-8").splitlines(keepends=True)
    once, often = run.folder / "once", run.folder / "often"
    for folder, copies in ((once, 1), (often, times)):
        folder.mkdir()
        for number in range(pieces):
            (folder / f"{number}.jsonl").write_text("".join(lines[number::pieces]) * copies, "utf-8")
    cores = sorted(os.sched_getaffinity(0))
    results: dict[int, list[tuple[float, float, int]]] = {count: [] for count in processes}
    for turn in range(rounds):
        for count in processes if turn % 2 == 0 else processes[::-1]:
            small, large = (_command(run, folder, count, set(cores[:count])) for folder in (once, often))
            results[count].append((small[0], large[0], large[2] - small[2]))
            print(f"round {turn + 1}: {count} processes: {small[0]:.2f} s, {large[0]:.2f} s", file=sys.stderr)
    rows = []
    for count in processes:
        small, large = (statistics.median(one[at] for one in results[count]) for at in (0, 1))
        beyond = results[count][0][2] / statistics.median(one[1] - one[0] for one in results[count]) / 1e6
        rows.append({"processes": count, "once": small, "often": large, "m_tokens_per_s": beyond})
    print(f"| processes | seconds, once | seconds, {times} times | M tokens/s beyond once | speed-up |")
    print("|---|---|---|---|---|")
    for row in rows:
        speed_up = row["m_tokens_per_s"] / rows[0]["m_tokens_per_s"]
        cells = [f"{row['once']:.1f}", f"{row['often']:.1f}", f"{row['m_tokens_per_s']:.2f}", f"{speed_up:.2f}"]
        print(f"| {row['processes']} | {' | '.join(cells)} |")
    return rows


def _command(run: Run, source: Path, workers: int, cores: set[int]) -> tuple[float, float, int]:
    """Wall and CPU seconds of the whole command, start and finish included, and the tokens that it wrote."""
    output = run.folder / "scaled"
    call = ["run", str(source), "--output", str(output), "--tokenizer", str(run.folder / "plain")]
    call += ["--format", "openai", "--workers", str(workers), "--json"]
    program = f"import os, sys; os.sched_setaffinity(0, {cores}); from sft_shards.preprocess.cli import main; main()"
    cpu, wall = cpu_seconds(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program, *call], capture_output=True, text=True, env={**os.environ, **QUIET}
    )
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    shutil.rmtree(output, ignore_errors=True)
    if done.returncode:
        raise SystemExit(done.stderr.strip().splitlines()[-1])
    tokens = sum(split["tokens"] for split in json.loads(done.stdout)["splits"].values())
    return wall, cpu, tokens


def where_time_goes(run: Run, rounds: int) -> dict[str, Any]:
    """Our run, sampled; the shares of the stages."""
    found = [start(run.spec("ours", kind="where"), sys.executable) for _ in range(rounds)]
    if "error" in found[0]:
        raise SystemExit(found[0]["error"])
    names = {name for one in found for name in one["stages"]}
    seconds = {name: statistics.median(one["stages"].get(name, 0.0) for one in found) for name in names}
    total = sum(seconds.values())
    print("| stage | seconds of CPU | share |")
    print("|---|---|---|")
    for name, value in sorted(seconds.items(), key=lambda pair: -pair[1]):
        if value >= total / 500:
            print(f"| {name} | {value:.2f} | {value / total:.0%} |")
    return {"cpu": statistics.median(one["cpu"] for one in found), "stages": seconds}


FORMS = ("chatml", "openai", "sharegpt", "alpaca", "parquet")
SPEAKERS = {"user": "human", "assistant": "gpt"}


def formats(run: Run, rounds: int) -> list[dict[str, Any]]:
    """The same single questions and answers in each record format."""
    with open(run.folder / "corpus" / "messages.jsonl", encoding="utf-8") as file:
        rows = [json.loads(line)["messages"] for line in file]
    rows = [messages for messages in rows if [message["role"] for message in messages] == ["user", "assistant"]]
    for folder, kept in (("forms", rows), ("forms-one", rows[-1:])):
        write_forms(run.folder / folder, kept)
    results: dict[str, list[dict[str, Any]]] = {form: [] for form in FORMS}
    more = {"corpus": str(run.folder / "forms"), "one": str(run.folder / "forms-one")}
    for turn in range(rounds):
        for form in FORMS if turn % 2 == 0 else FORMS[::-1]:
            name = {"file": "openai.parquet" if form == "parquet" else f"{form}.jsonl"}
            kind = {"format": "openai" if form == "parquet" else form}
            results[form].append(start(run.spec("ours", **more, **name, **kind), sys.executable))
    out = []
    print("| records | M tokens/s | time of ChatML |")
    print("|---|---|---|")
    for form in FORMS:
        if "error" in results[form][0]:
            print(f"| {form} | not run: {results[form][0]['error']} | |")
            continue
        cpu = statistics.median(one["cpu"] / one["tokens"] for one in results[form])
        base = statistics.median(one["cpu"] / one["tokens"] for one in results[FORMS[0]])
        out.append({"format": form, "m_tokens_per_s": 1e-6 / cpu, "of_chatml": cpu / base})
        print(f"| {form} | {1e-6 / cpu:.2f} | {cpu / base:.2f} |")
    return out


def write_forms(folder: Path, rows: list[list[dict[str, Any]]]) -> None:
    """Conversations of one question and one answer in every record format."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    ways: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
        "chatml": lambda turns: {
            "text": "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in turns)
        },
        "openai": lambda turns: {"messages": turns},
        "sharegpt": lambda turns: {
            "conversations": [{"from": SPEAKERS[turn["role"]], "value": turn["content"]} for turn in turns]
        },
        "alpaca": lambda turns: {"instruction": turns[0]["content"], "input": "", "output": turns[1]["content"]},
    }
    for form, way in ways.items():
        with open(folder / f"{form}.jsonl", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(way(turns), ensure_ascii=False) + "\n" for turns in rows)
    pq.write_table(pa.table({"messages": rows}), folder / "openai.parquet")


def main() -> None:
    """Make the corpus, run a mode, and print its table."""
    import click

    @click.command()
    @click.argument("data", type=click.Path(exists=True, path_type=Path))
    @click.argument("tokenizer", type=click.Path(exists=True, path_type=Path))
    @click.option("--mode", type=click.Choice(["contenders", "scaling", "where", "formats"]), default="contenders")
    @click.option("--megabytes", type=float, default=16.0, show_default=True, help="Rendered text to run over.")
    @click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
    @click.option("--only", multiple=True, type=click.Choice(list(CONTENDERS)), help="These contenders; all without.")
    @click.option("--checkout", multiple=True, metavar="NAME=PATH", help="A contender's source: gpt-neox, megatron.")
    @click.option("--python", "programs", multiple=True, metavar="NAME=PROGRAM", help="A contender's Python.")
    @click.option("--map-role", multiple=True, metavar="NAME=ROLE", help="As for sft-preprocess run.")
    @click.option("--marked", type=click.Path(exists=True, path_type=Path), help="The template with {% generation %}.")
    @click.option("--json", "as_json", type=click.Path(path_type=Path), help="Write the numbers there as well.")
    def command(
        data: Path,
        tokenizer: Path,
        mode: str,
        megabytes: float,
        rounds: int,
        only: tuple[str, ...],
        checkout: tuple[str, ...],
        programs: tuple[str, ...],
        map_role: tuple[str, ...],
        marked: Path | None,
        as_json: Path | None,
    ) -> None:
        """How fast are conversations turned into shards, beside what people use today?"""
        pairs = [dict(one.split("=", 1) for one in given) for given in (map_role, checkout, programs)]
        with tempfile.TemporaryDirectory(prefix="sft-benchmark-") as name:
            folder = Path(name)
            corpus = prepare(data, folder, tokenizer, marked, pairs[0], megabytes)
            print(f"{corpus['conversations']:,} conversations, {corpus['bytes'] / 1e6:.1f} MB of rendered text")
            for reason, count in corpus["left_out"].items():
                print(f"left out: {count:,} {reason}", file=sys.stderr)
            run = Run(folder, corpus, pairs[1], pairs[2])
            result: Any
            if mode == "contenders":
                names = list(only or CONTENDERS)
                if not _knows_engines():
                    names = [one for one in names if not CONTENDERS[one][1].get("engine")]
                print_contenders(result := contenders(run, names, rounds))
            elif mode == "scaling":
                result = scaling(run, [1, 2], rounds)
            elif mode == "where":
                result = where_time_goes(run, rounds)
            else:
                result = formats(run, rounds)
        versions = {name: importlib.metadata.version(name) for name in ("transformers", "tokenizers", "datasets")}
        if as_json:
            as_json.write_text(json.dumps({"mode": mode, "corpus": corpus, "versions": versions, "result": result}))

    command()


def _knows_engines() -> bool:
    """Whether our command has `--tokenizer-engine`."""
    from sft_shards.preprocess.cli import cli

    return any("--tokenizer-engine" in option.opts for option in cli.commands["run"].params)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        outcome = child(json.loads(sys.argv[2]))
        print(OUTPUT + json.dumps(outcome))
    else:
        main()
