"""Tensors with a wrong shape, a wrong dtype, or a form that only a pickle can represent."""

import torch
from checkpoints import edit_json, read_bin
from safetensors.torch import load_file, save_file

from .case import CONFIG, DENSE_WEIGHTS, PICKLE, WEIGHTS, acceptance, refusal

BLOCK = "encoder.block.0.layer"
EMBEDDING = "shared.weight"


def with_number(tensor, number):
    """Return a copy of the tensor whose last number is replaced."""
    tensor = tensor.clone()
    tensor.view(-1)[-1] = number
    return tensor


WRONG = {
    "with one row more": lambda tensor: torch.cat([tensor, tensor[:1]]),
    "with one row less": lambda tensor: tensor[:-1].contiguous(),
    "with one dimension more": lambda tensor: tensor[None],
    "flat": lambda tensor: tensor.reshape(-1, 1),
    "scalar": lambda tensor: torch.tensor(1.0),
    "empty": lambda tensor: tensor[:0],
    "of int64": torch.Tensor.long,
    "of bool": torch.Tensor.bool,
    "of complex numbers": lambda tensor: tensor.to(torch.complex64),
    "with NaN": lambda tensor: with_number(tensor, float("nan")),
    "with an infinity": lambda tensor: with_number(tensor, float("inf")),
    "of float64 beyond float32": lambda tensor: with_number(tensor.double(), 1e300),
}
EVERY = tuple(WRONG)
SOME = ("with one row less", "flat", "of int64", "with NaN")

TENSORS = [
    (WEIGHTS, EMBEDDING, EVERY),
    (WEIGHTS, "encoder.final_layer_norm.weight", SOME),
    (WEIGHTS, f"{BLOCK}.0.SelfAttention.relative_attention_bias.weight", SOME),
    (WEIGHTS, f"{BLOCK}.0.layer_norm.weight", SOME),
    (WEIGHTS, f"{BLOCK}.0.SelfAttention.q.weight", SOME),
    (WEIGHTS, f"{BLOCK}.0.SelfAttention.k.weight", SOME),
    (WEIGHTS, f"{BLOCK}.0.SelfAttention.v.weight", SOME),
    (WEIGHTS, f"{BLOCK}.0.SelfAttention.o.weight", SOME),
    (WEIGHTS, f"{BLOCK}.1.layer_norm.weight", SOME),
    (WEIGHTS, f"{BLOCK}.1.DenseReluDense.wi.weight", SOME),
    (WEIGHTS, f"{BLOCK}.1.DenseReluDense.wo.weight", SOME),
    (DENSE_WEIGHTS, "linear.weight", EVERY),
]

WRONG_IN_PICKLE = {
    "sparse": torch.Tensor.to_sparse,
    "without numbers": lambda tensor: tensor.to("meta"),
    "nested": lambda tensor: torch.nested.nested_tensor([tensor]),
    "of quantized numbers": lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
    "of one number in every place": lambda tensor: torch.ones(1).expand(tensor.shape),
    "that is no tensor": torch.Tensor.tolist,
}
FINE_IN_PICKLE = {
    "a parameter": torch.nn.Parameter,
    "stored by columns": lambda tensor: tensor.t().contiguous().t(),
    "part of a longer one": lambda tensor: torch.cat([tensor, tensor])[: len(tensor)],
}


def cases():
    for file, name, whats in TENSORS:
        yield refusal("safetensors", file, f"has no {name}", remove, name)
        for what in whats:
            yield refusal("safetensors", file, f"has {name} {what}", change, name, WRONG[what])
    yield acceptance("safetensors", WEIGHTS, f"has {EMBEDDING} of float64", change, EMBEDDING, torch.Tensor.double)
    yield acceptance("safetensors", WEIGHTS, "has a tensor too many", add, "decoder.x", torch.ones(2))
    what = "has a bias, but its config.json says bias: false"
    yield refusal("safetensors", DENSE_WEIGHTS, what, add, "linear.bias", torch.ones(24))
    for what, function in WRONG_IN_PICKLE.items():
        yield refusal("bin", PICKLE, f"has {EMBEDDING} {what}", change_in_pickle, EMBEDDING, function)
    for what, function in FINE_IN_PICKLE.items():
        yield acceptance("bin", PICKLE, f"has {EMBEDDING} {what}", change_in_pickle, EMBEDDING, function)
    yield refusal("bin", PICKLE, "has one number for 4 TB", repeat_one_number)
    yield acceptance("bin", PICKLE, "has one storage for all tensors", share_storage)


def remove(path, name):
    tensors = load_file(path)
    del tensors[name]
    save_file(tensors, path)


def add(path, name, tensor):
    save_file({**load_file(path), name: tensor}, path)


def change(path, name, function):
    tensors = load_file(path)
    save_file({**tensors, name: function(tensors[name])}, path)


def change_in_pickle(path, name, function):
    tensors = read_bin(path.parent)
    torch.save({**tensors, name: function(tensors[name])}, path)


def repeat_one_number(path):
    edit_json(path.with_name(CONFIG), vocab_size=10**6, d_model=10**6)
    torch.save({**read_bin(path.parent), EMBEDDING: torch.ones(1).expand(10**6, 10**6)}, path)


def share_storage(path):
    """Write all tensors as views of one storage, which safetensors itself cannot do."""
    tensors = read_bin(path.parent)
    flat = torch.cat([tensor.flatten() for tensor in tensors.values()])
    views = flat.split([tensor.numel() for tensor in tensors.values()])
    shaped = (view.view_as(tensor) for view, tensor in zip(views, tensors.values(), strict=True))
    torch.save(dict(zip(tensors, shaped, strict=True)), path)
