"""Export a training checkpoint as a folder in INSTRUCTOR's hub layout, with tensors in float16.

    python training/export.py RUN NAME OUT

The script exports ``RUN/NAME/checkpoint.pt`` to the folder OUT. config.json says float32, so that libraries load the
model and compute in float32.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from model import Shape, Student
from safetensors.torch import load_file, save_file
from torch import Tensor
from vocabulary import EXTRA_IDS

from spark_instructor.encoder.tokenizer import build_tokenizer

MAX_TOKENS = 512
_PARTS = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense"), ("3_Normalize", "Normalize"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    checkpoint = torch.load(arguments.run / arguments.name / "checkpoint.pt", weights_only=True, map_location="cpu")
    weights = checkpoint["student"]
    student = Student(Shape(num_layers=sum(name.endswith("qkv.weight") for name in weights)))
    student.load_state_dict(weights)
    export(student, arguments.run / "spiece.model", arguments.out)


def export(student: Student, spiece: Path, out: Path) -> None:
    """Write the folder; raise FileExistsError if it exists already."""
    out.mkdir(parents=True)
    shape = student.shape
    _write_json(
        out / "config.json",
        {
            "architectures": ["T5EncoderModel"],
            "model_type": "t5",
            **shape.to_config(),
            "feed_forward_proj": "relu",
            "dropout_rate": 0.0,
            "is_encoder_decoder": False,
            "use_cache": False,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "decoder_start_token_id": 0,
            "torch_dtype": "float32",
        },
    )
    _write_json(
        out / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(_PARTS)
        ],
    )
    _write_json(out / "sentence_bert_config.json", {"max_seq_length": MAX_TOKENS, "do_lower_case": False})
    _write_json(
        out / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": shape.d_model,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
            "include_prompt": False,  # sentence-transformers infers this only for hkunlp's models
        },
    )
    _write_json(
        out / "2_Dense" / "config.json",
        {
            "in_features": shape.d_model,
            "out_features": shape.dimension,
            "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity",
        },
    )
    _write_tokenizer(spiece, out)
    encoder, dense = _map_hub_tensors(student)
    _save(encoder, out / "model.safetensors")
    _save({"linear.weight": dense}, out / "2_Dense" / "model.safetensors")


def read_checkpoint(student: Student, folder: Path) -> None:
    """Load the weights of an exported folder into the student.

    Layers that the folder lacks keep their initial weights, which add nothing to the stream.
    """
    encoder, dense = _map_hub_tensors(student)
    stored = load_file(folder / "model.safetensors")
    with torch.no_grad():
        for name, tensor in encoder.items():
            if name in stored:
                tensor.copy_(stored[name])
        dense.copy_(load_file(folder / "2_Dense" / "model.safetensors")["linear.weight"])


def _map_hub_tensors(student: Student) -> tuple[dict[str, Tensor], Tensor]:
    """Return the encoder's tensors by their names in ``transformers.T5EncoderModel``, and the tensor of Dense."""
    tensors = {
        "shared.weight": student.shared.weight,
        "encoder.final_layer_norm.weight": student.final_norm.weight,
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": student.position_bias.weight,
    }
    for i, layer in enumerate(student.layers):
        attention, feed_forward = (f"encoder.block.{i}.layer.{part}" for part in (0, 1))
        tensors[f"{attention}.layer_norm.weight"] = layer.attention_norm.weight
        for name, weight in zip("qkv", layer.qkv.weight.chunk(3), strict=True):
            tensors[f"{attention}.SelfAttention.{name}.weight"] = weight
        tensors[f"{attention}.SelfAttention.o.weight"] = layer.o.weight
        tensors[f"{feed_forward}.layer_norm.weight"] = layer.feed_forward_norm.weight
        tensors[f"{feed_forward}.DenseReluDense.wi.weight"] = layer.wi.weight
        tensors[f"{feed_forward}.DenseReluDense.wo.weight"] = layer.wo.weight
    return tensors, student.dense.weight


def _write_tokenizer(spiece: Path, out: Path) -> None:
    """Write spiece.model, and the fast tokenizer that the library builds from it."""
    shutil.copyfile(spiece, out / "spiece.model")
    build_tokenizer(None, spiece).save(str(out / "tokenizer.json"), pretty=False)
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    special_tokens = {"additional_special_tokens": [f"<extra_id_{i}>" for i in range(EXTRA_IDS)], **special}
    _write_json(out / "special_tokens_map.json", special_tokens)
    _write_json(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "T5Tokenizer",
            "extra_ids": EXTRA_IDS,
            "model_max_length": MAX_TOKENS,
            **special_tokens,
        },
    )


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    save_file({name: tensor.detach().half().contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
