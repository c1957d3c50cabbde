"""AC power flow by the Z-bus fixed point, and the adjoint that gives sensitivities.

With slack nodes r and other nodes p, ``Z = Ypp⁻¹`` and ``V0 = −Z·Ypr·Vr``, the solution is the fixed
point of ``V ← V0 + Z·conj(S/V)`` (design section 4).  Z is dense up to :data:`DENSE_NODES_MAX` nodes and
a sparse LU factor above.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse.linalg import splu
from threadpoolctl import threadpool_limits

from grid.errors import PowerFlowError
from grid.feeder import Complexes, Feeder, Floats, Ints

DENSE_NODES_MAX = 3000
ITERATIONS_MAX = 200
TOLERANCE_PU = 1e-12
ADJOINT_TOLERANCE = 1e-10
"""Relative: what gradients are good to."""
CURVATURE_ITERATIONS = 2

# The matrices are small and the products many: with more than one BLAS thread each is many times slower.
threadpool_limits(limits=1, user_api="blas")


@dataclass(frozen=True, eq=False)
class OperatingPoint:
    """A solved power flow.

    ``v`` node voltages [n] complex pu, ``p_w`` and ``q_var`` the injections [n] it was solved for,
    ``slack_w`` the net active power that flows in over all slack nodes (import > 0).
    """

    flow: PowerFlow
    v: Complexes
    p_w: Floats
    q_var: Floats
    slack_w: float

    @cached_property
    def v_pu(self) -> Floats:
        return np.abs(self.v)

    @cached_property
    def current(self) -> Complexes:
        """Each limited current [m], of magnitude 1.0 at its rating."""
        return np.asarray(self.flow.feeder.current_map @ self.v)

    @cached_property
    def loading(self) -> Floats:
        """|I| of each limited current [m], 1.0 at its rating."""
        return np.abs(self.current)

    @cached_property
    def slack_gradient(self) -> tuple[Floats, Floats]:
        """∂slack_w/∂p and ∂slack_w/∂q [n], W per W and per var; −1 for p at a slack node."""
        return self.flow._slack_gradient(self)


class PowerFlow:
    """Power flow and sensitivities of one feeder; holds only what follows from the feeder."""

    def __init__(self, feeder: Feeder) -> None:
        self.feeder = feeder
        y = feeder.admittance
        pq, slack = feeder.pq, feeder.slack
        self._dense = len(pq) <= DENSE_NODES_MAX
        ypp = y[pq][:, pq]
        if self._dense:
            self._z = np.ascontiguousarray(np.linalg.inv(ypp.toarray()))
        else:
            self._lu = splu(ypp.tocsc())
        self.v_idle: Complexes = -self._solve(np.asarray(y[pq][:, slack] @ feeder.v_slack))
        """Voltages of the other nodes when nothing injects [n − s]."""
        self._y_slack = y[slack]
        self._slack_row = np.asarray(np.conj(feeder.v_slack) @ y[slack][:, pq]).ravel()

    def _solve(self, current: Complexes) -> Complexes:
        """Z · current for the other nodes."""
        return np.asarray(self._z @ current if self._dense else self._lu.solve(current))

    def _solve_transposed(self, rows: Complexes) -> Complexes:
        """rows · Z for [k, n − s] rows."""
        return np.asarray(rows @ self._z if self._dense else self._lu.solve(rows.T, trans="T").T)

    def solve(self, p_w: Floats, q_var: Floats, start: OperatingPoint | None = None) -> OperatingPoint:
        """The operating point of injections [n], W and var.

        ``start`` only shortens the way: the fixed point is followed to 1e-12 pu.  Raises
        :class:`PowerFlowError` where there is no solution.
        """
        feeder = self.feeder
        s_conj = np.asarray((p_w - 1j * q_var)[feeder.pq], np.complex128) / feeder.base_va
        v = self.v_idle if start is None else start.v[feeder.pq]
        for _ in range(ITERATIONS_MAX):
            following: Complexes = self.v_idle + self._solve(s_conj / np.conj(v))
            change = np.abs(following - v).max(initial=0.0)
            v = following
            if not change < 1e3:
                break
            if change < TOLERANCE_PU:
                return self._point(v, p_w, q_var)
        generation_kw, load_kw = p_w[p_w > 0].sum() / 1e3, -p_w[p_w < 0].sum() / 1e3
        raise PowerFlowError(
            f"{feeder.name}: no power flow for {generation_kw:.1f} kW of generation and {load_kw:.1f} kW "
            "of load, more than it can carry"
        )

    def _point(self, v_pq: Complexes, p_w: Floats, q_var: Floats) -> OperatingPoint:
        feeder = self.feeder
        v = np.empty(feeder.node_count, np.complex128)
        v[feeder.slack], v[feeder.pq] = feeder.v_slack, v_pq
        into_feeder = float((np.conj(feeder.v_slack) @ (self._y_slack @ v)).real)
        slack_w = into_feeder * feeder.base_va - float(p_w[feeder.slack].sum())
        return OperatingPoint(self, v, p_w, q_var, slack_w)

    @cached_property
    def idle(self) -> OperatingPoint:
        """The operating point without injections."""
        nothing = np.zeros(self.feeder.node_count)
        return self._point(self.v_idle, nothing, nothing)

    def _adjoint(self, point: OperatingPoint, c: Complexes) -> tuple[Floats, Floats]:
        """∂f/∂p and ∂f/∂q [k, n], per W and var, of ``f = Re(cᵀV)`` for rows c [k, n − s]."""
        feeder = self.feeder
        pq, v = feeder.pq, point.v[feeder.pq]
        w = (point.p_w - 1j * point.q_var)[pq] / feeder.base_va / np.conj(v) ** 2
        scale = np.abs(c).max(initial=1e-300)
        y = c
        for _ in range(ITERATIONS_MAX):
            through = self._solve_transposed(y)
            following = c - np.conj(through * w)
            change = np.abs(following - y).max(initial=0.0)
            y = following
            if change <= ADJOINT_TOLERANCE * scale:
                break
        else:
            raise PowerFlowError(
                f"{feeder.name}: sensitivities do not settle: the feeder is near voltage collapse"
            )
        u = self._solve_transposed(y) / np.conj(v)
        by_p, by_q = np.zeros((len(c), feeder.node_count)), np.zeros((len(c), feeder.node_count))
        by_p[:, pq], by_q[:, pq] = u.real / feeder.base_va, u.imag / feeder.base_va
        return by_p, by_q

    def _slack_gradient(self, point: OperatingPoint) -> tuple[Floats, Floats]:
        by_p, by_q = self._adjoint(point, self._slack_row[None, :])
        by_p *= self.feeder.base_va
        by_q *= self.feeder.base_va
        by_p[0, self.feeder.slack] = -1.0
        return by_p[0], by_q[0]

    def limit_gradient(self, point: OperatingPoint, currents: Ints, nodes: Ints) -> tuple[Floats, Floats]:
        """∂|I_k|/∂p and ∂q of limited currents by row, in terms of the rating, then ∂|V_i| of nodes that are
        no slack, pu: [currents + nodes, n], per W and var.
        """
        rows = (self._current_directions(point, currents), self._voltage_directions(point, nodes))
        return self._adjoint(point, np.vstack(rows))

    def _voltage_directions(self, point: OperatingPoint, nodes: Ints) -> Complexes:
        """Rows c [k, n − s] with ∂|V_i| = Re(c·∂V)."""
        c = np.zeros((len(nodes), self.feeder.node_count), np.complex128)
        c[np.arange(len(nodes)), nodes] = np.conj(point.v[nodes]) / point.v_pu[nodes]
        return np.asarray(c[:, self.feeder.pq])

    def _current_directions(self, point: OperatingPoint, rows: Ints) -> Complexes:
        """Rows c [k, n − s] with ∂|I_k| = Re(c·∂V)."""
        feeder = self.feeder
        direction = np.conj(point.current[rows]) / np.maximum(point.loading[rows], 1e-12)
        c = np.zeros((len(rows), feeder.node_count), np.complex128)
        for at, row in enumerate(rows):  # scipy's slices of a sparse matrix take far longer
            entries = slice(feeder.i_indptr[row], feeder.i_indptr[row + 1])
            c[at, feeder.i_indices[entries]] = feeder.i_data[entries] * direction[at]
        return np.asarray(c[:, feeder.pq])

    def curvature(
        self,
        point: OperatingPoint,
        nodes: Ints,
        tan_phi: Floats,
        gradient: tuple[Floats, Floats],
        currents: tuple[Ints, Floats],
        voltages: tuple[Ints, Floats],
    ) -> Floats:
        """∂²L/∂p_k∂p_l [k, k], per W², of a weighted sum L of slack power, currents |I| and voltages |V|.

        ``nodes`` [k] are where is injected, each with its fixed power factor; ``gradient`` is ∂L/∂p and ∂L/∂q
        [n]; ``currents`` and ``voltages`` are those in L by row and node, with their weights.  With λ the
        adjoint of L (its gradient times conj(V)) and D_k = ∂V/∂p_k, from ``V = V0 + Z·conj(S/V)`` follows

            Re Σ λ·conj(−(∂S_k·D_l + ∂S_l·D_k)/V² + 2·S·D_k·D_l/V³) + Σ weight·τ_k·τ_l / magnitude

        where τ is the part of ∂I (or ∂V) across I (or V): slack power is linear in V, magnitudes are not.  D
        is good to about the third power of the feeder's relative voltage drop.
        """
        feeder = self.feeder
        pq, v = feeder.pq, point.v[feeder.pq]
        position = np.full(feeder.node_count, -1)
        position[pq] = np.arange(len(pq))
        inside = np.flatnonzero(position[nodes] >= 0)
        at = position[nodes[inside]]
        injected = 1 + 1j * tan_phi[inside]
        s = (point.p_w + 1j * point.q_var)[pq] / feeder.base_va
        directly = self._columns(at) * (np.conj(injected) / np.conj(v[at]))
        w = (np.conj(s) / np.conj(v) ** 2)[:, None]
        moved = directly
        for _ in range(CURVATURE_ITERATIONS):
            moved = directly - self._solve(w * np.conj(moved))
        adjoint = (gradient[0] + 1j * gradient[1])[pq] * np.conj(v) * feeder.base_va
        mixed = -adjoint[at, None] * np.conj(injected[:, None] * moved[at] / v[at, None] ** 2)
        own = np.conj(moved.T) @ ((2 * adjoint * np.conj(s / v**3))[:, None] * np.conj(moved))
        form = (mixed + mixed.T + own).real
        (rows, row_weight), (kept, node_weight) = currents, voltages
        across = np.vstack([self._current_directions(point, rows), self._voltage_directions(point, kept)])
        weight = np.concatenate(
            [row_weight / np.maximum(point.loading[rows], 1e-12), node_weight / point.v_pu[kept]]
        )
        turned = (across @ moved).imag
        form += turned.T @ (weight[:, None] * turned)
        found = np.zeros((len(nodes), len(nodes)))
        found[np.ix_(inside, inside)] = form / feeder.base_va**2
        return found

    def _columns(self, at: Ints) -> Complexes:
        """Columns of Z [n − s, k]."""
        if self._dense:
            return np.asarray(self._z[:, at])
        unit = np.zeros((len(self.feeder.pq), len(at)), np.complex128)
        unit[at, np.arange(len(at))] = 1.0
        return self._solve(unit)
