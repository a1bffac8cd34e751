"""Attention, MLP and modulation against the formulas, token by token."""

from __future__ import annotations

import math

import torch

from mudit.nn import MLP, AdaLN, Attention, modulate


def test_attention_head_by_head() -> None:
    torch.manual_seed(0)
    heads, head_dim = 3, 4
    attention = Attention(heads * head_dim, heads).double()
    x = torch.randn(2, 5, heads * head_dim, dtype=torch.float64)
    query, key, value = attention.qkv(x).chunk(3, dim=-1)
    mixed = []
    for head in range(heads):
        part = slice(head * head_dim, (head + 1) * head_dim)
        logits = query[..., part] @ key[..., part].mT / math.sqrt(head_dim)
        mixed.append(logits.softmax(-1) @ value[..., part])
    torch.testing.assert_close(attention(x), attention.proj(torch.cat(mixed, dim=-1)))


def test_mlp_uses_the_tanh_approximation_of_gelu() -> None:
    torch.manual_seed(0)
    mlp = MLP(4, 12).double()
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    h = mlp.fc1(x)
    gelu = h / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
    torch.testing.assert_close(mlp(x), mlp.fc2(gelu))


def test_modulation_vectors_are_consecutive_rows_of_one_linear() -> None:
    torch.manual_seed(0)
    adaln = AdaLN(4, 6)
    condition = torch.randn(2, 4)
    vectors = adaln(condition)
    assert [tuple(v.shape) for v in vectors] == [(2, 1, 4)] * 6
    expected = torch.nn.functional.silu(condition) @ adaln[1].weight.T + adaln[1].bias
    torch.testing.assert_close(torch.cat(vectors, dim=-1).squeeze(1), expected)


def test_modulate_shifts_and_scales_about_one() -> None:
    x, shift, scale = torch.randn(2, 3, 4), torch.randn(2, 1, 4), torch.randn(2, 1, 4)
    torch.testing.assert_close(modulate(x, shift, scale), x + x * scale + shift)
    torch.testing.assert_close(modulate(x, 0 * shift, 0 * scale), x)
