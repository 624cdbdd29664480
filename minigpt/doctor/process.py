"""The process that checks one backend: MINIGPT_BACKEND names it before anything is imported.

It prints each check as a line of JSON as soon as it is made, and at the end the losses.
"""

import json
import os
from collections.abc import Callable

from minigpt.doctor import machine
from minigpt.doctor.report import OK, SKIPPED, Check, attempt

Looks = dict[str, tuple[Callable[[], str], str]]  # name: how to look, and what to do if it fails
DEFECT = "report it as a defect of minigpt, with all of these lines"


def main(wanted: list[float]) -> None:
    """Print the checks of this process's backend. wanted: NumPy's losses; [] for NumPy itself.

    What is installed, and a first kernel, must be there for the rest; the rest stands alone.
    """
    backend, losses, missing = os.environ["MINIGPT_BACKEND"], list[float](), ""
    first = installed(backend)
    for name, (look, advice) in (first | computed(backend, wanted, losses)).items():
        check = Check(name, SKIPPED, f"needs {missing}") if missing else attempt(name, look, advice)
        print(json.dumps(check), flush=True)
        if check.state != OK and (name in first or name == f"{backend} kernel"):
            missing = missing or name
    print(json.dumps({"losses": losses}), flush=True)


def installed(backend: str) -> Looks:
    """What must be there before anything is computed."""
    if backend == "numpy":
        return {"NumPy": (machine.array_library, "pip install -r requirements.txt")}
    if backend == "strict":
        return {}
    advice = f"{machine.install()}; {machine.ELSE}"
    looks = {"CuPy": machine.cupy_itself, "CUDA": machine.cuda, "GPU": machine.gpu}
    return {name: (look, advice) for name, look in looks.items()}


def computed(backend: str, wanted: list[float], losses: list[float]) -> Looks:
    """What is computed. losses: filled in by the training check."""

    def on_backend(name: str, *arguments: list[float]) -> Callable[[], str]:
        def look() -> str:
            from minigpt.doctor import computing  # here: it chooses the backend, now known good

            return getattr(computing, name)(*arguments)

        return look

    wrong = {
        "numpy": f"pip install --force-reinstall numpy; if it stays so, {DEFECT}",
        "cupy": f"update the driver and CuPy; if it stays so, {DEFECT}; {machine.ELSE}",
        "strict": DEFECT,
    }[backend]
    looks = {}
    if backend != "numpy":
        libraries = f"{machine.install()}: [ctk] brings CUDA's compiler and libraries; {wrong}"
        advice = libraries if backend == "cupy" else wrong
        looks = {"kernel": (on_backend("kernel"), advice),
                 "product": (on_backend("product"), advice)}  # fmt: skip
    looks["training"] = on_backend("training", wanted, losses), wrong
    looks["gradient"] = on_backend("gradient"), wrong
    return {f"{backend} {name}": look for name, look in looks.items()}
