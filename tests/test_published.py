"""Other people's mathematics before the judge: what they published holds, what is often said fails.

Each formula is transcribed from the source named beside it, in our own code. The functions are
written without the package, so that nothing of ours is on both sides. Our notation: x (N, C) is a
batch of rows, g the incoming cotangent.
"""

import math

import numpy as np
import pytest

from minigpt.verify.claims import Claim, Input
from minigpt.verify.judge import judge, verdict_table

PUBLISHED: dict[str, Claim] = {}
REFUTED: dict[str, tuple[Claim, str]] = {}  # with the argument that is wrong, or "out"


def published(source, kind, f, said, **inputs):
    """A formula that stands in print, and holds. inputs: a shape, or an Input."""
    PUBLISHED[source] = Claim(source, kind, f, said, _specs(inputs))


def refuted(source, where, kind, f, said, **inputs):
    """A formula that is often said, and does not hold. where: the argument that shows it."""
    REFUTED[source] = (Claim(source, kind, f, said, _specs(inputs)), where)


def _specs(inputs):
    return {k: v if isinstance(v, Input) else Input(tuple(v)) for k, v in inputs.items()}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def log_softmax(x):
    return x - x.max(-1, keepdims=True) - np.log(
        np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True))  # fmt: skip


def onehot(targets, n):
    return (np.arange(n) == targets[..., None]).astype(float)


VECTOR, ROWS = ("N",), ("N", "C")
CLASSES = Input(("N",), below="C")
POSITIVE = Input(("N",), 0.1, 4.0)

# --- elementary functions -------------------------------------------------------------------------

# Goodfellow, Bengio, Courville 2016, sec. 6.3.2, and any other textbook.
published("sigmoid' = s (1 - s)", "vjp", sigmoid,
          lambda g, x: g * sigmoid(x) * (1 - sigmoid(x)), x=ROWS)  # fmt: skip
published("tanh' = 1 - tanh^2", "vjp", np.tanh, lambda g, x: g * (1 - np.tanh(x) ** 2), x=ROWS)

# Elfwing, Uchibe, Doya 2018, the dSiLU: s(x) (1 + x (1 - s(x))).
published("Elfwing 2018: SiLU'", "vjp", lambda x: x * sigmoid(x),
          lambda g, x: g * sigmoid(x) * (1 + x * (1 - sigmoid(x))), x=ROWS)  # fmt: skip

# Ramachandran, Zoph, Le 2017, Searching for activation functions: Swish with a beta,
# f' = beta f + s(beta x) (1 - beta f).
published("Ramachandran 2017: Swish'", "gradient",
          lambda x, beta: (x * sigmoid(beta * x)).sum(),
          lambda x, beta: (beta * x * sigmoid(beta * x)
                           + sigmoid(beta * x) * (1 - beta * x * sigmoid(beta * x)),
                           (x * x * sigmoid(beta * x) * (1 - sigmoid(beta * x))).sum()),
          x=VECTOR, beta=())  # fmt: skip


# Shazeer 2020, GLU variants improve Transformer: SwiGLU = Swish_1(x W) * (x V).
def swiglu(x, w, v):
    return (x @ w) * sigmoid(x @ w) * (x @ v)


def swiglu_vjp(g, x, w, v):
    a, b = x @ w, x @ v
    da = g * b * sigmoid(a) * (1 + a * (1 - sigmoid(a)))
    db = g * a * sigmoid(a)
    return da @ w.T + db @ v.T, x.T @ da, x.T @ db


published("Shazeer 2020: SwiGLU", "vjp", swiglu, swiglu_vjp, x=ROWS, w=("C", "D"), v=("C", "D"))


# Hendrycks and Gimpel 2016, sec. 2: gelu(x) = x Phi(x), or by tanh. The error bounds are ours.
def gelu(x):
    return x * 0.5 * np.vectorize(math.erfc, otypes=[float])(-x / math.sqrt(2))


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu_gap(x):
    return np.abs(gelu(x) - gelu_tanh(x))


published("Hendrycks & Gimpel 2016: gelu' = Phi + x phi", "vjp", gelu,
          lambda g, x: g * (0.5 * np.vectorize(math.erfc, otypes=[float])(-x / math.sqrt(2))
                            + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)),
          x=Input(("N",), -3.0, 3.0))  # fmt: skip
published("Hendrycks & Gimpel 2016: the tanh form is within 5e-4", "bound", gelu_gap,
          lambda x: np.full(x.shape, 5e-4), x=Input((40,), -6.0, 6.0))  # fmt: skip
refuted("the tanh form of GELU is exact to 4e-4", "out", "bound", gelu_gap,
        lambda x: np.full(x.shape, 4e-4), x=Input((40,), -6.0, 6.0))  # fmt: skip
refuted("the tanh form of GELU is GELU", "out", "identity", gelu, gelu_tanh, x=VECTOR)

# --- normalisation --------------------------------------------------------------------------------


# Ba, Kiros, Hinton 2016, sec. 3; the backward pass as in Xu et al. 2019, Understanding and
# improving layer normalization: minus the mean, minus xhat times the mean of gw xhat.
def layer_norm(x, w, b):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * w + b


def layer_norm_vjp(g, x, w, b, mean_terms=1):
    s = np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    y, gw = (x - x.mean(-1, keepdims=True)) / s, g * w
    mean = gw.mean(-1, keepdims=True) + y * (gw * y).mean(-1, keepdims=True)
    return (gw - mean_terms * mean) / s, (g * y).sum(0), g.sum(0)


LAYER_NORM = {"x": ROWS, "w": ("C",), "b": ("C",)}
published("Ba 2016: layer norm", "vjp", layer_norm, layer_norm_vjp, **LAYER_NORM)
refuted("layer norm with mean and variance as constants", "x", "vjp", layer_norm,
        lambda *a: layer_norm_vjp(*a, mean_terms=0), **LAYER_NORM)  # fmt: skip


def standardised(y):
    return (y - y.mean(-1, keepdims=True)) / y.std(-1, keepdims=True)


published("Ba 2016, table 1: layer norm does not see its weight matrix rescaled", "identity",
          lambda x, w: standardised(x @ (3 * w)), lambda x, w: standardised(x @ w),
          x=ROWS, w=("C", 7))  # fmt: skip
refuted("nor a single weight vector rescaled", "out", "identity",
        lambda x, w: standardised(x @ (w * np.arange(1, 8))), lambda x, w: standardised(x @ w),
        x=ROWS, w=("C", 7))  # fmt: skip


# Ioffe and Szegedy 2015, sec. 3: the six lines of the chain rule, as printed.
def batch_norm(x, gamma, beta):
    return gamma * (x - x.mean(0)) / np.sqrt(((x - x.mean(0)) ** 2).mean(0) + 1e-5) + beta


def batch_norm_vjp(g, x, gamma, beta):
    m, mu = len(x), x.mean(0)
    var = ((x - mu) ** 2).mean(0) + 1e-5
    xhat = (x - mu) / np.sqrt(var)
    dxhat = g * gamma
    dvar = (dxhat * (x - mu)).sum(0) * (-1 / 2) * var ** (-3 / 2)
    dmu = (dxhat * -1 / np.sqrt(var)).sum(0) + dvar * (-2 * (x - mu)).sum(0) / m
    dx = dxhat / np.sqrt(var) + dvar * 2 * (x - mu) / m + dmu / m
    return dx, (g * xhat).sum(0), g.sum(0)


published("Ioffe & Szegedy 2015: batch norm", "vjp", batch_norm, batch_norm_vjp,
          x=ROWS, gamma=("C",), beta=("C",))  # fmt: skip


# Zhang and Sennrich 2019, eq. 4: RMSNorm, whose value a rescaled input does not change.
def rms_norm(x, w):
    return x / np.sqrt((x * x).mean(-1, keepdims=True)) * w


def rms_norm_vjp(g, x, w):
    rms = np.sqrt((x * x).mean(-1, keepdims=True))
    y, gw = x / rms, g * w
    return (gw - y * (gw * y).mean(-1, keepdims=True)) / rms, (g * y).sum(0)


published("Zhang & Sennrich 2019: RMSNorm", "vjp", rms_norm, rms_norm_vjp, x=ROWS, w=("C",))
published("Zhang & Sennrich 2019: RMSNorm(7 x) = RMSNorm(x)", "identity",
          lambda x, w: rms_norm(7 * x, w), rms_norm, x=ROWS, w=("C",))  # fmt: skip
refuted("RMSNorm subtracts the mean as layer norm does", "x", "vjp", rms_norm,
        lambda g, x, w: ((lambda d: d - d.mean(-1, keepdims=True))(rms_norm_vjp(g, x, w)[0]),
                         rms_norm_vjp(g, x, w)[1]), x=ROWS, w=("C",))  # fmt: skip

# --- softmax, losses ------------------------------------------------------------------------------

# Bridle 1990; Goodfellow, Bengio, Courville 2016, sec. 6.2.2.3: dp_i/dx_j = p_i ([i = j] - p_j).
published("Bridle 1990: the Jacobian of softmax", "jacobian", softmax,
          lambda x: np.diag(softmax(x)) - np.outer(softmax(x), softmax(x)), x=VECTOR)  # fmt: skip
refuted("softmax' = p (1 - p), as for the sigmoid", "x", "vjp", softmax,
        lambda g, x: g * softmax(x) * (1 - softmax(x)), x=ROWS)  # fmt: skip


# The same, for the mean negative log-likelihood: (p - onehot) / N.
def cross_entropy(x, targets):
    return -(log_softmax(x) * onehot(targets, x.shape[-1])).sum() / len(x)


published("cross-entropy after softmax: (p - onehot) / N", "gradient", cross_entropy,
          lambda x, t: (softmax(x) - onehot(t, x.shape[-1])) / len(x),
          x=ROWS, t=CLASSES)  # fmt: skip

# Bishop 2006, eq. 4.96-4.97: the logistic loss's gradient X^T (y - t), and its Hessian X^T R X.
LOGISTIC = {"w": ("C",), "x": ("N", "C"), "t": Input(("N",), below=2)}


def logistic(w, x, t):
    return (np.log(1 + np.exp(x @ w)) - t * (x @ w)).sum()


published("Bishop 2006, 4.97: the logistic loss's Hessian", "hessian", logistic,
          lambda w, x, t: x.T * (sigmoid(x @ w) * (1 - sigmoid(x @ w))) @ x,
          **LOGISTIC)  # fmt: skip
refuted("the logistic loss's Hessian is X^T X / 4 (that is its bound)", "w", "hessian", logistic,
        lambda w, x, t: x.T @ x / 4, **LOGISTIC)  # fmt: skip

# Lin et al. 2017, Focal loss, the appendix on derivatives: with x_t = y x, p_t = s(x_t),
# dFL/dx = y (1 - p_t)^gamma (gamma p_t log p_t + p_t - 1).
FOCAL = {"x": VECTOR, "y": Input(("N",), below=2)}


def focal(x, y):
    p = sigmoid((2 * y - 1) * x)
    return (-((1 - p) ** 2.0) * np.log(p)).sum()


def focal_gradient(x, y, gamma=2.0):
    sign = 2 * y - 1
    p = sigmoid(sign * x)
    return sign * (1 - p) ** gamma * (gamma * p * np.log(p) + p - 1)


published("Lin 2017: focal loss", "gradient", focal, focal_gradient, **FOCAL)
refuted("focal loss: cross-entropy's gradient times (1 - p)^gamma", "x", "gradient", focal,
        lambda x, y: (2 * y - 1) * (1 - sigmoid((2 * y - 1) * x)) ** 2
        * (sigmoid((2 * y - 1) * x) - 1), **FOCAL)  # fmt: skip


# van den Oord, Li, Vinyals 2018, eq. 4: InfoNCE, scores z^T c / tau, positives on the diagonal.
def info_nce(z, c):
    return -np.trace(log_softmax(z @ c.T / 0.5)) / len(z)


def info_nce_gradient(z, c):
    ds = (softmax(z @ c.T / 0.5) - np.eye(len(z))) / (0.5 * len(z))
    return ds @ c, ds.T @ z


published("van den Oord 2018: InfoNCE", "gradient", info_nce, info_nce_gradient, z=ROWS, c=ROWS)
published("van den Oord 2018, sec. 2.3: the estimate log N - loss is at most log N", "bound",
          lambda z, c: -info_nce(z, c), lambda z, c: np.array(0.0), z=ROWS, c=ROWS)  # fmt: skip

# Hinton, Vinyals, Dean 2015, eq. 2: dC/dz = (q - p) / T, for cross-entropy of soft targets.
published("Hinton 2015, eq. 2: distillation", "gradient",
          lambda z, v: -(softmax(v / 4) * log_softmax(z / 4)).sum(),
          lambda z, v: ((softmax(z / 4) - softmax(v / 4)) / 4,
                        (lambda p, a: -p * (a - (p * a).sum()) / 4)(
                            softmax(v / 4), log_softmax(z / 4))),
          z=VECTOR, v=VECTOR)  # fmt: skip


# Kingma and Welling 2014, appendix B: KL(N(mu, s^2) || N(0, 1)), a sum over dimensions of
# -1/2 (1 + log s^2 - mu^2 - s^2).
def gaussian_kl(mu, log_var):
    return -0.5 * (1 + log_var - mu**2 - np.exp(log_var)).sum()


published("Kingma & Welling 2014: the gradient of a Gaussian's KL", "gradient", gaussian_kl,
          lambda mu, log_var: (mu, 0.5 * (np.exp(log_var) - 1)),
          mu=VECTOR, log_var=VECTOR)  # fmt: skip
refuted("the same, differentiated in s^2 and not in log s^2", "log_var", "gradient", gaussian_kl,
        lambda mu, log_var: (mu, 0.5 * (1 - np.exp(-log_var))),
        mu=VECTOR, log_var=VECTOR)  # fmt: skip


# Vaswani et al. 2017, eq. 1, and its backward pass as in Dao et al. 2022, FlashAttention, app. B.2:
# dV = P^T dO, dP = dO V^T, dS_ij = P_ij (dP_ij - D_i) with D_i = sum_j P_ij dP_ij = dO_i . O_i.
def attention(q, k, v):
    return softmax(q @ k.T / math.sqrt(q.shape[-1])) @ v


def attention_vjp(g, q, k, v):
    scale = 1 / math.sqrt(q.shape[-1])
    p = softmax(q @ k.T * scale)
    ds = p * (g @ v.T - (g * (p @ v)).sum(-1, keepdims=True))
    return scale * ds @ k, scale * ds.T @ q, p.T @ g


QKV = {"q": ("T", "D"), "k": ("S", "D"), "v": ("S", "E")}
published("Dao 2022: attention", "vjp", attention, attention_vjp, **QKV)


# Su et al. 2021, RoFormer, eq. 11 and 16: (R_m q)^T (R_n k) = q^T R_{n-m} k.
def rotate(x, m):
    d = x.shape[-1]
    angle = m * 10000.0 ** (-np.arange(0, d, 2) / d)
    out = np.empty(x.shape)
    out[..., 0::2] = x[..., 0::2] * np.cos(angle) - x[..., 1::2] * np.sin(angle)
    out[..., 1::2] = x[..., 0::2] * np.sin(angle) + x[..., 1::2] * np.cos(angle)
    return out


POSITION = Input((), below=512)
ROPE = {"q": (8,), "k": (8,), "m": POSITION, "n": POSITION}
published("Su 2021, eq. 16: RoPE is relative", "identity",
          lambda q, k, m, n: rotate(q, m) @ rotate(k, n),
          lambda q, k, m, n: q @ rotate(k, n - m), **ROPE)  # fmt: skip
refuted("RoPE: q^T R_{n+m} k", "out", "identity", lambda q, k, m, n: rotate(q, m) @ rotate(k, n),
        lambda q, k, m, n: q @ rotate(k, n + m), **ROPE)  # fmt: skip

# --- matrices: Petersen and Pedersen 2012, The Matrix Cookbook ------------------------------------

SQUARE = Input(("N", "N"))
published("Cookbook 57: d log |det X| = X^-T", "gradient", lambda x: np.linalg.slogdet(x)[1],
          lambda x: np.linalg.inv(x).T, x=SQUARE)  # fmt: skip
refuted("d log |det X| = X^-1", "x", "gradient", lambda x: np.linalg.slogdet(x)[1],
        np.linalg.inv, x=SQUARE)  # fmt: skip
published("Cookbook 49: d det X = det X X^-T", "gradient", np.linalg.det,
          lambda x: np.linalg.det(x) * np.linalg.inv(x).T, x=SQUARE)  # fmt: skip
published("Cookbook 81: d x^T A x = (A + A^T) x", "gradient", lambda x, a: x @ a @ x,
          lambda x, a: ((a + a.T) @ x, np.outer(x, x)), x=VECTOR, a=SQUARE)  # fmt: skip
refuted("d x^T A x = 2 A x, for any A", "x", "gradient", lambda x, a: x @ a @ x,
        lambda x, a: (2 * a @ x, np.outer(x, x)), x=VECTOR, a=SQUARE)  # fmt: skip
published("Cookbook 124: d tr(A X^-1 B) = -(X^-1 B A X^-1)^T", "gradient",
          lambda x, a, b: np.trace(a @ np.linalg.inv(x) @ b),
          lambda x, a, b: (-(np.linalg.inv(x) @ b @ a @ np.linalg.inv(x)).T,
                           (np.linalg.inv(x) @ b).T, (a @ np.linalg.inv(x)).T),
          x=SQUARE, a=("M", "N"), b=("N", "M"))  # fmt: skip
published("Cookbook 101: d tr(A X B) = A^T B^T", "gradient",
          lambda x, a, b: np.trace(a @ x @ b),
          lambda x, a, b: (a.T @ b.T, (x @ b).T, (a @ x).T),
          x=("M", "N"), a=("K", "M"), b=("N", "K"))  # fmt: skip
published("Cookbook 156: Woodbury", "identity",
          lambda c: np.linalg.inv(2 * np.eye(5) + c @ c.T),
          lambda c: np.eye(5) / 2
          - c @ np.linalg.inv(np.eye(c.shape[1]) + c.T @ c / 2) @ c.T / 4, c=(5, "M"))  # fmt: skip

# Boyd and Vandenberghe 2004, Convex optimization.
SYSTEM = {"x": ("N",), "a": (9, "N"), "b": (9,)}


def least_squares(x, a, b):
    return ((a @ x - b) ** 2).sum()


published("Boyd & Vandenberghe 2004, 1.2.1: least squares by the normal equations", "optimum",
          least_squares, lambda a, b: np.linalg.solve(a.T @ a, a.T @ b), **SYSTEM)  # fmt: skip
refuted("least squares by ridge regression", "x", "optimum", least_squares,
        lambda a, b: np.linalg.solve(a.T @ a + 0.01 * np.eye(a.shape[1]), a.T @ b),
        **SYSTEM)  # fmt: skip


def log_sum_exp(x):
    return x.max() + np.log(np.exp(x - x.max()).sum())


published("Boyd & Vandenberghe 2004, p. 72: log-sum-exp <= max + log n", "bound", log_sum_exp,
          lambda x: x.max() + np.log(len(x)), x=VECTOR)  # fmt: skip
published("Boyd & Vandenberghe 2004, p. 72: max <= log-sum-exp", "bound", np.max, log_sum_exp,
          x=VECTOR)  # fmt: skip
published("Boyd & Vandenberghe 2004, p. 74: the Hessian of log-sum-exp", "hessian", log_sum_exp,
          lambda x: np.diag(softmax(x)) - np.outer(softmax(x), softmax(x)), x=VECTOR)  # fmt: skip
refuted("log-sum-exp <= mean + log n (that is its lower bound)", "out", "bound", log_sum_exp,
        lambda x: x.mean() + np.log(len(x)), x=VECTOR)  # fmt: skip

# Jensen 1906; Robbins 1955, for Stirling: n! < sqrt(2 pi n) (n/e)^n e^(1 / 12n).
LGAMMA = np.vectorize(math.lgamma, otypes=[float])
published("Jensen 1906: log of a mean >= mean of logs", "bound", lambda x: np.log(x).mean(),
          lambda x: np.log(x.mean()), x=POSITIVE)  # fmt: skip
published("Robbins 1955: log n! by Stirling, from above", "bound", lambda n: LGAMMA(n + 1),
          lambda n: 0.5 * np.log(2 * np.pi * n) + n * np.log(n) - n + 1 / (12 * n),
          n=Input(("N",), 1.0, 50.0))  # fmt: skip
refuted("log n! <= Stirling without the 1 / 12n", "out", "bound", lambda n: LGAMMA(n + 1),
        lambda n: 0.5 * np.log(2 * np.pi * n) + n * np.log(n) - n,
        n=Input(("N",), 1.0, 50.0))  # fmt: skip

# --- optimisation ---------------------------------------------------------------------------------


# Kingma and Ba 2015, sec. 3: m_t = (1 - b) sum_i b^(t-i) g_i, and 1 - b^t corrects a constant g.
def adam_moment(g, beta=0.9):
    m = np.zeros(g.shape[1])
    for row in g:
        m = beta * m + (1 - beta) * row
    return m


def adam_sum(g, beta=0.9):
    return (1 - beta) * (beta ** np.arange(len(g) - 1, -1, -1)) @ g


published("Kingma & Ba 2015, eq. 1, for the first moment", "identity", adam_moment, adam_sum,
          g=("T", "C"))  # fmt: skip
published("Kingma & Ba 2015, eq. 4: corrected, the moment of a constant is it", "identity",
          lambda c: adam_moment(np.tile(c, (5, 1))) / (1 - 0.9**5), lambda c: c,
          c=VECTOR)  # fmt: skip
refuted("Adam without the correction", "out", "identity",
        lambda c: adam_moment(np.tile(c, (5, 1))), lambda c: c, c=VECTOR)  # fmt: skip


# Pascanu, Mikolov, Bengio 2013, algorithm 1: clipping, only if the norm exceeds the threshold.
def clipped(g, threshold=1.0):
    norm = np.sqrt((g * g).sum())
    return g * threshold / norm if norm >= threshold else g


published("Pascanu 2013: a clipped gradient is no longer than the threshold", "bound",
          lambda g: np.sqrt((clipped(g) ** 2).sum()), lambda g: np.array(1.0),
          g=VECTOR)  # fmt: skip
published("Pascanu 2013: nor longer than it was", "bound",
          lambda g: np.sqrt((clipped(g) ** 2).sum()), lambda g: np.sqrt((g * g).sum()),
          g=VECTOR)  # fmt: skip
refuted("clipping brings any gradient to the threshold: small ones are raised", "out", "identity",
        clipped, lambda g: g / np.sqrt((g * g).sum()), g=VECTOR)  # fmt: skip

# --- the tests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", PUBLISHED.values(), ids=PUBLISHED)
def test_what_is_published_holds(claim):
    for seed in range(5):
        verdict = judge(claim, seed=seed)
        assert verdict.holds, verdict_table(verdict)


@pytest.mark.parametrize(("claim", "where"), REFUTED.values(), ids=REFUTED)
def test_what_is_often_said_is_refuted(claim, where):
    for seed in range(5):
        verdict = judge(claim, seed=seed)
        assert not verdict.holds
        wrong = {row.argument for row in verdict.rows if not row.error <= row.tolerance}
        assert wrong == {where}, verdict_table(verdict)


def test_there_are_enough_and_they_are_of_many_kinds():
    assert len(PUBLISHED) >= 30 and len(REFUTED) >= 12
    assert len({claim.kind for claim in PUBLISHED.values()}) == 7


def test_the_absolute_value_has_no_derivative_at_0():
    """`sign(0) = 0` is a convention of software. Goodfellow et al. 2016, sec. 6.3, says so."""
    f, vjp = np.abs, lambda g, x: g * np.sign(x)
    at_zero = Claim("d|x| = 0 at 0", "vjp", f, vjp, {"x": Input((3,), 0.0, 0.0)})
    verdict = judge(at_zero)
    assert not verdict.holds and "kink" in verdict.notes[-1]
    assert judge(Claim("away from 0", "vjp", f, vjp, {"x": Input((3,), 0.1, 1.0)})).holds
