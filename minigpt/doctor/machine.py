"""What is installed: Python, NumPy and its BLAS, CuPy, CUDA, the GPU.

CuPy's wheels: one for each major version of CUDA. A driver runs what was built for its own major
version of CUDA or an older one.
"""

import ctypes
import importlib.metadata
import os
import platform
import sys
from contextlib import suppress

from minigpt.doctor.report import ABSENT, FAILED, Finding

OLDEST = (3, 11)  # of Python
WHEELS = ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x")
ELSE = "until then MINIGPT_BACKEND=numpy computes on the processor"


def python() -> str:
    """Its version, and on what."""
    if sys.version_info < OLDEST:
        raise Finding(f"{platform.python_version()} is too old", "install Python 3.11 or newer")
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def array_library() -> str:
    """NumPy's version, and the BLAS that multiplies matrices."""
    import numpy  # here, because it may be what is missing
    from threadpoolctl import threadpool_info

    if numpy.__version__.split(".")[0] != "2":
        raise Finding(f"{numpy.__version__}, where a version 2 is needed")
    found = [f"{x['internal_api']} {x['version']}, {x['num_threads']} threads"
             for x in threadpool_info() if x["user_api"] == "blas"]  # fmt: skip
    return f"{numpy.__version__}; BLAS: {'; '.join(found) or 'none that threadpoolctl knows'}"


def cupy_itself() -> str:
    """CuPy's version, and the wheel that it came in."""
    try:
        import cupy  # here: it is looked at, and not chosen
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise
        raise Finding("not installed", f"{install()}; {ELSE}", ABSENT) from None
    wheels = installed_wheels()
    if len(wheels) > 1:
        raise Finding(f"{' and '.join(wheels)} are both installed: each overwrites the other",
                      f"pip uninstall {' '.join(wheels)}, then {install()}")  # fmt: skip
    return f"{cupy.__version__}, from {wheels[0] if wheels else 'no wheel that pip knows'}"


def cuda() -> str:
    """The CUDA versions of the driver and of the runtime that CuPy was built with."""
    import cupy  # here: see above

    runtime = cupy.cuda.runtime
    driver, built = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    if driver == 0:
        raise Finding(f"no NVIDIA driver is loaded (CuPy was built for CUDA {dotted(built)})",
                      f"install the driver of your GPU, until nvidia-smi lists it; "
                      f"{ELSE}", ABSENT)  # fmt: skip
    said = f"driver for CUDA {dotted(driver)}, CuPy built for CUDA {dotted(built)}"
    if driver // 1000 < built // 1000:
        raise Finding(f"{said}: the driver is too old", f"update the driver, or {install(driver)}")
    return said


def gpu() -> str:
    """The first GPU's name and memory. Says why where CuPy finds none."""
    import cupy  # here: see above

    runtime = cupy.cuda.runtime
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not cupy.is_available():
        why, state = "no device", ABSENT
        try:
            runtime.getDeviceCount()
        except Exception as error:  # CuPy has swallowed it
            why, state = str(error), ABSENT if "NoDevice" in str(error) else FAILED
        advice = "nvidia-smi must list the GPU: mend or update its driver, restart the machine"
        if hidden is not None:
            advice = f"CUDA_VISIBLE_DEVICES={hidden!r} may hide it: unset that; else {advice}"
        raise Finding(f"cupy.is_available() is False: {why}", f"{advice}; {ELSE}",
                      state)  # fmt: skip
    name = runtime.getDeviceProperties(0)["name"].decode()
    device = cupy.cuda.Device(0)
    free, total = (count / 2**30 for count in device.mem_info)
    others = runtime.getDeviceCount() - 1
    return (f"{name}, compute capability {device.compute_capability[:-1]}."
            f"{device.compute_capability[-1]}, {free:.1f} of {total:.1f} GiB free"
            + (f"; {others} more are not used" if others else ""))  # fmt: skip


def install(driver: int | None = None) -> str:
    """The command that installs the wheel for a driver's CUDA, or for this machine's."""
    driver = driver_version() if driver is None else driver
    if 0 < driver < 12000:
        return "update the driver to one of CUDA 12 or newer: CuPy 14 has no wheel for older ones"
    if driver == 0:
        return ('pip install "cupy-cuda13x[ctk]" for a driver of CUDA 13, "cupy-cuda12x[ctk]" '
                "for CUDA 12 (nvidia-smi shows which)")  # fmt: skip
    wheel = "cupy-cuda12x" if driver < 13000 else "cupy-cuda13x"
    others = [name for name in installed_wheels() if name != wheel]
    first = f"pip uninstall {' '.join(others)}, then " if others else ""
    return f'{first}pip install "{wheel}[ctk]" (the driver is for CUDA {dotted(driver)})'


def driver_version() -> int:
    """The driver's CUDA version as 13000 for 13.0, asked without CuPy; 0 where there is none."""
    found = ctypes.c_int(0)
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        library.cuDriverGetVersion(ctypes.byref(found))
    except (OSError, AttributeError):
        return 0
    return found.value


def installed_wheels() -> list[str]:
    """The distributions that bring a module `cupy`. More than one at a time cannot work."""
    found = []
    for name in WHEELS:
        with suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.distribution(name)
            found.append(name)
    return found


def dotted(version: int) -> str:
    """CUDA counts 13020 for 13.2."""
    return f"{version // 1000}.{version % 1000 // 10}"
