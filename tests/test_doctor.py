"""`python -m minigpt doctor`: what it says of machines that are well, and of machines that are not.

No GPU is needed: a module `cupy` is written that computes as the strict stand-in does, with a
driver and a device pretended, and with one thing broken at a time.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minigpt.__main__ import main
from minigpt.doctor import computing, examination, machine
from minigpt.doctor.process import computed, installed
from minigpt.doctor.report import (
    ABSENT,
    FAILED,
    OK,
    SKIPPED,
    Check,
    Finding,
    as_text,
    attempt,
    brief,
)

ROOT = Path(__file__).parent.parent
ON_A_GPU = ["CuPy", "CUDA", "GPU", "cupy kernel", "cupy product", "cupy training", "cupy gradient"]
CUPY = '''
from types import SimpleNamespace
import numpy
from minigpt import strict

__version__ = "14.2.0"
driver, why = 13010, ""


class CUDARuntimeError(RuntimeError):
    __module__ = "cupy_backends.cuda.api.runtime"


def getDeviceCount():
    if why:
        raise CUDARuntimeError(why)
    return 1


class Device:
    compute_capability, mem_info = "120", (2**36, 2**37)

    def __init__(self, number):
        pass


runtime = SimpleNamespace(
    driverGetVersion=lambda: driver, runtimeGetVersion=lambda: 13020,
    getDeviceCount=getDeviceCount, getDeviceProperties=lambda i: {"name": b"Pretended 1"},
)
cuda = SimpleNamespace(runtime=runtime, Device=Device)
is_available = lambda: not why
times = strict.ndarray.__matmul__


def __getattr__(name):
    return getattr(strict, name)


def product(wrong):
    """From now on, matrix products are 0.1 % off where wrong(x, y)."""
    def off(x, y):
        return times(x, y) * x.dtype.type(1.001 if wrong(x, y) else 1)
    strict.ndarray.__matmul__ = off
'''
BANNER = """
================================================================
Failed to import CuPy.

If you installed CuPy via wheels (cupy-cudaXXX), make sure that the package matches ...

Original error:
  ImportError: libcublas.so.13: cannot open shared object file: No such file or directory
================================================================
"""
KERNEL = """
class ElementwiseKernel(strict.ElementwiseKernel):
    def __call__(self, *args):
        """


@pytest.fixture(scope="module")
def healthy():
    """The checks of NumPy's process, made once for all tests, and its losses."""
    losses = []
    checks = [*examination._checks("numpy", losses)]
    assert [(check.name, check.state) for check in checks] == [
        ("NumPy", OK), ("numpy training", OK), ("numpy gradient", OK)
    ]  # fmt: skip
    return checks, losses


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Write a module `cupy` that comes before any other one; `broken` is its last lines."""
    monkeypatch.delenv("MINIGPT_BACKEND", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUPY_TF32", raising=False)
    monkeypatch.syspath_prepend(tmp_path)

    def write(broken="", source=CUPY):
        (tmp_path / "cupy").mkdir(exist_ok=True)
        (tmp_path / "cupy" / "__init__.py").write_text(source + broken, "utf-8")
        return tmp_path

    return write


@pytest.fixture
def doctor(capsys, monkeypatch, healthy):
    """Run the command, with NumPy's process replaced by what it said before."""
    real = examination._checks

    def recorded(backend, losses):
        if backend != "numpy":
            yield from real(backend, losses)
        else:
            yield from healthy[0]
            losses[:] = healthy[1]

    monkeypatch.setattr(examination, "_checks", recorded)

    def run(*argv):
        code = main(["doctor", *argv])
        out, err = capsys.readouterr()
        assert err == ""
        assert "Traceback" not in out
        found = {}
        for line in out.splitlines():
            if match := re.fullmatch(r"(ok|FAILED|skipped) +(\S+(?: \S+)?)  +(\S.*)", line):
                found[match[2]] = (match[1], match[3])
                name = match[2]
            elif line.startswith(" " * 9 + "what to do: "):
                found[name] += (line.split(": ", 1)[1],)
        failed = {name: rest for name, (state, *rest) in found.items() if state == "FAILED"}
        assert all(len(rest) == 2 for rest in failed.values())  # each says what to do
        assert code == (1 if failed else 0)
        return found, out.splitlines()[-1]

    return run


def python(*args, path, **env):
    env = {k: v for k, v in os.environ.items() if k != "MINIGPT_BACKEND"} | env
    return subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, cwd=path,
        env=env | {"PYTHONPATH": os.pathsep.join([str(path), str(ROOT)])},
    )  # fmt: skip


# --- what is well -----------------------------------------------------------------------------


def test_numpy_alone(doctor, fake):
    fake("raise RuntimeError('it is not to be looked at')")
    found, last = doctor("--backend", "numpy")
    assert list(found) == ["Python", "backend", "NumPy", "numpy training", "numpy gradient"]
    assert {state for state, _ in found.values()} == {"ok"}
    assert found["NumPy"][1].startswith(np.__version__)
    assert "BLAS" in found["NumPy"][1]
    assert last == "everything works"


def test_the_strict_stand_in_passes_every_check_for_real(doctor):
    found, last = doctor("--backend", "strict")
    names = [f"strict {name}" for name in ("kernel", "product", "training", "gradient")]
    assert list(found)[-4:] == names
    assert {state for state, *_ in found.values()} == {"ok"}
    assert last == "everything works"


def test_a_gpu_that_works(doctor, fake):
    fake()
    found, last = doctor()
    assert list(found)[-7:] == ON_A_GPU
    assert {state for state, *_ in found.values()} == {"ok"}
    assert found["CuPy"][1].startswith("14.2.0, from ")
    assert found["CUDA"][1] == "driver for CUDA 13.1, CuPy built for CUDA 13.2"
    assert found["GPU"][1] == "Pretended 1, compute capability 12.0, 64.0 of 128.0 GiB free"
    assert last == "everything works; the GPU: MINIGPT_BACKEND=cupy python -m minigpt train"


def test_every_check_is_made_before_a_backend_is_chosen(fake):
    """The real command: `cupy` is chosen, and cannot be; the command line itself would stop."""
    path = fake("driver, why = 0, 'cudaErrorInsufficientDriver: CUDA driver version is ...'")
    done = python("-m", "minigpt", "doctor", path=path, MINIGPT_BACKEND="cupy")
    assert (done.returncode, done.stderr) == (1, "")
    assert "cupy, by MINIGPT_BACKEND" in done.stdout
    assert re.search(r"^ok +numpy gradient ", done.stdout, re.M)
    assert re.search(r"^FAILED +CUDA +no NVIDIA driver is loaded", done.stdout, re.M)
    assert done.stdout.endswith("\n\n1 check failed\n")


# --- no GPU, which is a failure only where one is asked for -----------------------------------

NO_GPU = {
    "not installed": ("CuPy", 'raise ModuleNotFoundError("No module named cupy", name="cupy")',
                      "not installed", r"pip install \"cupy-cuda1[23]x\[ctk\]\""),
    "no driver": ("CUDA", "driver, why = 0, 'cudaErrorInsufficientDriver: ...'",
                  "no NVIDIA driver is loaded (CuPy was built for CUDA 13.2)",
                  "install the driver"),
    "no device": ("GPU", "why = 'cudaErrorNoDevice: no CUDA-capable device is detected'",
                  "cupy.is_available() is False: cudaErrorNoDevice: no CUDA-capable device is "
                  "detected", "nvidia-smi must list the GPU"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "broken", "said", "advice"), NO_GPU.values(), ids=NO_GPU)
def test_no_gpu(doctor, fake, name, broken, said, advice):
    fake(broken)
    found, last = doctor()
    assert found[name] == ("skipped", said)
    rest = ON_A_GPU[ON_A_GPU.index(name) + 1 :]
    assert [found[later] for later in rest] == [("skipped", f"needs {name}")] * len(rest)
    assert last == "what is here works; no GPU: everything runs on the processor"
    found, last = doctor("--backend", "cupy")
    assert found[name][:2] == ("FAILED", said)
    assert re.search(advice, found[name][2])
    assert "MINIGPT_BACKEND=numpy" in found[name][2]
    assert [found[later] for later in rest] == [("skipped", f"needs {name}")] * len(rest)
    assert last == "1 check failed"


# --- a GPU that does not work: a failure whatever is asked for --------------------------------

IMPORT = f"raise ImportError({BANNER!r})"
BROKEN = {
    "libraries are missing": (IMPORT, "CuPy",
        "ImportError: libcublas.so.13: cannot open shared object file", "pip install"),
    "a dependency is missing": ("import no_such_module", "CuPy", "No module named 'no_such_module'",
        "pip install"),
    "half installed": ("raise AttributeError('module _core has no attribute core')", "CuPy",
        "AttributeError: module _core has no attribute core", "pip install"),
    "the driver is too old": ("driver, why = 12040, 'cudaErrorInsufficientDriver'", "CUDA",
        "driver for CUDA 12.4, CuPy built for CUDA 13.2: the driver is too old",
        "update the driver, or "),
    "the device is ill": ("why = 'cudaErrorSystemDriverMismatch: versions differ'", "GPU",
        "cupy.is_available() is False: cudaErrorSystemDriverMismatch: versions differ", "driver"),
    "CUDA's compiler is missing": (KERNEL + "raise RuntimeError('CuPy failed to load "
        "libnvrtc.so.13: OSError: no such file')", "cupy kernel",
        "RuntimeError: CuPy failed to load libnvrtc.so.13", r"\[ctk\] brings CUDA's compiler"),
    "a kernel does not compile": (KERNEL + "raise Exception('\\n\\nx.cu(3): error: no such name\\n"
        "1 error detected')", "cupy kernel", "Exception: x.cu(3): error: no such name", "ctk"),
    "a kernel computes wrongly": (KERNEL + "return super().__call__(*args) + 1", "cupy kernel",
        "wrong numbers: 1 where NumPy has 0", "update the driver"),
    "training is wrong": ("product(lambda x, y: x.ndim > 2 and x.dtype != float)", "cupy training",
        r"where NumPy's is 3.4529 to \S+: off by \S+ > 1e-04", "report it"),
    "the gradient is wrong": ("product(lambda x, y: x.dtype == float and x.shape[0] != 256)",
        "cupy gradient", "relative error .* > 1e-06", "report it"),
}  # fmt: skip
FATAL = ("CuPy", "CUDA", "GPU", "cupy kernel")  # without which nothing else can run


@pytest.mark.parametrize(("broken", "name", "said", "advice"), BROKEN.values(), ids=BROKEN)
def test_what_is_there_and_does_not_work(doctor, fake, broken, name, said, advice):
    fake(broken)
    found, last = doctor()
    assert found[name][0] == "FAILED"
    assert re.search(said if "\\" in said or "*" in said else re.escape(said), found[name][1])
    assert re.search(advice, found[name][2])
    before, after = ON_A_GPU[: ON_A_GPU.index(name)], ON_A_GPU[ON_A_GPU.index(name) + 1 :]
    assert {found[other][0] for other in before} <= {"ok"}
    if name in FATAL:
        assert [found[other] for other in after] == [("skipped", f"needs {name}")] * len(after)
        assert last == "1 check failed"
    assert re.fullmatch(r"\d checks? failed", last)


def test_wrong_products_leave_the_other_checks_running(doctor, fake):
    fake("product(lambda x, y: x.dtype != float)")
    found, last = doctor()
    states = [found[name][0] for name in ON_A_GPU[-4:]]
    assert re.fullmatch(r"float32: \S+ where NumPy has \S+: relative error 1.0e-03 > 1e-05",
                        found["cupy product"][1])  # fmt: skip
    assert found["cupy product"][2].startswith("pip install")
    assert states == ["ok", "FAILED", "FAILED", "ok"]
    assert last == "2 checks failed"


def test_two_wheels_at_once(doctor, fake):
    path = fake()
    for name in ("cupy-cuda12x", "cupy-cuda13x"):
        folder = path / f"{name.replace('-', '_')}-14.2.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 14.2.0\n")
    found, _ = doctor()
    assert found["CuPy"][:2] == ("FAILED", "cupy-cuda12x and cupy-cuda13x are both installed: "
                                 "each overwrites the other")  # fmt: skip
    assert found["CuPy"][2].startswith("pip uninstall cupy-cuda12x cupy-cuda13x, then ")


def test_a_process_that_crashes(doctor, fake):
    prints = "print('[1, 2]\\nhello\\n7')\nprint('a driver says', file=sys.stderr)\n"
    fake(f"import os, sys\n{prints}os.abort()")
    found, last = doctor()
    state, said, advice = found["cupy process"]
    assert state == "FAILED"
    assert said.endswith(": a driver says")
    assert "SIGABRT" in said or sys.platform == "win32"
    assert "MINIGPT_BACKEND=cupy python -X faulthandler" in advice
    assert last == "1 check failed"


def test_a_process_that_hangs(doctor, fake, monkeypatch):
    monkeypatch.setattr(examination, "SECONDS", 0.5)
    fake("import time\ntime.sleep(60)")
    found, _ = doctor()
    assert found["cupy process"][1] == "took longer than 0.5 s, and was stopped"


def test_a_hidden_device(doctor, fake, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    fake("why = 'cudaErrorNoDevice: none'")
    found, _ = doctor("--backend", "cupy")
    assert found["GPU"][2].startswith("CUDA_VISIBLE_DEVICES='7' may hide it: unset that")


def test_tf32_is_told_and_widens_the_bounds(doctor, fake, monkeypatch):
    monkeypatch.setenv("CUPY_TF32", "1")
    fake("product(lambda x, y: x.dtype != float)")
    found, last = doctor()
    assert found["cupy product"][1].endswith("with CUPY_TF32")
    assert last.startswith("everything works")


def test_a_backend_of_no_such_name(doctor, fake, monkeypatch):
    fake(NO_GPU["not installed"][1])
    monkeypatch.setenv("MINIGPT_BACKEND", "torch")
    found, last = doctor()
    assert found["backend"][1:] == ("'torch', by MINIGPT_BACKEND: no such backend",
        "set MINIGPT_BACKEND to one of numpy, cupy, strict, or unset it")  # fmt: skip
    assert last == "1 check failed"


def test_no_numpy(tmp_path):
    (tmp_path / "numpy.py").write_text("raise ModuleNotFoundError(\"No module named 'numpy'\")")
    done = python("-m", "minigpt", "doctor", "--backend", "numpy", path=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert re.search(r"^FAILED +NumPy +ModuleNotFoundError: No module named 'numpy'\n"
                     r" +what to do: pip install -r requirements.txt\n"
                     r"skipped +numpy training +needs NumPy\n", done.stdout, re.M)  # fmt: skip


# --- the other commands, without a GPU --------------------------------------------------------

RUNTIME = "def asarray(*args):\n    raise CUDARuntimeError('cudaErrorNoKernelImageForDevice: no')"
LIBRARY = "def asarray(*args):\n    raise RuntimeError('CuPy failed to load libnvrtc.so.13: no')"


@pytest.mark.parametrize(("broken", "said"), [
    (NO_GPU["not installed"][1], "MINIGPT_BACKEND=cupy"),
    (BROKEN["libraries are missing"][0], "MINIGPT_BACKEND=cupy"),
    (BROKEN["half installed"][0], "MINIGPT_BACKEND=cupy"),
    (NO_GPU["no driver"][1], "MINIGPT_BACKEND=cupy"),
    (RUNTIME, "cudaErrorNoKernelImageForDevice: no (see python -m minigpt doctor)"),
    (LIBRARY, "CuPy failed to load libnvrtc.so.13: no (see python -m minigpt doctor)"),
])  # fmt: skip
def test_other_commands_say_one_line_and_end_with_2(fake, broken, said):
    done = python("-m", "minigpt", "info", path=fake(broken), MINIGPT_BACKEND="cupy")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_mistake_of_the_program_keeps_its_traceback(fake):
    broken = "def asarray(*args):\n    raise TypeError('Implicit conversion to a NumPy array')"
    done = python("-m", "minigpt", "info", path=fake(broken), MINIGPT_BACKEND="cupy")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


# --- the parts --------------------------------------------------------------------------------


def test_a_check_is_ok_unless_something_is_raised():
    def finds(error):
        def look():
            raise error

        return attempt("x", look, "call a friend")

    assert attempt("x", lambda: "fine", "call a friend") == Check("x", OK, "fine")
    assert finds(Finding("bad")) == Check("x", FAILED, "bad", "call a friend")
    assert finds(Finding("bad", "rest", ABSENT)) == Check("x", ABSENT, "bad", "rest")
    assert finds(KeyError("k")) == Check("x", FAILED, "KeyError: 'k'", "call a friend")
    assert as_text(Check("x", FAILED, "a", "b")).splitlines()[1].strip() == "what to do: b"
    assert "\n" not in as_text(Check("x", SKIPPED, "a", "b"))


def test_errors_in_one_line():
    assert brief(ImportError(BANNER)).startswith("ImportError: libcublas.so.13: cannot open")
    assert brief(ValueError("\n\n====\n  first \nsecond")) == "ValueError: first"
    assert brief(ValueError()) == "ValueError: no message"
    assert len(brief(ValueError("x" * 5000))) < 400


@pytest.mark.parametrize(("driver", "command"), [
    (11080, "update the driver to one of CUDA 12 or newer"),
    (12040, 'pip install "cupy-cuda12x[ctk]" (the driver is for CUDA 12.4)'),
    (13000, 'pip install "cupy-cuda13x[ctk]" (the driver is for CUDA 13.0)'),
    (14010, 'pip install "cupy-cuda13x[ctk]" (the driver is for CUDA 14.1)'),
])  # fmt: skip
def test_which_wheel_for_which_cuda(monkeypatch, driver, command):
    monkeypatch.setattr(machine, "installed_wheels", lambda: [])
    assert machine.install(driver).startswith(command)
    monkeypatch.setattr(machine, "driver_version", lambda: driver)
    assert machine.install() == machine.install(driver)
    monkeypatch.setattr(machine, "installed_wheels", lambda: ["cupy-cuda11x"])
    if driver >= 12000:
        assert machine.install(driver) == f"pip uninstall cupy-cuda11x, then {command}"


def test_without_a_driver_both_wheels_are_named(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(machine.ctypes, "CDLL", missing)
    assert machine.driver_version() == 0
    assert "cupy-cuda12x" in machine.install()
    assert "cupy-cuda13x" in machine.install()


def test_the_driver_is_asked_without_cupy(monkeypatch):
    class Library:
        @staticmethod
        def cuDriverGetVersion(pointer):
            pointer._obj.value = 12080

    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: Library)
    assert machine.driver_version() == 12080
    assert machine.dotted(12080) == "12.8"


def test_versions_that_are_too_old(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    assert attempt("Python", machine.python, "").advice == "install Python 3.11 or newer"
    monkeypatch.setattr(np, "__version__", "1.26.4")
    with pytest.raises(Finding, match=r"1\.26\.4, where a version 2 is needed"):
        machine.array_library()


def test_losses_that_do_not_start_at_guessing_or_do_not_fall(monkeypatch):
    for losses in ([3.0, 2.9, 2.8, 2.7], [3.47, 3.46, 3.46, 3.45], [3.47, 3.3, 3.1, np.nan],
                   [np.nan] * 4):  # fmt: skip
        monkeypatch.setattr(computing, "training_losses", lambda losses=losses: losses)
        with pytest.raises(Finding, match="must start near ln 32 = 3.4657, and fall"):
            computing.training([], [])


def test_losses_are_numpys_to_a_bound(monkeypatch):
    losses = [3.47, 3.3, 3.2, 3.1]
    monkeypatch.setattr(computing, "training_losses", lambda: losses)
    said = computing.training([3.47, 3.3, 3.20005, 3.1], [])
    assert said.endswith("off NumPy's by 5e-05 (at most 1e-04)")
    with pytest.raises(Finding, match="off by 1.1e-04 > 1e-04"):
        computing.training([3.47, 3.3, 3.20011, 3.1], [])


def test_products_are_compared_in_both_precisions(monkeypatch):
    assert re.match(r"relative error \S+ in float32 .at most 1e-05., \S+ in float64 .at most 1e-12",
                    computing.product())  # fmt: skip
    real = computing.to_numpy
    for dtype, factor, said in ((np.float32, 1.0001, "1.0e-04 > 1e-05"), (float, np.nan, "nan > "),
                                (float, 1 + 1e-11, "1.0e-11 > 1e-12")):  # fmt: skip
        monkeypatch.setattr(
            computing, "to_numpy",
            lambda x, d=dtype, k=factor: real(x) * x.dtype.type(k if x.dtype == d else 1),
        )  # fmt: skip
        with pytest.raises(Finding, match=rf"{np.dtype(dtype)}: .* where NumPy has .*{said}"):
            computing.product()


def test_every_look_has_its_advice_and_checks_survive_the_pipe():
    for backend in examination.BACKENDS:
        for _, advice in (installed(backend) | computed(backend, [], [])).values():
            assert advice
    check = Check("x", OK, "größer", "")
    assert Check(*json.loads(json.dumps(check))) == check
