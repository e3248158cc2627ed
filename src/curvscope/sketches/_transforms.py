"""Orthonormal trigonometric transforms along the last dimension, O(n log n)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def dct(x: Tensor) -> Tensor:
    r"""The orthonormal discrete cosine transform (type II) of real rows.

    .. math:: y_k = s_k \sum_j x_j \cos\frac{\pi k (2j + 1)}{2n}, \quad s_0 = n^{-1/2}, \; s_k = (2/n)^{1/2}

    Cost: one FFT of length n a row (Makhoul 1980).

    >>> dct(torch.ones(1, 4)).round(decimals=6).abs().tolist()
    [[2.0, 0.0, 0.0, 0.0]]
    """
    n = x.shape[-1]
    shuffled = torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], dim=-1)
    half = torch.fft.rfft(shuffled) * _twiddle(n, x)
    head = half.real
    tail = -half.imag[..., 1 : n - n // 2].flip(-1)
    result = torch.cat([head, tail], dim=-1) * math.sqrt(2 / n)
    result[..., 0] *= 0.5**0.5
    return result


def inverse_dct(y: Tensor) -> Tensor:
    """The inverse, which is the adjoint, of :func:`dct`."""
    n = y.shape[-1]
    y = y * math.sqrt(n / 2)
    y[..., 0] *= 2**0.5
    tail = torch.zeros_like(y[..., : n // 2 + 1])
    tail[..., 1:] = y[..., n - n // 2 :].flip(-1)
    shuffled = torch.fft.irfft(torch.complex(y[..., : n // 2 + 1], -tail) * _twiddle(n, y).conj(), n=n)
    result = torch.empty_like(y)
    middle = (n + 1) // 2
    result[..., ::2] = shuffled[..., :middle]
    result[..., 1::2] = shuffled[..., middle:].flip(-1)
    return result


def unitary(x: Tensor) -> Tensor:
    """:func:`dct` of real rows, the unitary Fourier transform of complex ones."""
    return torch.fft.fft(x, norm="ortho") if x.is_complex() else dct(x)


def inverse_unitary(x: Tensor) -> Tensor:
    """The inverse, which is the adjoint, of :func:`unitary`."""
    return torch.fft.ifft(x, norm="ortho") if x.is_complex() else inverse_dct(x)


def _twiddle(n: int, like: Tensor) -> Tensor:
    angles = torch.arange(n // 2 + 1, dtype=torch.float64, device=like.device) * (-math.pi / (2 * n))
    turns = torch.polar(torch.ones_like(angles), angles)
    return turns.to(torch.complex128 if like.dtype == torch.float64 else torch.complex64)
