"""The GPU benchmark in small, on the stand-in: all but the clock."""

import inspect
import math
import os

import pytest

from benchmarks import gpu, gpu_worker
from benchmarks.workload import CONFIGS, Config

TINY = Config(2, dict(n_layer=1, n_embd=8, block_size=6, n_head=2, vocab_size=11))
TINY_DRAW = (dict(n_layer=1, n_embd=8, n_head=2, vocab_size=32, block_size=32), 4)


def test_without_a_gpu_it_says_so_in_one_line(monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # none, wherever this runs
    with pytest.raises(SystemExit) as end:
        gpu.main([])
    assert end.value.code == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: MINIGPT_BACKEND=cupy, but ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("options", [["--sizes", "Z"], ["--repeats", "2"], ["--backend", "numpy"]])
def test_what_cannot_be_measured(options, capsys):
    with pytest.raises(SystemExit) as end:
        gpu.main(options)
    assert end.value.code == 2 and "error: " in capsys.readouterr().err


def test_the_whole_program_on_the_stand_in(monkeypatch, tmp_path, capsys):
    """Training, products and drawing run; the competitors, not installed, are named as absent."""
    really = gpu.in_fresh_process

    def in_fresh_process(function, *args):
        missing = function is gpu_worker.absent
        return f"{args[0]} is not installed" if missing else really(function, *args)

    monkeypatch.setattr(gpu, "in_fresh_process", in_fresh_process)
    monkeypatch.setattr(gpu, "SIZES", {"A": TINY})
    monkeypatch.setattr(gpu, "GENERATION", {"A": TINY_DRAW})
    out = tmp_path / "new" / "gpu.csv"
    gpu.main(["--backend", "strict", "--repeats", "3", "--out", str(out)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("no GPU, but strict, which only tests this program; NumPy ")
    assert lines[1].split("  ")[0] == "size" and "torch is not installed" in lines[2]
    assert "transformers is not installed" in lines[4]
    header, *rows = (row.split(",") for row in out.read_text("utf-8").splitlines())
    assert header == ["work", "size", "contestant", "repeat", "ms"]
    assert [row[:4] for row in rows] == [
        [work, "A", name, str(i)]
        for work, name in (("training", "minigpt"), ("training", "products"),
                           ("drawing", "minigpt draws"))
        for i in range(3)
    ]  # fmt: skip
    assert min(float(row[4]) for row in rows) > 0


@pytest.mark.filterwarnings("ignore")  # of other libraries among themselves
@pytest.mark.parametrize(("half", "tolerance"), [(False, 1e-5), (True, 1e-4)])
def test_pytorch_has_minigpts_losses(half, tolerance):
    pytest.importorskip("torch", reason="needs torch: benchmarks/requirements.txt")
    ours, theirs = (turn(4) for turn in (gpu_worker.minigpt_turn(TINY, half),
                                         gpu_worker.torch_turn(TINY, half, "cpu")))  # fmt: skip
    assert len({float(x) for x in ours}) == 4  # another batch each time
    assert [float(x) for x in theirs] == pytest.approx([float(x) for x in ours], abs=tolerance)


def test_in_float16_minigpt_and_its_products_compute_in_it():
    ours, single = ([float(x) for x in gpu_worker.minigpt_turn(TINY, half)(3)]
                    for half in (True, False))  # fmt: skip
    assert ours != single
    assert ours == pytest.approx(single, abs=gpu.LOSS_TOLERANCE)
    seen = inspect.getclosurevars(
        inspect.getclosurevars(gpu_worker.products_turn(TINY, True)).nonlocals["step"]
    ).nonlocals["work"]
    assert {x.dtype.name for operands in seen for x in operands[:2]} == {"float16"}


def test_a_turn_s_time_is_that_between_its_events(monkeypatch):
    class Event:
        now = 100.0  # ms on the device's clock

        def __init__(self):
            self.at, self.passed = None, False

        def record(self):
            self.at = Event.now

        def synchronize(self):
            self.passed = True

    def turn(n):
        Event.now += 4.0 * n
        return [7] * (2 * n)  # two tokens each

    def milliseconds(start, stop):
        return stop.at - start.at if stop.passed else None  # CUDA refuses before

    monkeypatch.setattr(gpu_worker, "_worker", {"turn": turn, "clock": (Event, milliseconds)})
    assert gpu_worker.take_turn(3) == (2.0, [7.0] * 6)


@pytest.mark.parametrize("tf32", [False, True])
def test_the_environment_is_set_before_minigpt_is_there(tf32, monkeypatch):
    monkeypatch.setattr(gpu_worker, "_worker", {})
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(gpu_worker, "products_turn", lambda config: os.environ.copy())
    gpu_worker.prepare("products", "strict", tf32, TINY)
    seen = gpu_worker._worker["turn"]
    assert (seen["MINIGPT_BACKEND"], seen["CUPY_TF32"]) == ("strict", "1" if tf32 else "0")
    assert gpu_worker.device_mib() is None


def test_other_losses_stop_the_run():
    gpu.check_first({"minigpt": [4.0, 4.1], "products": [math.nan], "torch": [4.0005]})
    for other in ([4.0, 4.2], [math.nan], [4.002]):
        with pytest.raises(SystemExit, match="at step . minigpt has 4.*, torch "):
            gpu.check_first({"minigpt": [4.0, 4.1], "torch": other})


def test_the_tables_say_what_was_measured():
    times = {"minigpt": [2.0, 40.0, 3.0], "products": [1.0, 10.0, 2.0], "torch": [1.0, 20.0, 1.0]}
    row = gpu.training_row("B", CONFIGS["B"], times, {"minigpt": 12.3, "torch": 45.0}, "")
    tokens = 4 * 256
    flop = 3 * 2 * tokens * (6 * (12 * 384**2 + 2 * 256 * 384) + 384 * 65)  # forward, dx, dw
    assert row == ["B", "3.00 (2.00-40.00)", f"{tokens / 0.003:,.0f}", "1.00 (1.00-20.00)",
                   "2.00 (2.00-3.00)", "2.00 (1.00-10.00)", f"{flop / 2e9:.1f}", "50%", "12",
                   "45"]  # fmt: skip
    assert len(row) == len(gpu.TRAINING)
    del times["torch"]
    row = gpu.training_row("A", TINY, times, {"minigpt": None}, "PyTorch finds no GPU")
    assert row[3:5] == ["PyTorch finds no GPU", ""] and row[-2:] == ["", ""]
    draws = {"minigpt draws": [2.0, 4.0, 8.0], "transformers": [6.0, 6.0, 6.0]}
    assert gpu.drawing_row("A", draws, "") == [
        "A", "4.00 (2.00-8.00)", "250", "6.00 (6.00-6.00)", "1.50 (0.75-3.00)"]  # fmt: skip
    assert gpu.drawing_row("A", {"minigpt draws": [2.0]}, "none")[3:] == ["none", ""]


def test_the_large_size_is_gpt2s():
    """124,439,808 parameters, counted from the shapes."""
    n = gpu.SIZES["124M"].network
    C, block = n["n_embd"], 12 * n["n_embd"] ** 2 + 13 * n["n_embd"]
    total = (n["vocab_size"] + n["block_size"]) * C + n["n_layer"] * block + 2 * C
    assert (total, n["block_size"]) == (124439808, 1024)
    assert gpu.GENERATION["124M"][0] == n
