"""Covariance and kernel matrices: fast and slow decay, null spaces, and matrices such as networks have."""

import numpy as np
import scipy.linalg

from matrices.base import known


def halton(count: int, base: int) -> np.ndarray:
    """Radical inverses of 1..count: points that look random and are not."""
    result, index, scale = np.zeros(count), np.arange(1, count + 1), 1.0
    while index.any():
        scale /= base
        result += scale * (index % base)
        index //= base
    return result


def points(count: int, dimensions: int) -> np.ndarray:
    """(count, dimensions) points in the unit cube."""
    return np.stack([halton(count, base) for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29)[:dimensions]], axis=1)


def normals(rows: int, columns: int) -> np.ndarray:
    """(rows, columns) of numbers with the distribution of independent standard normals, by the golden ratio."""
    first, second = (np.arange(1, rows * columns + 1) * ratio % 1 for ratio in (0.6180339887498949, 0.7548776662466927))
    return (np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * second)).reshape(rows, columns)


def distances(places: np.ndarray) -> np.ndarray:
    """All Euclidean distances."""
    squares = ((places[:, None, :] - places[None, :, :]) ** 2).sum(axis=2)
    return np.sqrt(squares)


@known("Gaussian kernel 1200", "kernel")
def _():
    return np.exp(-(distances(points(1200, 2)) ** 2) / (2 * 0.1**2))


@known("exponential kernel 1200", "kernel")
def _():
    return np.exp(-distances(points(1200, 3)) / 0.3)


@known("exponential kernel on a 34 x 34 grid", "kernel")
def _():
    x, y = np.meshgrid(np.arange(34), np.arange(34))
    return np.exp(-distances(np.stack([x.ravel(), y.ravel()], axis=1).astype(float)) / 8)


@known("Matern 3/2 on a circle", "kernel")
def _():
    angle = 2 * np.pi * np.arange(1200) / 1200
    r = 3**0.5 * 2 * np.abs(np.sin((angle[:, None] - angle) / 2)) / 0.4
    return (1 + r) * np.exp(-r)


@known("Brownian motion 1200", "kernel")
def _():
    index = np.arange(1, 1201)
    return np.minimum(index[:, None], index) / 1200.0


@known("AR(1) covariance 1500", "kernel")
def _():
    return scipy.linalg.toeplitz(0.9 ** np.arange(1500.0))


@known("cubic polynomial kernel 1200", "kernel")
def _():
    x = points(1200, 2)
    return (1 + x @ x.T) ** 3


@known("sample covariance 200 of 1200", "kernel")
def _():
    x = normals(200, 1200) * np.arange(1, 1201) ** -0.5
    return x.T @ x / 200


@known("sample covariance, two spikes", "kernel")
def _():
    x = normals(600, 1200)
    x[:, :2] *= np.array([6.0, 4.0])
    return x.T @ x / 600


@known("two clusters, centred kernel", "kernel")
def _():
    x = points(1200, 3) * 0.3
    x[600:] += 2
    kernel = np.exp(-distances(x))
    kernel -= kernel.mean(axis=0)
    return kernel - kernel.mean(axis=1)[:, None]


@known("logistic regression Hessian", "network")
def _():
    x = np.concatenate([normals(300, 1199), np.ones((300, 1))], axis=1) * np.r_[np.arange(1, 1200) ** -0.4, 1.0]
    p = 1 / (1 + np.exp(-x[:, :5].sum(axis=1)))
    return (x.T * (p * (1 - p) / 300)) @ x


@known("softmax Gauss-Newton", "network")
def _():
    x, classes = normals(150, 120) * np.arange(1, 121) ** -0.3, 10
    logits = x[:, :classes] * 2
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    total = np.zeros((1200, 1200))
    for sample, q in zip(x, p, strict=True):
        total += np.kron(np.diag(q) - np.outer(q, q), np.outer(sample, sample)) / 150
    return total


@known("two-layer tanh Hessian", "network")
def _():
    x = normals(80, 30)
    inner, outer = normals(40, 30) / 30**0.5, normals(1, 40)[0] / 40**0.5
    target = np.sin(x[:, 0])
    total = np.zeros((1240, 1240))
    for sample, y in zip(x, target, strict=True):
        h = np.tanh(inner @ sample)
        first, second = 1 - h**2, -2 * h * (1 - h**2)
        gradient = np.concatenate([np.outer(outer * first, sample).ravel(), h])
        error = outer @ h - y
        total += np.outer(gradient, gradient) / 80
        total[:1200, :1200] += error / 80 * np.kron(np.diag(outer * second), np.outer(sample, sample))
        mixed = error / 80 * np.kron(np.diag(first), sample[:, None])
        total[:1200, 1200:] += mixed
        total[1200:, :1200] += mixed.T
    return total
