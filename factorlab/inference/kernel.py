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

Models lie in *lanes*: a block of up to 64 models is one contiguous row per benchmark, so that the inner
loops run over models and become SIMD instructions, whatever K is. Small symmetric matrices are kept
packed, entry (k, l), l <= k, at k (k + 1) / 2 + l, a row of lanes each. Cost: O(benchmarks x K^2)
multiply-adds a model and O(K^3) a node, for the value and all derivatives together.

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
    """The numba type of `WIDTH` doubles in a register: algebra of small matrices, a model or a node a lane.

    A loop over lanes becomes SIMD instructions by itself, but between any two of them values go through
    memory and pointers are compared; where loops are short that takes longer than the algebra.
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


@intrinsic
def _gather(typingctx: Any, array: Any, at: Any, index: Any, first: Any) -> Any:
    """Vector of ``array[at + index[first + i]]``, both arrays seen as flat."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array, at, index, first = args
        out = ir.Constant(_LLVM_VECTOR, ir.Undefined)
        for i in range(WIDTH):
            place = builder.add(first, ir.Constant(first.type, i))
            here = _address(context, builder, sig.args[2], index, place, first.type)
            far = builder.add(at, builder.load(here))
            value = builder.load(_address(context, builder, sig.args[0], array, far, ir.DoubleType()))
            out = builder.insert_element(out, value, ir.Constant(ir.IntType(32), i))
        return out

    return _VECTOR(array, types.intp, index, types.intp), generate


@intrinsic
def _all(typingctx: Any, x: Any) -> Any:
    """Vector whose elements all are x."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        out = ir.Constant(_LLVM_VECTOR, ir.Undefined)
        for i in range(WIDTH):
            out = builder.insert_element(out, args[0], ir.Constant(ir.IntType(32), i))
        return out

    return _VECTOR(types.float64), generate


@intrinsic
def _root(typingctx: Any, x: Any) -> Any:
    """Square roots of a vector."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(_LLVM_VECTOR, [_LLVM_VECTOR])
        name = f"llvm.sqrt.v{WIDTH}f64"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)

    return _VECTOR(_VECTOR), generate


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
    residual = np.empty((n_blocks, n_benchmarks, lanes))
    a = np.empty((n_blocks, K * (K + 1) // 2, lanes))
    t = np.empty((n_blocks, K, lanes))
    b = np.empty((n_blocks, K, lanes))
    h = np.empty((K, lanes))
    row = np.empty((4, lanes))
    grouped = np.empty((n_blocks, n_groups, K + 4, lanes))
    value = 0.0
    for s in range(n_blocks):
        _lay(ability_mean, s * lanes, b[s])
        value += _gram(
            z[s], variance[s], observed[s], group, loading, mean, b[s], noise_sd,
            weight[s], residual[s], a[s], h, row, grouped[s],
        )  # fmt: skip
        value += _pull_groups(pair_sd, shared[s], a[s], h, row, grouped[s])
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
            weight[s], residual[s], group, loading, b[s], a[s], t[s], row, grouped[s],
            d_loading, d_mean, d_noise,
        )  # fmt: skip
        _pair_slopes(pair_sd, shared[s], a[s], t[s], grouped[s], d_pair)
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
    left = np.empty((K * K, WIDTH))
    right = np.empty((K * K, WIDTH))
    value = 0.0
    for first in range(n_nodes - WIDTH, -1, -WIDTH):
        sd = root_sd if parent[first] < 0 else step_sd
        scale = _all(sd * sd)
        for p in range(n_entries):
            _store(inverse, p * n_nodes + first, scale * _load(q_matrix, p * n_nodes + first))
        for k in range(K):
            _store(sent, k * n_nodes + first, _load(q_vector, k * n_nodes + first))
        log_det, quadratic = _invert_vector(inverse, q_vector, sent, row, first, axes)
        mantissas = 1.0
        for i in range(first, first + WIDTH):
            mantissas *= row[0, i]
        value += log_det + np.log(mantissas) - sd * sd * quadratic
        _unpack(inverse, first, right, axes)
        _unpack(q_matrix, first, left, axes)
        for k in range(K):
            for q in range(k + 1):
                total = _all(0.0)
                for e in range(K):
                    total += _load(left, (k * K + e) * WIDTH) * _load(right, (q * K + e) * WIDTH)
                _store(message, (k * (k + 1) // 2 + q) * n_nodes + first, total)
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
    d_root, d_step = _all(0.0), _all(0.0)
    above = np.empty((K * K, WIDTH))
    mine = np.empty((K * K, WIDTH))
    up = np.empty(WIDTH, dtype=np.int64)
    zero = _all(0.0)
    for first in range(0, n_nodes, WIDTH):
        root = parent[first] < 0
        scale = _all(root_sd * root_sd if root else step_sd * step_sd)
        slope = zero
        if root:
            for k in range(K):
                away = _load(sent, k * n_nodes + first)
                slope += away * away - _load(message, (k * (k + 1) // 2 + k) * n_nodes + first)
                _store(center, k * lanes + first, scale * away)
            for p in range(n_entries):
                _store(spread, p * lanes + first, scale * _load(inverse, p * n_nodes + first))
            d_root += slope
            continue
        for i in range(WIDTH):
            up[i] = parent[first + i] if parent[first + i] >= 0 else n_nodes
        p = 0
        for k in range(K):
            for q in range(k + 1):
                x = _gather(spread, p * lanes, up, 0)
                _store(above, (k * K + q) * WIDTH, x)
                _store(above, (q * K + k) * WIDTH, x)
                p += 1
        # mine <- P = Q S^-1
        _unpack(message, first, mine, axes)
        for k in range(K):
            away = _load(sent, k * n_nodes + first)
            slope -= _load(mine, (k * K + k) * WIDTH)
            for q in range(K):
                away -= _load(mine, (k * K + q) * WIDTH) * _gather(center, q * lanes, up, 0)
            slope += away * away
            for q in range(k + 1):  # tr(P V P) = tr(V P P)
                total = zero
                for e in range(K):
                    total += _load(mine, (k * K + e) * WIDTH) * _load(mine, (q * K + e) * WIDTH)
                total *= _load(above, (k * K + q) * WIDTH)
                slope += total if q == k else total + total
        d_step += slope
        # mine <- S^-1
        _unpack(inverse, first, mine, axes)
        for k in range(K):
            total = scale * _load(sent, k * n_nodes + first)
            for q in range(K):
                total += _load(mine, (k * K + q) * WIDTH) * _gather(center, q * lanes, up, 0)
            _store(center, k * lanes + first, total)
        _sandwich(mine, above, scale, spread, first, axes)
    return center, spread, root_sd * _sum(d_root), step_sd * _sum(d_step)


@_compile
def _sandwich(outer: Any, inner: Any, scale: Any, out: Any, first: int, axes: Any) -> None:
    """out <- scale M + M V M in the `WIDTH` lanes of ``out`` (packed) from ``first`` on.

    M is ``outer`` and V ``inner``, (K K, lane); V is overwritten.
    """
    lanes = out.shape[1]
    K = len(axes)
    row = np.empty((K, WIDTH))
    for k in range(K):
        for q in range(K):
            total = _all(0.0)
            for e in range(K):
                total += _load(outer, (k * K + e) * WIDTH) * _load(inner, (q * K + e) * WIDTH)
            _store(row, q * WIDTH, total)
        for q in range(k + 1):
            total = scale * _load(outer, (k * K + q) * WIDTH)
            for e in range(K):
                total += _load(row, e * WIDTH) * _load(outer, (q * K + e) * WIDTH)
            _store(out, (k * (k + 1) // 2 + q) * lanes + first, total)


@_compile
def _spread_effects(
    node: Any, center: Any, spread: Any, a: Any, t: Any, d_ability: Any, axes: Any
) -> None:  # fmt: skip
    """t <- t + A^-1 c, a <- A^-1 + A^-1 V A^-1, and the derivative with respect to b."""
    n_blocks, lanes = t.shape[0], t.shape[2]
    K = len(axes)
    width = center.shape[1]
    where = np.empty(WIDTH, dtype=np.int64)
    mine = np.empty((K * K, WIDTH))
    above = np.empty((K * K, WIDTH))
    c = np.empty((K, WIDTH))
    for s in range(n_blocks):
        for first in range(0, lanes, WIDTH):
            at = s * lanes + first
            here = min(WIDTH, node.shape[0] - at)
            for i in range(WIDTH):
                where[i] = node[at + i] if i < here and node[at + i] >= 0 else width - 1
            p = 0
            for k in range(K):
                _store(c, k * WIDTH, _gather(center, k * width, where, 0))
                for q in range(k + 1):
                    x = _gather(spread, p * width, where, 0)
                    _store(above, (k * K + q) * WIDTH, x)
                    _store(above, (q * K + k) * WIDTH, x)
                    p += 1
            _unpack(a[s], first, mine, axes)
            for k in range(K):
                total = _load(t, (s * K + k) * lanes + first)
                for q in range(K):
                    total += _load(mine, (k * K + q) * WIDTH) * _load(c, q * WIDTH)
                _store(t, (s * K + k) * lanes + first, total)
            _sandwich(mine, above, _all(1.0), a[s], first, axes)
            for i in range(here):
                for k in range(K):
                    d_ability[at + i, k] = t[s, k, first + i] - c[k, i]


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
    weight: Any, residual: Any, a: Any, b: Any, row: Any, grouped: Any,
) -> float:  # fmt: skip
    """A (packed) and b of a block before groups; n log 2 pi + log|D| + r' D^-1 r, summed over lanes.

    The part of log|D| that is not a power of two is left as a product in row 0 of ``row``.
    ``grouped`` rows: 0 1'D^-1 1, 1 1'D^-1 r, 4 + k 1'D^-1 lambda_k.
    """
    n_benchmarks, lanes = z.shape
    K = b.shape[0]
    a[:] = 0.0
    b[:] = 0.0
    grouped[:] = 0.0
    product = row[0]
    product[:] = 1.0
    pulled = row[1]
    out = 0.0
    for j in range(n_benchmarks):
        w = weight[j]
        r = residual[j]
        seen = observed[j]
        var = variance[j]
        score = z[j]
        noise = noise_sd[j] * noise_sd[j]
        mu = mean[j]
        for i in range(lanes):
            total = noise + var[i]
            w[i] = seen[i] / total
            product[i] *= 1.0 + seen[i] * (total - 1.0)
            r[i] = score[i] - mu
        for k in range(K):
            l = loading[j, k]
            mk = m[k]
            for i in range(lanes):
                r[i] -= l * mk[i]
        quadratic = 0.0
        count = 0.0
        for i in range(lanes):
            pulled[i] = w[i] * r[i]
            quadratic += pulled[i] * r[i]
            count += seen[i]
        out += quadratic + count * np.log(2 * np.pi)
        p = 0
        for k in range(K):
            l = loading[j, k]
            bk = b[k]
            for i in range(lanes):
                bk[i] += l * pulled[i]
            for q in range(k + 1):
                both = l * loading[j, q]
                entry = a[p]
                for i in range(lanes):
                    entry[i] += both * w[i]
                p += 1
        g = group[j]
        if g >= 0:
            for i in range(lanes):
                grouped[g, 0, i] += w[i]
                grouped[g, 1, i] += pulled[i]
            for k in range(K):
                l = loading[j, k]
                for i in range(lanes):
                    grouped[g, 4 + k, i] += l * w[i]
        if (j + 1) % EXPONENT_EVERY == 0 or j == n_benchmarks - 1:
            out += _take_exponents(product)
    return out


@_compile
def _pull_groups(pair_sd: Any, shared: Any, a: Any, b: Any, row: Any, grouped: Any) -> float:
    """Sherman-Morrison step of each group on A and b; log(1 + (delta^2 + c) 1'D^-1 1) and its quadratic part.

    The logarithm as in `_gram`.

    Leaves (delta^2 + c) / (1 + (delta^2 + c) 1'D^-1 1) in row 2 of ``grouped``.
    """
    K = b.shape[0]
    lanes = b.shape[1]
    product = row[0]
    out = 0.0
    for g in range(pair_sd.shape[0]):
        delta = pair_sd[g] * pair_sd[g]
        total = grouped[g, 0]
        pulled = grouped[g, 1]
        shrink = grouped[g, 2]
        known = shared[g]
        for i in range(lanes):
            common = delta + known[i]
            factor = 1.0 + common * total[i]
            product[i] *= factor
            shrink[i] = common / factor
            out -= shrink[i] * pulled[i] * pulled[i]
        out += _take_exponents(product)
        p = 0
        for k in range(K):
            vk = grouped[g, 4 + k]
            bk = b[k]
            for i in range(lanes):
                bk[i] -= shrink[i] * pulled[i] * vk[i]
            for q in range(k + 1):
                vq = grouped[g, 4 + q]
                entry = a[p]
                for i in range(lanes):
                    entry[i] -= shrink[i] * vk[i] * vq[i]
                p += 1
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

    Row 0 of ``row`` is multiplied by |A|, and its powers of two are taken out; b is overwritten.
    """
    K = len(axes)
    lanes = b.shape[1]
    one = _all(1.0)
    product = _load(row, first)
    exponents = 0.0
    quadratic = _all(0.0)
    for k in range(K):  # Cholesky, the diagonal holds reciprocals; b <- L^-1 b
        at = k * (k + 1) // 2
        pulled = _load(b, k * lanes + first)
        for q in range(k):
            back = q * (q + 1) // 2
            x = _load(a, (at + q) * lanes + first)
            for e in range(q):
                x -= _load(a, (at + e) * lanes + first) * _load(a, (back + e) * lanes + first)
            x *= _load(a, (back + q) * lanes + first)
            _store(a, (at + q) * lanes + first, x)
            pulled -= x * _load(b, q * lanes + first)
        x = _load(a, (at + k) * lanes + first) + one
        for e in range(k):
            left = _load(a, (at + e) * lanes + first)
            x -= left * left
        product *= x
        x = one / _root(x)
        _store(a, (at + k) * lanes + first, x)
        pulled *= x
        quadratic += pulled * pulled
        _store(b, k * lanes + first, pulled)
        if (k + 1) % EXPONENT_EVERY == 0 or k == K - 1:
            _store(row, first, product)
            exponents += _take_exponents(row[0, first : first + WIDTH])
            product = _load(row, first)
    for k in range(K):  # a <- L^-1
        at = k * (k + 1) // 2
        root = _load(a, (at + k) * lanes + first)
        for q in range(k):
            x = _load(a, (at + q) * lanes + first) * _load(a, (q * (q + 1) // 2 + q) * lanes + first)
            for e in range(q + 1, k):
                back = e * (e + 1) // 2
                x += _load(a, (at + e) * lanes + first) * _load(a, (back + q) * lanes + first)
            _store(a, (at + q) * lanes + first, _all(0.0) - root * x)
    for k in range(K):  # t <- L^-T b, a <- L^-T L^-1
        total = _all(0.0)
        for e in range(k, K):
            total += _load(a, (e * (e + 1) // 2 + k) * lanes + first) * _load(b, e * lanes + first)
        _store(t, k * lanes + first, total)
        for q in range(k + 1):
            total = _all(0.0)
            for e in range(k, K):
                at = e * (e + 1) // 2
                total += _load(a, (at + k) * lanes + first) * _load(a, (at + q) * lanes + first)
            _store(a, (k * (k + 1) // 2 + q) * lanes + first, total)
    return exponents, _sum(quadratic)


@_compile
def _unpack(packed: Any, first: int, full: Any, axes: Any) -> None:
    """Symmetric matrices of the `WIDTH` lanes from ``first`` on as ``full`` (K K, lane)."""
    lanes = packed.shape[1]
    K = len(axes)
    p = 0
    for k in range(K):
        for q in range(k + 1):
            x = _load(packed, p * lanes + first)
            _store(full, (k * K + q) * WIDTH, x)
            _store(full, (q * K + k) * WIDTH, x)
            p += 1


@_compile
def _slopes(
    weight: Any, residual: Any, group: Any, loading: Any, m: Any, a: Any, t: Any, row: Any, grouped: Any,
    d_loading: Any, d_mean: Any, d_noise: Any,
) -> None:  # fmt: skip
    """Add a block's derivatives with respect to loadings, means and psi^2 (times 2: psi d/dpsi^2)."""
    n_benchmarks, lanes = weight.shape
    K = t.shape[0]
    v = row[0]
    square = row[1]
    within = row[2]
    for g in range(grouped.shape[0]):  # row 3: shrink 1'D^-1 (r - Lambda t)
        left = grouped[g, 3]
        for i in range(lanes):
            left[i] = grouped[g, 1, i]
        for k in range(K):
            for i in range(lanes):
                left[i] -= t[k, i] * grouped[g, 4 + k, i]
        for i in range(lanes):
            left[i] *= grouped[g, 2, i]
    for j in range(n_benchmarks):
        w = weight[j]
        r = residual[j]
        g = group[j]
        for i in range(lanes):
            v[i] = r[i]
        for k in range(K):
            l = loading[j, k]
            tk = t[k]
            for i in range(lanes):
                v[i] -= l * tk[i]
        if g >= 0:
            for i in range(lanes):
                v[i] -= grouped[g, 3, i]
        along = 0.0
        spread = 0.0
        for i in range(lanes):
            x = w[i] * v[i]
            v[i] = x
            square[i] = w[i] * w[i]
            along += x
            spread += x * x - w[i]
        d_mean[j] += along
        for k in range(K):
            tk = t[k]
            mk = m[k]
            total = 0.0
            for i in range(lanes):
                total += v[i] * (tk[i] + mk[i])
            d_loading[j, k] += total
        if g < 0:
            p = 0
            for k in range(K):
                for q in range(k + 1):
                    entry = a[p]
                    once = 0.0
                    twice = 0.0
                    for i in range(lanes):
                        once += w[i] * entry[i]
                        twice += square[i] * entry[i]
                    p += 1
                    lk = loading[j, k]
                    lq = loading[j, q]
                    d_loading[j, k] -= once * lq
                    if q < k:
                        d_loading[j, q] -= once * lk
                        twice *= 2.0
                    spread += twice * lk * lq
        else:
            shrink = grouped[g, 2]
            for i in range(lanes):
                spread += square[i] * shrink[i]
            for k in range(K):
                within[:] = 0.0
                for q in range(K):
                    entry = a[k * (k + 1) // 2 + q] if q <= k else a[q * (q + 1) // 2 + k]
                    l = loading[j, q]
                    pull = grouped[g, 4 + q]
                    for i in range(lanes):
                        within[i] += entry[i] * (l - shrink[i] * pull[i])
                l = loading[j, k]
                pull = grouped[g, 4 + k]
                once = 0.0
                for i in range(lanes):
                    once += w[i] * within[i]
                    spread += square[i] * within[i] * (l - shrink[i] * pull[i])
                d_loading[j, k] -= once
        d_noise[j] += spread


@_compile
def _pair_slopes(pair_sd: Any, shared: Any, a: Any, t: Any, grouped: Any, d_pair: Any) -> None:
    """Add a block's derivatives with respect to delta^2 (times 2)."""
    K, lanes = t.shape
    for g in range(pair_sd.shape[0]):
        delta = pair_sd[g] * pair_sd[g]
        total = 0.0
        for i in range(lanes):
            scale = 1.0 / (1.0 + (delta + shared[g, i]) * grouped[g, 0, i])
            along = grouped[g, 1, i]
            inside = 0.0
            for k in range(K):
                along -= t[k, i] * grouped[g, 4 + k, i]
                for q in range(k + 1):
                    x = a[k * (k + 1) // 2 + q, i] * grouped[g, 4 + k, i] * grouped[g, 4 + q, i]
                    inside += x if q == k else 2.0 * x
            along *= scale
            total += along * along - grouped[g, 0, i] * scale + inside * scale * scale
        d_pair[g] += total


@_compile
def draw_latents(
    z: Any, variance: Any, observed: Any, shared: Any, group: Any, node: Any, parent: Any,
    loading: Any, mean: Any, ability_mean: Any, noise_sd: Any, pair_sd: Any, root_sd: Any, step_sd: Any,
    node_noise: Any, model_noise: Any, axes: Any,
) -> Any:  # fmt: skip
    """Exact draws of abilities and effects, one for each draw of the parameters.

    The first axis of every parameter is the draw; ``node_noise`` (draw, node, factor) and ``model_noise``
    (draw, model, factor) are standard normal. Returns abilities, effects, and the means that abilities have
    given the draw's parameters, (draw, model, factor).
    """
    n_blocks, n_benchmarks, lanes = z.shape
    n_draws, n_models = ability_mean.shape[:2]
    K = len(axes)
    n_nodes = parent.shape[0]
    n_groups = pair_sd.shape[1]
    ability = np.empty((n_draws, n_models, K))
    effect = np.zeros((n_draws, n_models, K))
    given = np.empty((n_draws, n_models, K))
    weight = np.empty((n_benchmarks, lanes))
    residual = np.empty((n_benchmarks, lanes))
    a = np.empty((n_blocks, K * (K + 1) // 2, lanes))
    t = np.empty((n_blocks, K, lanes))
    b = np.empty((K, lanes))
    h = np.empty((K, lanes))
    row = np.empty((4, lanes))
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
                weight, residual, a[s], h, row, grouped,
            )  # fmt: skip
            _pull_groups(pair_sd[d], shared[s], a[s], h, row, grouped)
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
