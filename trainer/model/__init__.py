"""The model that is trained: shape and weights from a Hugging Face folder, and back into one.

    config.json ──hf_config──▶ model shape ──flags──▶ Megatron's model ◀──weights── safetensors, by the tensor map
                                                        │
                                     checkpoint ◀───────┘ ──export──▶ Hugging Face model, or adapter

Which rows of which Hugging Face tensors a Megatron tensor consists of, whatever the parallel layout:

    from sft_shards.trainer.model import hf_config
    from sft_shards.trainer.model.tensor_map import TensorMap
    shape = hf_config.read("configs/models/qwen2.5-7b.json")
    tensor = TensorMap(shape).find("decoder.layers.3.mlp.linear_fc1.weight")
    print(tensor.shape, [rows.name for rows in tensor.rows])

`architectures` is the table of what differs between models; `lora` and `adapters` are for training adapters alone.
"""
