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

from typing import Any, NamedTuple

import numpy as np
from numba import njit

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

_compile = njit(
    cache=True,
    nogil=True,
    error_model="numpy",
    boundscheck=False,
    fastmath={"reassoc", "contract", "nsz", "arcp"},
)


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
        Parents come before their children; -1 for a family, whose sd is ``root_sd``; the others'
        is ``step_sd``.
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
        The tree of effects, as in `Blocks`; no effects when not given.

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
        np.full(n_models, -1) if node is None else np.asarray(node, dtype=np.int64),
        np.zeros(0, dtype=np.int64) if parent is None else np.asarray(parent, dtype=np.int64),
    )


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
    return Value(*integrated(*blocks, *arrays, float(root_sd), float(step_sd)))


@_compile
def integrated(
    z: Any, variance: Any, observed: Any, shared: Any, group: Any, node: Any, parent: Any,
    loading: Any, mean: Any, ability_mean: Any, noise_sd: Any, pair_sd: Any, root_sd: Any, step_sd: Any,
) -> Any:  # fmt: skip
    """(value, d/dLambda, d/dmu, d/db, d/dpsi, d/ddelta, d/droot_sd, d/dstep_sd); see `evaluate`."""
    n_blocks, n_benchmarks, lanes = z.shape
    K = loading.shape[1]
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
        value += _invert(a[s], h, t[s], row)
    d_root, d_step = 0.0, 0.0
    if parent.shape[0]:
        tree = _climb(node, parent, root_sd, step_sd, a, t)
        value -= 2.0 * tree[0]
        center, spread, d_root, d_step = _descend(parent, root_sd, step_sd, tree)
        _spread_effects(node, center, spread, a, t, d_ability)
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
def _climb(node: Any, parent: Any, root_sd: float, step_sd: float, a: Any, t: Any) -> Any:
    """Messages up the tree: (log constant, Q, q, S^-1), a row a node."""
    n_nodes = parent.shape[0]
    lanes = a.shape[2]
    K = t.shape[1]
    q_matrix = np.zeros((n_nodes, K, K))
    q_vector = np.zeros((n_nodes, K))
    inverse = np.zeros((n_nodes, K, K))
    for i in range(node.shape[0]):
        n = node[i]
        if n < 0:
            continue
        block, lane = i // lanes, i % lanes
        for k in range(K):
            q_vector[n, k] += t[block, k, lane]
            for q in range(k + 1):
                q_matrix[n, k, q] += (1.0 if k == q else 0.0) - a[block, k * (k + 1) // 2 + q, lane]
    constant = 0.0
    work = np.empty((K, K))
    for n in range(n_nodes - 1, -1, -1):
        up = parent[n]
        sd = root_sd if up < 0 else step_sd
        for k in range(K):
            for q in range(k):
                q_matrix[n, q, k] = q_matrix[n, k, q]
                work[k, q] = sd * sd * q_matrix[n, k, q]
            work[k, k] = sd * sd * q_matrix[n, k, k] + 1.0
        constant -= 0.5 * _invert_small(work, inverse[n])
        for k in range(K):
            sent = 0.0
            for q in range(K):
                sent += inverse[n, k, q] * q_vector[n, q]
            constant += 0.5 * sd * sd * sent * q_vector[n, k]
            if up >= 0:
                q_vector[up, k] += sent
                for q in range(k + 1):
                    total = 0.0
                    for e in range(K):
                        total += q_matrix[n, k, e] * inverse[n, e, q]
                    q_matrix[up, k, q] += total
    return constant, q_matrix, q_vector, inverse


@_compile
def _invert_small(matrix: Any, out: Any) -> float:
    """out <- matrix^-1 of a small symmetric positive-definite matrix, overwritten; returns log|matrix|."""
    K = matrix.shape[0]
    log_det = 0.0
    for k in range(K):
        for q in range(k + 1):
            x = matrix[k, q]
            for e in range(q):
                x -= matrix[k, e] * matrix[q, e]
            if q < k:
                matrix[k, q] = x * matrix[q, q]
            else:
                log_det += np.log(x)
                matrix[k, k] = 1.0 / np.sqrt(x)
    for k in range(K):
        for q in range(k):
            x = 0.0
            for e in range(q, k):
                x += matrix[k, e] * matrix[e, q]
            matrix[k, q] = -matrix[k, k] * x
    for k in range(K):
        for q in range(k + 1):
            x = 0.0
            for e in range(k, K):
                x += matrix[e, k] * matrix[e, q]
            out[k, q] = x
            out[q, k] = x
    return log_det


@_compile
def _descend(parent: Any, root_sd: float, step_sd: float, tree: Any) -> Any:
    """Posterior mean and covariance of every node's effect; derivatives of the two sds."""
    _, q_matrix, q_vector, inverse = tree
    n_nodes, K = q_vector.shape
    center = np.zeros((n_nodes, K))
    spread = np.zeros((n_nodes, K, K))
    d_root, d_step = 0.0, 0.0
    pull = np.zeros((K, K))
    held = np.zeros((K, K))
    for n in range(n_nodes):
        up = parent[n]
        sd = root_sd if up < 0 else step_sd
        slope = 0.0
        if up < 0:
            for k in range(K):
                away = 0.0
                for q in range(K):
                    away += inverse[n, k, q] * q_vector[n, q]
                    slope -= inverse[n, k, q] * q_matrix[n, k, q]
                    spread[n, k, q] = sd * sd * inverse[n, k, q]
                center[n, k] = sd * sd * away
                slope += away * away
            d_root += sd * slope
            continue
        for k in range(K):
            total = 0.0
            away = 0.0
            for q in range(K):
                total += inverse[n, k, q] * (center[up, q] + sd * sd * q_vector[n, q])
                away += inverse[n, k, q] * q_vector[n, q]
                pull[k, q] = 0.0  # S^-1 Q
                held[k, q] = 0.0
                for e in range(K):
                    pull[k, q] += inverse[n, k, e] * q_matrix[n, e, q]
                    held[k, q] += spread[up, k, e] * inverse[n, e, q]
                away -= pull[k, q] * center[up, q]
            center[n, k] = total
            slope += away * away - pull[k, k]
        for k in range(K):
            for q in range(K):
                total = sd * sd * inverse[n, k, q]
                along = 0.0
                for e in range(K):
                    total += inverse[n, k, e] * held[e, q]
                    along += spread[up, q, e] * pull[k, e]
                spread[n, k, q] = total
                slope += pull[k, q] * along
        d_step += sd * slope
    return center, spread, d_root, d_step


@_compile
def _spread_effects(node: Any, center: Any, spread: Any, a: Any, t: Any, d_ability: Any) -> None:
    """t <- t + A^-1 c, a <- A^-1 + A^-1 V A^-1, and the derivative with respect to b.

    c and V are 0 in lanes of models that hang nowhere.
    """
    n_blocks, K, lanes = t.shape
    c = np.empty((K, lanes))
    v = np.empty((a.shape[1], lanes))
    added = np.empty((a.shape[1], lanes))
    held = np.empty((K, lanes))
    for s in range(n_blocks):
        here = min(lanes, node.shape[0] - s * lanes)
        c[:] = 0.0
        v[:] = 0.0
        added[:] = 0.0
        for i in range(here):
            n = node[s * lanes + i]
            if n >= 0:
                for k in range(K):
                    c[k, i] = center[n, k]
                    for q in range(k + 1):
                        v[k * (k + 1) // 2 + q, i] = spread[n, k, q]
        for k in range(K):
            tk = t[s, k]
            held[:] = 0.0  # row k of A^-1 V
            for e in range(K):
                inverse = a[s, k * (k + 1) // 2 + e if e <= k else e * (e + 1) // 2 + k]
                ce = c[e]
                for i in range(lanes):
                    tk[i] += inverse[i] * ce[i]
                for q in range(K):
                    ve = v[e * (e + 1) // 2 + q if q <= e else q * (q + 1) // 2 + e]
                    row = held[q]
                    for i in range(lanes):
                        row[i] += inverse[i] * ve[i]
            for q in range(k + 1):
                entry = added[k * (k + 1) // 2 + q]
                for e in range(K):
                    inverse = a[s, q * (q + 1) // 2 + e if e <= q else e * (e + 1) // 2 + q]
                    row = held[e]
                    for i in range(lanes):
                        entry[i] += row[i] * inverse[i]
        for p in range(a.shape[1]):
            entry = a[s, p]
            row = added[p]
            for i in range(lanes):
                entry[i] += row[i]
        for i in range(here):
            for k in range(K):
                d_ability[s * lanes + i, k] = t[s, k, i] - c[k, i]


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
def _invert(a: Any, b: Any, t: Any, row: Any) -> float:
    """a <- (I + a)^-1, t <- a b; log|A| - b' A^-1 b, summed over lanes, and the log of row 0 of ``row``."""
    K, lanes = b.shape
    product = row[0]
    held = row[1]
    out = 0.0
    for k in range(K):  # Cholesky; the diagonal holds reciprocals
        at = k * (k + 1) // 2
        for i in range(lanes):
            a[at + k, i] += 1.0
        for q in range(k + 1):
            back = q * (q + 1) // 2
            entry = a[at + q]
            for e in range(q):
                left = a[at + e]
                right = a[back + e]
                for i in range(lanes):
                    entry[i] -= left[i] * right[i]
            if q < k:
                root = a[back + q]
                for i in range(lanes):
                    entry[i] *= root[i]
            else:
                for i in range(lanes):
                    product[i] *= entry[i]
                    entry[i] = 1.0 / np.sqrt(entry[i])
                if (k + 1) % EXPONENT_EVERY == 0 or k == K - 1:
                    out += _take_exponents(product)
    mantissas = 1.0
    for i in range(lanes):
        mantissas *= product[i]
    out += np.log(mantissas)
    for k in range(K):  # b <- L^-1 b
        at = k * (k + 1) // 2
        bk = b[k]
        for e in range(k):
            left = a[at + e]
            be = b[e]
            for i in range(lanes):
                bk[i] -= left[i] * be[i]
        root = a[at + k]
        for i in range(lanes):
            bk[i] *= root[i]
            out -= bk[i] * bk[i]
    for k in range(K):  # a <- L^-1
        at = k * (k + 1) // 2
        root = a[at + k]
        for q in range(k):
            entry = a[at + q]
            first = a[q * (q + 1) // 2 + q]
            for i in range(lanes):
                held[i] = entry[i] * first[i]
            for e in range(q + 1, k):
                left = a[at + e]
                right = a[e * (e + 1) // 2 + q]
                for i in range(lanes):
                    held[i] += left[i] * right[i]
            for i in range(lanes):
                entry[i] = -root[i] * held[i]
    for k in range(K):  # t <- L^-T b, a <- L^-T L^-1
        tk = t[k]
        tk[:] = 0.0
        for e in range(k, K):
            left = a[e * (e + 1) // 2 + k]
            be = b[e]
            for i in range(lanes):
                tk[i] += left[i] * be[i]
        for q in range(k + 1):
            held[:] = 0.0
            for e in range(k, K):
                left = a[e * (e + 1) // 2 + k]
                right = a[e * (e + 1) // 2 + q]
                for i in range(lanes):
                    held[i] += left[i] * right[i]
            entry = a[k * (k + 1) // 2 + q]
            for i in range(lanes):
                entry[i] = held[i]
    return out


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
    node_noise: Any, model_noise: Any,
) -> Any:  # fmt: skip
    """Exact draws of abilities and effects, one for each draw of the parameters.

    The first axis of every parameter is the draw; ``node_noise`` (draw, node, factor) and ``model_noise``
    (draw, model, factor) are standard normal. Returns abilities, effects, and the means that abilities have
    given the draw's parameters, (draw, model, factor).
    """
    n_blocks, n_benchmarks, lanes = z.shape
    n_draws, n_models, K = ability_mean.shape
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
            _invert(a[s], h, t[s], row)
        if n_nodes:
            _, _, q_vector, inverse = _climb(node, parent, root_sd[d], step_sd[d], a, t)
            for n in range(n_nodes):
                up = parent[n]
                sd = root_sd[d] if up < 0 else step_sd[d]
                _cholesky(inverse[n], root)
                for k in range(K):
                    total = 0.0
                    expected = 0.0
                    for q in range(K):
                        pulled = sd * sd * q_vector[n, q]
                        total += inverse[n, k, q] * ((center[up, q] if up >= 0 else 0.0) + pulled)
                        total += sd * root[k, q] * node_noise[d, n, q]
                        expected += inverse[n, k, q] * ((middle[up, q] if up >= 0 else 0.0) + pulled)
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
