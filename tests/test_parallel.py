"""Workers that share a batch: the same losses, gradients and weights as one, never a mixture."""

import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from minigpt import parallel
from minigpt.backend import on_host, xp
from minigpt.model import GPT, GPTConfig
from minigpt.optim import SGD, Adam, AdamW, clip_grad_norm
from minigpt.parallel import ENOUGH, DataParallel, by_shares, plan, processors
from minigpt.recompute import recompute_blocks
from minigpt.tensor import Tensor, no_grad
from minigpt.threads import each, shares

TINY = dict(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=8)


def team(workers, dropout=0.0, dtype="float64", recompute=False, **sizes):
    model = GPT(GPTConfig(**TINY | sizes, dropout=dropout), np.random.default_rng(0), dtype)
    if recompute:
        recompute_blocks(model)
    optimizer = AdamW(model.parameters(), 1e-2, decay=model.decayed_parameters())
    return DataParallel(model, optimizer, workers)


def batch(sequences=6):
    return np.random.default_rng(1).integers(11, size=(2, sequences, 8))


def run(team, steps, batches=None, rng=None):
    """Losses of some steps, and the gradient of the last one."""
    losses = []
    for step in range(steps):
        team.optimizer.zero_grad()
        loss = team.backward(*(batches or [batch()])[step % len(batches or [0])], rng)
        losses.append(float(loss))
        clip_grad_norm(team.optimizer.params, 0.5)
        team.optimizer.step()
    return losses, team.optimizer.grad.copy()


# --- the same sums ---


@pytest.mark.parametrize("sizes", [{}, {"position": "rope"}, {"position": "alibi"}, {"tied": False},
                                   {"bias": False, "position": "sinusoid"}])  # fmt: skip
def test_workers_compute_what_one_computes(sizes):
    losses, grad = run(team(1, **sizes), 5)
    for workers in (2, 3, 6):
        other_losses, other = run(team(workers, **sizes), 5)
        assert np.abs(np.subtract(losses, other_losses)).max() < 1e-13
        assert np.abs(grad - other).max() < 1e-13


@pytest.mark.parametrize(("sequences", "workers"), [(5, 2), (7, 3), (1, 2), (2, 5)])
def test_shares_need_not_be_equal(sequences, workers):
    one, many = team(1), team(workers)
    expected = float(one.backward(*batch(sequences)))
    assert float(many.backward(*batch(sequences))) == pytest.approx(expected, abs=1e-13)
    assert np.abs(one.optimizer.grad - many.optimizer.grad).max() < 1e-13


def test_gradients_accumulate_with_their_weights():
    one, many, idx = team(1), team(2), batch(8)
    for part in (slice(0, 2), slice(2, 8)):  # the second after a first: replicas start from 0 again
        many.backward(*idx[:, part], weight=(part.stop - part.start) / 8)
    one.backward(*idx)
    assert np.abs(one.optimizer.grad - many.optimizer.grad).max() < 1e-13


def test_a_smaller_batch_leaves_nothing_of_the_one_before():
    one, many = team(1), team(3)
    many.backward(*batch(6))
    for each_team in (one, many):
        each_team.optimizer.zero_grad()
        each_team.backward(*batch(2))  # two sequences: the third worker has none
    assert np.abs(one.optimizer.grad - many.optimizer.grad).max() < 1e-13


def test_replicas_share_the_weights_and_nothing_else():
    crew = team(3)
    assert crew.optimizer.workers == 3
    main, *replicas = [dict(model.named_parameters()) for model in crew.models]
    crew.backward(*batch())
    crew.optimizer.step()
    for replica in replicas:
        assert replica.keys() == main.keys()
        for name, p in main.items():
            assert np.shares_memory(p.data, replica[name].data), name
            assert not np.shares_memory(p.grad, replica[name].grad), name
    assert all(replica.wte is replica.lm_head for replica in crew.models)  # tied: one table


def test_recomputed_blocks_have_replicas_too():
    kept, again = run(team(2), 3), run(team(2, recompute=True), 3)
    assert kept[0] == again[0]
    assert np.array_equal(kept[1], again[1])


# --- randomness ---


def test_dropout_repeats_and_differs_between_workers():
    first, second = (run(team(2, dropout=0.5), 4, rng=np.random.default_rng(7)) for _ in range(2))
    assert first[0] == second[0]
    assert np.array_equal(first[1], second[1])
    twins = np.repeat(batch(1), 2, axis=1)  # the same sequence for both
    crew = team(2, dropout=0.5)
    crew.backward(*twins, np.random.default_rng(7))
    mine, theirs = crew.grads[0] - crew.grads[1], crew.grads[1]  # grads[0] holds the sum
    assert not np.allclose(mine, theirs)


def test_without_dropout_the_generator_is_left_alone():
    rng = np.random.default_rng(3)
    team(2).backward(*batch(), rng)
    assert rng.random() == np.random.default_rng(3).random()


# --- the optimizers ---


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
@pytest.mark.parametrize("workers", [2, 3])
def test_a_shared_update_is_the_same_to_the_last_bit(kind, workers, monkeypatch):
    monkeypatch.setattr("minigpt.optim.CHUNK", 23)  # several for each worker, and one of 1
    results = []
    for n in (1, workers):
        rng = np.random.default_rng(0)
        params = [Tensor(rng.normal(size=s), requires_grad=True) for s in (5, (9, 10))]
        optimizer = kind(params, 0.1)
        optimizer.workers = n
        for _ in range(3):
            optimizer.grad[...] = xp.asarray(rng.normal(size=95))
            optimizer.step()
        results.append(optimizer.data)
    assert np.array_equal(*results)


# --- the rule ---


@pytest.mark.parametrize(("shape", "expected"), [
    ((8, 32, 64), (1, 1)),  # 16,384 numbers: too few for any second thread
    ((2, 256, 128), (2, 2)),  # exactly two workers' worth
    ((2, 256, 127), (1, 1)),
    ((1, 1024, 768), (1, 4)),  # one sequence: its products may use all
    ((32, 1024, 768), (4, 1)),
    ((3, 1024, 768), (3, 1)),
])  # fmt: skip
def test_the_rule(monkeypatch, shape, expected):
    assert ENOUGH == 32768
    monkeypatch.setattr(parallel, "processors", lambda: 4)
    assert plan(*shape) == (expected if on_host else (1, 1))


def test_processors_are_what_blas_may_use():
    with threadpool_limits(1, user_api="blas"):
        assert processors() == 1
        assert plan(64, 1024, 768) == (1, 1)


def test_blas_threads_are_set_inside_and_restored():
    before, inside = processors(), []
    by_shares(lambda start, end: inside.append(processors()), 4, 8, 8)
    assert inside == [1]
    crew = team(2)
    crew.models = [lambda idx, rng, m=m: (inside.append(processors()), m(idx, rng))[1]
                   for m in crew.models]  # fmt: skip
    crew.backward(*batch())
    assert inside == [1, 1, 1]
    assert processors() == before


# --- threads ---


def test_parts_run_at_the_same_time_and_come_back_in_order():
    met = threading.Barrier(2, timeout=20)  # passes only if two threads stand at it at once

    def work(i):
        met.wait()
        return i

    assert each(work, [(0,), (1,)]) == [0, 1]
    assert each(lambda i: i, [(i,) for i in range(9)]) == list(range(9))  # more than processors


def test_no_grad_holds_in_every_thread():
    x = Tensor(np.ones(3), requires_grad=True)
    with no_grad():
        assert [y.requires_grad for y in each(lambda i: x * i, [(1,), (2,), (3,)])] == [False] * 3


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_comes_out_when_all_have_ended(failing):
    ended = []

    def work(i):
        if i == failing:
            raise ValueError(f"part {i}")
        ended.append(i)

    with pytest.raises(ValueError, match=f"part {failing}"):
        each(work, [(0,), (1,), (2,)])
    assert sorted(ended) == sorted({0, 1, 2} - {failing})


def test_bad_ids_in_any_share_are_refused():
    idx, targets = batch()
    idx[-1, 0] = 11
    with pytest.raises(ValueError, match="idx must be in 0..10, got"):
        team(3).backward(idx, targets)


@pytest.mark.parametrize(("n", "workers"), [(10, 3), (2, 5), (0, 2), (7, 1)])
def test_shares_cover_everything_once(n, workers):
    parts = shares(n, workers)
    assert [i for start, end in parts for i in range(start, end)] == list(range(n))
    lengths = [end - start for start, end in parts]
    assert len(parts) == workers and max(lengths) - min(lengths) <= 1


# --- memory that is used again ---


@pytest.mark.parametrize("workers", [1, 2])
def test_gradients_do_not_depend_on_what_memory_held(workers, monkeypatch):
    """Freed blocks are handed out again, unwiped: whoever reads before writing reads this."""
    monkeypatch.setattr("minigpt.attention.BLOCK", 3)
    results = []
    for dirt in (0.0, np.nan):
        sizes = [2**k for k in range(4, 18)]
        dirty = [np.full(n, dirt) for n in sizes for _ in range(8)]
        del dirty
        results.append(run(team(workers), 3))
    assert results[0][0] == results[1][0]
    assert np.array_equal(results[0][1], results[1][1])
