"""What the stand-in offers of CuPy: names, and the arguments that CuPy's own functions take.

Each function's arguments stand in CuPy's order. The marks:
    @x   an array of the device            [x   a list or tuple of such arrays
    ~x   an array of the device or a number    x   anything else: a shape, an axis, a dtype
    ^x   an array of the device, or what xp.asarray makes one of
    *    what follows is given by keyword only   x:y  NumPy names it y
    -x   anything else, which NumPy takes by position alone     !x  any but a NumPy array
What NumPy takes beyond these (where=, initial=, order=, ...) is not in CuPy and is refused.
Add a line when something new is needed: tests/test_strict.py compares each with CuPy itself.
"""

FUNCTIONS = {
    # making arrays
    "zeros": "shape dtype order",
    "ones": "shape dtype order",
    "empty": "shape dtype order",
    "full": "shape ~fill_value dtype order",
    "zeros_like": "@a dtype order subok shape",
    "ones_like": "@a dtype order subok shape",
    "empty_like": "@prototype dtype order subok shape",
    "full_like": "@a ~fill_value dtype order subok shape",
    "linspace": "start stop num endpoint retstep dtype axis",
    "eye": "N M k dtype order",
    "identity": "n dtype",
    "tri": "N M k dtype",
    "tril": "^m k",
    "triu": "^m k",
    "diag": "@v k",
    "diagonal": "@a offset axis1 axis2",
    "copy": "@a order",
    "ascontiguousarray": "@a dtype",
    # sums and other reductions
    "sum": "@a axis dtype out keepdims",
    "prod": "@a axis dtype out keepdims",
    "mean": "@a axis dtype out keepdims",
    "var": "@a axis dtype out ddof keepdims",
    "std": "@a axis dtype out ddof keepdims",
    "max": "@a axis out keepdims",
    "min": "@a axis out keepdims",
    "amax": "@a axis out keepdims",
    "amin": "@a axis out keepdims",
    "argmax": "@a axis dtype out keepdims",
    "argmin": "@a axis dtype out keepdims",
    "any": "@a axis out keepdims",
    "all": "@a axis out keepdims",
    "cumsum": "@a axis dtype out",
    "cumprod": "@a axis dtype out",
    "count_nonzero": "@a axis",
    "trace": "@a offset axis1 axis2 dtype out",
    "diff": "@a n axis",
    # shapes
    "reshape": "@a newshape:shape order * copy",
    "ravel": "@a order",
    "transpose": "@a axes",
    "permute_dims": "@a axes",
    "matrix_transpose": "@x",
    "swapaxes": "@a axis1 axis2",
    "moveaxis": "@a source destination",
    "expand_dims": "@a axis",
    "squeeze": "@a axis",
    "broadcast_to": "@array shape",
    "flip": "@a axis",
    "roll": "@a shift axis",
    "rot90": "@a k axes",
    "tile": "@A reps",
    "repeat": "@a !repeats axis",
    "pad": "@array pad_width mode * constant_values",
    # joining and splitting
    "concatenate": "[tup axis out * dtype casting",
    "concat": "[tup axis out * dtype casting",
    "stack": "[tup axis out * dtype casting",
    "hstack": "[tup * dtype casting",
    "vstack": "[tup * dtype casting",
    "column_stack": "[tup",
    "split": "@ary indices_or_sections axis",
    "array_split": "@ary indices_or_sections axis",
    # products
    "dot": "@a @b out",
    "vdot": "@a @b",
    "inner": "@a @b",
    "outer": "@a @b out",
    "tensordot": "@a @b axes",
    "kron": "@a @b",
    "matmul": "@a @b out * casting order dtype axes",
    # elements
    "around": "@a decimals out",
    "round": "@a decimals out",
    "nan_to_num": "@x copy nan posinf neginf",
    "real": "@val",
    "imag": "@val",
    "isclose": "^a ^b rtol atol equal_nan",
    "allclose": "^a ^b rtol atol equal_nan",
    "array_equal": "@a1 @a2 equal_nan",
    # order and sets
    "searchsorted": "@a @v side sorter",
    "unique": "@ar return_index return_inverse return_counts axis * equal_nan",
    "bincount": "@x @weights minlength",
    # where
    "nonzero": "@a",
    "flatnonzero": "@a",
    "argwhere": "@a",
    # facts about memory
    "shares_memory": "@a @b max_work",
    "may_share_memory": "@a @b max_work",
}

# Methods of an array, without the array.
METHODS = {
    "sum": "axis dtype out keepdims",
    "prod": "axis dtype out keepdims",
    "mean": "axis dtype out keepdims",
    "var": "axis dtype out ddof keepdims",
    "std": "axis dtype out ddof keepdims",
    "max": "axis out keepdims",
    "min": "axis out keepdims",
    "argmax": "axis out dtype keepdims",
    "argmin": "axis out dtype keepdims",
    "any": "axis out keepdims",
    "all": "axis out keepdims",
    "cumsum": "axis dtype out",
    "cumprod": "axis dtype out",
    "clip": "~min ~max out",
    "round": "decimals out",
    "trace": "offset axis1 axis2 dtype out",
    "diagonal": "offset axis1 axis2",
    "searchsorted": "@v side sorter",
    "nonzero": "",
    "repeat": "!repeats axis",
    "ravel": "order",
    "flatten": "order",
    "squeeze": "axis",
    "swapaxes": "-axis1 -axis2",
    "dot": "@b out",
    "conj": "",
}

# Their result's shape depends on the values, so the host waits to know it.
SYNCHRONISE = {"nonzero", "flatnonzero", "argwhere", "unique", "bincount"}
# Their result is no array of the device.
ON_THE_HOST = {"shares_memory", "may_share_memory"}

UFUNCS = """
add subtract multiply divide true_divide floor_divide remainder mod power float_power divmod
negative positive absolute abs sign square sqrt cbrt reciprocal exp exp2 expm1 log log2 log10 log1p
logaddexp sin cos tan arcsin arccos arctan arctan2 sinh cosh tanh arcsinh arccosh arctanh hypot
maximum minimum fmax fmin floor ceil trunc rint isnan isinf isfinite signbit copysign
equal not_equal less less_equal greater greater_equal
logical_and logical_or logical_xor logical_not
bitwise_and bitwise_or bitwise_xor invert left_shift right_shift conj conjugate heaviside
"""

# ufunc.at: for which dtypes (characters), by name. No other ufunc has it.
AT = {
    "add": "ilqILQefd",
    "subtract": "iI",
    "maximum": "ilqILQfd",
    "minimum": "ilqILQfd",
    "bitwise_and": "ilqILQ",
    "bitwise_or": "ilqILQ",
    "bitwise_xor": "ilqILQ",
}
REDUCE = {"add": "sum", "multiply": "prod"}  # ufunc.reduce, and the method that it is
ACCUMULATE = {"add": "cumsum", "multiply": "cumprod"}

LINALG = {
    "norm": "@x ord axis keepdims",
    "det": "@a",
    "inv": "@a",
    "pinv": "@a rcond",
    "solve": "@a @b",
    "cholesky": "@a",
    "svd": "@a full_matrices compute_uv",
    "qr": "@a mode",
    "eigh": "@a UPLO",
    "eigvalsh": "@a UPLO",
}

# NumPy's own, under the same names: they touch no array's values.
SAME = """
inf nan pi e euler_gamma newaxis dtype finfo iinfo issubdtype promote_types can_cast
broadcast_shapes isscalar generic number inexact floating integer signedinteger unsignedinteger
complexfloating bool_ bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 intp uintp intc
float16 float32 float64 complex64 complex128 int_ uint half single double
"""
