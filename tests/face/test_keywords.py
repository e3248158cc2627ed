"""Keywords of other libraries, and misspelt ones: taken as ours where they mean the same, else answered with the right one."""

import inspect

import numpy as np
import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType

A = torch.diag(torch.arange(1.0, 101.0, dtype=torch.float64))
MODEL = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
DATA = [(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2)]
LOSS = nn.CrossEntropyLoss()
PUBLIC = [
    (f"{space.__name__.rpartition('.')[2]}.{name}", getattr(space, name))
    for space in (cs, cs.masks, cs.grassmann)
    for name in space.__all__
    if inspect.isfunction(getattr(space, name))
]
METHODS = [cs.Krylov, cs.Exact, cs.Seigh, cs.HMT, cs.Nystrom, cs.SinglePass]


@pytest.mark.parametrize("function", [value for _, value in PUBLIC], ids=[name for name, _ in PUBLIC])
def test_every_public_function_answers_an_unknown_keyword(function):
    sensible = {"operator": cs.hessian(MODEL, LOSS, DATA), "ranking": cs.masks.by_magnitude(MODEL), "k": 2}
    asked = inspect.signature(function).parameters
    given = {name: A for name, found in asked.items() if found.default is found.empty and found.kind is not found.VAR_KEYWORD}
    if "loss" in asked:
        given = {"model": MODEL, "loss": LOSS, "data": DATA}
    given |= {name: value for name, value in sensible.items() if name in given}
    with pytest.raises(InvalidType, match="no_such_keyword"):
        function(**given, no_such_keyword=3)


@pytest.mark.parametrize("function", [value for _, value in PUBLIC], ids=[name for name, _ in PUBLIC])
def test_signatures_name_every_option(function):
    kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
    assert inspect.Parameter.VAR_KEYWORD not in kinds or function in (cs.eigsh_by_layer, cs.adaptive_seigh), function


@pytest.mark.parametrize("method", METHODS)
def test_methods_name_the_nearest_option(method):
    for wrong, right in {"block_siz": "block_size", "blocksize": "block_size"}.items():
        with pytest.raises(InvalidType, match=f"{method.__name__} has no argument '{wrong}': did you mean '{right}'"):
            method(**{wrong: 3})
    assert method(block_size=2) == method(block_size=2)


def test_transposed_letters_of_short_names_are_found():
    with pytest.raises(InvalidType, match="did you mean 'ncv'"):
        cs.Krylov(nvc=3)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (lambda: cs.trace(A, n_samples=40, random_state=3), lambda: cs.trace(A, max_products=40, seed=3)),
        (lambda: cs.trace(A, tol=0.5), lambda: cs.trace(A, rtol=0.5)),
        (lambda: cs.trace(A=A, maxIter=60), lambda: cs.trace(A, max_products=60)),
        (lambda: cs.diagonal(A, num_samples=50).value.sum(), lambda: cs.diagonal(A, max_products=50).value.sum()),
        (lambda: cs.density(A, n_v=2, iter=10).values.sum(), lambda: cs.density(A, num_probes=2, num_steps=10).values.sum()),
        (lambda: cs.density(A, n_samples=2, m=9).nodes.sum(), lambda: cs.density(A, num_probes=2, num_steps=9).nodes.sum()),
        (lambda: cs.eigsh(A, top_n=3)[0][0], lambda: cs.eigsh(A, k=3)[0][0]),
        (lambda: cs.eigsh(A, 3, return_eigenvectors=False).sum(), lambda: cs.eigsh(A, 3).values.sum()),
        (
            lambda: cs.eigsh(A, 3, method="lanczos", rng=1).values.sum(),
            lambda: cs.eigsh(A, 3, method="krylov", seed=1).values.sum(),
        ),
        (lambda: cs.eigsh(A, 3, method="dense").values.sum(), lambda: cs.eigsh(A, 3, method="exact").values.sum()),
        (lambda: cs.hessian(MODEL, loss_fn=LOSS, dataloader=DATA).loss(), lambda: cs.hessian(MODEL, LOSS, DATA).loss()),
        (lambda: cs.hessian(net=MODEL, criterion=LOSS, data=DATA).loss(), lambda: cs.hessian(MODEL, LOSS, DATA).loss()),
        (lambda: cs.ggn(MODEL, "cross_entropy", DATA).loss(), lambda: cs.ggn(MODEL, LOSS, DATA).loss()),
        (lambda: cs.hessian(MODEL, LOSS, DATA, parameters="0.*").shape[0], lambda: 16),
    ],
)
def test_keywords_that_mean_the_same_are_taken(theirs, ours):
    assert float(theirs()) == float(ours())


def test_our_own_word_is_never_replaced():
    with pytest.raises(InvalidType, match="tol"):
        cs.trace(A, tol=0.1, rtol=0.1)
    with pytest.raises(InvalidType, match="multiple values"):
        cs.hessian(MODEL, LOSS, DATA, loss_fn=LOSS)


@pytest.mark.parametrize(
    "generator",
    [torch.Generator().manual_seed(5), np.random.default_rng(5), np.random.RandomState(5)],
    ids=["torch", "numpy", "legacy"],
)
def test_generators_are_drawn_from(generator):
    first, second = (cs.trace(A, method="hutchinson", max_products=10, rng=generator).stderr for _ in range(2))
    assert isinstance(first, float)
    assert cs.masks.random(50, seed=generator).order.tolist() != cs.masks.random(50, seed=generator).order.tolist()
    with pytest.raises(InvalidArgument, match="seed='x'"):
        cs.trace(A, seed="x")
    assert second is not None


def test_a_generator_in_the_same_state_gives_the_same_numbers():
    draws = [cs.masks.random(50, rng=torch.Generator().manual_seed(7)).order for _ in range(2)]
    assert torch.equal(*draws)


def test_restarts_of_scipy_bound_the_products():
    scipy_linalg = pytest.importorskip("scipy.sparse.linalg")
    solution = cs.eigsh(A, 3, maxiter=2, tol=1e-12)
    assert solution.cost.products <= 54
    assert solution.provenance["options"]["max_products"] == 54
    count = 0

    def multiply(vector):
        nonlocal count
        count += 1
        return A.numpy() @ vector

    with pytest.raises(scipy_linalg.ArpackNoConvergence):
        scipy_linalg.eigsh(scipy_linalg.LinearOperator(A.shape, matvec=multiply, dtype=float), 3, maxiter=2, tol=1e-12)
    assert abs(count - 54) <= 3  # SciPy's own count of the same request


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: cs.eigsh(MODEL, LOSS, DATA, k=5), r"takes a matrix, not a model: pass cs.hessian\(model, loss, data\)"),
        (lambda: cs.trace(MODEL, LOSS, DATA), "takes a matrix, not a model"),
        (lambda: cs.eigsh(A, 3, method="sketch"), "'seigh'"),
        (lambda: cs.eigsh(A, 3, method="lobpcg"), "'krylov'"),
        (lambda: cs.eigsh(A, 3, sigma=0.0), "which='SA'"),
        (lambda: cs.eigsh(A, 3, num_outer=30), r"method=cs.Seigh\(num_outer"),
        (lambda: cs.hessian(MODEL, LOSS, DATA, batch_size=4), "microbatch"),
        (lambda: cs.hessian(MODEL, LOSS, DATA, cuda=True), "device"),
        (lambda: cs.hessian(MODEL, LOSS, DATA, check_deterministic=False), "cs.preflight"),
        (lambda: cs.hessian(MODEL, LOSS, DATA, num_batches=1), "islice"),
        (lambda: cs.masks.by_magnitude(MODEL, sparsity=0.9), "fraction"),
        (lambda: cs.density(A, bandwidth=0.1), "kernel width"),
        (lambda: cs.Tracker(MODEL, LOSS, DATA, evry=3), "every"),
        (lambda: cs.hessian(MODEL, LOSS, DATA, dampin=3.0), "did you mean 'damping'"),
    ],
)
def test_what_has_no_equal_is_explained(call, words):
    with pytest.raises((InvalidType, InvalidArgument), match=words):
        call()


BUILDERS = [cs.hessian, cs.ggn, cs.empirical_fisher, cs.monte_carlo_fisher, cs.gradient_second_moment]


@pytest.mark.parametrize("build", BUILDERS)
def test_damping_adds_a_multiple_of_the_identity(build):
    plain, damped = build(MODEL, LOSS, DATA), build(MODEL, LOSS, DATA, damping=0.25)
    dense = plain.to_dense() + 0.25 * torch.eye(plain.shape[0])
    assert torch.allclose(damped.to_dense(), dense, atol=1e-6)
    assert damped.parameters == plain.parameters
    lowest = cs.eigsh(damped, k=1, which="SA").eigenvalues
    assert torch.allclose(lowest, torch.linalg.eigvalsh(dense.double())[:1], atol=1e-5)
    assert damped.fingerprint != plain.fingerprint
    assert damped.fingerprint == plain.shift(0.25).fingerprint


def test_a_damped_matrix_says_where_the_gradient_is():
    damped = cs.hessian(MODEL, LOSS, DATA, damping=1e-3)
    with pytest.raises(AttributeError, match=r"H.terms\[0\]\[1\].gradient"):
        damped.gradient()
    assert torch.equal(damped.terms[0][1].gradient(), cs.hessian(MODEL, LOSS, DATA).gradient())
    with pytest.raises(InvalidArgument, match="damping"):
        cs.ggn(MODEL, LOSS, DATA, damping="much")


X, Y = DATA[0]
SOLVED = cs.eigsh(cs.hessian(MODEL, LOSS, DATA), k=3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: cs.hessian(MODEL, LOSS, X, Y), "one argument: pass \\(inputs, targets\\)"),
        (lambda: cs.hessian(MODEL, LOSS, DATA) + 0.1, r"H.shift\(0.1\)"),
        (lambda: cs.hessian(MODEL, LOSS, DATA) - 1, r"H.shift\(1\)"),
        (lambda: cs.hessian(MODEL, LOSS, DATA) @ MODEL, "named_parameters"),
        (lambda: cs.overlap(SOLVED, MODEL), "masks.by_magnitude"),
        (lambda: cs.overlap(cs.hessian(MODEL, LOSS, DATA), cs.masks.by_magnitude(MODEL)), r"cs.eigsh\(H"),
        (lambda: cs.overlap(SOLVED, "magnitude"), "masks.by_magnitude"),
        (lambda: cs.eigsh(A, 3, which="SM"), "cs.density"),
        (lambda: cs.seigh(A, k=3), "method='seigh'"),
        (lambda: cs.eigsh(A, 3, device="cpu"), "the operator's"),
        (lambda: cs.eigsh(A, 3, out="run"), "use run"),
        (lambda: cs.eigsh(A, num=3), "use k;"),
        (lambda: cs.masks.by_magnitude(MODEL, layerwise=True), "layerwise_magnitude"),
    ],
)
def test_what_people_try_leads_to_the_right_form(call, words):
    with pytest.raises((InvalidType, InvalidArgument), match=words):
        call()


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (cs.hessian(MODEL, LOSS, DATA), {"double": "H.to", "vHv": "v @ H @ v", "logdet": "cs.logdet", "save": "solution.save"}),
        (SOLVED, {"shape": "eigenvectors.shape", "error": "residual_norms", "certified": "certificate"}),
        (SOLVED.eigenvectors, {"norm": "to_tensor", "tolist": "to_tensor", "to_numpy": "np.asarray"}),
        (
            cs,
            {
                "inverse": "low_rank",
                "ntk": "cs.jacobian",
                "null_model": "cs.mask_null",
                "track": "cs.Tracker",
                "eye": "identity",
            },
        ),
        (cs.masks, {"union": "first | second", "threshold": "overlap", "hessian": "masks.obd"}),
        (cs.masks.by_magnitude(MODEL), {"to_bool": "ranking.mask", "top": "first"}),
        (cs.masks.by_magnitude(MODEL, 3), {"numpy": "np.asarray", "shape": "mask.size"}),
    ],
)
def test_names_that_people_try_lead_to_the_right_ones(owner, names):
    for name, words in names.items():
        with pytest.raises(AttributeError, match=words.replace("(", r"\(")):
            getattr(owner, name)


def test_predicates_of_names_alone_and_numpy_dtypes_are_taken():
    H = cs.hessian(MODEL, LOSS, DATA, params=lambda name: name.endswith("weight"), dtype=np.float64)
    assert (H.names, H.dtype) == (("0.weight", "2.weight"), torch.float64)
    both = cs.hessian(MODEL, LOSS, DATA, params=lambda name, p: p.ndim == 1)
    assert both.names == ("0.bias", "2.bias")


def test_operators_are_summed():
    parts = [cs.hessian(MODEL, LOSS, DATA), cs.ggn(MODEL, LOSS, DATA)]
    assert torch.allclose(sum(parts).to_dense(), parts[0].to_dense() + parts[1].to_dense(), atol=1e-6)


def test_methods_by_their_other_names():
    for theirs, ours in {"hutchpp": "hutch++", "Hutch-PP": "hutch++", "full": "exact", "Rademacher": "hutchinson"}.items():
        assert cs.trace(A, method=theirs).value == cs.trace(A, method=ours).value
    assert torch.equal(cs.density(A, method="slq").nodes, cs.density(A, method="lanczos").nodes)
    assert cs.eigsh(A, 3, v0=np.ones(100)).status.converged


def test_columns_are_scaled_as_arrays_are():
    w, V = SOLVED
    dense = cs.hessian(MODEL, LOSS, DATA).to_dense()
    best = V.to_tensor().double() @ torch.diag(w) @ V.to_tensor().double().T
    assert torch.allclose((V * w) @ V.to_tensor().double().T, best, atol=1e-6)
    assert np.allclose(V.numpy() * w.numpy(), (V * w).numpy())
    assert torch.equal(-V, 0 - V)
    assert torch.equal(V / 2 + 1, 0.5 * V + 1)
    assert torch.linalg.matrix_norm(dense.double() - best, 2) < w[-1].abs() * 1.01


def test_curves_compute_as_their_numbers():
    curve = cs.overlap(SOLVED, cs.masks.by_magnitude(MODEL))
    assert torch.equal(curve / curve.chance, curve.ratio)
    assert torch.equal(curve - curve, torch.zeros(3, dtype=torch.float64))
    assert torch.equal(1 - curve, 1 - curve.value)
    assert torch.equal(curve > 0.2, curve.value > 0.2)
    assert (float(curve.mean()), curve.shape, curve.tolist()) == (float(curve.value.mean()), (3,), curve.value.tolist())
    assert curve(2) == curve.at(2)
    assert cs.trace(A).item() == 5050.0


def test_a_pruned_model_is_its_mask():
    from torch.nn.utils import prune

    pruned = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    pruned.load_state_dict(MODEL.state_dict())
    prune.l1_unstructured(pruned[0], "weight", amount=0.5)
    assert torch.equal(cs.overlap(SOLVED, pruned).value, cs.overlap(SOLVED, cs.masks.from_pruned(pruned)).value)
    assert torch.equal(cs.masks.obd(MODEL, cs.diagonal(cs.hessian(MODEL, LOSS, DATA))).order, obd_by_hand())


def obd_by_hand():
    H = cs.hessian(MODEL, LOSS, DATA)
    return (0.5 * H.to_dense().diagonal().double() * H.values().double().square()).argsort(descending=True, stable=True)
