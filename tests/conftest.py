"""What several rooms of tests share: the small data that ships, and tokenizers of every kind made from it."""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from peak_memory import PeakMemory

# The first example pays for imports, and a busy machine draws slowly: neither says anything about the code. The same code
# is tried with the same examples; `make fuzz` looks for new ones.
settings.register_profile("repo", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repo")

ROOT = Path(__file__).parents[1]
DATA = Path(__file__).parent / "data"
STEPS_TOOL = 4
"""An id of `sys.monitoring` that no debugger, profiler or coverage measurement uses."""
MEMORY = pytest.StashKey[PeakMemory]()
KINDS = ("unit", "process", "megatron", "slurm", "gpu")
"""The markers of setup.cfg that say what a test needs; every test has exactly one."""
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA2 = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'user' %}{{ ' [INST] ' + message.content + ' [/INST]' }}"
    "{% elif message.role == 'assistant' %}{{ ' ' + message.content + eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-change",
        action="store_true",
        help="kill commands before every change of the disk, and fill it at every one, instead of at a few (make chaos)",
    )


def pytest_sessionstart(session: pytest.Session) -> None:
    if os.environ.get("PYTEST_XDIST_WORKER") is None:  # whoever started the workers counts them too
        session.config.stash[MEMORY] = PeakMemory()
        session.config.stash[MEMORY].start()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say how much memory the run took; pytest's closing line comes after it."""
    if MEMORY in config.stash:
        peak = config.stash[MEMORY].stop()
        terminalreporter.write_line(f"peak memory, all processes of the run together: {peak / 2**30:.1f} GiB")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """End the run if a test does not say what it needs."""
    wrong = {}
    for item in items:
        kinds = [mark.name for mark in item.iter_markers() if mark.name in KINDS]
        if len(kinds) != 1:
            wrong[item.nodeid.partition("[")[0]] = " and ".join(kinds) or "none"
    if wrong:
        lines = [f"  {name}: {found}" for name, found in wrong.items()]
        raise pytest.UsageError(
            f"every test has exactly one marker of {', '.join(KINDS)} (`pytestmark = pytest.mark.unit` for a file):\n"
            + "\n".join(lines)
        )


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder of the run's own, so that nothing is found that another commit left."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["SFT_SHARDS_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory, where the machine has a file system for that: syncing costs no time there."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path_factory.mktemp("memory")
        return
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def data() -> Path:
    return DATA


@pytest.fixture(scope="session")
def bpe_folder() -> Path:
    """The byte-level BPE that ships, with a ChatML template."""
    return DATA / "tokenizer"


def texts() -> list[str]:
    records = json.loads((DATA / "alpaca_en.json").read_text("utf-8"))
    lines = (DATA / "chatml_zh.jsonl").read_text("utf-8").split("\n")
    return [value for record in records for value in record.values()] + lines


@pytest.fixture(scope="session")
def make_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a tokenizer folder: `kind` is bytes, bytes-nfc, spm (a space is prepended) or metaspace."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    made: dict[tuple[str, str | None], Path] = {}

    def make(kind: str, template: str | None = CHATML) -> Path:
        if (kind, template) in made:
            return made[kind, template]
        special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"]
        byte_level = kind.startswith("bytes")
        tokenizer = Tokenizer(models.BPE(unk_token=None if byte_level else "<unk>", byte_fallback=not byte_level))
        alphabet = []
        if byte_level:
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = decoders.ByteLevel()
            alphabet = pre_tokenizers.ByteLevel.alphabet()
            if kind == "bytes-nfc":
                tokenizer.normalizer = normalizers.NFC()
        else:
            special += [f"<0x{byte:02X}>" for byte in range(256)]
            if kind == "spm":
                steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
                tokenizer.normalizer = normalizers.Sequence(steps)
            else:
                tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
            tokenizer.decoder = decoders.Sequence(
                [
                    decoders.Replace("▁", " "),
                    decoders.ByteFallback(),
                    decoders.Fuse(),
                    decoders.Strip(" ", 1, 0),
                ]
            )
        trainer = trainers.BpeTrainer(
            vocab_size=1500,
            special_tokens=[AddedToken(token, special=True, normalized=False) for token in special],
            initial_alphabet=alphabet,
            max_token_length=12,
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts()[:600], trainer)
        folder = tmp_path_factory.mktemp(kind)
        spec = json.loads(tokenizer.to_str())
        if not byte_level:  # byte tokens are ordinary entries of the vocabulary, as in SentencePiece's own models
            spec["added_tokens"] = [token for token in spec["added_tokens"] if not token["content"].startswith("<0x")]
        (folder / "tokenizer.json").write_text(json.dumps(spec), "utf-8")
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "unk_token": "<unk>"}
        config["eos_token"] = "</s>" if template == LLAMA2 else "<|im_end|>"
        if template is not None:
            config["chat_template"] = template
        (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
        made[kind, template] = folder
        return folder

    return make


@pytest.fixture
def steps() -> Callable[[Callable[[], object]], int]:
    """Count the lines of `formats` and `preprocess` that a call runs: its work, without a clock."""
    ours = tuple(str(ROOT / name) + os.sep for name in ("formats", "preprocess"))
    monitoring = sys.monitoring

    def count(call: Callable[[], object]) -> int:
        done = 0

        def line(code: CodeType, _number: int) -> Any:
            nonlocal done
            if not code.co_filename.startswith(ours):
                return monitoring.DISABLE
            done += 1
            return None

        monitoring.use_tool_id(STEPS_TOOL, "steps")
        monitoring.register_callback(STEPS_TOOL, monitoring.events.LINE, line)
        monitoring.restart_events()  # what an earlier count turned off
        monitoring.set_events(STEPS_TOOL, monitoring.events.LINE)
        try:
            call()
        finally:
            monitoring.set_events(STEPS_TOOL, monitoring.events.NO_EVENTS)
            monitoring.free_tool_id(STEPS_TOOL)
        return done

    return count


@pytest.fixture
def preprocess(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run `sft-preprocess` in this process; gives its exit status, standard output and standard error."""
    from sft_shards.preprocess.cli import main

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["sft-preprocess", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return call
