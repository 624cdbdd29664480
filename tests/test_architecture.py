"""The house rules that a program can hold: imports one way, NumPy in one place, sizes, start-up."""

import ast
import io
import json
import subprocess
import sys
import tokenize
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "minigpt"
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
CORE = ("tensor.py", "shapes.py", "ops.py", "functional.py", "attention.py", "positions.py",
        "nn.py", "model.py")  # fmt: skip

# What each module may import from the package. A folder's name stands for its modules.
MAY_IMPORT: dict[str, set[str]] = {
    "strict": {"strict"},
    "backend": {"strict"},
    "memory": {"backend"},
    "tensor": {"backend", "memory"},
    "shapes": {"backend", "tensor"},
    "ops": {"backend", "memory", "tensor", "shapes"},
    "erf": {"backend"},
    "kernels": {"backend"},
    "wide": {"backend"},
    "functional": {"backend", "memory", "tensor", "ops", "erf", "kernels", "wide"},
    "positions": {"backend", "tensor"},
    "attention": {"backend", "memory", "tensor", "functional", "positions", "kernels"},
    "nn": {"backend", "tensor", "ops", "functional"},
    "model": {"backend", "tensor", "ops", "functional", "positions", "attention", "nn"},
    "reference": {"backend", "tensor", "ops"},
    "gradcheck": {"backend", "tensor", "witness"},
    "threads": set(),
    "optim": {"backend", "memory", "tensor", "threads", "kernels"},
    "parallel": {"backend", "tensor", "functional", "model", "optim", "threads"},
    "schedules": set(),
    "tokenizer.ids": set(),
    "tokenizer.pretokens": set(),
    "tokenizer.merging": set(),
    "tokenizer.vocabulary": set(),
    "tokenizer.characters": {"tokenizer.ids"},
    "tokenizer.bpe": {"tokenizer.ids", "tokenizer.pretokens", "tokenizer.merging",
                      "tokenizer.vocabulary"},
    "tokenizer.training": {"tokenizer.pretokens", "tokenizer.bpe"},
    "tokenizer.names": {"tokenizer.bpe"},
    "tokenizer.huggingface": {"tokenizer.vocabulary", "tokenizer.bpe", "tokenizer.names"},
    "tokenizer.files": {"tokenizer.vocabulary", "tokenizer.bpe", "tokenizer.names",
                        "tokenizer.huggingface"},
    "tokenizer.gpt2_vocabulary": {"tokenizer.bpe", "tokenizer.files"},
    "tokenizer": {"tokenizer.vocabulary", "tokenizer.characters", "tokenizer.bpe",
                  "tokenizer.training", "tokenizer.files", "tokenizer.gpt2_vocabulary"},
    "download": set(),
    "data": {"data", "download"},
    "baselines": {"baselines"},
    "metrics": {"metrics"},
    "checkpoint": {"backend", "nn", "model", "tokenizer"},
    "cost": {"attention", "model"},
    "decoding": {"model"},
    "weights": {"backend", "tokenizer.vocabulary"},
    "gpt2": {"backend", "model", "checkpoint", "weights", "tokenizer.vocabulary"},
    "hub": {"download", "gpt2", "tokenizer.vocabulary"},
    "cache": {"backend", "positions", "nn", "model", "kernels"},
    "generate": {"backend", "tensor", "model", "decoding", "cache"},
    "stream": {"generate", "model", "tokenizer"},
    "evaluate": {"backend", "tensor", "functional", "model", "baselines", "tokenizer",
                 "parallel"},
    "settings": {"model", "schedules"},
    "half": {"backend", "tensor", "functional", "model", "optim", "parallel", "settings", "wide"},
    "record": {"checkpoint", "settings"},
    "interrupt": set(),
    "readings": {"backend"},
    "recompute": {"tensor", "nn", "model"},
    "train": {"backend", "model", "checkpoint", "optim", "schedules", "tokenizer", "half",
              "evaluate", "generate", "settings", "record", "readings", "recompute",
              "interrupt"},
    "plot": {"checkpoint", "record"},
    "lab": {"backend", "tensor", "witness"},
    "drawing": {"backend", "tensor"},
    "witness": set(),
    "verify.claims": set(),
    "verify.arguments": {"witness", "verify.claims"},
    "verify.values": {"witness", "verify.claims", "verify.arguments"},
    "verify.hearing": {"witness", "verify.claims", "verify.arguments"},
    "verify.judge": {"verify.claims", "verify.arguments", "verify.values", "verify.hearing"},
    "verify.known": set(),
    "verify.trials": {"witness", "verify.claims"},
    "verify.patterns": {"verify.known", "verify.trials"},
    "verify.terms": {"verify.known", "verify.trials", "verify.patterns"},
    "verify.probes": {"verify.trials", "verify.patterns"},
    "verify.diagnosis": {"witness", "verify.claims", "verify.trials", "verify.patterns",
                         "verify.terms", "verify.probes"},
    "verify.report": {"verify.claims", "verify.judge"},
    "verify.pictures": set(),
    "webpage": set(),
    "verify.page": {"webpage", "verify.report", "verify.pictures"},
    "verify.derivations": {"verify.claims", "verify.report", "verify.page"},
    "verify": {"verify.derivations"},
    "verify.templates": {"verify"},
    "verify.isolated": {"witness", "verify.claims", "verify.judge", "verify.trials",
                        "verify.diagnosis", "verify.derivations"},
    "subjects": {"backend", "tensor", "shapes", "ops", "functional", "attention", "positions",
                 "nn", "model", "reference", "variants"},
    "variants": {"backend", "tensor", "ops", "functional", "attention", "positions", "nn", "model",
                 "tokenizer.ids", "tokenizer.merging", "tokenizer.pretokens", "generate",
                 "download", "memory", "wide", "variants"},
    "interpret": {"backend", "tensor", "functional", "positions", "attention", "model", "decoding",
                  "tokenizer", "webpage", "interpret"},
    "audit": {"backend", "tensor", "checkpoint", "gradcheck", "witness", "subjects", "drawing"},
    "diagram": {"backend", "tensor", "functional", "positions", "nn", "plot", "diagram"},
    "coverage": set(),
    "options": {"__init__"},
    "doctor": {"backend", "tensor", "functional", "model", "optim", "gradcheck", "witness",
               "doctor"},
    "commands": {"backend", "options", "data", "model", "checkpoint", "decoding", "stream",
                 "tokenizer", "cost",
                 "evaluate", "settings", "record", "train", "plot", "coverage", "parallel",
                 "verify.derivations", "audit", "variants", "gpt2", "hub", "interpret", "diagram",
                 "doctor", "commands"},
    "cli": {"options", "commands"},
    "__main__": {"cli", "options", "commands", "doctor"},
    "__init__": set(),
}  # fmt: skip

# Everything else computes with backend.xp. These work on the CPU: files, counting, random numbers.
MAY_IMPORT_NUMPY = {
    "backend.py", "memory.py", "checkpoint.py", "weights.py", "gpt2.py",
    "commands/models.py",
    "commands/runs.py", "commands/parts.py", "decoding.py", "evaluate.py",
    "generate.py", "gradcheck.py", "half.py", "parallel.py",
    "record.py", "drawing.py", "lab.py", "train.py", "baselines/ngram.py", "data/corpus.py",
    "data/tokens.py", "data/writing.py", "cache.py",
    "tokenizer/characters.py", "tokenizer/bpe.py", "tokenizer/ids.py",
    "diagram/build.py",  # which arrays share memory, ids of the host among them
    "variants/llama2c.py", "variants/stories.py", "commands/stories.py",
    # The lab judges plain NumPy functions; a derivation file is one.
    "witness.py", "subjects.py", "audit.py",
    "doctor/machine.py", "doctor/computing.py",
    *(name for name in FILES if name.startswith("strict/")),  # NumPy, behind CuPy's rules
    *(name for name in FILES if name.startswith("verify/")),
    *(name for name in FILES if name.startswith("metrics/")),
    *(name for name in FILES if name.startswith("interpret/")),
}  # fmt: skip

# Loaded only where used, each with its reason beside it.
LATE_IMPORTS = {
    "backend.py": {"cupy", "minigpt.strict"},
    "commands/runs.py": {"minigpt.plot"},
    "commands/plot.py": {"minigpt.plot"},
    "commands/graph.py": {"minigpt.diagram.figure"},
    "commands/explain.py": {"minigpt.interpret.figure"},
    "audit.py": {"matplotlib", "matplotlib.figure", "minigpt.drawing"},
    "verify/isolated.py": {"resource"},
    "__main__.py": {"minigpt.cli"},
    "doctor/machine.py": {"numpy", "threadpoolctl", "cupy"},
    "doctor/process.py": {"minigpt.doctor.computing"},
    "data/wheel.py": {"importlib"},
    "tokenizer/gpt2_vocabulary.py": {"importlib"},
    "download.py": {"pooch"},
    "data/pydoc.py": {"pydoc_data.topics"},
}
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree(name):
    return ast.parse((PACKAGE / name).read_text("utf-8"))


@cache
def imports(node):
    """Dotted names that the import statements below node load."""
    found = []
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            found += [alias.name for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            for alias in child.names:
                dotted = f"{child.module}.{alias.name}"
                part = PACKAGE.parent.joinpath(*dotted.split("."))
                known = part.is_dir() or part.with_suffix(".py").exists()
                found.append(dotted if known else child.module)
    return found


def row(parts):
    """The row of a module in MAY_IMPORT: its own where its folder's modules have rows."""
    listed = any(name.startswith(f"{parts[0]}.") for name in MAY_IMPORT)
    name = ".".join(parts[: 2 if listed else 1])
    return "__init__" if name.startswith("__") and name != "__main__" else name


@pytest.mark.parametrize("name", FILES)
def test_imports_point_one_way(name):
    module = row(name.removesuffix(".py").removesuffix("/__init__").split("/"))
    assert module in MAY_IMPORT, f"say in MAY_IMPORT what {name} may import"
    used = {row(dotted.split(".")[1:]) for dotted in imports(tree(name))
            if dotted.startswith("minigpt.")}  # fmt: skip
    assert used <= MAY_IMPORT[module], f"{name} imports {used - MAY_IMPORT[module]}"


def test_the_table_has_no_cycle():
    order: list[str] = []
    while len(order) < len(MAY_IMPORT):
        free = [m for m, uses in MAY_IMPORT.items() if m not in order and uses - {m} <= {*order}]
        assert free, f"a cycle among {set(MAY_IMPORT) - set(order)}"
        order += free


@pytest.mark.parametrize("name", FILES)
def test_numpy_and_cupy_come_through_backend(name):
    top = {dotted.split(".")[0] for dotted in imports(tree(name))}
    assert "cupy" not in top or name in ("backend.py", "doctor/machine.py")
    assert "numpy" not in top or name in MAY_IMPORT_NUMPY


@pytest.mark.parametrize("name", FILES)
def test_imports_stand_at_the_top(name):
    functions = [n for n in ast.walk(tree(name)) if isinstance(n, FUNCTION)]
    late = {dotted for function in functions for dotted in imports(function)}
    assert late == LATE_IMPORTS.get(name, set()), f"{name}: inside functions, {late}"


def code_lines(name):
    """Lines with code: neither blank, nor comment, nor docstring."""
    source = (PACKAGE / name).read_text("utf-8")
    kept = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT,
                              tokenize.DEDENT, tokenize.ENDMARKER):  # fmt: skip
            kept |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str):
            kept -= set(range(node.lineno, node.end_lineno + 1))
    return len(kept)


def test_the_core_is_read_in_one_evening():
    lines = {name: code_lines(name) for name in CORE}
    print(lines, sum(lines.values()))
    assert sum(lines.values()) <= 800


@pytest.mark.parametrize("name", FILES)
def test_files_and_functions_are_short(name):
    assert len((PACKAGE / name).read_text("utf-8").splitlines()) <= 300
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = node.end_lineno - body[0].lineno + 1 if body else 0
            assert length <= 40, f"{name}: {node.name} has {length} lines"


def test_functions_are_short_at_the_median():
    lengths = sorted(
        node.end_lineno - node.lineno + 1
        for name in FILES
        for node in ast.walk(tree(name))
        if isinstance(node, ast.FunctionDef)
    )
    assert lengths[len(lengths) // 2] <= 10


@pytest.mark.parametrize("name", FILES)
def test_every_module_and_public_name_has_a_docstring(name):
    module = tree(name)
    assert ast.get_docstring(module), name
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            docstring = ast.get_docstring(node)
            assert docstring, f"{name}: {node.name}"
            assert len(docstring.splitlines()) <= 12, f"{name}: {node.name}"


def test_no_pickle_no_network_no_absolute_path():
    for name in FILES:
        top = {dotted.split(".")[0] for dotted in imports(tree(name))}
        assert not top & {"pickle", "shelve", "marshal", "urllib", "http", "socket", "requests"}
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not node.value.startswith(("/home", "/root", "/tmp", "C:\\"))


def measure(code):
    """Run code in a fresh interpreter; what it prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return json.loads(done.stdout)


def test_the_core_loads_numpy_and_nothing_else():
    code = """
import json, sys
before = set(sys.modules)
import minigpt, minigpt.model, minigpt.gradcheck, minigpt.optim, minigpt.reference
new = {name.split(".")[0] for name in set(sys.modules) - before}
print(json.dumps(sorted(new - set(sys.stdlib_module_names))))
"""
    assert measure(code) == ["minigpt", "numpy"]


def test_import_is_quick():
    """0.3 s is the promise, in this thread's processor time: what neighbours take is not ours."""
    code = (
        "import time; t = time.thread_time(); import minigpt.model; print(time.thread_time() - t)"
    )
    assert min(measure(code) for _ in range(5)) < 0.3


def test_public_names_resolve():
    import minigpt

    for name in minigpt.__all__:
        assert getattr(minigpt, name) is not None
    assert set(minigpt.__all__) <= set(dir(minigpt))
    with pytest.raises(AttributeError, match="no attribute 'Tenser'"):
        minigpt.Tenser  # noqa: B018


@pytest.mark.parametrize("name", ["Tensor", "check_grads", "primitive", "no_grad", "AdamW"])
def test_any_public_name_brings_the_operators(name):
    """Each in a fresh interpreter: here, other tests have imported ops already."""
    code = f"""
import json
from minigpt import {name}
from minigpt.tensor import Tensor
print(json.dumps((Tensor([3.0]) * 2.0).item()))
"""
    assert measure(code) == 6.0


@pytest.mark.parametrize("name", FILES)
def test_no_way_around_the_tables(name):
    """NumPy through backend's own name for it, or an import that is no import statement."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.ImportFrom) and node.module == "minigpt.backend":
            assert not {alias.name for alias in node.names} & {"numpy", "cupy"}
        called = getattr(node, "id", getattr(node, "attr", ""))
        assert called not in ("__import__", "import_module") or name == "__init__.py"
        assert not (isinstance(node, ast.keyword) and node.arg == "allow_pickle")


@pytest.mark.parametrize("name", FILES)
def test_docstrings_of_methods_are_short_too(name):
    for node in ast.walk(tree(name)):
        if isinstance(node, FUNCTION | ast.ClassDef):
            assert len((ast.get_docstring(node) or "").splitlines()) <= 12, f"{name}: {node.name}"


def test_the_command_line_starts_without_matplotlib():
    code = "import json, sys, minigpt.cli; print(json.dumps('matplotlib' in sys.modules))"
    assert measure(code) is False
