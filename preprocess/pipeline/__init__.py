"""Turn batches of raw records into batches of tokens and loss masks."""
