"""Any penalty of fastreg as a scikit-learn estimator: a linear regression by proximal gradient.

It passes scikit-learn's `check_estimator`, so it goes into pipelines and searches:

    python examples/sklearn_estimator.py
"""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from fastreg import penalties


class ProximalRegression(RegressorMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    """Minimises ‖y − Xw − b‖²/(2n) + penalty(w), the intercept b unpenalised, by accelerated proximal gradient.

    Parameters
    ----------
    penalty : fastreg.penalties.Penalty, optional
        `L1(0.1)` by default.
    max_iter : int
        The most steps.
    tol : float
        It stops when no weight moves by more than this part of the largest.
    """

    def __init__(self, penalty: penalties.Penalty | None = None, max_iter: int = 1000, tol: float = 1e-8) -> None:
        self.penalty, self.max_iter, self.tol = penalty, max_iter, tol

    def fit(self, X: Any, y: Any) -> "ProximalRegression":
        X, y = validate_data(self, X, y, y_numeric=True, dtype=np.float64)
        penalty = penalties.L1(0.1) if self.penalty is None else self.penalty
        centre = X.mean(axis=0)
        x, target = X - centre, y - y.mean()
        step = float(len(y) / max(np.linalg.norm(x, 2) ** 2, np.finfo(float).tiny))
        w = v = np.zeros(x.shape[1])
        t = 1.0
        for n in range(1, self.max_iter + 1):
            self.n_iter_ = n
            last, w = w, penalty.prox(v + step * (x.T @ (target - x @ v)) / len(y), step)
            if np.abs(w - v).max() <= self.tol * np.abs(w).max():
                break
            before, t = t, 0.5 * (1 + np.sqrt(1 + 4 * t * t))
            v = w + (before - 1) / t * (w - last)
        self.coef_, self.intercept_ = w, float(y.mean() - centre @ w)
        return self

    def predict(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return validate_data(self, X, reset=False, dtype=np.float64) @ self.coef_ + self.intercept_


def main() -> None:
    from sklearn.datasets import load_diabetes
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = load_diabetes(return_X_y=True)
    choices = [make(lam) for make in (penalties.L1, penalties.L2, penalties.MCP) for lam in (0.3, 1.0, 3.0, 10.0)]
    model = make_pipeline(StandardScaler(), ProximalRegression())
    search = GridSearchCV(model, {"proximalregression__penalty": choices}, cv=5).fit(x, y)
    best = search.best_params_["proximalregression__penalty"]
    kept = np.count_nonzero(search.best_estimator_[-1].coef_)
    print(f"best of {len(choices)} penalties: {best}, R² {search.best_score_:.3f}")
    print(f"{kept} of {x.shape[1]} features kept")


if __name__ == "__main__":
    main()
