"""Certificates for the ends of spectra: complete, intervals and angles against dense decompositions."""

import pytest
import torch

import curvscope as cs


def random_matrix(seed, size=120):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    values = {
        0: torch.arange(1, size + 1, dtype=torch.float64) ** -0.8 - 0.2,
        1: torch.linspace(0, 1, size, dtype=torch.float64).square(),
        2: torch.linspace(-1, 1, size // 4, dtype=torch.float64).repeat_interleave(4),
        3: 2 * draw(size) - 1,
    }[seed % 4]
    U = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    A = (U * values) @ U.T
    return (A + A.T) / 2


@pytest.mark.parametrize("which", ["LA", "SA", "BE"])
def test_what_is_certified_is_true(which):
    proven = 0
    for seed in range(8):
        A = random_matrix(seed)
        exact, vectors = torch.linalg.eigh(A)
        k, tol = 2 + seed % 5, 10.0 ** -(2 + seed % 8)
        found = cs.certify(
            A, cs.eigsh(A, k=k, which=which, method="krylov", tol=tol, seed=seed, progress=False), progress=False
        )
        certificate, values = found.certificate, found.eigenvalues
        upper = {"LA": k, "SA": 0, "BE": k - k // 2}[which]
        rho = float(certificate.rho[-1]) + 1e-12
        ends = [(values[:upper], exact.flip(0)), (-values[upper:], -exact)]
        if which != "BE":
            j = certificate.complete
            computed, true = ends[0 if which == "LA" else 1]
            assert float((computed[:j] - true[:j]).abs().max() if j else 0.0) <= rho
        proven += certificate.complete
        lower, higher = found.intervals.T
        nearest = (values[:, None] - exact).abs().argmin(dim=1)
        assert bool(((exact[nearest] >= lower - 1e-13) & (exact[nearest] <= higher + 1e-13)).all())
        V = found.eigenvectors.to_tensor()
        rest = A - V @ (V.T @ A) - (A @ V) @ V.T + V @ (V.T @ A @ V) @ V.T
        inside = torch.linalg.eigvalsh(rest)
        assert float(inside.max()) <= max(certificate.above, 0.0) + 1e-12
        assert float(inside.min()) >= min(certificate.below, 0.0) - 1e-12
        for i, sine in enumerate(certificate.angles.tolist()):
            if sine < 1:
                cosine = float((vectors[:, nearest[i]] @ V[:, i]).abs().clamp(max=1))
                assert (1 - cosine**2) ** 0.5 <= sine + 1e-7
    assert proven > 8  # most are proven


def test_missed_copies_are_not_called_complete():
    """A block of one sees one copy; without a search (tol=0) the others are missed, and nothing beyond them is complete."""
    values = torch.cat([torch.full((3,), 2.0), torch.linspace(1, 0, 200)]).double()
    A = torch.diag(values)
    found = cs.eigsh(A, k=3, which="LA", method="krylov", tol=0, block_size=1, max_products=40, progress=False)
    assert float(found.eigenvalues[2]) < 1.5
    assert cs.certify(A, found, progress=False).certificate.complete == 0


@pytest.mark.parametrize("which", ["LA", "SA", "BE", "LM"])
def test_more_steps_prove_more_and_the_text_says_so(which):
    A = torch.diag(torch.linspace(-1, 1, 601, dtype=torch.float64))
    found = cs.eigsh(A, k=4, which=which, method="krylov", tol=1e-8, progress=False)
    few, many = (cs.certify(A, found, steps=steps, progress=False) for steps in (60, 480))
    assert few.certificate.complete < many.certificate.complete
    assert "certify with steps=480 may prove more" in str(few)


def test_it_is_saved_with_the_solution(tmp_path):
    A = torch.diag(torch.linspace(-1, 1, 60, dtype=torch.float64))
    found = cs.certify(A, cs.eigsh(A, k=3, which="SA"), progress=False)
    found.save(tmp_path / "kept")
    again = cs.open(tmp_path / "kept")
    assert (again.certificate.complete, again.certificate.order) == (3, "SA")
    assert str(again) == str(found)
    with pytest.raises(cs.errors.InvalidArgument, match="about magnitudes"):
        again.certificate.space_sine(2)
