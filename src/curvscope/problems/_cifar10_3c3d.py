"""The paper's CIFAR-10 problem: DeepOBS' 3c3d network with 895,210 parameters."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from curvscope.problems._base import Defaults, seeded
from curvscope.problems._cifar import CIFAR10
from curvscope.problems._cifar_problem import CifarProblem
from curvscope.problems._layers import PoolSame


class Cifar10With3c3d(CifarProblem):
    """CIFAR-10, three convolutions and three dense layers, D = 895,210, plain SGD, no augmentation."""

    name = "cifar10_3c3d"
    description = "DeepOBS 3c3d network (D = 895,210) on CIFAR-10 without augmentation, SGD"
    criterion = nn.CrossEntropyLoss()
    defaults = Defaults(
        seed=12345, batch_size=128, learning_rate=0.022610510812765, steps=(0, 2000, 8000), num_outer=1000, num_inner=2000
    )
    source = "Fernandez et al., TMLR 2025 (arXiv 2504.14701), section 6.2; DeepOBS (Schneider et al., 2019)"
    cifar, samples_per_class, curvature_batch = CIFAR10, 50, 125
    initial_top = "ded2a6b5bcd8f6212bab91554820065fde8ca76b9e760a9180cc73c870f6b472"
    definition: Mapping[str, str] = {
        "network": "conv 5x5 (3-64), conv 3x3 (64-96), conv 3x3 same (96-128), each with ReLU and max-pooling 3x3/2 same "
        "(TensorFlow's padding); dense 1152-512-256-10 with ReLU",
        "initialisation": "seed 12345; zero biases, Xavier normal convolutions, Xavier uniform dense layers, in module order "
        "after PyTorch's own",
        "training": "SGD 0.022610510812765, batches of 128, no momentum, decay, schedule or augmentation; 10,000 validation "
        "images left out (torch.randperm, seed 12345), epoch e reshuffled with seed 12345 + 4933327 + e",
        "BatchNorm": "none",
        "dropout": "none",
        "curvature": "mean cross-entropy on 500 train or test images, the 50 lowest indices of each class, no regulariser",
    }

    def model(self, seed: int | None = None) -> nn.Module:
        """Xavier weights (normal for convolutions, uniform for dense layers) and zero biases, drawn after PyTorch's own."""
        with seeded(self.defaults.seed if seed is None else seed):
            model = nn.Sequential(
                *(nn.Conv2d(3, 64, 5), nn.ReLU(), PoolSame()),
                *(nn.Conv2d(64, 96, 3), nn.ReLU(), PoolSame()),
                *(nn.Conv2d(96, 128, 3, padding=1), nn.ReLU(), PoolSame()),
                *(nn.Flatten(), nn.Linear(1152, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10)),
            )
            for module in model:
                if isinstance(module, nn.Conv2d | nn.Linear):
                    nn.init.zeros_(module.get_parameter("bias"))
                    draw = nn.init.xavier_normal_ if isinstance(module, nn.Conv2d) else nn.init.xavier_uniform_
                    draw(module.weight)
        return model
