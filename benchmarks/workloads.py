"""The networks that products are measured on: model, criterion, batches; random data, fixed seeds."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Batches = list[tuple[Tensor, Tensor]]


def mlp() -> tuple[nn.Module, Batches]:
    """256-20x5-10 with tanh, D = 7,030; 500 samples."""
    widths = [256, 20, 20, 20, 20, 20, 10]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.Tanh()]
    return nn.Sequential(*layers[:-1]), [(torch.randn(500, 256), torch.randint(0, 10, (500,)))]


def net_3c3d() -> tuple[nn.Module, Batches]:
    """Three convolutions, three dense layers, D = 895,210; two batches of 128 images of 32 x 32."""
    pool = {"kernel_size": 3, "stride": 2, "ceil_mode": True}
    model = nn.Sequential(
        *(nn.Conv2d(3, 64, 5), nn.ReLU(), nn.MaxPool2d(**pool)),
        *(nn.Conv2d(64, 96, 3), nn.ReLU(), nn.MaxPool2d(**pool)),
        *(nn.Conv2d(96, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(**pool), nn.Flatten()),
        *(nn.Linear(1152, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10)),
    )
    return model, [(torch.randn(128, 3, 32, 32), torch.randint(0, 10, (128,))) for _ in range(2)]


def all_cnn_c() -> tuple[nn.Module, Batches]:
    """All-CNN-C for 100 classes, D = 1,387,108; 32 images of 32 x 32."""
    plan = [(3, 96, 3, 1, 1), (96, 96, 3, 1, 1), (96, 96, 3, 2, 1), (96, 192, 3, 1, 1), (192, 192, 3, 1, 1)]
    plan += [(192, 192, 3, 2, 1), (192, 192, 3, 1, 0), (192, 192, 1, 1, 0), (192, 100, 1, 1, 0)]
    layers: list[nn.Module] = []
    for before, after, size, stride, padding in plan:
        layers += [nn.Conv2d(before, after, size, stride, padding), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return model, [(torch.randn(32, 3, 32, 32), torch.randint(0, 100, (32,)))]


def resnet18() -> tuple[nn.Module, Batches]:
    """ResNet-18, D = 11,689,512; 8 images of 224 x 224."""
    from torchvision.models import resnet18 as build

    return build(), [(torch.randn(8, 3, 224, 224), torch.randint(0, 1000, (8,)))]


class _Block(nn.Module):
    """Causal attention and a two-layer network."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.before(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.after(x))


class GPT(nn.Module):
    """Tokens (B, T) to the logits of the next ones (B T, vocabulary)."""

    def __init__(self, vocabulary: int = 512, width: int = 128, tokens: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(vocabulary, width), nn.Parameter(0.02 * torch.randn(tokens, width))
        self.blocks = nn.Sequential(_Block(width, heads), _Block(width, heads))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) to (B T, vocabulary)."""
        return self.head(self.norm(self.blocks(self.embedding(tokens) + self.positions))).flatten(0, 1)


def gpt() -> tuple[nn.Module, Batches]:
    """Causal, 2 layers, width 128, D = 536,064; two batches of 8 sequences of 64 tokens."""
    return GPT(), [(torch.randint(0, 512, (8, 64)), torch.randint(0, 512, (512,))) for _ in range(2)]


class _LSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.body, self.head = nn.Embedding(100, 32), nn.LSTM(32, 64, batch_first=True), nn.Linear(64, 100)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.body(self.embedding(tokens))[0]).flatten(0, 1)


def lstm() -> tuple[nn.Module, Batches]:
    """Character model with one layer of 64, D = 34,788; 16 sequences of 20."""
    return _LSTM(), [(torch.randint(0, 100, (16, 20)), torch.randint(0, 100, (320,)))]


# name: (builder, columns of a block, widths that curvlinops is tried with)
WORKLOADS: dict[str, tuple[Callable[[], tuple[nn.Module, Batches]], int, tuple[int, ...]]] = {
    "tanh-MLP": (mlp, 32, (1, 8, 32)),
    "3c3d": (net_3c3d, 4, (1, 4)),
    "All-CNN-C": (all_cnn_c, 4, (1, 4)),
    "ResNet-18": (resnet18, 2, (1, 2)),
    "GPT": (gpt, 16, (1, 4, 16)),
    "LSTM": (lstm, 16, (1, 4, 16)),
}


def load(name: str, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, nn.Module, Batches]:
    """Model in evaluation mode, criterion, batches."""
    torch.manual_seed(0)
    model, batches = WORKLOADS[name][0]()
    cast = [(x.to(dtype) if x.is_floating_point() else x, y) for x, y in batches]
    return model.eval().to(dtype), nn.CrossEntropyLoss(), cast
