"""Ids and masks of the reference: against transformers, and where boundaries are hard."""

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from pipelines import encode_one
from transformers import PreTrainedTokenizerFast

from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.errors import RecordError
from sft_shards.formats.templates import ChatTemplate, Rendering, TrainOn
from sft_shards.preprocess.pipeline.reference import load_template
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

pytestmark = pytest.mark.unit

KINDS = ("bytes", "bytes-nfc", "spm", "metaspace")


def conversation(*texts):
    roles = ("user", "assistant")
    return Conversation(turns=tuple(Turn(role=roles[at % 2], content=text) for at, text in enumerate(texts)))


def encode(folder, talk, straddle="train", **options):
    tokenizer = Tokenizer(str(folder))
    template = load_template("tokenizer", tokenizer, **options)
    rendering = template.render(talk)
    return tokenizer, encode_one(tokenizer, rendering, TrainOn().spans(rendering, talk), straddle)


def trained_texts(tokenizer, encoded):
    cuts = np.flatnonzero(np.diff(np.concatenate([[0], encoded.loss_mask, [0]]).astype(int)))
    pairs = zip(cuts[::2], cuts[1::2], strict=True)
    return [tokenizer.backend.decode(encoded.ids[a:b].tolist(), skip_special_tokens=False) for a, b in pairs]


HARD = [
    ("Hi", "Hello"),
    ("  leading\n\n", "\n\n two newlines in front"),
    ("naïve café 😀👨‍👩‍👧", "日本語 العربية עברית 🇹🇷"),
    ("a\u2028b\u0085c", "CR\r\nLF\tTAB \u00a0nbsp"),
    ("x" * 500, "y " * 300),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("texts", HARD, ids=range(len(HARD)))
def test_ids_are_apply_chat_template_s_and_trained_text_is_the_answer_s(make_tokenizer, kind, texts):
    folder = make_tokenizer(kind)
    talk = conversation(*texts)
    tokenizer, encoded = encode(folder, talk)
    reference = PreTrainedTokenizerFast.from_pretrained(str(folder))
    assert encoded.ids.tolist() == reference.apply_chat_template(talk.messages(), tokenize=True, return_dict=False)
    (text,) = trained_texts(tokenizer, encoded)
    assert text.endswith(texts[1].removeprefix(" ") + "<|im_end|>")
    before = text.removesuffix(texts[1] + "<|im_end|>")
    assert before in ("", " ") or (encoded.straddling == 1 and before == "\n")  # one token over "assistant\n" and "\n"


def test_nfc_changes_lengths_and_not_the_mask(make_tokenizer):
    decomposed = "cafe\u0301 nai\u0308ve"
    tokenizer, encoded = encode(make_tokenizer("bytes-nfc"), conversation(decomposed, decomposed))
    assert trained_texts(tokenizer, encoded) == ["café naïve<|im_end|>"]


def test_characters_split_over_tokens_are_trained_whole(make_tokenizer):
    tokenizer, encoded = encode(make_tokenizer("bytes"), conversation("🧿", "🪬"))
    assert encoded.loss_mask.sum() >= 3  # one character of four bytes in several tokens, and the stop token
    assert trained_texts(tokenizer, encoded) == ["🪬<|im_end|>"]


@pytest.mark.parametrize("kind", KINDS)
def test_typed_control_tokens_stay_text_and_change_no_other_token(make_tokenizer, kind):
    folder = make_tokenizer(kind)
    typed = conversation("say <|im_end|> and <|im_start|>assistant\nnow", "I say <|im_end|> too")
    if kind == "metaspace":  # puts its space in front of the first piece only, so pieces are not what the whole is
        with pytest.raises(RecordError, match="typed_control_token"):
            encode(folder, typed)
        return
    tokenizer, encoded = encode(folder, typed)
    stop = tokenizer.backend.token_to_id("<|im_end|>")
    assert encoded.ids.tolist().count(stop) == 2
    assert encoded.ids[encoded.loss_mask == 1].tolist().count(stop) == 1
    assert "I say <|im_end|> too<|im_end|>" in trained_texts(tokenizer, encoded)[0]
    tokenizer, meant = encode(folder, typed, allow_control_tokens=True)
    assert meant.ids.tolist().count(stop) == 4
    plain = conversation("say", "I say")
    _, alone = encode(folder, plain)
    _, again = encode(folder, plain, allow_control_tokens=True)
    assert alone.ids.tolist() == again.ids.tolist()


def test_typed_control_tokens_leave_their_neighbours_alone(make_tokenizer):
    tokenizer, encoded = encode(make_tokenizer("bytes"), conversation("x", "the weather</s>the weather"))
    expected = tokenizer.literal_backend({"</s>"}).encode("the weather</s>the weather", add_special_tokens=False).ids
    stop = tokenizer.backend.token_to_id("<|im_end|>")
    assert encoded.ids[encoded.loss_mask == 1].tolist() == [*expected, stop]


def rendering_of(text, start):
    return Rendering(text=text, spoken=()), [(start, len(text))]


def straddling_case(tokenizer):
    """A text and a place in it that a token lies across."""
    text = "Response:  the weather"
    for start in range(1, len(text)):
        encoding = tokenizer.backend.encode(text, add_special_tokens=False)
        if any(low < start < high for low, high in encoding.offsets):
            return text, start
    raise AssertionError("no token of this text has two characters")


def test_straddling_tokens_can_carry_loss_or_not_or_be_split(make_tokenizer):
    tokenizer = Tokenizer(str(make_tokenizer("bytes")))
    text, start = straddling_case(tokenizer)
    rendering, spans = rendering_of(text, start)
    by = {how: encode_one(tokenizer, rendering, spans, how) for how in ("train", "skip", "split")}
    assert by["train"].ids.tolist() == by["skip"].ids.tolist() == tokenizer.backend.encode(text).ids
    assert by["train"].straddling == by["skip"].straddling == 1
    assert by["train"].loss_mask.sum() == by["skip"].loss_mask.sum() + 1
    prompt = tokenizer.backend.encode(text[:start]).ids
    assert by["split"].ids.tolist() == prompt + tokenizer.backend.encode(text[start:]).ids
    assert by["split"].loss_mask.tolist() == [0] * len(prompt) + [1] * (len(by["split"].ids) - len(prompt))
    assert by["split"].straddling == 0


# Control tokens, line separators, NUL, combining marks, right-to-left, emoji sequences, CRLF, spaces, halves of surrogates.
NASTY = st.text(
    st.sampled_from(
        [
            *"ab \n\t\r\0.:<>|/",
            "\u2028",
            "\u0085",
            "\u0301",
            "\u202e",
            "א",
            "ب",
            "👩",
            "\u200d",
            "🏽",
            "\ufeff",
            "\ud800",
            "\ufdd0",
            "▁",
            "\U000f0000",
        ]
    )
    | st.characters(),
    max_size=12,
)
PIECES = st.sampled_from(
    [
        "<|im_end|>",
        "<|im_start|>",
        "<|im_start|>assistant\n",
        "</s>",
        "<s>",
        "<unk>",
        "<think>",
        "</think>",
        "[/INST]",
        "<|im_",
        "end|>",
    ]
)
TEXT = st.lists(NASTY | PIECES, max_size=5).map("".join)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=120)
@given(texts=st.lists(TEXT | TEXT.map("{}ok".format), min_size=2, max_size=6).filter(lambda texts: len(texts) % 2 == 0))
def test_any_conversation_gives_exactly_right_spans_or_a_reject(make_tokenizer, kind, texts):
    if kind not in _LOADED:
        tokenizer = Tokenizer(str(make_tokenizer(kind)))
        _LOADED[kind] = tokenizer, load_template("tokenizer", tokenizer)
    tokenizer, template = _LOADED[kind]
    try:
        talk = conversation(*texts)
        rendering = template.render(talk)
        encoded = encode_one(tokenizer, rendering, TrainOn().spans(rendering, talk))
    except RecordError as error:
        event(error.reason)
        assert error.reason in ("empty_assistant_turn", "lone_surrogate", "reserved_character", "typed_control_token")
        return
    event("accepted")
    # The text is the template's, written out here by hand; what is trained is each answer and its stop token.
    expected, spans = "", []
    for at, text in enumerate(texts):
        expected += "<|im_start|>" + ("user", "assistant")[at % 2] + "\n"
        if at % 2:
            spans.append((len(expected), len(expected) + len(text) + len("<|im_end|>")))
        expected += text + "<|im_end|>\n"
    assert rendering.text == expected
    for (start, end), spoken in zip(spans, rendering.spoken, strict=True):
        assert spoken.end == end
        skipped = expected[start : spoken.start]
        assert not skipped or (skipped.strip().startswith("<think>") and skipped.strip().endswith("</think>"))
    # No typed control token became one, and the genuine ones are all there.
    stop = tokenizer.backend.token_to_id("<|im_end|>")
    assert encoded.ids.tolist().count(stop) == len(texts)
    assert encoded.ids[encoded.loss_mask == 1].tolist().count(stop) == len(texts) // 2


_LOADED: dict[str, tuple[Tokenizer, ChatTemplate]] = {}
