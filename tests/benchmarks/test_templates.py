"""The benchmark of chat templates: its conversations, what it collects, and what its oracle calls wrong."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from preprocess_jobs import TOKENIZER
from template_texts import CHATML

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
DROPS_REASONING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning_content and loop.last %}"
    "<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OPEN_TURNS = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}{# <|user|> #}"
)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> object:
    """Import a module of the benchmark, which no distribution has."""
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])

    def load(name: str) -> ModuleType:
        return importlib.import_module(f"benchmarks.templates.{name}")

    return load


def test_there_are_conversations_of_every_kind(module) -> None:
    cases = module("conversations").conversations()
    assert len(cases) >= 150
    assert sum(case.agentic for case in cases) >= 50
    assert len({case.name for case in cases}) == len(cases)
    json.dumps([case.record for case in cases])


def test_templates_are_collected_once_from_every_kind_of_file(module, tmp_path: Path) -> None:
    (tmp_path / "a.jinja").write_text(CHATML)
    (tmp_path / "b.jinja").write_text("no template")
    (tmp_path / "c.json").write_text(json.dumps({"models": [{"model_name": "m", "chat_template": CHATML + " "}]}))
    (tmp_path / "d.py").write_text(f"CHAT = {CHATML!r} + '  '\nOTHER = 1\n")
    (tmp_path / "e.ts").write_text(f"export const t = {{ gguf: {json.dumps(CHATML + '   ')} }};")
    (tmp_path / "f.yaml").write_text(json.dumps({"instruction_template": CHATML + "    "}))
    (tmp_path / "g.hpp").write_text(f'static auto t = R"({CHATML})";')
    (tmp_path / "h.json").write_text("{% broken")
    broken = "{% for message in messages %}"
    (tmp_path / "i.yaml").write_text(json.dumps({"instruction_template": broken}))
    found = module("collect").collected([tmp_path])
    assert [text.removeprefix(CHATML) for _, text in found] == ["", " ", "  ", "   ", "    "]


@pytest.fixture
def make(module, tmp_path: Path):
    """Return a maker of the oracle for a template."""
    tokenizers = module("tokenizers")

    def oracle(source: str, name: str = "qwen3", base: Path = Path(TOKENIZER)) -> object:
        family = tokenizers.family_of(name, source)
        tokenizers.make_tokenizer(base, source, family, tmp_path / "tokenizer")
        return module("oracle").Oracle(tmp_path / "tokenizer", family.stops)

    return oracle


def trained(oracle, expected) -> str:
    """Return the text that has to carry loss, a bar between spans."""
    out, last = "", None
    for at in sorted(expected.must):
        out += "|" if last is not None and at > last + 1 else ""
        out += oracle.tokenizer.decode([expected.ids[at]], skip_special_tokens=False)
        last = at
    return out


QUESTION = {"role": "user", "content": "Hi"}


def test_oracle_trains_the_answer_and_its_stop_token(make) -> None:
    oracle = make(CHATML)
    [expected] = oracle.expect([QUESTION, {"role": "assistant", "content": "Hello <|im_end|> you"}], None)
    control = oracle.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert expected.ids.count(control) == 2  # the one that is typed is text
    assert trained(oracle, expected) == "Hello <|im_end|> you<|im_end|>"
    assert (expected.endings, expected.lost, expected.unjudged) == (frozenset(), (), "")


def test_a_mask_that_differs_by_a_token_is_wrong(module, make) -> None:
    judge = module("oracle").judge
    [expected] = make(CHATML).expect([QUESTION, {"role": "assistant", "content": "Hello"}], None)
    mask = [int(at in expected.must) for at in range(len(expected.ids))]
    assert judge(expected, expected.ids, mask) == "exact"
    last = max(expected.must)
    assert judge(expected, expected.ids, [*mask[:last], 0, *mask[last + 1 :]]) == "loss is missing"
    assert judge(expected, expected.ids, [1, *mask[1:]]) == "loss where none belongs"
    assert judge(expected, expected.ids[:-1], mask[:-1]) == "ids differ"


def test_a_token_may_span_the_rendering_and_what_ends_it(module, make) -> None:
    judge = module("oracle").judge
    oracle = make(
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}"
        "{% if not loop.last %}{{ ' <|im_end|>\\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ ' <|im_end|>\\n<|im_start|>assistant\\n' }}{% endif %}"
    )
    apart, joined = oracle.expect([QUESTION, {"role": "assistant", "content": "Hello "}], None)
    assert not joined.endings
    assert trained(oracle, joined) == "Hello  <|im_end|>"
    mask = [int(at in joined.must) for at in range(len(joined.ids))]
    assert judge(joined, joined.ids, mask) == "exact"
    assert judge(apart, joined.ids, mask) != "exact"
    assert judge(joined, joined.ids, [*mask[:-1], 0]) == "loss is missing"


def test_calls_and_texts_that_are_not_rendered_are_lost(module, make) -> None:
    oracle = make(CHATML)
    [expected] = oracle.expect([QUESTION, *module("conversations").calls("Bern")], None)
    assert set(expected.lost) == {"call of turn 1"}
    oracle = make(CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}"))
    [expected] = oracle.expect([{"role": "system", "content": "Be brief"}, QUESTION], None)
    assert expected.lost == ("answer of turn 0",)


def test_arguments_that_are_a_number_and_not_rendered_are_lost(make) -> None:
    calls = "{% for c in m.tool_calls or [] %}{{ c.function.name }}{% endfor %}<|im_end|>{% endfor %}"
    oracle = make("{% for m in messages %}{{ m.content or '' }}" + calls)
    call = {"id": "1", "type": "function", "function": {"name": "now", "arguments": 3}}
    [expected] = oracle.expect([QUESTION, {"role": "assistant", "tool_calls": [call]}], None)
    assert expected.lost == ("call of turn 1",)


def test_what_a_template_cannot_say_is_told_from_what_was_refused_without_need(module, make) -> None:
    name = "{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments | string }}{% endfor %}"
    text, end = "{{ m.content or '' }}", "<|im_end|>"
    result = "{% if m.tool_calls %}{{ (messages[loop.index] or {}).content }}{% endif %}"
    prompt = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

    def obstacle(*parts: str) -> str:
        turn = "{% if m.role != 'tool' %}<|im_start|>{{ m.role }}\n" + "".join(parts) + "{% endif %}"
        oracle = make("{% for m in messages %}" + turn + "{% endfor %}" + prompt)
        return oracle.obstacle([QUESTION, *module("conversations").calls("Bern", content="Let me look")], None)

    assert obstacle(text, name, end, result) == ""
    assert obstacle(text, name, end) == "the template leaves something out"
    assert obstacle(name, end, text, end, result) == "a turn goes on behind its stop token"
    assert obstacle(name, result, text, end) == "another message stands inside of a turn"
    assert obstacle("{{ raise_exception('no') }}") == "the template raises"


def test_a_turn_whose_reasoning_history_leaves_out_carries_no_loss(make) -> None:
    oracle = make(DROPS_REASONING)
    answer = {"role": "assistant", "content": "So", "reasoning_content": "Why"}
    [expected] = oracle.expect([QUESTION, answer, QUESTION, answer], None)
    assert trained(oracle, expected) == "<think>Why</think>So<|im_end|>"
    [expected] = oracle.expect([QUESTION, {"role": "assistant", "content": "So"}, QUESTION, answer], None)
    assert trained(oracle, expected) == "So<|im_end|>|<think>Why</think>So<|im_end|>"


def test_an_empty_think_block_carries_no_loss_but_the_newlines_of_an_answer_do(make) -> None:
    oracle = make(CHATML.replace("m.content", "('<think></think>' if m.role == 'assistant' else '') + m.content"))
    [expected] = oracle.expect([QUESTION, {"role": "assistant", "content": "\n\nSo"}], None)
    assert "assistant\n<think></think>\n\nSo" in expected.text
    assert trained(oracle, expected) == "\n\nSo<|im_end|>"


def test_newlines_of_an_answer_behind_an_empty_think_block_are_told_from_those_in_front_of_a_call(make) -> None:
    oracle = make(
        CHATML.replace("m.content", "('<think></think>' if m.role == 'assistant' else '') + m.content + (m.call or '')")
    )
    called = {"role": "assistant", "content": "\n\n", "call": "\n\nnow"}
    [expected] = oracle.expect([QUESTION, called], None)
    assert trained(oracle, expected) == "\n\n\n\nnow<|im_end|>"


def test_the_stop_token_of_a_turn_may_be_the_first_token_of_the_next(make) -> None:
    oracle = make(OPEN_TURNS, "glm-4")
    said = {"role": "assistant", "content": "So"}
    [expected] = oracle.expect([QUESTION, said, QUESTION, said], None)
    assert trained(oracle, expected) == "So<|user|>|So"
    assert expected.endings == {(oracle.tokenizer.convert_tokens_to_ids("<|user|>"),)}


def test_a_turn_ends_with_its_stop_token_where_a_later_message_stands_in_front_of_it(make) -> None:
    first = "{% for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}"
    oracle = make(first + CHATML.replace("in messages %}", "in messages if m.role != 'system' %}"))
    said = {"role": "assistant", "content": "So"}
    [expected] = oracle.expect([QUESTION, said, {"role": "system", "content": "Be brief"}, QUESTION, said], None)
    assert trained(oracle, expected) == "So<|im_end|>|So<|im_end|>"


def test_a_generation_prompt_that_is_always_written_is_cut_off(make) -> None:
    oracle = make(CHATML.replace("{% if add_generation_prompt %}", "{% if true %}"))
    [expected] = oracle.expect([QUESTION, {"role": "assistant", "content": "So"}], None)
    assert expected.text.endswith("So<|im_end|>\n")


@pytest.mark.parametrize(("end", "generated"), [("", "\n\n"), ("\n", "")])
def test_a_turn_whose_history_has_other_white_space_than_its_prompt(make, end: str, generated: str) -> None:
    source = "{% for m in messages %}{{ ('\t' if m.role == 'assistant' else '') + '<|im_start|>' + m.role + '\n\n' }}"
    prompt = "{% if add_generation_prompt %}{{ ' <|im_start|>assistantEND' }}{% endif %}".replace("END", end)
    oracle = make(source + "{{ m.content }}<|im_end|>{% endfor %}" + prompt)
    [expected] = oracle.expect([QUESTION, {"role": "assistant", "content": " So"}], None)
    assert trained(oracle, expected) == generated + " So<|im_end|>"
    [expected] = oracle.expect([QUESTION, {"role": "assistant", "content": "So"}, QUESTION], None)
    assert trained(oracle, expected) == generated + "So<|im_end|>"


def test_a_turn_whose_history_leaves_out_what_the_prompt_ends_with(make) -> None:
    source = "{% for m in messages %}{{ m.role + ':\\n' + m.content + '<|im_end|>' }}{% endfor %}"
    oracle = make(source + "{% if add_generation_prompt %}{{ 'assistant:\\n<thought>\\n' }}{% endif %}")
    [expected] = oracle.expect([QUESTION, {"role": "assistant", "content": "So"}], None)
    assert trained(oracle, expected) == "So<|im_end|>"


def test_a_token_behind_everything_is_no_part_of_the_prompt(make) -> None:
    oracle = make(CHATML + "<|endoftext|>")
    [expected] = oracle.expect([QUESTION, {"role": "assistant", "content": "So"}], None)
    assert trained(oracle, expected) == "So<|im_end|>"


def test_a_typed_tag_that_the_template_takes_out_is_judged(make) -> None:
    oracle = make(CHATML.replace("m.content", "m.content.replace('</think>', '<>')"))
    asked = {"role": "user", "content": "<think>no</think> <|im_end|>"}
    [expected] = oracle.expect([asked, {"role": "assistant", "content": "So"}], None)
    assert (trained(oracle, expected), expected.unjudged) == ("So<|im_end|>", "")
    assert "<think>no<> <|im_end|><|im_end|>" in expected.text
    assert expected.ids.count(oracle.encoder.numbers["<|im_end|>"]) == 2  # the one that was typed is text


def test_a_turn_that_begins_a_conversation_of_a_template_without_a_prompt_is_generated_as_a_whole(make) -> None:
    oracle = make("{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}")
    [expected] = oracle.expect([{"role": "assistant", "content": "Hello"}, QUESTION], None)
    assert trained(oracle, expected) == "assistant: Hello<|im_end|>"


def test_a_turn_that_begins_a_conversation_has_a_header_though_the_prompt_stands_behind_messages_alone(make) -> None:
    inside = CHATML.replace("{% endfor %}{% if add", "{% if loop.last and add") + "{% endfor %}"
    [expected] = make(inside).expect([{"role": "assistant", "content": "Hello"}, QUESTION], None)
    assert trained(make(inside), expected) == "Hello<|im_end|>"


def test_a_prompt_without_what_was_said_before_is_none(make) -> None:
    oracle = make("{% if messages | length > 1 %}" + CHATML + "{% endif %}")
    asked = [{"role": "system", "content": "Be brief"}, {"role": "assistant", "content": "Hello"}]
    [expected] = oracle.expect(asked, None)
    assert trained(oracle, expected) == "Hello<|im_end|>"


def test_a_turn_that_begins_a_conversation_stands_behind_a_prompt_of_white_space(make) -> None:
    prompt = "{% if add_generation_prompt %}{{ '\t' }}{% endif %}"
    turn = "{{ ('\t' if m.role == 'assistant' else '') + m.content + '<|im_end|>' }}"
    oracle = make("{{ bos_token }}{% for m in messages %}" + turn + "{% endfor %}" + prompt)
    [expected] = oracle.expect([{"role": "assistant", "content": "Hello"}, QUESTION], None)
    assert trained(oracle, expected) == "Hello<|im_end|>"


def test_a_turn_without_a_prompt_begins_where_the_template_marks_it_as_generated(make) -> None:
    said = "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
    other = "{% if m.role == 'assistant' %}" + said + "{% else %}{{ m.content }}<|im_end|>{% endif %}"
    oracle = make("{% for m in messages %}<|im_start|>{{ m.role }}\n" + other + "{% endfor %}")
    [expected] = oracle.expect([QUESTION, {"role": "assistant", "content": "Hello"}], None)
    assert trained(oracle, expected) == "Hello<|im_end|>"


def test_white_space_of_a_question_stands_in_front_of_what_separates_its_answer(make) -> None:
    said = "{{ m.content }}{% if not loop.last %}{{ '\t\t' }}{% endif %}"
    oracle = make("{% for m in messages %}" + said + "{% endfor %}<|im_end|>")
    for question, answer in (("Hi\t\t", "\tSo"), ("Hi\t\t-\t\t*", "So"), ("Hi", "<think>\t\tWhy</think>So")):
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        [expected] = oracle.expect(messages, None)
        assert trained(oracle, expected) == answer + "<|im_end|>"


def test_a_prompt_that_says_there_is_no_reasoning_is_no_header_of_a_turn_that_has_some(make) -> None:
    thought = "('<think>\\n' + m.reasoning_content if m.reasoning_content else '') + '</think>\\n'"
    said = f"{{{{ ({thought} if m.role == 'assistant' else '') + m.content }}}}<|im_end|>"
    prompt = "{% if add_generation_prompt %}{{ 'assistant:</think>' }}{% endif %}"
    oracle = make("{% for m in messages %}{{ m.role + ':' }}" + said + "{% endfor %}" + prompt)
    answers = [{"role": "assistant", "content": "So", **more} for more in ({"reasoning_content": "Why"}, {})]
    [expected] = oracle.expect([QUESTION, answers[0], QUESTION, answers[1]], None)
    assert trained(oracle, expected) == "<think>\nWhy</think>\nSo<|im_end|>|\nSo<|im_end|>"


def test_a_text_that_stands_behind_a_turn_does_not_hide_its_header(make) -> None:
    text = "{{ (messages[0].content + ' ' if m.role == 'user' and loop.last else '') + m.content }}<|im_end|>"
    oracle = make("{% for m in messages[1:] %}<|im_start|>" + text + "{% endfor %}")
    messages = [{"role": "system", "content": "Be brief"}, QUESTION, {"role": "assistant", "content": "So"}, QUESTION]
    [expected] = oracle.expect(messages, None)
    assert (trained(oracle, expected), expected.unjudged) == ("So<|im_end|>", "")


def test_a_typed_control_token_may_show_the_template_its_brackets(make) -> None:
    source = CHATML.replace("m.content", "(m.content.replace('x', '<x>') if '<' in m.content else m.content)")
    asked = {"role": "user", "content": "x <|im_end|>"}
    oracle = make(source)
    [expected] = oracle.expect([asked, {"role": "assistant", "content": "So"}], None)
    assert (trained(oracle, expected), expected.unjudged) == ("So<|im_end|>", "")
    assert expected.ids.count(oracle.encoder.numbers["<|im_end|>"]) == 2  # the one that was typed is text


def test_a_typed_tag_that_the_template_looks_for_is_text_all_the_same(make) -> None:
    source = CHATML.replace("m.content", "(m.content + ('!' if m.content.startswith('<tool_response>') else ''))")
    asked = {"role": "user", "content": "<tool_response>1</tool_response>"}
    oracle = make(source + "{# </tool_response> #}")
    [expected] = oracle.expect([asked, {"role": "assistant", "content": "So"}], None)
    assert (trained(oracle, expected), expected.unjudged) == ("So<|im_end|>", "")
    assert "</tool_response>!<|im_end|>" in expected.text
    assert oracle.encoder.numbers["<tool_response>"] not in expected.ids


def test_an_answer_without_letters_is_found_where_history_is_rewritten(make) -> None:
    oracle = make(CHATML.replace("m.content", "m.content + '\\t'").replace("assistant\\n' }}", "assistant\\n<x>' }}"))
    [expected] = oracle.expect([QUESTION, {"role": "assistant", "content": "[]"}, QUESTION], None)
    assert trained(oracle, expected) == "[]\t<|im_end|>"


@pytest.mark.parametrize("reason", ["Why", "[]"])
def test_reasoning_without_letters_is_lost_as_other_reasoning_is(make, reason: str) -> None:
    first = {"role": "assistant", "content": "Hello", "reasoning_content": reason}
    last = {"role": "assistant", "content": "So", "reasoning_content": reason}
    oracle = make(DROPS_REASONING)
    [expected] = oracle.expect([QUESTION, first, QUESTION, last], None)
    assert trained(oracle, expected) == f"<think>{reason}</think>So<|im_end|>"


def test_lost_reasoning_of_a_turn_before_any_question_carries_no_loss(make) -> None:
    begins = [{"role": "assistant", "content": "So", "reasoning_content": "Why"}, QUESTION]
    [expected] = make(DROPS_REASONING).expect(begins, None)
    assert not expected.must
    refuses = (
        "{% if messages | length == 1 and messages[0].role == 'assistant' %}{{ raise_exception('no') }}{% endif %}"
    )
    [expected] = make(refuses + DROPS_REASONING).expect(begins, None)
    assert not expected.must


def test_a_list_of_no_calls_counts_as_none_and_arguments_without_text_as_an_object(make) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "now", "arguments": ""}}
    said = [{"role": "assistant", "content": "So", "tool_calls": calls} for calls in ([], [call])]
    none, one = make(CHATML).renderer.prepare(said, None)
    assert "tool_calls" not in none
    assert one["tool_calls"][0]["function"] == {"name": "now", "arguments": {}}


def test_the_machinery_runs_templates_of_ours_and_goes_on(module, tmp_path: Path) -> None:
    runner, tables = module("runner"), module("tables")
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "qwen3.jinja").write_text(CHATML)
    (templates / "other.jinja").write_text("{{ messages }}")
    cases = module("conversations").conversations()[::25]
    paths = sorted(templates.glob("*.jinja"))
    bases = runner.Bases(byte_level=Path(TOKENIZER), sentencepiece=Path(TOKENIZER))
    for path in paths:
        target = runner.target_of(tmp_path, path, cases)
        runner.save(target, runner.judge_template(path, bases, cases))
    found = list(runner.verdicts(tmp_path, paths, cases))
    assert len(found) == 2 * len(cases)
    assert {one.verdict for one in found if one.template == "other"} == {"refused"}
    assert not [one for one in found if one.verdict in ("wrong", "unjudged")]
    runner.run(paths, bases, cases, tmp_path, jobs=1, limit=0)  # all of them were run
    assert list(runner.verdicts(tmp_path, paths, cases)) == found
    assert "| Qwen3 | 1 |" in tables.acceptance(found, runner.reading_calls(paths))
    assert runner.reading_calls(paths) == frozenset()
    assert "job refused" in tables.by_reason(found)
    assert "6 cannot be said: the template leaves something out" in tables.by_obstacle(found)  # CHATML writes no calls
    assert "## refused: job refused" in tables.examples(found, 1)
