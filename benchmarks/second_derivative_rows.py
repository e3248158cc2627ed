"""The rows of docs/second-derivatives.md: operations of PyTorch that take part in training, each in a small network.

A row is an operation behind a linear layer that is measured with it, in float64, with inputs inside the operation's domain and
away from its kinks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

SAMPLES = 4
Operation = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Row:
    """One operation.

    Attributes:
        group: heading of its table.
        name: how a user writes it.
        make: builds it; a module's parameters are measured too.
        shape: of one sample of its input.
        domain: what its input is first mapped by, a key of :data:`DOMAINS`.
    """

    group: str
    name: str
    make: Callable[[], Operation]
    shape: tuple[int, ...] = (6,)
    domain: str = "any"


DOMAINS: dict[str, Operation] = {
    "any": lambda h: h,
    "positive": lambda h: torch.log1p(torch.exp(h)) + 0.5,
    "above one": lambda h: torch.log1p(torch.exp(h)) + 1.5,
    "unit": lambda h: torch.sigmoid(h) * 0.8 + 0.1,
    "inside": lambda h: torch.tanh(h) * 0.8,
    "definite": lambda h: h @ h.mT / h.shape[-1] + torch.eye(h.shape[-1], dtype=h.dtype),
    "symmetric": lambda h: h + h.mT + torch.diag(torch.arange(h.shape[-1], dtype=h.dtype) * 3),
    "regular": lambda h: 0.3 * h + torch.diag(torch.arange(h.shape[-1], dtype=h.dtype) + 2)[: h.shape[-2]],
}


class Probe(nn.Module):
    """Linear layer, domain, operation."""

    def __init__(self, row: Row) -> None:
        super().__init__()
        self.before, self.operation, self.row = nn.Linear(3, prod(row.shape)), row.make(), row

    def forward(self, x: Tensor) -> Tensor:
        """All real outputs of the operation, in one vector."""
        h = DOMAINS[self.row.domain](self.before(x).view(len(x), *self.row.shape))
        found = [part for part in tensors(self.operation(h)) if part.is_floating_point() or part.is_complex()]
        return torch.cat([(torch.view_as_real(part) if part.is_complex() else part).reshape(-1) for part in found])


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors that an operation returned."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)


def squares(model: nn.Module, batch: Tensor) -> Tensor:
    """A smooth loss of the outputs, of elementary operations."""
    out = model(batch)
    return ((out - 0.3) * (out - 0.3)).mean() + (out * out * out).mean() / 3


def forces(model: nn.Module, batch: Tensor) -> Tensor:
    """A loss with a gradient inside: third derivatives."""
    x = batch.clone().requires_grad_()
    out = model(x)
    (force,) = torch.autograd.grad((out + out * out / 2).sum(), x, create_graph=True)
    return ((force - 0.2) * (force - 0.2)).mean()


ROWS: list[Row] = []
F, L, S = functional, torch.linalg, torch.special


@functools.cache
def constant(*shape: int) -> Tensor:
    """Fixed random numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@functools.cache
def classes(*shape: int, most: int = 5) -> Tensor:
    """Fixed random integers."""
    return torch.randint(most, shape, generator=torch.Generator().manual_seed(5))


def functions(group: str, shape: tuple[int, ...], domain: str, **operations: Operation) -> None:
    """Rows of functions; in their names two underscores stand for a dot."""
    for name, operation in operations.items():
        ROWS.append(Row(group, name.replace("__", "."), lambda operation=operation: operation, shape, domain))


def modules(group: str, shape: tuple[int, ...], domain: str, **makers: Callable[[], Any]) -> None:
    """Rows of modules; in their names two underscores stand for a dot."""
    for name, make in makers.items():
        ROWS.append(Row(group, name.replace("__", "."), make, shape, domain))


def named(group: str, shape: tuple[int, ...], domain: str, prefix: str, where: Any, names: str) -> None:
    """Rows of functions of one argument, by their names."""
    for name in names.split():
        if hasattr(where, name):
            function = getattr(where, name)
            ROWS.append(Row(group, f"{prefix}.{name}", lambda function=function: function, shape, domain))


class Looked(nn.Module):
    """An embedding whose result is added to the input."""

    def __init__(self, table: nn.Module, bags: bool = False) -> None:
        super().__init__()
        self.table, self.bags = table, bags

    def forward(self, h: Tensor) -> Tensor:
        """Look fixed rows up."""
        ids = torch.tensor([[0, 1, 2], [3, 0, 0], [4, 2, 0], [1, 1, 0]])
        found = self.table(ids)
        return torch.tanh(found if self.bags else found.mean(1)) * h


class Second(nn.Module):
    """A module that is called with its input several times, and whose first result counts."""

    def __init__(self, module: nn.Module, times: int = 1) -> None:
        super().__init__()
        self.module, self.times = module, times

    def forward(self, h: Tensor) -> Any:
        """Call it."""
        return self.module(*([h] * self.times))


# --- linear and convolutions --------------------------------------------------------------------------------------------------

modules(
    "Linear and convolutions",
    (6,),
    "any",
    nn__Linear=lambda: nn.Linear(6, 3),
    nn__Bilinear=lambda: Second(nn.Bilinear(6, 6, 3), 2),
)
modules(
    "Linear and convolutions",
    (2, 6),
    "any",
    nn__Conv1d=lambda: nn.Conv1d(2, 3, 3),
    nn__ConvTranspose1d=lambda: nn.ConvTranspose1d(2, 2, 3),
)
modules(
    "Linear and convolutions",
    (2, 4, 4),
    "any",
    nn__Conv2d=lambda: nn.Conv2d(2, 2, 3, padding=1),
    nn__Conv2d_depthwise=lambda: nn.Conv2d(2, 2, 3, groups=2),
    nn__Conv2d_dilated_strided=lambda: nn.Conv2d(2, 2, 2, stride=2, dilation=2),
    nn__Conv2d_circular=lambda: nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"),
    nn__Conv2d_reflect=lambda: nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
    nn__Conv2d_replicate=lambda: nn.Conv2d(2, 2, 3, padding=1, padding_mode="replicate"),
    nn__ConvTranspose2d=lambda: nn.ConvTranspose2d(2, 2, 2, stride=2),
    nn__Unfold=lambda: nn.Unfold(2),
)
modules("Linear and convolutions", (8, 9), "any", nn__Fold=lambda: nn.Fold((4, 4), (2, 2)))
modules(
    "Linear and convolutions",
    (1, 3, 3, 3),
    "any",
    nn__Conv3d=lambda: nn.Conv3d(1, 1, 2),
    nn__ConvTranspose3d=lambda: nn.ConvTranspose3d(1, 1, 2),
)
modules(
    "Linear and convolutions",
    (6,),
    "any",
    weight_norm=lambda: parametrizations.weight_norm(nn.Linear(6, 3)),
    spectral_norm=lambda: parametrizations.spectral_norm(nn.Linear(6, 3)).eval(),
    orthogonal_matrix_exp=lambda: nn.Sequential(
        nn.Linear(6, 4), parametrizations.orthogonal(nn.Linear(4, 4), orthogonal_map="matrix_exp")
    ),
    orthogonal_cayley=lambda: nn.Sequential(
        nn.Linear(6, 4), parametrizations.orthogonal(nn.Linear(4, 4), orthogonal_map="cayley")
    ),
)

# --- embeddings ---------------------------------------------------------------------------------------------------------------

modules(
    "Embeddings",
    (4,),
    "any",
    nn__Embedding=lambda: Looked(nn.Embedding(5, 4)),
    nn__Embedding_padding_idx=lambda: Looked(nn.Embedding(5, 4, padding_idx=0)),
    nn__Embedding_sparse=lambda: Looked(nn.Embedding(5, 4, sparse=True)),
    nn__EmbeddingBag_mean=lambda: Looked(nn.EmbeddingBag(5, 4), bags=True),
    nn__EmbeddingBag_sum=lambda: Looked(nn.EmbeddingBag(5, 4, mode="sum"), bags=True),
    nn__EmbeddingBag_max=lambda: Looked(nn.EmbeddingBag(5, 4, mode="max"), bags=True),
    nn__EmbeddingBag_padding_idx=lambda: Looked(nn.EmbeddingBag(5, 4, padding_idx=0), bags=True),
)

# --- activations --------------------------------------------------------------------------------------------------------------

ACTIVATIONS = """celu elu gelu hardsigmoid hardswish hardtanh leaky_relu log_softmax logsigmoid mish relu relu6 selu sigmoid
silu softmax softmin softplus softsign tanh tanhshrink hardshrink softshrink normalize"""
for activation in ACTIVATIONS.split():
    dimension = {"dim": -1} if activation in ("softmax", "log_softmax", "softmin") else {}
    bound = functools.partial(getattr(F, activation), **dimension)
    ROWS.append(Row("Activations", f"F.{activation}", lambda bound=bound: bound))
functions(
    "Activations",
    (6,),
    "any",
    F__gelu_tanh=lambda h: F.gelu(h, approximate="tanh"),
    F__glu=F.glu,
    F__threshold=lambda h: F.threshold(h, 0.1, 0.0),
)
modules(
    "Activations",
    (4, 6),
    "any",
    nn__PReLU=lambda: nn.PReLU(4),
    nn__RReLU_eval=lambda: nn.RReLU().eval(),
    nn__Softmax2d=lambda: nn.Softmax(1),
)

# --- normalisations -----------------------------------------------------------------------------------------------------------

modules(
    "Normalisations",
    (4, 6),
    "any",
    nn__LayerNorm=lambda: nn.LayerNorm(6),
    nn__LayerNorm_two_axes=lambda: nn.LayerNorm((4, 6)),
    nn__LayerNorm_not_affine=lambda: nn.LayerNorm(6, elementwise_affine=False),
    nn__RMSNorm=lambda: nn.RMSNorm(6),
    nn__GroupNorm=lambda: nn.GroupNorm(2, 4),
    nn__InstanceNorm1d=lambda: nn.InstanceNorm1d(4, affine=True),
    nn__BatchNorm1d_eval=lambda: nn.BatchNorm1d(4),
    nn__BatchNorm1d_batch=lambda: nn.BatchNorm1d(4, track_running_stats=False),
)
modules(
    "Normalisations",
    (2, 3, 3),
    "any",
    nn__InstanceNorm2d=lambda: nn.InstanceNorm2d(2),
    nn__BatchNorm2d_eval=lambda: nn.BatchNorm2d(2),
    nn__BatchNorm2d_batch=lambda: nn.BatchNorm2d(2, track_running_stats=False),
    nn__LocalResponseNorm=lambda: nn.LocalResponseNorm(2),
)

# --- pooling and resampling ---------------------------------------------------------------------------------------------------

functions(
    "Pooling and resampling",
    (2, 4, 4),
    "any",
    F__avg_pool2d=lambda h: F.avg_pool2d(h, 2),
    F__max_pool2d=lambda h: F.max_pool2d(h, 2),
    F__adaptive_avg_pool2d=lambda h: F.adaptive_avg_pool2d(h, 3),
    F__adaptive_max_pool2d=lambda h: F.adaptive_max_pool2d(h, 2),
    F__interpolate_nearest=lambda h: F.interpolate(h, scale_factor=2),
    F__interpolate_bilinear=lambda h: F.interpolate(h, size=(5, 5), mode="bilinear"),
    F__interpolate_bicubic=lambda h: F.interpolate(h, size=(5, 5), mode="bicubic"),
    F__interpolate_antialias=lambda h: F.interpolate(h, size=(3, 3), mode="bilinear", antialias=True),
    F__grid_sample_of_images=lambda h: F.grid_sample(h, 0.5 * torch.tanh(constant(len(h), 3, 3, 2)), align_corners=False),
    F__grid_sample_of_places=lambda h: F.grid_sample(
        constant(len(h), 1, 5, 5), 0.4 * torch.tanh(h.reshape(len(h), 4, 4, 2)), align_corners=False
    ),
    F__pixel_shuffle=lambda h: F.pixel_shuffle(h.reshape(len(h), 8, 2, 2), 2),
    F__pad_reflect=lambda h: F.pad(h, (1, 1, 1, 1), mode="reflect"),
    F__pad_replicate=lambda h: F.pad(h, (1, 1, 1, 1), mode="replicate"),
    F__max_unpool2d=lambda h: F.max_unpool2d(*F.max_pool2d(h, 2, return_indices=True), 2),
)
functions("Pooling and resampling", (2, 4, 4), "positive", F__lp_pool2d=lambda h: F.lp_pool2d(h, 3, 2))
functions(
    "Pooling and resampling",
    (2, 6),
    "any",
    F__avg_pool1d=lambda h: F.avg_pool1d(h, 2),
    F__max_pool1d=lambda h: F.max_pool1d(h, 2),
    F__adaptive_avg_pool1d=lambda h: F.adaptive_avg_pool1d(h, 4),
    F__interpolate_linear=lambda h: F.interpolate(h, size=9, mode="linear"),
)
functions(
    "Pooling and resampling",
    (1, 2, 4, 4),
    "any",
    F__max_pool3d=lambda h: F.max_pool3d(h, 2),
    F__interpolate_trilinear=lambda h: F.interpolate(h, size=(3, 3, 3), mode="trilinear"),
)
functions(
    "Pooling and resampling", (2, 3), "any", F__affine_grid=lambda h: F.affine_grid(h, [len(h), 1, 3, 3], align_corners=False)
)

# --- attention and recurrence -------------------------------------------------------------------------------------------------

functions(
    "Attention",
    (2, 3, 4),
    "any",
    F__scaled_dot_product_attention=lambda h: F.scaled_dot_product_attention(h, h, h),
    F__scaled_dot_product_attention_causal=lambda h: F.scaled_dot_product_attention(h, h, h, is_causal=True),
    F__scaled_dot_product_attention_mask=lambda h: F.scaled_dot_product_attention(h, h, h, attn_mask=constant(3, 3)),
)
modules(
    "Attention",
    (3, 4),
    "any",
    nn__MultiheadAttention=lambda: Second(nn.MultiheadAttention(4, 2, batch_first=True), 3),
    nn__TransformerEncoderLayer=lambda: nn.TransformerEncoderLayer(4, 2, 5, dropout=0.0, activation="gelu", batch_first=True),
    nn__TransformerDecoderLayer=lambda: Second(
        nn.TransformerDecoderLayer(4, 2, 5, dropout=0.0, activation="gelu", batch_first=True), 2
    ),
    nn__LSTM=lambda: nn.LSTM(4, 2, batch_first=True),
    nn__GRU=lambda: nn.GRU(4, 2, batch_first=True),
    nn__RNN=lambda: nn.RNN(4, 2, batch_first=True),
    nn__LSTM_two_layers_both_directions=lambda: nn.LSTM(4, 2, 2, batch_first=True, bidirectional=True),
    nn__LSTM_projected=lambda: nn.LSTM(4, 3, proj_size=2, batch_first=True),
)
modules(
    "Attention",
    (4,),
    "any",
    nn__LSTMCell=lambda: nn.LSTMCell(4, 2),
    nn__GRUCell=lambda: nn.GRUCell(4, 2),
    nn__RNNCell=lambda: nn.RNNCell(4, 2),
)

# --- losses -------------------------------------------------------------------------------------------------------------------

functions(
    "Losses",
    (5,),
    "any",
    F__cross_entropy=lambda h: F.cross_entropy(h, classes(len(h))),
    F__cross_entropy_smoothed=lambda h: F.cross_entropy(
        h, classes(len(h)), label_smoothing=0.1, weight=torch.arange(1.0, 6.0, dtype=h.dtype)
    ),
    F__cross_entropy_probabilities=lambda h: F.cross_entropy(h, constant(len(h), 5).softmax(1)),
    F__nll_loss=lambda h: F.nll_loss(h, classes(len(h))),
    F__mse_loss=lambda h: F.mse_loss(h, constant(len(h), 5)),
    F__l1_loss=lambda h: F.l1_loss(h, constant(len(h), 5)),
    F__smooth_l1_loss=lambda h: F.smooth_l1_loss(h, constant(len(h), 5)),
    F__huber_loss=lambda h: F.huber_loss(h, constant(len(h), 5), delta=0.7),
    F__binary_cross_entropy_with_logits=lambda h: F.binary_cross_entropy_with_logits(h, constant(len(h), 5).sigmoid()),
    F__kl_div=lambda h: F.kl_div(h.log_softmax(1), constant(len(h), 5).softmax(1), reduction="batchmean"),
    F__soft_margin_loss=lambda h: F.soft_margin_loss(h, constant(len(h), 5).sign()),
    F__multilabel_soft_margin_loss=lambda h: F.multilabel_soft_margin_loss(h, (constant(len(h), 5) > 0).to(h)),
    F__multi_margin_loss=lambda h: F.multi_margin_loss(h, classes(len(h))),
    F__multi_margin_loss_p2=lambda h: F.multi_margin_loss(h, classes(len(h)), p=2),
    F__multilabel_margin_loss=lambda h: F.multilabel_margin_loss(h, torch.tensor([[0, 2, -1, 1, 1]]).expand(len(h), 5)),
    F__hinge_embedding_loss=lambda h: F.hinge_embedding_loss(h, constant(len(h), 5).sign()),
    F__cosine_embedding_loss=lambda h: F.cosine_embedding_loss(h, constant(len(h), 5), torch.ones(len(h))),
    F__margin_ranking_loss=lambda h: F.margin_ranking_loss(h[:, 0], h[:, 1], torch.ones(len(h)), margin=3.0),
    F__triplet_margin_loss=lambda h: F.triplet_margin_loss(h, constant(len(h), 5), constant(len(h), 5) * 0.5, margin=3.0),
    F__triplet_margin_with_distance_loss=lambda h: F.triplet_margin_with_distance_loss(
        h, constant(len(h), 5), constant(len(h), 5) * 0.5, margin=3.0
    ),
    F__gaussian_nll_loss=lambda h: F.gaussian_nll_loss(h, constant(len(h), 5), h.exp()),
    F__poisson_nll_loss=lambda h: F.poisson_nll_loss(h, constant(len(h), 5).abs()),
    F__cosine_similarity=lambda h: F.cosine_similarity(h, constant(len(h), 5)),
    F__pairwise_distance=lambda h: F.pairwise_distance(h, constant(len(h), 5)),
    F__pdist=lambda h: F.pdist(h),
    torch__cdist=lambda h: torch.cdist(h, constant(3, 5)),
    torch__cdist_p1=lambda h: torch.cdist(h, constant(3, 5), p=1.0),
)
functions("Losses", (5,), "unit", F__binary_cross_entropy=lambda h: F.binary_cross_entropy(h, constant(len(h), 5).sigmoid()))
functions(
    "Losses",
    (6, 4),
    "any",
    F__ctc_loss=lambda h: F.ctc_loss(
        h.log_softmax(-1).transpose(0, 1),
        torch.ones(len(h), 2, dtype=torch.long),
        torch.full((len(h),), 6),
        torch.full((len(h),), 2),
    ),
)
modules("Losses", (5,), "any", nn__AdaptiveLogSoftmaxWithLoss=lambda: _Adaptive())


class _Adaptive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.loss = nn.AdaptiveLogSoftmaxWithLoss(5, 6, [2, 4])

    def forward(self, h: Tensor) -> Tensor:
        return self.loss(h, classes(len(h), most=6)).loss


# --- linear algebra -----------------------------------------------------------------------------------------------------------

named("Linear algebra", (3, 3), "definite", "torch.linalg", L, "cholesky det slogdet inv eigvalsh matrix_exp pinv lu_factor")
named("Linear algebra", (3, 3), "regular", "torch.linalg", L, "qr svdvals matrix_norm vector_norm lu")
functions(
    "Linear algebra",
    (3, 3),
    "definite",
    torch__linalg__solve=lambda h: L.solve(h, constant(3, 2)),
    torch__linalg__solve_triangular=lambda h: L.solve_triangular(h, constant(3, 2), upper=False),
    torch__cholesky_solve=lambda h: torch.cholesky_solve(constant(3, 2), L.cholesky(h)),
    torch__cholesky_inverse=lambda h: torch.cholesky_inverse(L.cholesky(h)),
    torch__linalg__lstsq=lambda h: L.lstsq(h, constant(len(h), 3, 2)).solution,
    torch__logdet=torch.logdet,
    torch__linalg__matrix_power=lambda h: L.matrix_power(h, 3),
    torch__linalg__eigh=lambda h: (lambda e: (e.eigenvalues, e.eigenvectors.square()))(L.eigh(h)),
    torch__linalg__multi_dot=lambda h: L.multi_dot([h[0], h[1], h[2]]),
    torch__linalg__householder_product=lambda h: L.householder_product(h, 0.3 * h[..., 0]),
)
functions(
    "Linear algebra",
    (3, 3),
    "regular",
    torch__linalg__svd=lambda h: (lambda u: (u.U.square(), u.S, u.Vh.square()))(L.svd(h)),
    torch__linalg__eigvals=lambda h: L.eigvals(h).real,
    torch__linalg__norm_nuclear=lambda h: L.matrix_norm(h, "nuc"),
    torch__linalg__norm_2=lambda h: L.matrix_norm(h, 2),
    torch__linalg__cond=lambda h: L.cond(h),
    torch__linalg__cross=lambda h: L.cross(h, h.flip(-1) + constant(3)),
    torch__einsum=lambda h: torch.einsum("bij,bjk->bik", h, h),
    torch__baddbmm=lambda h: torch.baddbmm(h, h, h),
    torch__trace=lambda h: h.diagonal(dim1=-2, dim2=-1).sum(-1),
    torch__kron=lambda h: torch.kron(h[0], h[1]),
)

# --- scatter, gather, reductions ----------------------------------------------------------------------------------------------

INDEX = torch.tensor([0, 1, 0, 2, 1, 0])
for reduce in ("sum", "mean", "prod", "amax", "amin"):
    ROWS.append(
        Row(
            "Scatter and gather",
            f"scatter_reduce({reduce!r})",
            lambda r=reduce: lambda h: torch.ones(len(h), 3, dtype=h.dtype).scatter_reduce(1, INDEX.expand(len(h), 6), h, r),
        )
    )
for reduce in ("mean", "prod", "amax"):
    ROWS.append(
        Row(
            "Scatter and gather",
            f"index_reduce({reduce!r})",
            lambda r=reduce: lambda h: torch.ones(len(h), 3, dtype=h.dtype).index_reduce(1, INDEX, h, r),
        )
    )
functions(
    "Scatter and gather",
    (6,),
    "any",
    scatter_add=lambda h: torch.zeros(len(h), 3, dtype=h.dtype).scatter_add(1, INDEX.expand(len(h), 6), h),
    index_add=lambda h: torch.zeros(len(h), 3, dtype=h.dtype).index_add(1, INDEX, h),
    index_put_accumulate=lambda h: torch.zeros(3, len(h), dtype=h.dtype).index_put((INDEX,), h.T, accumulate=True),
    index_copy=lambda h: torch.zeros(len(h), 6, dtype=h.dtype).index_copy(1, torch.tensor([2, 0, 1, 5, 3, 4]), h),
    index_fill=lambda h: h.index_fill(1, INDEX[:2], 0.5),
    gather=lambda h: h.gather(1, INDEX.expand(len(h), 6)),
    take_along_dim=lambda h: h.take_along_dim(INDEX.expand(len(h), 6), 1),
    index_tensor=lambda h: h[:, INDEX.view(2, 3)],
    index_mask=lambda h: h[:, INDEX > 0],
    masked_select=lambda h: h.masked_select(INDEX > 0),
    masked_fill=lambda h: h.masked_fill(INDEX > 0, 0.2),
    masked_scatter=lambda h: h.masked_scatter(INDEX > 0, h * 2),
    where=lambda h: torch.where(INDEX > 0, h, h * h),
    repeat_interleave=lambda h: h.repeat_interleave(torch.tensor([1, 2, 0, 1, 3, 1]), 1),
    segment_reduce=lambda h: torch.segment_reduce(h.T.contiguous(), "sum", lengths=torch.tensor([2, 4]), axis=0),
    sort=lambda h: h.sort(1).values,
    topk=lambda h: h.topk(3, 1).values,
    median=lambda h: h.median(1).values,
    kthvalue=lambda h: h.kthvalue(2, 1).values,
    cumsum=lambda h: h.cumsum(1),
    cumprod=lambda h: h.cumprod(1),
    cummax=lambda h: h.cummax(1).values,
    logcumsumexp=lambda h: h.logcumsumexp(1),
    prod_of_a_row=lambda h: h.prod(1),
    logsumexp=lambda h: h.logsumexp(1),
    var=lambda h: h.var(1),
    std=lambda h: h.std(1),
    norm_p3=lambda h: h.norm(3, 1),
    amax=lambda h: h.amax(1),
    renorm=lambda h: h.renorm(2, 0, 0.5),
    fft=lambda h: torch.fft.fft(h),
    irfft=lambda h: torch.fft.irfft(h[:, :4]),
    complex_abs=lambda h: torch.complex(h[:, :3], h[:, 3:]).abs(),
    stft=lambda h: torch.stft(h, 4, 2, window=torch.hann_window(4, dtype=h.dtype), return_complex=True, center=False),
    in_place=lambda h: (h * 1).mul_(h).add_(1),
)

# --- elementary functions -----------------------------------------------------------------------------------------------------

named("Elementary", (6,), "any", "torch", torch, "exp expm1 sin cos sinh cosh atan asinh erf erfc square sigmoid tanh sinc abs")
named("Elementary", (6,), "positive", "torch", torch, "log log1p sqrt rsqrt reciprocal lgamma digamma")
named("Elementary", (6,), "inside", "torch", torch, "asin acos atanh erfinv tan")
named("Elementary", (6,), "positive", "torch.special", S, "i0 i0e i1 i1e log_ndtr ndtr erfcx entr")
named("Elementary", (6,), "above one", "torch", torch, "acosh")
functions(
    "Elementary",
    (6,),
    "positive",
    torch__pow=lambda h: h**h,
    torch__xlogy=lambda h: torch.xlogy(h, h + 1),
    torch__hypot=lambda h: torch.hypot(h, h * 2 + 1),
    torch__atan2=lambda h: torch.atan2(h, h * h),
    torch__logaddexp=lambda h: torch.logaddexp(h, 2 * h),
    torch__clamp=lambda h: h.clamp(0.7, 1.3) * h,
    torch__lerp=lambda h: torch.lerp(h, h * h, 0.3),
    torch__addcmul=lambda h: torch.addcmul(h, h, h, value=0.3),
)
