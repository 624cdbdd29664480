"""minigpt's network and AdamW on plain arrays, for libraries that differentiate NumPy's functions.

`np` is the library's own NumPy: autograd.numpy or jax.numpy. Parameters are a dict under minigpt's
names. Rows of a table are taken by a product with a one-hot matrix: of 65 tokens that is cheap,
and its gradient is a product too, not a loop over indices.
"""

import math

from benchmarks.workload import ADAMW


def layer_norm(np, params, name, x):
    """x: (..., C) -> the same."""
    x = x - np.mean(x, axis=-1, keepdims=True)
    rstd = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-5)
    return x * rstd * params[f"{name}.weight"] + params[f"{name}.bias"]


def linear(np, params, name, x):
    """x: (N, n_in) -> (N, n_out)."""
    return np.dot(x, params[f"{name}.weight"]) + params[f"{name}.bias"]


def gelu(np, x):
    """GPT-2's tanh form. x: any -> the same."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def attention(np, params, name, x, B, H):
    """Causal, in H heads. x: (B*T, C) -> (B*T, C)."""
    N, C = x.shape
    T, D = N // B, C // H
    parts = np.split(linear(np, params, f"{name}.c_attn", x), 3, axis=1)  # each (B*T, C)
    q, k, v = (np.transpose(np.reshape(p, (B, T, H, D)), (0, 2, 1, 3)) for p in parts)
    scores = np.matmul(q, np.swapaxes(k, 2, 3)) / math.sqrt(D)  # (B, H, T, T)
    scores = np.where(np.tri(T, dtype=bool), scores, -1e9)
    e = np.exp(scores - np.max(scores, axis=-1, keepdims=True))
    out = np.matmul(e / np.sum(e, axis=-1, keepdims=True), v)  # (B, H, T, D)
    out = np.reshape(np.transpose(out, (0, 2, 1, 3)), (N, C))
    return linear(np, params, f"{name}.c_proj", out)


def mean_loss(np, params, idx, targets, network):
    """Nats per token. idx, targets: (B, T) int, T = block_size -> ()."""
    (B, T), V = idx.shape, network["vocab_size"]
    x = np.dot(onehot(np, idx, V), params["wte.weight"])  # (B*T, C)
    x = np.reshape(x, (B, T, -1)) + params["wpe.weight"]
    x = np.reshape(x, (B * T, -1))
    for i in range(network["n_layer"]):
        h = layer_norm(np, params, f"h.{i}.ln_1", x)
        x = x + attention(np, params, f"h.{i}.attn", h, B, network["n_head"])
        h = layer_norm(np, params, f"h.{i}.ln_2", x)
        h = gelu(np, linear(np, params, f"h.{i}.mlp.c_fc", h))
        x = x + linear(np, params, f"h.{i}.mlp.c_proj", h)
    logits = np.dot(layer_norm(np, params, "ln_f", x), params["wte.weight"].T)  # (B*T, V)
    logits = logits - np.max(logits, axis=-1, keepdims=True)
    logp = logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))
    return -np.sum(logp * onehot(np, targets, V)) / (B * T)


def onehot(np, ids, V):
    """(B, T) int -> (B*T, V) float32."""
    return (np.reshape(ids, (-1, 1)) == np.arange(V)).astype("float32")


def adamw(np, params, grads, m, v, t):
    """Clip the gradients at a global norm of 1, then step. -> (params, m, v), all new dicts."""
    norm = np.sqrt(sum(np.sum(g * g) for g in grads.values()))
    scale = np.minimum(1, 1 / (norm + 1e-12))
    lr, (b1, b2), new = ADAMW["lr"], ADAMW["betas"], ({}, {}, {})
    for name, p in params.items():
        g = grads[name] * scale
        mean, square = b1 * m[name] + (1 - b1) * g, b2 * v[name] + (1 - b2) * g * g
        if name.startswith("h.") and p.ndim == 2:  # the linear layers' matrices shrink
            p = p * (1 - lr * ADAMW["weight_decay"])
        change = mean / (1 - b1**t) / (np.sqrt(square / (1 - b2**t)) + ADAMW["eps"])
        for kind, array in zip(new, (p - lr * change, mean, square), strict=True):
            kind[name] = array
    return new
