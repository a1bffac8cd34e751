"""Families of ATen ops, by name without the mark of the in-place variant."""

from __future__ import annotations

# fmt: off
VIEWS = {"view", "_unsafe_view", "reshape", "_reshape_alias", "flatten", "unflatten", "view_copy"}
COPIES = {
    "alias", "detach", "clone", "contiguous", "_to_copy", "lift_fresh", "lift_fresh_copy", "copy",
    "resolve_conj", "resolve_neg", "_conj", "positive", "view_as", "to", "_conj_physical",
}
MOVES = {
    "t", "transpose", "permute", "unsqueeze", "squeeze", "expand", "repeat", "select", "slice",
    "split", "split_with_sizes", "chunk", "unbind", "narrow", "diagonal", "as_strided", "movedim",
    "swapaxes", "view_as_complex", "view_as_real", "real", "imag", "unfold", "pixel_shuffle",
    "pixel_unshuffle", "channel_shuffle", "expand_as", "repeat_interleave", "tensor_split", "glu",
    "complex", "im2col", "col2im",
}
JOINS = {"cat", "stack", "concat", "hstack", "vstack"}
PADS = {"constant_pad_nd", "pad"}
# Ops along `dim` (argument 1, or the keyword) whose result there depends on the order or on which
# entry is largest.
ORDERED = {
    "_softmax": 1, "softmax": 1, "_safe_softmax": 1, "_log_softmax": 1, "log_softmax": 1,
    "sort": 1, "argsort": 1, "topk": 2, "kthvalue": 2, "median": 1, "cumsum": 1, "cumprod": 1,
    "logcumsumexp": 1, "cummax": 1, "cummin": 1, "flip": 1, "roll": 2, "amax": 1, "amin": 1,
    "max": 1, "min": 1, "argmax": 1, "argmin": 1, "logsumexp": 1, "prod": 1, "any": 1, "all": 1,
    "_fft_c2c": 1, "_fft_r2c": 1, "_fft_c2r": 1, "mode": 1, "nonzero": None, "unique_dim": 1,
    "_unique2": None, "tril": None, "triu": None, "masked_select": None, "bincount": None,
    "histc": None, "count_nonzero": 1, "searchsorted": None, "bucketize": None, "isin": None,
    "diag_embed": None, "nanmedian": 1, "quantile": 2, "renorm": 2,
}
LAST_BY_DEFAULT = {"sort", "argsort", "topk", "kthvalue", "_fft_c2c"}
AVERAGES = {"mean", "sum", "nansum", "nanmean"}
SPREADS = {"var", "var_mean", "std", "std_mean"}
NORMS = {"linalg_vector_norm", "norm", "frobenius_norm"}
LAYER_NORMS = {"native_layer_norm", "_fused_rms_norm", "rms_norm", "_fused_rms_norm_"}
GROUP_NORMS = {"native_group_norm", "group_norm"}
BATCH_NORMS = {"native_batch_norm", "_native_batch_norm_legit", "_batch_norm_no_update",
                "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "batch_norm"}
PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "vdot", "linear",
             "matmul", "addr", "outer", "ger", "_grouped_mm", "_addmm_activation"}
CONVOLUTIONS = {"convolution", "_convolution", "mkldnn_convolution", "cudnn_convolution",
                 "convolution_overrideable"}
LOOKUPS = {"embedding", "_embedding_bag", "index_select", "index", "_unsafe_index", "gather",
            "take_along_dim", "take"}
STORES = {"index_put", "_index_put_impl", "_unsafe_index_put", "index_add", "index_copy",
           "index_fill", "index_reduce", "scatter", "scatter_add", "scatter_reduce", "put",
           "masked_scatter", "select_scatter", "slice_scatter", "diagonal_scatter"}
# Along finite spatial or token dimensions these act on each feature for itself; the number is how
# many leading dimensions (batch, features) they leave alone.
SPATIAL = ("avg_pool", "max_pool", "adaptive_", "upsample_", "reflection_pad", "replication_pad",
            "_adaptive_", "grid_sampler", "_upsample", "interpolate")
CONSTANTS = {"fill", "zero", "zeros_like", "ones_like", "empty_like", "full_like", "rand_like",
              "randn_like", "new_zeros", "new_ones", "new_empty", "new_full", "randint_like",
              "normal", "uniform", "bernoulli", "random", "exponential", "new_empty_strided",
              "empty_strided", "eye"}
POINTWISE = {"rsub", "log_sigmoid_forward", "polar", "native_dropout", "dropout",
              "_fused_dropout", "_prelu_kernel", "where", "nan_to_num", "lerp", "hardshrink"}
# Entry by entry, positively homogeneous of degree 1: a factor passes through.
HOMOGENEOUS = {"relu", "leaky_relu", "abs", "neg", "rrelu", "prelu", "_prelu_kernel", "view_as",
                "real", "imag", "angle", "hardtanh", "clamp", "clamp_min", "clamp_max"}
SUMS = {"add", "sub", "rsub", "maximum", "minimum", "where", "masked_fill", "lerp", "fmax", "fmin"}
MULTIPLIES = {"mul", "div", "addcmul", "addcdiv", "true_divide", "lerp", "_prelu_kernel"}
STEPS = {"sign", "sgn", "round", "floor", "ceil", "trunc", "frac", "heaviside", "fmod", "fix",
          "remainder", "floor_divide", "gt", "lt", "ge", "le", "eq", "ne", "signbit", "tan",
          "isnan", "isinf", "hardshrink", "threshold_backward", "logit", "digamma", "lgamma",
          "erfinv", "special_erfinv"}
NEEDS_CEILING = {"exp", "exp2", "expm1", "sinh", "cosh"}
NEEDS_FLOOR = {"log", "log2", "log10", "log1p", "rsqrt", "reciprocal"}

WORDS: dict[str, str] = {"gt": ">", "lt": "<", "ge": ">=", "le": "<=", "eq": "==", "ne": "!="}
# fmt: on
