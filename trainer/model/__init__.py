"""The model that is trained: its shape from a Hugging Face configuration, and how Megatron builds it."""
