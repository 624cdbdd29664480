"""The package's array code uses only what CuPy has. Read from the source: no GPU is needed.

Each kind of misuse that the reader knows is planted, and found with its message; beside each stands
the right way to say it, which must pass.
"""

import ast
import importlib
import importlib.util

import numpy as np
import pytest
from array_kinds import CROSSING, MAKES_NUMPY, NO_ARRAY, OF_ARRAYS, STAYS_NUMPY, TO_HOST
from conformance import misuse, names_of_xp
from cupy_names import DTYPES, TRAPS, CuPy
from test_architecture import CORE, FILES, MAY_IMPORT_NUMPY, PACKAGE, ROOT, imports, tree

# A file that imports one of these handles arrays of xp, and is read. The others compute with NumPy
# or not at all; strict/, which stands in for CuPy, is written over NumPy too.
HOLDERS = {"minigpt.backend", *(f"minigpt.{name.removesuffix('.py')}" for name in CORE)}
READ = [name for name in FILES if name == "backend.py" or HOLDERS & {*imports(tree(name))}]
CHAPTERS = [*sorted(ROOT.glob("chapters/*.py")), *sorted(ROOT.glob("chapters/solutions/*.py"))]

HEAD = """
import numpy as np
from minigpt import backend
from minigpt.backend import overflow_allowed, read_only, to_numpy, xp

def f(x, y, rng):
    """.lstrip()
LINE = HEAD.count("\n") + 1

# Wrong; what is said of it; right.
PLANTED = {
    "a name": ("xp.vecdot(x, y)", "xp.vecdot: CuPy 14 has no such name", "xp.vdot(x, y)"),
    "a name in a module": (
        "xp.linalg.vector_norm(x)",
        "xp.linalg.vector_norm: CuPy 14 has no such name",
        "xp.linalg.norm(x)"),
    "a name through backend": (
        "backend.xp.vecdot(x, y)",
        "xp.vecdot: CuPy 14 has no such name",
        "backend.xp.vdot(x, y)"),
    "a name that is not called": (
        "return xp.float128",
        "xp.float128: CuPy 14 has no such name",
        "return xp.float64"),
    "errstate": (
        "with xp.errstate(over='ignore'): pass",
        "xp.errstate: CuPy 14 has no such name",
        "with overflow_allowed(): pass"),
    "einsum_path": (
        "xp.einsum_path('ij->i', x)",
        "xp.einsum_path: CuPy 14 has no such name",
        "xp.einsum('ij->i', x)"),
    "a keyword": (
        "xp.stack([x, y], dim=0)",
        "xp.stack: CuPy takes no keyword 'dim'",
        "xp.stack([x, y], axis=0)"),
    "where= in a function that reduces": (
        "xp.sum(x, where=y)",
        "xp.sum: CuPy takes no keyword 'where'",
        "xp.sum(xp.where(y, x, 0))"),
    "where= in a method that reduces": (
        "x.mean(-1, where=y)",
        "x.mean: CuPy takes no keyword 'where'",
        "x.mean(-1, keepdims=True)"),
    "initial=": (
        "x.max(initial=0)",
        "x.max: CuPy takes no keyword 'initial'",
        "xp.maximum(x.max(), 0)"),
    "where= in a ufunc": (
        "xp.log(x, where=x > 0)",
        "xp.log: CuPy takes no keyword 'where'",
        "xp.log(x, out=x, dtype='float32', casting='unsafe')"),
    "clip(min=)": (
        "xp.clip(x, min=0)",
        "xp.clip: CuPy takes no keyword 'min'",
        "x.clip(min=0)"),
    "an argument left out": (
        "xp.clip(x, 0)",
        "xp.clip: CuPy needs an argument 'a_max'",
        "xp.clip(x, 0, None), xp.clip(x, *y), xp.clip(x, 0, a_max=1)"),
    "a keyword behind **kwargs": (
        "xp.einsum('ij->i', x, out=y)",
        "xp.einsum: CuPy takes no keyword 'out'",
        "xp.einsum('ij->i', x, optimize=True)"),
    "a keyword of a renamed function": (
        "total = xp.sum; total(x, initial=1)",
        "xp.sum: CuPy takes no keyword 'initial'",
        "total = xp.sum; total = len; total(x, initial=1)"),
    "too many arguments": (
        "xp.argsort(x, -1, None, None)",
        "xp.argsort: CuPy takes at most 3 positional, got 4",
        "xp.argsort(x, -1, None)"),
    "too many arguments of a ufunc": (
        "xp.exp(x, y, x)",
        "xp.exp: CuPy takes at most 2 positional, got 3",
        "xp.exp(x, y)"),
    "too many arguments of a method": (
        "x.item(0)",
        "x.item: CuPy takes at most 0 positional, got 1",
        "x[0].item()"),
    "a method": (
        "x.setflags(write=False)",
        "x.setflags: CuPy 14's arrays have no such attribute",
        "read_only(x)"),
    "an attribute": (
        "return x.ctypes",
        "x.ctypes: CuPy 14's arrays have no such attribute",
        "return x.strides, to_numpy(x).ctypes"),
    "a method of nobody": (
        "xp.exp(x).softmax()",
        "xp.exp(x).softmax: CuPy 14's arrays have no such attribute",
        "xp.exp(x).clip(0)"),
    "a keyword that only raises": (
        "x.astype('float32', casting='safe')",
        "x.astype: CuPy 14 does not implement 'casting'",
        "x.astype('float32', copy=False)"),
    "a method that only raises": (
        "xp.multiply.reduceat(x, y)",
        "xp.multiply.reduceat: CuPy 14 does not implement it",
        "xp.add.reduceat(x, y, axis=0)"),
    "at": (
        "xp.multiply.at(x, y, 2)",
        "xp.multiply.at: CuPy 14 does not implement it",
        "xp.add.at(x, y, 2)"),
    "reduce and accumulate": (
        "xp.maximum.accumulate(x)",
        "xp.maximum.accumulate: CuPy 14 does not implement it",
        "xp.multiply.accumulate(x), xp.add.reduce(x)"),
    "a keyword of a ufunc's method": (
        "xp.add.reduceat(x, y, keepdims=True)",
        "xp.add.reduceat: CuPy takes no keyword 'keepdims'",
        "xp.add.reduce(x, keepdims=True)"),
    "a kind of sorting": (
        "xp.argsort(x, kind='mergesort')",
        "xp.argsort: CuPy 14 has no kind 'mergesort' of sorting",
        "xp.argsort(x, kind='stable')"),
    "objects": (
        "xp.zeros(3, object)",
        "xp.zeros: CuPy 14 has no dtype object",
        "xp.zeros(3, bool), xp.zeros(3, x.dtype), xp.zeros(3, xp.float32)"),
    "a dtype as text": (
        "x.astype('longdouble')",
        "x.astype: CuPy 14 has no dtype 'longdouble'",
        "x.astype('complex128')"),
    "a dtype of NumPy's": (
        "xp.arange(3, dtype=np.longdouble)",
        "xp.arange: CuPy 14 has no dtype np.longdouble",
        "xp.arange(3, dtype=np.float64)"),
    "a flag": (
        "x.flags.writeable = False",
        "x.flags.writeable: CuPy 14 has no such flag",
        "return x.flags.c_contiguous"),
    "a flag by its name": (
        "x.flags['WRITEABLE'] = False",
        "x.flags['WRITEABLE']: CuPy 14's flags have no index",
        "to_numpy(x).flags['WRITEABLE'] = False"),
    "a generator of random numbers": (
        "xp.random.default_rng(0)",
        "xp.random.default_rng: random numbers come from a NumPy generator",
        "xp.asarray(rng.normal(0, 1, 3))"),
    "a method of CuPy's generator": (
        "xp.random.Generator.normal(rng)",
        "xp.random.Generator.normal: CuPy 14 has no such name",
        "np.random.Generator.normal(rng)"),
    "NumPy on a call of xp": (
        "np.exp(xp.sqrt(x))",
        "np.exp: an argument comes from xp: use xp.exp or backend.to_numpy",
        "np.exp(to_numpy(xp.sqrt(x)))"),
    "NumPy on a Tensor's array": (
        "np.linalg.norm(x.grad)",
        "np.linalg.norm: an argument comes from xp: use xp.linalg.norm or backend.to_numpy",
        "np.linalg.norm(backend.to_numpy(x.grad))"),
    "NumPy on a name": (
        "z, n = xp.zeros(3), 1; np.add(n, out=z)",
        "np.add: an argument comes from xp: use xp.add or backend.to_numpy",
        "z = xp.zeros(3); z = to_numpy(z); np.add(z, 1)"),
    "NumPy on what is computed from it": (
        "np.sum(-x.data[0].reshape(-1).T + 1 > y)",
        "np.sum: an argument comes from xp: use xp.sum or backend.to_numpy",
        "np.sum(x.data.shape), np.sum(x.data.sum().item())"),
    "NumPy on numbers of xp": (
        "np.add(xp.max(x), xp.pi)",
        "np.add: an argument comes from xp: use xp.add or backend.to_numpy",
        "np.full(xp.shape(x), xp.ndim(x) + xp.size(x), xp.result_type(x, y)); "
        "np.add(xp.asnumpy(x), xp.shares_memory(x, y)), np.add(xp.finfo(x.dtype).eps, xp.pi)"),
    "NumPy on a list": (
        "np.stack([x.data for x in y])",
        "np.stack: an argument comes from xp: use xp.stack or backend.to_numpy",
        "np.stack([to_numpy(x.data) for x in y])"),
    "NumPy on a list of all sorts": (
        "np.stack([1, x.data])",
        "np.stack: an argument comes from xp: use xp.stack or backend.to_numpy",
        "np.stack([1, to_numpy(x.data)])"),
    "NumPy on a row": (
        "z = [xp.zeros(3), xp.ones(3)]; any(np.abs(row) for row in z)",
        "np.abs: an argument comes from xp: use xp.abs or backend.to_numpy",
        "z = [xp.zeros(3), 1]; [np.abs(row) for row in (1, 2)]"),
    "a NumPy array in xp": (
        "xp.exp(np.zeros(3))",
        "xp.exp: an argument is a NumPy array: xp.asarray takes it across",
        "xp.exp(xp.asarray(np.zeros(3)))"),
    "a NumPy array in xp, converted": (
        "z = np.zeros(3).astype('float32'); xp.exp(z[1:].copy() * 2)",
        "xp.exp: an argument is a NumPy array: xp.asarray takes it across",
        "z = np.zeros(3).astype('float32'); xp.exp(z.item())"),
    "two kinds of arrays": (
        "z = to_numpy(x); x.data * z",
        "x.data * z: an array of xp meets a NumPy array",
        "z = to_numpy(x); x.data * xp.asarray(z), to_numpy(x.data) * z"),
    "two kinds of arrays, compared": (
        "x.data == np.arange(3)",
        "x.data == np.arange(3): an array of xp meets a NumPy array",
        "x.data == xp.arange(3)"),
    "two kinds of arrays, in place": (
        "x.data += np.ones(3)",
        "x.data += np.ones(3): an array of xp meets a NumPy array",
        "x.data += xp.ones(3)"),
}  # fmt: skip


@pytest.fixture(scope="module")
def cupy():
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("CuPy is not installed (there is none for macOS)")
    return CuPy(importlib.import_module("cupy"))


def test_the_package_keeps_to_cupy(cupy):
    wrong = [f"{name}:{line}: {text}" for name in READ for line, text in misuse(
        (PACKAGE / name).read_text("utf-8"), cupy, name in MAY_IMPORT_NUMPY)]  # fmt: skip
    assert not wrong, "\n" + "\n".join(wrong)


def test_the_chapters_keep_to_cupy(cupy):
    """Those that name xp; the others compute with NumPy and hand arrays to the package."""
    sources = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in CHAPTERS}
    named = {name: source for name, source in sources.items()
             if "backend" in source and names_of_xp(ast.parse(source))}  # fmt: skip
    wrong = [f"{name}:{line}: {text}" for name, source in named.items()
             for line, text in misuse(source, cupy)]  # fmt: skip
    assert not wrong, "\n" + "\n".join(wrong)


def test_no_file_that_names_xp_is_left_out():
    named = {name for name in FILES if names_of_xp(tree(name))}
    assert len(named) >= 20 and {"backend.py", "ops.py", "variants/llama.py"} <= named
    assert named <= {*READ}
    assert not any(name.startswith(("strict/", "metrics/", "verify/")) for name in READ)


@pytest.mark.parametrize("name", [name for name in READ if names_of_xp(tree(name))])
def test_misuse_is_found_in_every_file(name, cupy):
    source = (PACKAGE / name).read_text("utf-8") + "\n\ndef late(x):\n    return xp.vecdot(x, x)\n"
    line = len(source.splitlines())
    assert (line, "xp.vecdot: CuPy 14 has no such name") in misuse(source, cupy)


@pytest.mark.parametrize("kind", PLANTED)
def test_planted_misuse_is_found(kind, cupy):
    wrong, said, _ = PLANTED[kind]
    assert misuse(f"{HEAD}{wrong}\n", cupy) == [(LINE, said)]


@pytest.mark.parametrize("kind", PLANTED)
def test_the_right_way_passes(kind, cupy):
    assert misuse(f"{HEAD}{PLANTED[kind][2]}\n", cupy) == []


def test_all_is_listed_at_once_in_order(cupy):
    source = f"{HEAD}xp.vecdot(x, y)\n    x.max(initial=xp.sum(x, where=y))\n"
    assert misuse(source, cupy) == [
        (LINE, "xp.vecdot: CuPy 14 has no such name"),
        (LINE + 1, "x.max: CuPy takes no keyword 'initial'"),
        (LINE + 1, "xp.sum: CuPy takes no keyword 'where'"),
    ]


def test_numpy_where_a_file_may_not_import_it(cupy):
    source = "import numpy as np\nfrom minigpt.backend import xp\nxp.exp(1)\n"
    assert misuse(source, cupy, False) == [(1, "numpy: this file computes with xp alone")]
    assert misuse(source, cupy, True) == []


@pytest.mark.parametrize("source", [
    "rows = list(x); rows.sort(key=len)",
    "rows = [row for row in x]; rows.sort(key=len)",
    "import json; json.dump(x, y, indent=1)",
    "name = 'a b'; name.partition(' ', 1)",
    "z = np.ones(3); x.data * z[0], [x.data * number for number in z]",
    "if isinstance(x, np.ndarray): x.flags.writeable = False",
    "from minigpt import data; np.exp(data.data)",
])  # fmt: skip
def test_what_is_known_to_be_no_array_is_left_alone(source, cupy):
    assert misuse(f"{HEAD}{source}\n", cupy) == []


def test_a_function_keeps_its_names_to_itself(cupy):
    others = "def g():\n    np.exp(z)\n\ndef h(xp):\n    xp.vecdot(1, 1)\n"
    assert misuse(f"{HEAD}z = xp.zeros(3)\n\n{others}", cupy) == []
    inner = f"{HEAD}z = xp.zeros(3)\n    return lambda a: np.exp(z)\n"
    assert [line for line, _ in misuse(inner, cupy)] == [LINE + 1]


def test_what_the_reader_takes_for_granted_is_so(cupy):
    """Its lists name what exists, and each keyword that it says only raises does."""
    assert all(hasattr(cupy.module, name) for name in NO_ARRAY | CROSSING)
    assert all(hasattr(cupy.array, name) for name in TO_HOST)
    assert all(hasattr(np, name) for name in MAKES_NUMPY) and STAYS_NUMPY <= OF_ARRAYS
    assert "f2" in {np.dtype(code).str[1:] for code in DTYPES}
    assert "not support ``casting``, and ``subok``" in " ".join(cupy.array.astype.__doc__.split())
    for name, words in TRAPS.items():
        for word in words if name != "astype" else ():  # a method: it would need an array
            fill = {"fill_value": 0} if name == "full_like" else {}
            with pytest.raises((TypeError, NotImplementedError), match=f"{word} is not supp|^$"):
                getattr(cupy.module, name)(None, **{word: True}, **fill)


def test_signatures_are_read_in_every_form(cupy):
    """No call goes unchecked because CuPy does not say what a function or a method takes."""
    names = {"add", "exp", "einsum", "where", "concatenate", "matmul", "divmod", "size"}
    call = ast.parse("f(1, 2, 3, 4, 5, 6, 7, 8, 9, wrong=1)").body[0].value
    for name in names:
        assert cupy.call((name,), call) == ["CuPy takes no keyword 'wrong'"]
    for name in sorted(n for n in OF_ARRAYS if callable(getattr(cupy.array, n, None))):
        assert cupy.method(name, call)[:1] == ["CuPy takes no keyword 'wrong'"], name
