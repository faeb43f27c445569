"""The figures of the weights in plain float64 arithmetic."""

import math

import numpy as np

from qwd.train.watch import Watch


def watched_step(watch: Watch, step) -> dict[str, float | None]:
    watch.before_step()
    step()
    watch.after_step()
    return watch.row()


def double(tensors) -> list[np.ndarray]:
    return [t.detach().double().numpy().copy() for t in tensors]


def joined(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([a.ravel() for a in arrays])


def angle(u: np.ndarray, v: np.ndarray) -> float:
    """In degrees, by Kahan's formula."""
    u, v = u / np.linalg.norm(u), v / np.linalg.norm(v)
    return math.degrees(2 * math.atan2(np.linalg.norm(u - v), np.linalg.norm(u + v)))


def reference(u: list[np.ndarray], v: list[np.ndarray], g: list[np.ndarray]) -> dict[str, float]:
    """Every figure of some weights taken together."""
    before, after = joined(u), joined(v)
    sizes = np.array([w.size for w in v])
    ranges = np.array([np.ptp(w) for w in v])
    ratios = np.array([np.ptp(w) / w.std() for w in v])
    figures = {
        "weight_norm": np.linalg.norm(after),
        "update_ratio": np.linalg.norm(after - before) / np.linalg.norm(before),
        "angle": angle(before, after),
        "gradient_norm": np.linalg.norm(joined(g)),
        "zeros": np.mean(after == 0),
        "range": sizes @ ranges / sizes.sum(),
        "range_over_std": sizes @ ratios / sizes.sum(),
        "outlier_rate": 1e6
        * sum(np.sum(np.abs(w - w.mean()) > 4 * w.std()) for w in v)
        / sizes.sum(),
    }
    return {name: float(value) for name, value in figures.items()}
