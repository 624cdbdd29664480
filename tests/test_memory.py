"""Large arrays in used memory: the same numbers, never two arrays in one place, and a bound."""

import gc
import math
import operator
import platform
import subprocess
import sys
import threading
from types import SimpleNamespace
from unittest.mock import Mock as mock

import numpy as np
import pytest

from minigpt import functional as F
from minigpt import memory
from minigpt.attention import BLOCK
from minigpt.backend import on_host
from minigpt.memory import WORTHWHILE as LARGE
from minigpt.memory import Blocks
from minigpt.model import GPT, GPTConfig
from minigpt.optim import AdamW
from minigpt.parallel import DataParallel

pytestmark = pytest.mark.skipif(not on_host, reason="on a GPU, CuPy keeps freed memory by itself")

ROWS = LARGE // 8  # of one float64: the smallest large array


@pytest.fixture
def blocks(monkeypatch):
    """No blocks from before, and some are kept, whatever the C library does."""
    fresh = Blocks()
    monkeypatch.setattr(memory, "LARGE", LARGE)
    monkeypatch.setattr(memory, "BLOCKS", fresh)
    return fresh


def in_use(blocks):
    return blocks.held - sum(size * len(free) for size, free in blocks.free.items())


def drawn(*shape, dtype="float64"):
    x = np.random.default_rng(0).standard_normal(shape) + 1
    return x.astype(dtype)


# --- the same numbers -----------------------------------------------------------------------------

LONG = drawn(ROWS)
WIDE = drawn(64, ROWS // 64)
PAIRS = {
    "alike": (LONG, LONG[::-1]),
    "a number": (LONG, 3.0),
    "a number first": (3.0, LONG),
    "a row": (WIDE, WIDE[0]),
    "a column": (WIDE, WIDE[:, :1]),
    "a column first": (WIDE[:, :1], WIDE),
    "both stretched": (LONG[:, None], LONG[:3]),
    "an axis more": (LONG, WIDE[:5, :1]),
    "transposed": (WIDE.T, 2.0),
    "complex": (LONG, 1j * LONG),
    "complex first": (1j * LONG, LONG),
    "float32": (LONG.astype("float32"), 2.0),
    "of two dtypes": (np.tile(LONG, 2).astype("float32"), np.tile(LONG, 2)),
    "integers": (np.arange(ROWS), 2),
    "integers by a fraction": (np.arange(ROWS), 0.5),
    "small": (LONG[:3], LONG[:3]),
    "of no axes": (LONG[0], np.asarray(2.0)),
    "empty": (LONG[:0], 2.0),
}


OPERATORS = {"add": operator.add, "subtract": operator.sub, "multiply": operator.mul}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_a_function_is_its_operator(name, pair, blocks):
    found, wanted = getattr(memory, name)(*pair), OPERATORS[name](*pair)
    assert type(found) is type(wanted) and found.dtype == wanted.dtype
    assert found.shape == wanted.shape and found.tobytes() == wanted.tobytes()


PRODUCTS = {
    "of matrices": (WIDE, WIDE.T),
    "of stacks": (drawn(3, 64, 9), drawn(3, 9, 64)),
    "a stack and a matrix": (drawn(3, 64, 9), drawn(9, 64)),
    "from the other side": (WIDE.T, WIDE),
    "of two dtypes": (WIDE.astype("float32"), WIDE.T),
    "complex": (WIDE, 1j * WIDE.T),
    "over nothing": (WIDE[:, :0], WIDE[:0]),
    "small": (WIDE[:2], WIDE.T[:, :2]),
}


@pytest.mark.parametrize("pair", PRODUCTS.values(), ids=PRODUCTS)
def test_matmul_is_its_operator(pair, blocks):
    found, wanted = memory.matmul(*pair), pair[0] @ pair[1]
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    assert found.tobytes() == wanted.tobytes()


def test_operands_that_do_not_fit_are_an_error():
    for name in ("add", "multiply", "matmul"):
        with pytest.raises(ValueError):
            getattr(memory, name)(WIDE, WIDE[:, :-1])


def test_a_copy_has_its_elements_in_order(blocks):
    out = memory.copy(WIDE.T)
    assert out.flags.c_contiguous and (out == WIDE.T).all() and blocks.held == WIDE.nbytes
    assert memory.like(WIDE.T).strides == out.strides


def test_an_array_of_another_class_stays_one(blocks):
    class Marked(np.ndarray):
        pass

    x = LONG.view(Marked)
    for out in (memory.multiply(x, x), memory.like(x), memory.matmul(x[None], x[:, None])):
        assert type(out) is Marked
    assert blocks.held == 0


# --- whose memory ---------------------------------------------------------------------------------


def place(x):
    return x.__array_interface__["data"][0]


def test_memory_is_used_again(blocks):
    first = memory.multiply(LONG, 2.0)
    where = place(first)
    del first
    second = memory.multiply(LONG, 3.0)
    assert place(second) == where and blocks.held == LARGE
    third = memory.multiply(LONG, 4.0)
    assert place(third) != where and blocks.held == 2 * LARGE
    assert (second == 3 * LONG).all() and (third == 4 * LONG).all()


def test_what_is_small_is_left_to_numpy(blocks):
    assert memory.empty((ROWS - 1,), LONG.dtype).shape == (ROWS - 1,) and blocks.held == 0
    assert memory.empty((ROWS,), LONG.dtype).flags.writeable and blocks.held == LARGE


VIEWS = {
    "slice": lambda x: x[3:9],
    "transposed": lambda x: x.reshape(64, -1).T[1:],
    "another dtype": lambda x: x.view("uint8"),
    "read-only": lambda x: np.broadcast_to(x[:1], (7, 1)),
    "by the buffer": memoryview,
    "a view of a view": lambda x: x[1:][1:][1:],
    "of a subclass": lambda x: x.view(type("Other", (np.ndarray,), {})),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_view_keeps_the_memory_from_being_used(view, blocks):
    x = memory.empty((ROWS,), LONG.dtype)
    x[...] = 5.0
    where, seen = place(x), view(x)
    kept = bytes(seen)
    del x
    gc.collect()
    other = memory.empty((ROWS,), LONG.dtype)
    other[...] = 6.0
    assert place(other) != where and bytes(seen) == kept
    del seen
    gc.collect()
    assert place(memory.empty((ROWS,), LONG.dtype)) == where


def test_a_quarter_more_is_held_than_was_ever_in_use(blocks):
    rng, alive = np.random.default_rng(0), []
    most = 0
    for _ in range(3000):
        if len(alive) > 12:
            del alive[int(rng.integers(len(alive)))]
        alive.append(memory.empty((int(rng.integers(ROWS, 3 * ROWS)),), LONG.dtype))
        sizes = sum(x.nbytes for x in alive)
        most = max(most, sizes)
        assert in_use(blocks) == sizes and blocks.held <= 1.25 * most
    alive.clear()
    assert in_use(blocks) == 0 and blocks.held > 0


def test_threads_never_share_a_block(blocks):
    switch = sys.getswitchinterval()
    faults, start = [], threading.Barrier(4)

    def work(mark):
        rng, alive = np.random.default_rng(mark), []
        start.wait()
        for i in range(1500):
            x = memory.empty((int(rng.choice([1, 2, 3])) * ROWS,), LONG.dtype)
            x[:3] = x[-3:] = value = mark + 4.0 * i
            alive.append((x, value))
            if len(alive) > 5:
                old, value = alive.pop(int(rng.integers(5)))
                if not (old[:3] == value).all() or not (old[-3:] == value).all():
                    faults.append(value)

    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(switch)
    assert not faults
    assert in_use(blocks) == 0  # the books are right, whoever asked in between


# --- the C library ---


@pytest.mark.parametrize("library", [OSError, TypeError, lambda name: object()],
                         ids=["OSError", "TypeError", "no mallopt"])  # fmt: skip
def test_a_library_that_cannot_be_asked(library, monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", mock(side_effect=library))
    assert memory.ask_glibc() is False


@pytest.mark.parametrize("refused", [None, -1, -3, -8])
def test_what_is_asked(refused, monkeypatch):
    """Three settings of <malloc.h>; one that is refused is no success."""
    asked = {}

    def mallopt(setting, value):
        asked[setting] = value
        return int(setting != refused)

    monkeypatch.setattr("ctypes.CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    assert memory.ask_glibc() is (refused is None)
    if refused is None:
        assert asked == {-1: 1 << 30, -3: 1 << 30, -8: 1}
        memory.ask_glibc(keep=False)
        assert asked == {-1: 1 << 17, -3: 1 << 17, -8: 1}


def test_blocks_are_kept_where_the_library_does_not():
    code = ("import ctypes\nctypes.CDLL = None\nfrom minigpt import memory\n"
            "assert memory.LARGE == memory.WORTHWHILE")  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked")
def test_glibc_keeps_what_is_freed():
    """Page faults of a large array, made and freed again and again, in a fresh process."""
    code = """
import resource
import numpy as np
from minigpt import memory

def faults(rounds=20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        np.ones(1 << 18)  # 2 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(1)
kept = faults()
assert memory.LARGE == float("inf") and memory.ask_glibc(keep=False)
faults(1)
print(kept, faults())
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    kept, returned = map(int, done.stdout.split())
    assert kept < 20 and returned > 20 * 256  # pages of 4 KiB, or none


# --- training -------------------------------------------------------------------------------------


def steps(n, workers=1, T=2 * BLOCK, **options):
    """Losses and weights of n training steps, and what each of them did to the blocks."""
    config = GPTConfig(vocab_size=30, block_size=T, n_layer=2, n_head=2, n_embd=64, **options)
    model = GPT(config, np.random.default_rng(0), dtype="float32")
    optimizer = AdamW(model.parameters(), 1e-3)
    team, rng = DataParallel(model, optimizer, workers), np.random.default_rng(1)
    losses, held = [], []
    for _ in range(n):
        idx, targets = rng.integers(0, 30, (2, 4, T))
        optimizer.zero_grad()
        losses.append(float(team.backward(idx, targets, rng)))
        optimizer.step()
        held.append(memory.BLOCKS.held)
    return losses, optimizer.data.tobytes(), held


OPTIONS = [{}, {"dropout": 0.2}, {"position": "rope"}, {"position": "alibi"}, {"T": 9 * BLOCK}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_training_is_the_same_to_the_last_bit(options, blocks, monkeypatch):
    """Also if every block is full of NaN when it is taken: none is read before it is written."""
    take = Blocks.take

    def spoiled(self, size):
        lease = take(self, size)
        lease.block[: size // 4 * 4].view("float32")[...] = np.nan
        return lease

    monkeypatch.setattr(Blocks, "take", spoiled)
    found = steps(3, **options)
    assert blocks.held > 40 * LARGE  # it was used
    monkeypatch.setattr(memory, "LARGE", math.inf)
    assert steps(3, **options)[:2] == found[:2]


def test_a_step_takes_no_new_memory(blocks):
    held = steps(5)[2]
    assert 0 < held[1] == held[-1]
    assert in_use(blocks) == 0  # nothing outlives the step


def test_a_long_context_soon_finds_what_it_needs(blocks):
    held = steps(5, T=9 * BLOCK)[2]
    assert held[2] == held[-1] <= 1.25 * blocks.most


def test_workers_share_the_blocks(blocks, monkeypatch):
    found = steps(3, workers=2)
    assert blocks.held > 40 * LARGE
    monkeypatch.setattr(memory, "LARGE", math.inf)
    assert steps(3, workers=2)[:2] == found[:2]


def test_a_gradient_outlives_what_it_was_computed_from(blocks):
    """A leaf's gradient is its own memory, however many blocks are used after it."""
    from minigpt.tensor import Tensor

    x = Tensor(WIDE, requires_grad=True)
    F.gelu(x).backward(np.ones_like(WIDE))
    kept = x.grad.copy()
    for _ in range(5):
        y = Tensor(WIDE, requires_grad=True)
        F.gelu(y).backward(np.full_like(WIDE, 7.0))
    assert (x.grad == kept).all()
