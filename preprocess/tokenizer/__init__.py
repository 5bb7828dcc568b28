"""Turn text into token ids, and say which bytes of the text each id stands for."""
