"""The integrated log likelihood and its gradient as one compiled kernel (numba, cached on disk).

Abilities are integrated out model by model, with the formulas of `factorlab.inference.marginal`; then
the effects of families, and of the steps passed on along the tree of base models, are integrated out by
messages on that tree. Both are exact. With b_i = B' x_i the given mean, e_i the effects of model i,

    theta_i = b_i + e_i + u_i,   r_i = z_i - mu - Lambda b_i,   R_i = D_i + sum_g (delta_g^2 + c_ig) 1_g 1_g',
    A_i = I + Lambda' R_i^-1 Lambda,   h_i = Lambda' R_i^-1 r_i,   t_i = A_i^-1 h_i,

the density of z_i given e_i is exp(-1/2 e' (I - A_i^-1) e + t_i' e) times its value at e = 0. A node n of the
tree, whose effect is its parent's plus Normal(0, s_n^2 I), collects Q_n, q_n from its models and
children and sends up, with S_n = I + s_n^2 Q_n,

    Q_n S_n^-1,   S_n^-1 q_n,   and the constant -1/2 log|S_n| + 1/2 s_n^2 q_n' S_n^-1 q_n.

Down the tree go the posterior mean c_n = S_n^-1 (c_parent + s_n^2 q_n) and covariance
V_n = s_n^2 S_n^-1 + S_n^-1 V_parent S_n^-1. By Fisher's identity the gradient is the expected gradient of
the complete data: with theta~_i = t_i + A_i^-1 c, W_i = A_i^-1 + A_i^-1 V A_i^-1 and
v_i = R_i^-1 (r_i - Lambda theta~_i),

    d/dLambda = sum_i v_i (b_i + theta~_i)' - R_i^-1 Lambda W_i
    d/dmu     = sum_i v_i,     d/db_i = theta~_i - c
    d/dpsi_j  = psi_j sum_i v_ij^2 - (R_i^-1)_jj + (R_i^-1 Lambda W_i Lambda' R_i^-1)_jj
    d/ddelta_g = delta_g sum_i (1_g' v_i)^2 - 1_g' R_i^-1 1_g + 1_g' R_i^-1 Lambda W_i Lambda' R_i^-1 1_g
    d/ds_n = s_n ( |g_n|^2 - tr(Q_n S_n^-1) + tr(S_n^-1 Q_n V_parent Q_n S_n^-1) ),
             g_n = S_n^-1 (q_n - Q_n c_parent).

Models lie in *lanes*: a block of up to 64 models is one contiguous row per benchmark. Nodes of the tree lie
in lanes, too, in the order of their depth: up the tree, and down it, `WIDTH` nodes of one depth are dealt with
at once. Small symmetric matrices are kept packed, entry (k, l), l <= k, at k (k + 1) / 2 + l, a row of lanes
each. `WIDTH` lanes are a vector, which compiled code holds in a register; K is known to it as a type
(`axes_of`), so that the small matrices of `WIDTH` models or nodes are tuples of vectors and their algebra is
straight-line code, without loops and without memory between its steps. Cost: O(benchmarks x K^2) multiply-adds a
model and O(K^3) a node, for the value and all derivatives together.

All of it is in this one file because numba's cache on disk follows changes of the file that a function
is in, not of files that it calls into: split in two, an old half could be run.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from factorlab.inference.marginal import Cells

LANES = 64
"""Models of a block at most: the rows of one block then stay in the first-level cache."""

WIDTH = 8
"""Blocks are filled up to a multiple of this many models, one AVX-512 register of doubles."""

EXPONENT_EVERY = 8
"""Variances multiplied before their powers of two are taken out of the product."""

_EXPONENT_BITS = 52
_MANTISSA = (1 << _EXPONENT_BITS) - 1
_ONE = 1023 << _EXPONENT_BITS
_LOG_2 = np.log(2.0)

_FAST = ("reassoc", "contract", "nsz", "arcp")

_compile = njit(cache=True, nogil=True, error_model="numpy", boundscheck=False, fastmath=set(_FAST))

_LLVM_VECTOR = ir.VectorType(ir.DoubleType(), WIDTH)


class _Vector(types.Type):
    """The numba type of `WIDTH` doubles in a register.

    A loop over lanes becomes SIMD instructions by itself, but between two loops values go through memory, and
    before each its pointers are compared and its length is divided up: longer than the algebra of a 4 x 4 matrix.
    Where registers are narrower than a vector LLVM takes several.
    """

    def __init__(self) -> None:
        super().__init__(name=f"vector of {WIDTH} doubles")


_VECTOR = _Vector()


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _LLVM_VECTOR)


def _elementwise(symbol: Any, instruction: str) -> None:
    """Let compiled code use an operator between two vectors."""

    @infer_global(symbol)
    class _Elementwise(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            return signature(_VECTOR, *args) if args == (_VECTOR, _VECTOR) else None

    @lower_builtin(symbol, _VECTOR, _VECTOR)
    def _lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*args, flags=_FAST)


for _symbol, _instruction in (
    (operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul"), (operator.truediv, "fdiv"),
    (operator.iadd, "fadd"), (operator.isub, "fsub"), (operator.imul, "fmul"),
):  # fmt: skip
    _elementwise(_symbol, _instruction)


def _address(context: Any, builder: Any, kind: Any, array: Any, at: Any, element: Any) -> Any:
    """Pointer to ``element`` at index ``at`` of a contiguous array, seen as flat."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), element.as_pointer())


@intrinsic
def _load(typingctx: Any, array: Any, at: Any) -> Any:
    """Vector from index ``at`` of a contiguous array, seen as flat."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array, at = args
        return builder.load(_address(context, builder, sig.args[0], array, at, _LLVM_VECTOR), align=8)

    return _VECTOR(array, types.intp), generate


@intrinsic
def _store(typingctx: Any, array: Any, at: Any, value: Any) -> Any:
    """Write a vector to index ``at`` of a contiguous array, seen as flat."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array, at, value = args
        builder.store(value, _address(context, builder, sig.args[0], array, at, _LLVM_VECTOR), align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, _VECTOR), generate


def _broadcast(builder: Any, x: Any) -> Any:
    out = ir.Constant(_LLVM_VECTOR, ir.Undefined)
    for i in range(WIDTH):
        out = builder.insert_element(out, x, ir.Constant(ir.IntType(32), i))
    return out


@intrinsic
def _all(typingctx: Any, x: Any) -> Any:
    """Vector whose elements all are x."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _broadcast(builder, args[0])

    return _VECTOR(types.float64), generate


@intrinsic
def _sum(typingctx: Any, x: Any) -> Any:
    """Sum of the elements of a vector."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        parts = [builder.extract_element(args[0], ir.Constant(ir.IntType(32), i)) for i in range(WIDTH)]
        while len(parts) > 1:
            pairs = zip(parts[::2], parts[1::2], strict=True)
            parts = [builder.fadd(one, other, flags=_FAST) for one, other in pairs]
        return parts[0]

    return types.float64(_VECTOR), generate


def _tuple_of(factors: int) -> Any:
    return types.UniTuple(_VECTOR, factors)


def _place(builder: Any, at: Any, step: Any, i: int) -> Any:
    return builder.add(at, builder.mul(step, ir.Constant(step.type, i)))


def _fused(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """x + y z."""
    return builder.fadd(x, builder.fmul(y, z, flags=_FAST), flags=_FAST)


@intrinsic
def _rows(typingctx: Any, array: Any, at: Any, step: Any, axes: Any) -> Any:
    """K vectors, from index ``at``, ``at + step``, ... of an array; K is the length of ``axes``."""
    out = _tuple_of(len(axes))

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array, at, step, _ = args
        found = []
        for k in range(len(axes)):
            place = _address(context, builder, sig.args[0], array, _place(builder, at, step, k), _LLVM_VECTOR)
            found.append(builder.load(place, align=8))
        return context.make_tuple(builder, out, found)

    return out(array, types.intp, types.intp, axes), generate


@intrinsic
def _store_rows(typingctx: Any, array: Any, at: Any, step: Any, rows: Any) -> Any:
    """Write vectors to index ``at``, ``at + step``, ... of an array."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array, at, step, rows = args
        for k, value in enumerate(cgutils.unpack_tuple(builder, rows)):
            place = _address(context, builder, sig.args[0], array, _place(builder, at, step, k), _LLVM_VECTOR)
            builder.store(value, place, align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, rows), generate


@intrinsic
def _add_multiples(typingctx: Any, x: Any, y: Any, w: Any) -> Any:
    """x_k + y_k w."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        x, y = (cgutils.unpack_tuple(builder, arg) for arg in args[:2])
        made = [_fused(builder, one, other, args[2]) for one, other in zip(x, y, strict=True)]
        return context.make_tuple(builder, sig.return_type, made)

    return x(x, y, _VECTOR), generate


@intrinsic
def _scaled(typingctx: Any, x: Any, w: Any) -> Any:
    """x_k w."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        made = [builder.fmul(one, args[1], flags=_FAST) for one in cgutils.unpack_tuple(builder, args[0])]
        return context.make_tuple(builder, sig.return_type, made)

    return x(x, _VECTOR), generate


@intrinsic
def _add_products(typingctx: Any, a: Any, y: Any, w: Any) -> Any:
    """a + w y y', packed."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        a, y = (cgutils.unpack_tuple(builder, arg) for arg in args[:2])
        made: list[Any] = []
        for k in range(len(y)):
            scaled = builder.fmul(y[k], args[2], flags=_FAST)
            made += [_fused(builder, a[len(made) + q], scaled, y[q]) for q in range(k + 1)]
        return context.make_tuple(builder, sig.return_type, made)

    return a(a, y, _VECTOR), generate


@intrinsic
def _times(typingctx: Any, a: Any, y: Any) -> Any:
    """a y, a packed."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        a, y = (cgutils.unpack_tuple(builder, arg) for arg in args)
        K = len(y)
        made = [_total(builder, ((a[_at(k, q)], y[q]) for q in range(K))) for k in range(K)]
        return context.make_tuple(builder, sig.return_type, made)

    return y(a, y), generate


@intrinsic
def _dot(typingctx: Any, x: Any, y: Any) -> Any:
    """sum_k x_k y_k."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        x, y = (cgutils.unpack_tuple(builder, arg) for arg in args)
        return _total(builder, zip(x, y, strict=True))

    return _VECTOR(x, y), generate


@intrinsic
def _alike(typingctx: Any, array: Any, at: Any, axes: Any) -> Any:
    """K vectors, all elements of vector k are ``array[at + k]``."""
    out = _tuple_of(len(axes))

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array, at, _ = args
        made = []
        for k in range(len(axes)):
            place = builder.add(at, ir.Constant(at.type, k))
            x = builder.load(_address(context, builder, sig.args[0], array, place, ir.DoubleType()))
            made.append(_broadcast(builder, x))
        return context.make_tuple(builder, out, made)

    return out(array, types.intp, axes), generate


@intrinsic
def _gather(typingctx: Any, array: Any, step: Any, index: Any, axes: Any) -> Any:
    """K vectors, element i of vector k is ``array[k * step + index[i]]``."""
    out = _tuple_of(len(axes))

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array, step, index, _ = args
        made = [ir.Constant(_LLVM_VECTOR, ir.Undefined)] * len(axes)
        for i in range(WIDTH):
            here = _address(context, builder, sig.args[2], index, ir.Constant(step.type, i), step.type)
            at = builder.load(here)
            for k in range(len(axes)):
                far = _place(builder, at, step, k)
                x = builder.load(_address(context, builder, sig.args[0], array, far, ir.DoubleType()))
                made[k] = builder.insert_element(made[k], x, ir.Constant(ir.IntType(32), i))
        return context.make_tuple(builder, out, made)

    return out(array, types.intp, index, axes), generate


def _at(k: int, q: int) -> int:
    """Where a packed symmetric matrix has entry (k, q)."""
    return max(k, q) * (max(k, q) + 1) // 2 + min(k, q)


def _factors(packed: int) -> int:
    """K of packed matrices with that many entries."""
    return int((2 * packed) ** 0.5)


def _total(builder: Any, pairs: Any) -> Any:
    """Sum of products."""
    total = ir.Constant(_LLVM_VECTOR, [0.0] * WIDTH)
    for one, other in pairs:
        total = _fused(builder, total, one, other)
    return total


@intrinsic
def _commuting(typingctx: Any, x: Any, y: Any) -> Any:
    """x y of symmetric matrices whose product is symmetric, all packed."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        x, y = (cgutils.unpack_tuple(builder, arg) for arg in args)
        K = _factors(len(x))
        made = [
            _total(builder, ((x[_at(k, e)], y[_at(e, q)]) for e in range(K)))
            for k in range(K)
            for q in range(k + 1)
        ]
        return context.make_tuple(builder, sig.return_type, made)

    return x(x, y), generate


@intrinsic
def _trace(typingctx: Any, x: Any, y: Any) -> Any:
    """tr(x y) of symmetric matrices, packed."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        x, y = (cgutils.unpack_tuple(builder, arg) for arg in args)
        K = _factors(len(x))
        across = _total(builder, ((x[_at(k, q)], y[_at(k, q)]) for k in range(K) for q in range(k)))
        twice = builder.fadd(across, across, flags=_FAST)
        return builder.fadd(twice, _total(builder, ((x[_at(k, k)], y[_at(k, k)]) for k in range(K))))

    return _VECTOR(x, y), generate


@intrinsic
def _between(typingctx: Any, outer: Any, inner: Any, scale: Any) -> Any:
    """scale M + M V M, with M ``outer`` and V ``inner``, all packed."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        m, v = (cgutils.unpack_tuple(builder, arg) for arg in args[:2])
        K = _factors(len(m))
        made = []
        for k in range(K):
            row = [_total(builder, ((m[_at(k, e)], v[_at(e, q)]) for e in range(K))) for q in range(K)]
            for q in range(k + 1):
                own = builder.fmul(m[_at(k, q)], args[2], flags=_FAST)
                across = _total(builder, ((row[e], m[_at(e, q)]) for e in range(K)))
                made.append(builder.fadd(own, across, flags=_FAST))
        return context.make_tuple(builder, sig.return_type, made)

    return outer(outer, inner, _VECTOR), generate


@intrinsic
def _identity(typingctx: Any, axes: Any) -> Any:
    """I, packed."""
    out = _tuple_of(_at(len(axes), 0))

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        made = [float(k == q) for k in range(len(axes)) for q in range(k + 1)]
        return context.make_tuple(builder, out, [ir.Constant(_LLVM_VECTOR, [x] * WIDTH) for x in made])

    return out(axes), generate


@intrinsic
def _inverse(typingctx: Any, a: Any) -> Any:
    """(I + a)^-1, packed, and the squares of the diagonal of the Cholesky factor, whose product is |I + a|."""
    pivots = _tuple_of(_factors(len(a)))
    both = types.Tuple((a, pivots))

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        entry = cgutils.unpack_tuple(builder, args[0])
        K = len(pivots)
        one = ir.Constant(_LLVM_VECTOR, [1.0] * WIDTH)
        root = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_LLVM_VECTOR, [_LLVM_VECTOR]), f"llvm.sqrt.v{WIDTH}f64"
        )
        squares = []
        for k in range(K):  # Cholesky; the diagonal holds reciprocals
            for q in range(k + 1):
                taken = _total(builder, ((entry[_at(k, e)], entry[_at(q, e)]) for e in range(q)))
                x = builder.fsub(entry[_at(k, q)], taken, flags=_FAST)
                if q < k:
                    x = builder.fmul(x, entry[_at(q, q)], flags=_FAST)
                else:
                    squares.append(builder.fadd(x, one, flags=_FAST))
                    x = builder.fdiv(one, builder.call(root, squares[-1:]), flags=_FAST)
                entry[_at(k, q)] = x
        for k in range(K):  # L^-1
            for q in range(k):
                x = _total(builder, ((entry[_at(k, e)], entry[_at(e, q)]) for e in range(q, k)))
                entry[_at(k, q)] = builder.fneg(builder.fmul(entry[_at(k, k)], x, flags=_FAST), flags=_FAST)
        made = [  # L^-T L^-1
            _total(builder, ((entry[_at(e, k)], entry[_at(e, q)]) for e in range(k, K)))
            for k in range(K)
            for q in range(k + 1)
        ]
        parts = [context.make_tuple(builder, a, made), context.make_tuple(builder, pivots, squares)]
        return context.make_tuple(builder, both, parts)

    return both(a), generate


@intrinsic
def _triangle(typingctx: Any, axes: Any) -> Any:
    """A tuple like ``axes``, as long as a packed symmetric matrix has entries."""
    out = types.UniTuple(types.intp, len(axes) * (len(axes) + 1) // 2)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.get_constant_null(out)

    return out(axes), generate


class Blocks(NamedTuple):
    """Observed cells in blocks of models; the kernel's data.

    Attributes
    ----------
    z, variance, observed : ndarray, (block, benchmark, lane)
        As in `factorlab.inference.marginal.Cells`; 0 in lanes beyond the last model.
    shared : ndarray, (block, group, lane)
        c, the known covariance of a model's errors on the benchmarks of a group.
    group : ndarray of int, (benchmark,)
        Which declared group of shared items the benchmark belongs to; -1 for none.
    node : ndarray of int, (model,)
        Where the model hangs on the tree of effects; -1 for nowhere.
    parent : ndarray of int, (node,)
        Nodes in the order of their depth, and each depth filled up to a multiple of `WIDTH` with nodes
        to which nothing hangs, so that the nodes of a vector are of one depth. -1 for a family, whose sd is
        ``root_sd`` (the others' is ``step_sd``), and for what fills up.
    """

    z: np.ndarray
    variance: np.ndarray
    observed: np.ndarray
    shared: np.ndarray
    group: np.ndarray
    node: np.ndarray
    parent: np.ndarray


class Value(NamedTuple):
    """Log likelihood summed over models, and its derivatives, shapes as the parameters."""

    value: float
    loading: np.ndarray
    mean: np.ndarray
    ability_mean: np.ndarray
    noise_sd: np.ndarray
    pair_sd: np.ndarray
    root_sd: float
    step_sd: float


def block_cells(cells: Cells, node: np.ndarray | None = None, parent: np.ndarray | None = None) -> Blocks:
    """Lay a table out for the kernel.

    Parameters
    ----------
    cells : Cells
    node, parent : ndarray of int, optional
        The tree of effects, parents before their children, -1 as in `Blocks`, where nodes are numbered anew;
        no effects when not given.

    Returns
    -------
    Blocks
    """
    n_models, n_benchmarks = cells.z.shape
    n_blocks = max(1, -(-n_models // LANES))
    lanes = -(-n_models // n_blocks)
    lanes = max(WIDTH, -(-lanes // WIDTH) * WIDTH)

    def lay(values: np.ndarray) -> np.ndarray:
        padded = np.zeros((n_blocks * lanes, values.shape[1]))
        padded[:n_models] = values
        return np.ascontiguousarray(padded.reshape(n_blocks, lanes, values.shape[1]).transpose(0, 2, 1))

    group = np.where(cells.member.any(axis=1), cells.member.argmax(axis=1), -1) if cells.member.size else None
    return Blocks(
        lay(cells.z * cells.observed),
        lay(cells.variance * cells.observed),
        lay(cells.observed),
        lay(np.broadcast_to(cells.shared, (n_models, cells.member.shape[1]))),
        np.full(n_benchmarks, -1) if group is None else group.astype(np.int64),
        *_levels(np.full(n_models, -1) if node is None else node, np.zeros(0) if parent is None else parent),
    )


def _levels(node: np.ndarray, parent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the nodes of a tree by their depth, each depth filled up to a multiple of `WIDTH`."""
    node, parent = np.asarray(node, dtype=np.int64), np.asarray(parent, dtype=np.int64)
    depth = np.zeros(len(parent), dtype=np.int64)
    for n, up in enumerate(parent):
        depth[n] = depth[up] + 1 if up >= 0 else 0
    place = np.empty(len(parent) + 1, dtype=np.int64)
    place[-1] = -1  # nowhere stays nowhere
    first = 0
    for level in range(depth.max(initial=-1) + 1):
        here = np.flatnonzero(depth == level)
        place[here] = first + np.arange(len(here))
        first += -(-len(here) // WIDTH) * WIDTH
    placed = np.full(first, -1)
    placed[place[:-1]] = place[parent]
    return place[node], placed


def evaluate(
    blocks: Blocks,
    loading: np.ndarray,
    mean: np.ndarray,
    ability_mean: np.ndarray,
    noise_sd: np.ndarray,
    pair_sd: np.ndarray,
    root_sd: float = 0.0,
    step_sd: float = 0.0,
) -> Value:
    """Integrated log likelihood of the whole table, and its gradient.

    Parameters
    ----------
    blocks : Blocks
    loading : ndarray, (benchmark, factor)
        Lambda.
    mean : ndarray, (benchmark,)
        mu.
    ability_mean : ndarray, (model, factor)
        b, the part of the ability that budgets account for.
    noise_sd : ndarray, (benchmark,)
        psi.
    pair_sd : ndarray, (group,)
        delta.
    root_sd, step_sd : float
        Standard deviations of the effects of families, and of steps passed on.

    Returns
    -------
    Value
    """
    parameters = (loading, mean, ability_mean, noise_sd, pair_sd)
    arrays = (np.ascontiguousarray(p, dtype=float) for p in parameters)
    return Value(*integrated(*blocks, *arrays, float(root_sd), float(step_sd), axes_of(np.shape(loading)[1])))


def axes_of(factors: int) -> tuple[int, ...]:
    """The number of factors as a type: a tuple as long as that, its elements unused.

    Compiled code that knows K unrolls the loops of small matrices; it is compiled once for each K that is
    used.
    """
    return (0,) * factors


@_compile
def integrated(
    z: Any, variance: Any, observed: Any, shared: Any, group: Any, node: Any, parent: Any,
    loading: Any, mean: Any, ability_mean: Any, noise_sd: Any, pair_sd: Any, root_sd: Any, step_sd: Any,
    axes: Any,
) -> Any:  # fmt: skip
    """(value, d/dLambda, d/dmu, d/db, d/dpsi, d/ddelta, d/droot_sd, d/dstep_sd); see `evaluate`, `axes_of`."""
    n_blocks, n_benchmarks, lanes = z.shape
    K = len(axes)
    n_groups = pair_sd.shape[0]
    d_loading = np.zeros((n_benchmarks, K))
    d_mean = np.zeros(n_benchmarks)
    d_ability = np.zeros(ability_mean.shape)
    d_noise = np.zeros(n_benchmarks)
    d_pair = np.zeros(n_groups)
    weight = np.empty((n_blocks, n_benchmarks, lanes))
    a = np.empty((n_blocks, K * (K + 1) // 2, lanes))
    t = np.empty((n_blocks, K, lanes))
    b = np.empty((n_blocks, K, lanes))
    h = np.empty((K, lanes))
    row = np.empty((1, lanes))
    grouped = np.empty((n_blocks, n_groups, K + 4, lanes))
    value = 0.0
    for s in range(n_blocks):
        _lay(ability_mean, s * lanes, b[s])
        value += _gram(
            z[s], variance[s], observed[s], group, loading, mean, b[s], noise_sd,
            weight[s], a[s], h, row, grouped[s], axes,
        )  # fmt: skip
        value += _pull_groups(pair_sd, shared[s], a[s], h, row, grouped[s], axes)
        value += _invert(a[s], h, t[s], row, axes)
    d_root, d_step = 0.0, 0.0
    if parent.shape[0]:
        tree = _climb(node, parent, root_sd, step_sd, a, t, axes)
        value += tree[0]
        center, spread, d_root, d_step = _descend(parent, root_sd, step_sd, tree, axes)
        _spread_effects(node, center, spread, a, t, d_ability, axes)
    else:
        for s in range(n_blocks):
            for i in range(min(lanes, ability_mean.shape[0] - s * lanes)):
                for k in range(K):
                    d_ability[s * lanes + i, k] = t[s, k, i]
    for s in range(n_blocks):
        _slopes(
            z[s], weight[s], group, loading, mean, b[s], a[s], t[s], grouped[s],
            d_loading, d_mean, d_noise, axes,
        )  # fmt: skip
        _pair_slopes(pair_sd, shared[s], a[s], t[s], grouped[s], d_pair, axes)
    for j in range(n_benchmarks):
        d_noise[j] *= noise_sd[j]
    for g in range(n_groups):
        d_pair[g] *= pair_sd[g]
    return -0.5 * value, d_loading, d_mean, d_ability, d_noise, d_pair, d_root, d_step


@_compile
def _lay(values: Any, first: int, out: Any) -> None:
    """Copy values (model, factor) of a block into lanes (factor, lane), 0 beyond the last model."""
    here = min(out.shape[1], values.shape[0] - first)
    for k in range(out.shape[0]):
        for i in range(here):
            out[k, i] = values[first + i, k]
        for i in range(here, out.shape[1]):
            out[k, i] = 0.0


@_compile
def _climb(node: Any, parent: Any, root_sd: float, step_sd: float, a: Any, t: Any, axes: Any) -> Any:
    """Messages up the tree: (-2 log constant, S^-1, S^-1 q, Q S^-1), a lane a node."""
    n_nodes = parent.shape[0]
    lanes = a.shape[2]
    K = len(axes)
    n_entries = K * (K + 1) // 2
    q_matrix = np.zeros((n_entries, n_nodes))
    q_vector = np.zeros((K, n_nodes))
    for i in range(node.shape[0]):
        n = node[i]
        if n < 0:
            continue
        block, lane = i // lanes, i % lanes
        p = 0
        for k in range(K):
            q_vector[k, n] += t[block, k, lane]
            for _ in range(k + 1):
                q_matrix[p, n] -= a[block, p, lane]
                p += 1
            q_matrix[p - 1, n] += 1.0
    inverse = np.empty((n_entries, n_nodes))
    sent = np.empty((K, n_nodes))
    message = np.empty((n_entries, n_nodes))
    row = np.ones((1, n_nodes))
    packed = _triangle(axes)
    value = 0.0
    for first in range(n_nodes - WIDTH, -1, -WIDTH):
        sd = root_sd if parent[first] < 0 else step_sd
        here = _rows(q_matrix, first, n_nodes, packed)
        _store_rows(inverse, first, n_nodes, _scaled(here, _all(sd * sd)))
        log_det, quadratic = _invert_vector(inverse, q_vector, sent, row, first, axes)
        mantissas = 1.0
        for i in range(first, first + WIDTH):
            mantissas *= row[0, i]
        value += log_det + np.log(mantissas) - sd * sd * quadratic
        made = _commuting(here, _rows(inverse, first, n_nodes, packed))
        _store_rows(message, first, n_nodes, made)
        if parent[first] < 0:
            continue
        for n in range(first, first + WIDTH):
            up = parent[n]
            if up >= 0:
                for k in range(K):
                    q_vector[k, up] += sent[k, n]
                for p in range(n_entries):
                    q_matrix[p, up] += message[p, n]
    return value, inverse, sent, message


@_compile
def _descend(parent: Any, root_sd: float, step_sd: float, tree: Any, axes: Any) -> Any:
    """Posterior mean and covariance of every node's effect; derivatives of the two sds.

    A lane a node, and `WIDTH` lanes of zeros after them for models that hang nowhere.
    """
    _, inverse, sent, message = tree
    K = len(axes)
    n_nodes = sent.shape[1]
    n_entries = K * (K + 1) // 2
    lanes = n_nodes + WIDTH
    center = np.zeros((K, lanes))
    spread = np.zeros((n_entries, lanes))
    packed = _triangle(axes)
    up = np.empty(WIDTH, dtype=np.int64)
    unit = _identity(axes)
    d_root, d_step = _all(0.0), _all(0.0)
    for first in range(0, n_nodes, WIDTH):
        root = parent[first] < 0
        scale = _all(root_sd * root_sd if root else step_sd * step_sd)
        mine = _rows(inverse, first, n_nodes, packed)
        away = _rows(sent, first, n_nodes, axes)
        pull = _rows(message, first, n_nodes, packed)
        if root:
            _store_rows(center, first, lanes, _scaled(away, scale))
            _store_rows(spread, first, lanes, _scaled(mine, scale))
            d_root += _dot(away, away) - _trace(pull, unit)
            continue
        for i in range(WIDTH):
            up[i] = parent[first + i] if parent[first + i] >= 0 else n_nodes
        c = _gather(center, lanes, up, axes)
        v = _gather(spread, lanes, up, packed)
        _store_rows(center, first, lanes, _add_multiples(_times(mine, c), away, scale))
        _store_rows(spread, first, lanes, _between(mine, v, scale))
        away = _add_multiples(away, _times(pull, c), _all(-1.0))
        d_step += _dot(away, away) - _trace(pull, unit) + _trace(v, _commuting(pull, pull))
    return center, spread, root_sd * _sum(d_root), step_sd * _sum(d_step)


@_compile
def _spread_effects(
    node: Any, center: Any, spread: Any, a: Any, t: Any, d_ability: Any, axes: Any
) -> None:  # fmt: skip
    """t <- t + A^-1 c, a <- A^-1 + A^-1 V A^-1, and the derivative with respect to b."""
    n_blocks, lanes = t.shape[0], t.shape[2]
    K = len(axes)
    width = center.shape[1]
    packed = _triangle(axes)
    where = np.empty(WIDTH, dtype=np.int64)
    less = np.empty((K, WIDTH))
    for s in range(n_blocks):
        for first in range(0, lanes, WIDTH):
            at = s * lanes + first
            here = min(WIDTH, node.shape[0] - at)
            for i in range(WIDTH):
                where[i] = node[at + i] if i < here and node[at + i] >= 0 else width - 1
            c = _gather(center, width, where, axes)
            mine = _rows(a[s], first, lanes, packed)
            total = _add_multiples(_rows(t[s], first, lanes, axes), _times(mine, c), _all(1.0))
            _store_rows(t[s], first, lanes, total)
            _store_rows(a[s], first, lanes, _between(mine, _gather(spread, width, where, packed), _all(1.0)))
            _store_rows(less, 0, WIDTH, _add_multiples(total, c, _all(-1.0)))
            for i in range(here):
                for k in range(K):
                    d_ability[at + i, k] = less[k, i]


@_compile
def _take_exponents(product: Any) -> float:
    """Leave the mantissas, in [1, 2), of positive numbers; returns the log of the powers of two.

    A block then needs one logarithm, which costs as much as dozens of multiply-adds.
    """
    bits = product.view(np.int64)
    total = 0
    for i in range(bits.shape[0]):
        total += (bits[i] >> _EXPONENT_BITS) - 1023
        bits[i] = (bits[i] & _MANTISSA) | _ONE
    return total * _LOG_2


@_compile
def _gram(
    z: Any, variance: Any, observed: Any, group: Any, loading: Any, mean: Any, m: Any, noise_sd: Any,
    weight: Any, a: Any, b: Any, row: Any, grouped: Any, axes: Any,
) -> float:  # fmt: skip
    """A (packed) and b of a block before groups; n log 2 pi + log|D| + r' D^-1 r, summed over lanes.

    The part of log|D| that is not a power of two is left as a product in row 0 of ``row``.
    ``grouped`` rows: 0 1'D^-1 1, 1 1'D^-1 r, 4 + k 1'D^-1 lambda_k.
    """
    n_benchmarks, lanes = z.shape
    K = len(axes)
    a[:] = 0.0
    b[:] = 0.0
    grouped[:] = 0.0
    one = _all(1.0)
    out = 0.0
    for first in range(0, lanes, WIDTH):
        product = one
        quadratic = _all(0.0)
        count = _all(0.0)
        gram = _rows(a, first, lanes, _triangle(axes))
        pull = _rows(b, first, lanes, axes)
        center = _rows(m, first, lanes, axes)
        for j in range(n_benchmarks):
            at = j * lanes + first
            seen = _load(observed, at)
            total = _all(noise_sd[j] * noise_sd[j]) + _load(variance, at)
            w = seen / total
            product *= one + seen * (total - one)
            along = _alike(loading, j * K, axes)
            r = _load(z, at) - _all(mean[j]) - _dot(along, center)
            pulled = w * r
            quadratic += pulled * r
            count += seen
            _store(weight, at, w)
            pull = _add_multiples(pull, along, pulled)
            gram = _add_products(gram, along, w)
            g = group[j]
            if g >= 0:
                top = g * (K + 4) * lanes + first
                _store(grouped, top, _load(grouped, top) + w)
                _store(grouped, top + lanes, _load(grouped, top + lanes) + pulled)
                rows = _rows(grouped, top + 4 * lanes, lanes, axes)
                _store_rows(grouped, top + 4 * lanes, lanes, _add_multiples(rows, along, w))
            if (j + 1) % EXPONENT_EVERY == 0 or j == n_benchmarks - 1:
                _store(row, first, product)
                out += _take_exponents(row[0, first : first + WIDTH])
                product = _load(row, first)
        _store_rows(a, first, lanes, gram)
        _store_rows(b, first, lanes, pull)
        out += _sum(quadratic) + np.log(2 * np.pi) * _sum(count)
    return out


@_compile
def _pull_groups(pair_sd: Any, shared: Any, a: Any, b: Any, row: Any, grouped: Any, axes: Any) -> float:
    """Sherman-Morrison step of each group on A and b; log(1 + (delta^2 + c) 1'D^-1 1) and its quadratic part.

    The logarithm as in `_gram`.

    Leaves (delta^2 + c) / (1 + (delta^2 + c) 1'D^-1 1) in row 2 of ``grouped``.
    """
    K, lanes = b.shape
    one, less = _all(1.0), _all(-1.0)
    out = 0.0
    for first in range(0, lanes, WIDTH):
        gram = _rows(a, first, lanes, _triangle(axes))
        pull = _rows(b, first, lanes, axes)
        for g in range(pair_sd.shape[0]):
            top = g * (K + 4) * lanes + first
            common = _all(pair_sd[g] * pair_sd[g]) + _load(shared, g * lanes + first)
            factor = one + common * _load(grouped, top)
            shrink = common / factor
            _store(grouped, top + 2 * lanes, shrink)
            shrink *= less
            pulled = _load(grouped, top + lanes)
            out += _sum(shrink * pulled * pulled)
            along = _rows(grouped, top + 4 * lanes, lanes, axes)
            pull = _add_multiples(pull, along, shrink * pulled)
            gram = _add_products(gram, along, shrink)
            _store(row, first, _load(row, first) * factor)
            out += _take_exponents(row[0, first : first + WIDTH])
        _store_rows(a, first, lanes, gram)
        _store_rows(b, first, lanes, pull)
    return out


@_compile
def _invert(a: Any, b: Any, t: Any, row: Any, axes: Any) -> float:
    """a <- (I + a)^-1, t <- a b; log|A| - b' A^-1 b, summed over lanes, and the log of row 0 of ``row``."""
    out = 0.0
    for first in range(0, b.shape[1], WIDTH):
        exponents, quadratic = _invert_vector(a, b, t, row, first, axes)
        out += exponents - quadratic
    mantissas = 1.0
    for i in range(b.shape[1]):
        mantissas *= row[0, i]
    return out + np.log(mantissas)


@_compile
def _invert_vector(a: Any, b: Any, t: Any, row: Any, first: int, axes: Any) -> Any:
    """`_invert` in the `WIDTH` lanes from ``first`` on: (log|A| without mantissas, b' A^-1 b).

    Row 0 of ``row`` is multiplied by |A|, and its powers of two are taken out.
    """
    lanes = b.shape[1]
    pull = _rows(b, first, lanes, axes)
    inverse, pivots = _inverse(_rows(a, first, lanes, _triangle(axes)))
    out = _times(inverse, pull)
    _store_rows(a, first, lanes, inverse)
    _store_rows(t, first, lanes, out)
    exponents = 0.0
    product = _load(row, first)
    for k, pivot in enumerate(pivots):
        product *= pivot
        if (k + 1) % EXPONENT_EVERY == 0 or k == len(axes) - 1:
            _store(row, first, product)
            exponents += _take_exponents(row[0, first : first + WIDTH])
            product = _load(row, first)
    return exponents, _sum(_dot(pull, out))


@_compile
def _slopes(
    z: Any, weight: Any, group: Any, loading: Any, mean: Any, m: Any, a: Any, t: Any, grouped: Any,
    d_loading: Any, d_mean: Any, d_noise: Any, axes: Any,
) -> None:  # fmt: skip
    """Add a block's derivatives with respect to loadings, means and psi^2 (times 2: psi d/dpsi^2).

    The given means ``m`` become the abilities' means, m + t.
    """
    n_benchmarks, lanes = weight.shape
    K = len(axes)
    for g in range(grouped.shape[0]):  # row 3: shrink 1'D^-1 (r - Lambda t)
        left = grouped[g, 3]
        for i in range(lanes):
            left[i] = grouped[g, 1, i]
        for k in range(K):
            for i in range(lanes):
                left[i] -= t[k, i] * grouped[g, 4 + k, i]
        for i in range(lanes):
            left[i] *= grouped[g, 2, i]
    for k in range(K):
        for i in range(lanes):
            m[k, i] += t[k, i]
    nothing = np.zeros((K, WIDTH))
    ends = np.empty((K, WIDTH))
    for j in range(n_benchmarks):
        g = group[j]
        center = _all(mean[j])
        slope = _rows(nothing, 0, WIDTH, axes)
        along = _all(0.0)
        spread = _all(0.0)
        for first in range(0, lanes, WIDTH):
            w = _load(weight, j * lanes + first)
            pull = _alike(loading, j * K, axes)
            ability = _rows(m, first, lanes, axes)
            v = _load(z, j * lanes + first) - center - _dot(pull, ability)
            square = w * w
            if g >= 0:
                top = g * (K + 4) * lanes + first
                v -= _load(grouped, top + 3 * lanes)
                shrink = _load(grouped, top + 2 * lanes)
                spread += square * shrink
                away = _all(0.0) - shrink
                pull = _add_multiples(pull, _rows(grouped, top + 4 * lanes, lanes, axes), away)
            v *= w
            along += v
            within = _times(_rows(a, first, lanes, _triangle(axes)), pull)
            spread += v * v - w + square * _dot(within, pull)
            slope = _add_multiples(_add_multiples(slope, ability, v), within, _all(0.0) - w)
        d_mean[j] += _sum(along)
        d_noise[j] += _sum(spread)
        _store_rows(ends, 0, WIDTH, slope)
        for k in range(K):
            d_loading[j, k] += _sum(_load(ends, k * WIDTH))


@_compile
def _pair_slopes(pair_sd: Any, shared: Any, a: Any, t: Any, grouped: Any, d_pair: Any, axes: Any) -> None:
    """Add a block's derivatives with respect to delta^2 (times 2)."""
    K, lanes = t.shape
    one = _all(1.0)
    for g in range(pair_sd.shape[0]):
        delta = _all(pair_sd[g] * pair_sd[g])
        total = _all(0.0)
        for first in range(0, lanes, WIDTH):
            top = g * (K + 4) * lanes + first
            weight = _load(grouped, top)
            scale = one / (one + (delta + _load(shared, g * lanes + first)) * weight)
            pull = _rows(grouped, top + 4 * lanes, lanes, axes)
            along = _load(grouped, top + lanes) - _dot(pull, _rows(t, first, lanes, axes))
            along *= scale
            inside = _dot(_times(_rows(a, first, lanes, _triangle(axes)), pull), pull)
            total += along * along - weight * scale + inside * scale * scale
        d_pair[g] += _sum(total)


def draw_latents(*given: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exact draws of abilities and effects, one for each draw of the parameters.

    Parameters
    ----------
    *given : ndarray
        The fields of `Blocks`, then the parameters of `evaluate`, each with the draw as its first axis, then
        standard normal numbers for nodes (draw, node of ``Blocks.parent``, factor) and models
        (draw, model, factor).

    Returns
    -------
    abilities, effects, means : ndarray, (draw, model, factor)
        The last are those that abilities have given the draw's parameters.
    """
    return _draw_latents(*given, axes_of(given[-1].shape[-1]))


@_compile
def _draw_latents(
    z: Any, variance: Any, observed: Any, shared: Any, group: Any, node: Any, parent: Any,
    loading: Any, mean: Any, ability_mean: Any, noise_sd: Any, pair_sd: Any, root_sd: Any, step_sd: Any,
    node_noise: Any, model_noise: Any, axes: Any,
) -> Any:  # fmt: skip
    """See `draw_latents`, `axes_of`."""
    n_blocks, n_benchmarks, lanes = z.shape
    n_draws, n_models = ability_mean.shape[:2]
    K = len(axes)
    n_nodes = parent.shape[0]
    n_groups = pair_sd.shape[1]
    ability = np.empty((n_draws, n_models, K))
    effect = np.zeros((n_draws, n_models, K))
    given = np.empty((n_draws, n_models, K))
    weight = np.empty((n_benchmarks, lanes))
    a = np.empty((n_blocks, K * (K + 1) // 2, lanes))
    t = np.empty((n_blocks, K, lanes))
    b = np.empty((K, lanes))
    h = np.empty((K, lanes))
    row = np.empty((1, lanes))
    grouped = np.empty((n_groups, K + 4, lanes))
    center = np.zeros((n_nodes, K))
    middle = np.zeros((n_nodes, K))  # of the normal from which the center is drawn
    full = np.empty((K, K))
    root = np.empty((K, K))
    for d in range(n_draws):
        for s in range(n_blocks):
            _lay(ability_mean[d], s * lanes, b)
            _gram(
                z[s], variance[s], observed[s], group, loading[d], mean[d], b, noise_sd[d],
                weight, a[s], h, row, grouped, axes,
            )  # fmt: skip
            _pull_groups(pair_sd[d], shared[s], a[s], h, row, grouped, axes)
            _invert(a[s], h, t[s], row, axes)
        if n_nodes:
            _, inverse, sent, _ = _climb(node, parent, root_sd[d], step_sd[d], a, t, axes)
            for n in range(n_nodes):
                up = parent[n]
                sd = root_sd[d] if up < 0 else step_sd[d]
                for k in range(K):
                    for q in range(k + 1):
                        full[k, q] = inverse[k * (k + 1) // 2 + q, n]
                        full[q, k] = full[k, q]
                _cholesky(full, root)
                for k in range(K):
                    total = sd * sd * sent[k, n]
                    expected = total
                    for q in range(K):
                        total += sd * root[k, q] * node_noise[d, n, q]
                        if up >= 0:
                            total += full[k, q] * center[up, q]
                            expected += full[k, q] * middle[up, q]
                    center[n, k] = total
                    middle[n, k] = expected
        for i in range(n_models):
            block, lane = i // lanes, i % lanes
            for k in range(K):
                for q in range(k + 1):
                    full[k, q] = a[block, k * (k + 1) // 2 + q, lane]
                    full[q, k] = full[k, q]
            _cholesky(full, root)
            for k in range(K):
                expected = ability_mean[d, i, k] + t[block, k, lane]
                total = expected
                for q in range(K):
                    total += root[k, q] * model_noise[d, i, q]
                    if node[i] >= 0:
                        total += full[k, q] * center[node[i], q]
                        expected += full[k, q] * middle[node[i], q]
                ability[d, i, k] = total
                given[d, i, k] = expected
                if node[i] >= 0:
                    effect[d, i, k] = center[node[i], k]
    return ability, effect, given


@_compile
def _cholesky(matrix: Any, out: Any) -> None:
    """Lower Cholesky factor of a small matrix; the upper triangle is set to 0."""
    K = matrix.shape[0]
    for k in range(K):
        for q in range(K):
            out[k, q] = 0.0
        for q in range(k + 1):
            x = matrix[k, q]
            for e in range(q):
                x -= out[k, e] * out[q, e]
            out[k, q] = np.sqrt(x) if q == k else x / out[q, q]
