"""Write checkpoints in the hub's layout, with random weights of any shape and the tokenizer of tests/data/tiny."""

import json
import math
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

TINY = Path(__file__).parent / "data" / "tiny"
TOKENIZER_FILES = ("tokenizer.json", "spiece.model", "tokenizer_config.json", "special_tokens_map.json")
STORED_AS = ("safetensors", "sharded", "bin", "sharded bin")

_CONFIG = {
    "model_type": "t5",
    "architectures": ["T5EncoderModel"],
    "vocab_size": 1024,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 3,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "relu",
    "pad_token_id": 0,
    "eos_token_id": 1,
}


def write_checkpoint(
    folder,
    *,
    dimension=24,
    stored_as="safetensors",
    dtype=torch.float32,
    max_length=512,
    tokenizer_files=TOKENIZER_FILES,
    seed=0,
    **config,
):
    """Write a checkpoint and return its folder.

    `dimension` is the output width of the Dense layer; None leaves the layer out. `config` overrides config.json.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {**_CONFIG, **config}
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense"), ("3_Normalize", "Normalize")]
    if dimension is None:
        del modules[2]
    write_json(folder / "config.json", config)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    write_json(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(modules)
        ],
    )
    # sentence-transformers requires the key, although its value need not be d_model: in instructor-large it is not.
    write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": config["d_model"], "pooling_mode_mean_tokens": True, "include_prompt": False},
    )
    encoder, dense = random_tensors(config, dimension, seed)
    write_weights(folder, encoder, stored_as, dtype)
    if dense:
        write_json(
            folder / "2_Dense" / "config.json",
            {
                "in_features": config["d_model"],
                "out_features": dimension,
                "bias": False,
                "activation_function": "torch.nn.modules.linear.Identity",
            },
        )
        write_weights(folder / "2_Dense", dense, "bin" if "bin" in stored_as else "safetensors", dtype)
    for name in tokenizer_files:
        shutil.copyfile(TINY / name, folder / name)
    return folder


def random_tensors(config, dimension, seed=0):
    """Draw random tensors for the encoder and the Dense layer, scaled so that attention is far from uniform.

    T5 does not divide its attention scores by the square root of the head's width. Here the scores have a standard
    deviation of about 2, and the position bias has one of 1.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape, spread=1.0):
        return torch.randn(*shape, generator=generator) * spread

    d_model, d_ff, heads = config["d_model"], config["d_ff"], config["num_heads"]
    inner = heads * config["d_kv"]
    of_query = math.sqrt(2 / math.sqrt(config["d_kv"])) / math.sqrt(d_model)
    tensors = {
        "shared.weight": normal(config["vocab_size"], d_model),
        "encoder.final_layer_norm.weight": 1 + normal(d_model, spread=0.2),
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": normal(
            config["relative_attention_num_buckets"], heads
        ),
    }
    for i in range(config["num_layers"]):
        attention, feed_forward = (f"encoder.block.{i}.layer.{part}" for part in (0, 1))
        tensors |= {
            f"{attention}.layer_norm.weight": 1 + normal(d_model, spread=0.2),
            f"{attention}.SelfAttention.q.weight": normal(inner, d_model, spread=of_query),
            f"{attention}.SelfAttention.k.weight": normal(inner, d_model, spread=of_query),
            f"{attention}.SelfAttention.v.weight": normal(inner, d_model, spread=d_model**-0.5),
            f"{attention}.SelfAttention.o.weight": normal(d_model, inner, spread=inner**-0.5),
            f"{feed_forward}.layer_norm.weight": 1 + normal(d_model, spread=0.2),
            f"{feed_forward}.DenseReluDense.wi.weight": normal(d_ff, d_model, spread=d_model**-0.5),
            f"{feed_forward}.DenseReluDense.wo.weight": normal(d_model, d_ff, spread=d_ff**-0.5),
        }
    return tensors, {"linear.weight": normal(dimension, d_model, spread=d_model**-0.5)} if dimension else {}


def write_weights(folder, tensors, stored_as="safetensors", dtype=torch.float32):
    """Remove the old weights and write new ones: safetensors or pickles, in one file or in two with an index."""
    for old in [*folder.glob("*.safetensors*"), *folder.glob("*.bin*")]:
        old.unlink()
    tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    if stored_as == "bin":
        torch.save(tensors, folder / "pytorch_model.bin")
    elif stored_as == "safetensors":
        save_file(tensors, folder / "model.safetensors")
    else:
        stem, suffix, save = (
            ("pytorch_model", "bin", torch.save) if "bin" in stored_as else ("model", "safetensors", save_file)
        )
        shard_of = {name: f"{stem}-{i % 2 + 1:05}-of-00002.{suffix}" for i, name in enumerate(tensors)}
        for shard in set(shard_of.values()):
            save({name: tensor for name, tensor in tensors.items() if shard_of[name] == shard}, folder / shard)
        write_json(folder / f"{stem}.{suffix}.index.json", {"metadata": {}, "weight_map": shard_of})


def copy_tiny(folder, *, stored_as="bin", without=()):
    """Copy the golden checkpoint. Its weights are `.bin` files; they are rewritten if `stored_as` says otherwise."""
    shutil.copytree(TINY, folder, ignore=lambda _, names: [name for name in names if name in without])
    if stored_as != "bin":
        write_weights(folder, read_bin(TINY), stored_as)
        write_weights(folder / "2_Dense", read_bin(TINY / "2_Dense"))
    return folder


def read_bin(folder):
    """Read the tensors of a `.bin` file, without the second name that T5 gives its embeddings."""
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    return {name: tensor for name, tensor in tensors.items() if name != "encoder.embed_tokens.weight"}


def edit_json(path, **changes):
    """Change keys of a JSON file's object; the value None removes a key."""
    content = {**json.loads(path.read_text("utf-8")), **changes}
    write_json(path, {key: value for key, value in content.items() if value is not None})


def write_json(path, content):
    """Write a JSON file, and create its folder if it does not exist."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2), "utf-8")
