"""Text to token ids, and which bytes or characters of the text each id stands for.

    folder ──Tokenizer──▶ Backend.encode ──▶ TokenIds ──ByteLengths.packed_sums──▶ positions in the text

In a few lines:

    from sft_shards.preprocess.tokenizer.backends import choose_backend, load_backend
    from sft_shards.preprocess.tokenizer.byte_lengths import byte_lengths, unpack_lengths
    from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer
    tokenizer = Tokenizer("tests/data/tokenizer")
    name, why = choose_backend("auto", tokenizer, 3_000_000)  # bytes of input
    tokens = load_backend(name, tokenizer).encode(["naïve", "Hello there"])
    positions = unpack_lengths(byte_lengths(tokenizer).packed_sums(tokens.ids, tokens.offsets[:-1]))
    print(why, tokens.ids.tolist(), tokens.offsets.tolist(), positions.tolist())

A tokenizer does one thing here: text to ids, nothing added, nothing cut. A backend gives ids fast; `offsets` asks
Hugging Face's tokenizers, which also say which characters each id came from. Where both can answer, they must agree.
"""
