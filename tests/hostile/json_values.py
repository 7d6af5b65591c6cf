"""Keys of the JSON files, each with wrong values, and with unusual values that are valid."""

from . import damage
from .case import CONFIG, DENSE, LIMIT, POOLING, SETTINGS, TOKENIZER_CONFIG, acceptance, refusal, shorten
from .damage import NESTED_LIST

# None removes the key.
NO_COUNTS = [True, 0, 32.0, "32", 10**9, 10**400, float("inf")]
NO_TEXTS = [True, 3, ["t5"], {"a": 1}, "", "x" * 100_000, "\ud800"]
NO_FLAGS = [1, "false", []]
NO_LIMITS = [True, 1, -5, 512.0, "512", [512], 2**20 + 1, 10**9 - 1, 1e30, NESTED_LIST]

REFUSED = [
    ("safetensors", CONFIG, "vocab_size", [None, *NO_COUNTS, NESTED_LIST]),
    ("safetensors", CONFIG, "d_model", [None, *NO_COUNTS, NESTED_LIST]),
    ("safetensors", CONFIG, "d_kv", [None, *NO_COUNTS, NESTED_LIST]),
    ("safetensors", CONFIG, "d_ff", [None, *NO_COUNTS, NESTED_LIST]),
    ("safetensors", CONFIG, "num_layers", [None, *NO_COUNTS, NESTED_LIST]),
    ("safetensors", CONFIG, "num_heads", [None, *NO_COUNTS, NESTED_LIST]),
    (
        *("safetensors", CONFIG, "relative_attention_num_buckets"),
        [True, -1, 0, 32.0, "32", 10**9, 10**400, 1, 2, 3],
    ),
    # A distance of 10**9 is valid, unlike a width of 10**9.
    (
        *("safetensors", CONFIG, "relative_attention_max_distance"),
        [True, -1, 0, 32.0, "32", 10**12, 10**400, 1, 8],
    ),
    (
        *("safetensors", CONFIG, "layer_norm_epsilon"),
        [True, -1e-6, 0.0, 1, "1e-6", [1e-6], 1e300, float("nan")],
    ),
    ("safetensors", CONFIG, "model_type", [None, *NO_TEXTS, NESTED_LIST]),
    ("safetensors", CONFIG, "feed_forward_proj", [*NO_TEXTS, NESTED_LIST]),
    ("safetensors", LIMIT, "max_seq_length", NO_LIMITS),
    ("safetensors", LIMIT, "do_lower_case", [True, *NO_FLAGS]),
    ("slow", TOKENIZER_CONFIG, "model_max_length", NO_LIMITS),
    ("safetensors", DENSE, "out_features", [None, *NO_COUNTS]),
    ("safetensors", DENSE, "bias", [None, True, *NO_FLAGS]),
    (
        *("safetensors", DENSE, "activation_function"),
        [None, *NO_TEXTS, "torch.nn.Tanh", "evil.NoIdentity", NESTED_LIST],
    ),
    ("safetensors", POOLING, "pooling_mode_mean_tokens", [False, 1, 0, "yes", []]),
    ("safetensors", POOLING, "pooling_mode_cls_token", [True, 1, "false", [], {}]),
    ("safetensors", POOLING, "pooling_mode", [True, 3, "cls", ["mean", "cls"], [], {}, NESTED_LIST]),
    ("safetensors", POOLING, "include_prompt", [None, *NO_FLAGS]),
    ("safetensors", SETTINGS, "default_prompt_name", [True, 3, ["a"], "a", NESTED_LIST]),
    ("safetensors", SETTINGS, "truncate_dim", [True, 0, -1, 2.0, "2", 10**400, NESTED_LIST]),
    ("safetensors", LIMIT, "processing_kwargs", [True, 3, "x", {"text": {"max_length": 5}}, NESTED_LIST]),
]
ACCEPTED = [
    # T5's defaults replace these missing values.
    ("safetensors", CONFIG, "relative_attention_num_buckets", [None]),
    ("safetensors", CONFIG, "relative_attention_max_distance", [None]),
    ("safetensors", CONFIG, "layer_norm_epsilon", [None]),
    ("safetensors", CONFIG, "feed_forward_proj", [None]),
    ("safetensors", CONFIG, "torch_dtype", [3, "evil.module"]),
    ("safetensors", CONFIG, "auto_map", [{"AutoModel": "evil.Model"}]),
    ("safetensors", LIMIT, "max_seq_length", [None, 10**30, 10**9]),
    ("safetensors", LIMIT, "do_lower_case", [None]),
    ("safetensors", LIMIT, "processing_kwargs", [{}]),
    ("safetensors", SETTINGS, "default_prompt_name", [None]),
    ("safetensors", SETTINGS, "prompts", [3, {"a": 3}, NESTED_LIST]),
    ("safetensors", SETTINGS, "truncate_dim", [None, 24, 10**9]),
    ("slow", TOKENIZER_CONFIG, "model_max_length", [None, 10**30, 10**9]),
    # The shapes of the weights determine these widths, so the values are ignored.
    ("safetensors", DENSE, "in_features", [None, 7, "x"]),
    ("safetensors", POOLING, "word_embedding_dimension", [None, 7, "x"]),
    ("safetensors", DENSE, "activation_function", ["evil_module_that_is_not_imported.Identity"]),
    ("safetensors", POOLING, "pooling_mode_mean_tokens", [None]),
    ("safetensors", POOLING, "pooling_mode", ["mean", ["mean"]]),
]


def cases():
    for outcome, table in ((refusal, REFUSED), (acceptance, ACCEPTED)):
        for checkpoint, file, key, values in table:
            for value in values:
                yield outcome(checkpoint, file, f"{key} = {shorten(value)}", damage.set_key, key, value)
