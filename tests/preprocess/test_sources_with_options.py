"""`sources:` in YAML and `--source` in a call: inputs with formats, columns, roles and template arguments of their own."""

import json
from fractions import Fraction

import pytest
import yaml
from preprocess_jobs import TOKENIZER, contents, error_line
from template_texts import ARGUED

from sft_shards.formats.shards import Manifest, ShardDirectory
from sft_shards.formats.shards.rows import Origins

pytestmark = pytest.mark.process

QA = [{"question_text": f"q{number}", "reply": f"a{number}"} for number in range(5)]
TALK = [
    {"turns": [{"role": "client", "content": f"Hi {number}"}, {"role": "bot", "content": "Hello"}]}
    | ({"chat_template_kwargs": {"reasoning_effort": "low"}} if number % 2 else {})
    for number in range(5)
]
PLAIN = [{"messages": [{"role": "user", "content": "One"}, {"role": "assistant", "content": "Two"}]}]


def lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return str(path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, records in (("qa", QA), ("talk", TALK), ("plain", PLAIN)):
        lines(tmp_path / f"{name}.jsonl", records)
    (tmp_path / "mine.jinja").write_text(ARGUED, "utf-8")
    return tmp_path


SOURCES = [
    {"path": "qa.jsonl", "format": "alpaca", "field": {"instruction": "question_text", "output": "reply"},
     "template_arg": {"enable_thinking": False}},
    {"path": "talk.jsonl", "field": {"messages": "turns"}, "map-role": {"client": "user", "bot": "assistant"},
     "template-arg": {"reasoning_effort": "high", "enable_thinking": None}},
    "plain.jsonl",
]  # fmt: skip
JOB = {"tokenizer": str(TOKENIZER), "template": "mine.jinja", "template_arg": {"reasoning_effort": "medium"},
       "verify_every": 1}  # fmt: skip


def configured(path, **changes):
    path.write_text(yaml.safe_dump({**JOB, "sources": SOURCES, **changes}), "utf-8")
    return path


def texts(output):
    from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

    split, tokenizer = ShardDirectory(output).split("train"), Tokenizer(str(TOKENIZER))
    return [tokenizer.decode(split[row][0]) for row in range(len(split))]


def rendered(question, answer, **arguments):
    from transformers import AutoTokenizer

    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    return tokenizer.apply_chat_template(messages, chat_template=ARGUED, tokenize=False, **arguments)


def test_every_source_is_read_and_rendered_in_its_own_way(preprocess, folder):
    status, _, err = preprocess("run", "--config", configured(folder / "job.yaml"), "--output", "out", "--workers", 1)
    assert status == 0, err
    medium = {"reasoning_effort": "medium"}
    assert texts(folder / "out") == [
        *(rendered(f"q{number}", f"a{number}", enable_thinking=False, **medium) for number in range(5)),
        *(rendered(f"Hi {number}", "Hello", reasoning_effort="low" if number % 2 else "high") for number in range(5)),
        rendered("One", "Two", **medium),
    ]
    manifest = Manifest.read(folder / "out")
    assert [dict(source.options) for source in manifest.sources] == [
        {name.replace("-", "_"): value for name, value in SOURCES[0].items() if name != "path"},
        {"field": {"messages": "turns"}, "map_role": {"client": "user", "bot": "assistant"},
         "template_arg": {"reasoning_effort": "high"}},
        {},
    ]  # fmt: skip
    assert manifest.config["inputs"] == ["qa.jsonl", "talk.jsonl", "plain.jsonl"]
    status, _, err = preprocess("run", "--config", folder / "job.yaml", "--output", "out")
    assert status == 0, err
    assert "nothing is left to do" in err


def test_steps_workers_and_words_of_a_call_give_the_same_bytes(preprocess, folder):
    path = configured(folder / "job.yaml")
    for words in (["run", "--config", path, "--workers", 1], ["plan", "--config", path]):
        assert preprocess(*words, "--output", words[0])[0] == 0
    (folder / "mine.jinja").rename(folder / "gone.jinja")
    assert preprocess("task", "--output", "plan", "--workers", 2)[0] == 0
    assert preprocess("finalize", "--output", "plan")[0] == 0
    assert contents(folder / "plan") == contents(folder / "run")
    (folder / "gone.jinja").rename(folder / "mine.jinja")
    status, out, err = preprocess("run", "--config", path, "--output", "k", "--engine", "kubernetes")
    assert status == 0, err
    command = json.loads(out)["items"][0]["spec"]["template"]["spec"]["initContainers"][0]["command"]
    patience = command.index("--patience")
    arguments = ["words" if word == "k" else word for word in command[1:patience]]
    assert arguments[0] == "plan"
    assert preprocess("run", *arguments[1:], "--workers", 1)[0] == 0
    assert contents(folder / "words") == contents(folder / "run")


def test_another_option_of_a_source_is_another_job(preprocess, folder):
    assert preprocess("run", "--config", configured(folder / "a.yaml"), "--output", "a", "--workers", 1)[0] == 0
    changed = [SOURCES[0] | {"template_arg": {"enable_thinking": True}}, *SOURCES[1:]]
    path = configured(folder / "b.yaml", sources=changed)
    status, _, err = preprocess("run", "--config", path, "--output", "a")
    assert status == 2
    assert "config.sources[0].template_arg.enable_thinking: false → true" in error_line(err)
    status, _, err = preprocess("run", "--config", path, "--output", "b", "--extend", "a", "--workers", 1)
    assert status == 0, err
    assert preprocess("run", "--config", path, "--output", "c", "--workers", 1)[0] == 0
    assert contents(folder / "b") == contents(folder / "c"), "a source with other options is made anew"
    assert texts(folder / "b")[:5] != texts(folder / "a")[:5]
    status, out, _ = preprocess("diff", "a", "b")
    assert status == 1
    assert "source qa.jsonl: options.template_arg.enable_thinking: false → true" in out


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([{"path": "qa.jsonl", "formt": "alpaca"}], "sources[0]: unknown key 'formt'; did you mean 'format'?"),
        (["plain.jsonl", {"path": "qa.jsonl", "template_args": {}}], "sources[1]: unknown key 'template_args'; did you "
         "mean 'template_arg'?"),
        ([{"path": "qa.jsonl", "weight": 0}], "sources[0]: weight: is 0; expected a number above 0"),
        ([{"path": "qa.jsonl", "weight": "2"}], 'sources[0]: weight: is "2"; expected a number above 0'),
        ([{"path": "qa.jsonl", "weight": True}], "sources[0]: weight: is true; expected a number above 0"),
        ([{"format": "alpaca"}], "sources[0]: no path"),
        ([{"path": 5}], "sources[0]: path: is 5; expected a text"),
        ([{"path": "qa.jsonl", "field": "q"}], 'sources[0]: field: is "q"; expected a mapping'),
        ([{"path": "qa.jsonl", "field": {"output": 5}}], "sources[0]: field: output is 5; expected a text"),
        ([[]], "sources[0]: is list"),
        ([{"path": "qa.jsonl", "template_arg": {"messages": []}}], "sources[0]: template_arg: messages: has a meaning"),
        ([{"path": "qa.jsonl", "format": "alpac"}], "sources: qa.jsonl: --format alpac: unknown; did you mean 'alpaca'?"),
        ([{"path": "plain.jsonl", "field": {"instrution": "q"}}], "sources: plain.jsonl: --field instrution=…: no format"),
        ([{"path": "plain.jsonl", "template_arg": {"mood": 1}}], "plain.jsonl: --template-arg mood: template mine.jinja"
         " does not use it (it takes: enable_thinking, reasoning_effort)"),
        (["plain.jsonl", {"path": "*.jsonl", "format": "openai"}], "plain.jsonl: two sources name it with different"),
    ],
    ids=str,
)  # fmt: skip
def test_sources_that_cannot_be_meant(preprocess, folder, sources, message):
    status, _, err = preprocess("run", "--config", configured(folder / "job.yaml", sources=sources), "--output", "out")
    assert status == 2
    assert message in error_line(err)
    assert not (folder / "out").exists()


def weighted(*weights):
    """The sources with these weights; None: none of its own."""
    named = [one if isinstance(one, dict) else {"path": one} for one in SOURCES]
    return [one | ({} if weight is None else {"weight": weight}) for one, weight in zip(named, weights, strict=True)]


def test_weights_change_the_manifest_alone(preprocess, folder):
    plain, path = configured(folder / "plain.yaml"), configured(folder / "job.yaml", sources=weighted(0.3, 2, None))
    for words in (["--config", plain, "--output", "plain"], ["--config", path, "--output", "out"]):
        assert preprocess("run", *words, "--workers", 1)[0] == 0
    assert [source.weight for source in Manifest.read(folder / "out").sources] == [Fraction(3, 10), 2, 1]
    old, new = contents(folder / "plain"), contents(folder / "out")
    assert {name for name in old | new if old.get(name) != new.get(name)} == {"manifest.json"}
    status, out, _ = preprocess("diff", "plain", "out")
    assert status == 1
    assert "source qa.jsonl: options.weight: null → 0.3" in out


def test_other_weights_make_no_shard_anew(preprocess, folder):
    for name, weights in (("a", (0.3, 2, None)), ("b", (1, None, 5)), ("c", (1, None, 5))):
        path = configured(folder / f"{name}.yaml", sources=weighted(*weights))
        extend = ["--extend", "a"] if name == "b" else []
        status, _, err = preprocess("run", "--config", path, "--output", name, "--workers", 1, *extend)
        assert status == 0, err
    assert contents(folder / "b") == contents(folder / "c")
    for path in (folder / "b" / "train" / "tokens").iterdir():
        assert path.samefile(folder / "a" / "train" / "tokens" / path.name), "a hard link to the older shard"


@pytest.mark.parametrize("merged", [False, True])
def test_a_split_opens_by_weight(preprocess, folder, merged):
    path = configured(folder / "job.yaml", sources=weighted(0.3, None, 0.3), shard_tokens=40)
    assert preprocess("run", "--config", path, "--output", "out", "--workers", 1)[0] == 0
    if merged:
        lines(folder / "other.jsonl", PLAIN)
        other = configured(folder / "other.yaml", sources=[{"path": "other.jsonl", "weight": 0.3}])
        assert preprocess("run", "--config", other, "--output", "other", "--workers", 1)[0] == 0
        assert preprocess("merge", "out", "other", "--output", "both")[0] == 0
    output = folder / ("both" if merged else "out")
    directory = ShardDirectory(output)
    whole, origins = directory.split("train"), Origins(output, directory.split("train"))
    found = {}
    for part in directory.by_weight(whole):
        own = Origins(output, part.split)
        assert {own[row].source for row in range(len(part.split))} == set(part.sources)
        found[part.weight] = [(own[row], part.split[row][0].tolist()) for row in range(len(part.split))]
    light = ["plain.jsonl", "qa.jsonl", *(["other.jsonl"] if merged else [])]
    every = [(origins[row], whole[row][0].tolist()) for row in range(len(whole))]
    assert found == {
        Fraction(3, 10): [one for one in every if one[0].source in light],
        Fraction(1): [one for one in every if one[0].source == "talk.jsonl"],
    }


def test_inputs_are_named_in_one_place(preprocess, folder):
    status, _, err = preprocess("run", "plain.jsonl", "--config", configured(folder / "job.yaml"), "--output", "out")
    assert status == 2
    assert "sources and INPUT both name inputs" in error_line(err)


def test_the_example_runs(preprocess, tmp_path, monkeypatch):
    root = TOKENIZER.parents[2]
    monkeypatch.chdir(root)
    status, out, err = preprocess(
        "run", "--config", "configs/preprocess/sources.yaml", "--output", tmp_path / "out", "--workers", 1
    )
    assert status == 0, err
    assert "train: " in out
