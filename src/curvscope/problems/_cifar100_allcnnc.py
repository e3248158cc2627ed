"""The paper's CIFAR-100 problem: DeepOBS' All-CNN-C with 1,387,108 parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from curvscope.errors import MissingExtra
from curvscope.problems._base import Defaults, seeded
from curvscope.problems._cifar import CIFAR100
from curvscope.problems._cifar_problem import CifarProblem
from curvscope.problems._layers import HalvingConv, MeanOverPlaces


class Cifar100WithAllCnnC(CifarProblem):
    """CIFAR-100, nine convolutions and nothing else, D = 1,387,108, SGD with augmentation and dropout.

    The paper's split of the training images comes from the state of Python's generator, which nobody recorded; ours is the one
    of the other problems. Its Hessians are on test images, which the split does not touch.
    """

    name = "cifar100_allcnnc"
    description = "DeepOBS All-CNN-C (D = 1,387,108) on CIFAR-100 with augmentation and dropout, SGD"
    criterion = nn.CrossEntropyLoss()
    defaults = Defaults(
        seed=12345, batch_size=256, learning_rate=0.16579130972807002, steps=(0, 2000, 8000), num_outer=1000, num_inner=2000
    )
    source = "Fernandez et al., TMLR 2025 (arXiv 2504.14701), section 6.2; DeepOBS (Schneider et al., 2019)"
    cifar, samples_per_class, curvature_batch = CIFAR100, 10, 125
    initial_top = "9d0183f0d8be18f9a2031e4e77634060f003fb271beb31a78200ecb37b8bb810"
    definition: Mapping[str, str] = {
        "network": "dropout 0.2; conv 3x3 same 3-96, 96-96, 96-96 stride 2; dropout 0.5; 96-192, 192-192, 192-192 stride 2; "
        "dropout 0.5; conv 3x3 valid 192-192, 1x1 192-192, 1x1 192-100; ReLU after each, the last one too; mean over 6 x 6",
        "initialisation": "seed 12345; biases 0.1, Xavier normal weights, in module order after PyTorch's own",
        "training": "SGD 0.16579130972807002, batches of 256; pad 2, random crop 32, horizontal flip, colour jitter "
        "(brightness 63/255, saturation 0.5-1.5, contrast 0.2-1.8); 10,000 validation images left out",
        "BatchNorm": "none",
        "dropout": "in training only",
        "curvature": "mean cross-entropy on 1,000 images, the 10 lowest indices of each class, not augmented, dropout off; the "
        "paper: test images only",
    }

    def model(self, seed: int | None = None) -> nn.Module:
        """Xavier normal weights and biases of 0.1, drawn after PyTorch's own; in training mode, with dropout."""
        with seeded(self.defaults.seed if seed is None else seed):
            layers: list[nn.Module] = [nn.Dropout(0.2)]
            for inside, outside in ((3, 96), (96, 192)):
                layers += [nn.Conv2d(inside, outside, 3, padding=1), nn.ReLU()]
                layers += [nn.Conv2d(outside, outside, 3, padding=1), nn.ReLU()]
                layers += [HalvingConv(outside, outside), nn.ReLU(), nn.Dropout(0.5)]
            layers += [nn.Conv2d(192, 192, 3), nn.ReLU(), nn.Conv2d(192, 192, 1), nn.ReLU()]
            layers += [nn.Conv2d(192, 100, 1), nn.ReLU(), MeanOverPlaces()]
            model = nn.Sequential(*layers)
            for module in model:
                if isinstance(module, nn.Conv2d):
                    nn.init.constant_(module.get_parameter("bias"), 0.1)
                    nn.init.xavier_normal_(module.weight)
        return model

    def _augmented(self, images: Tensor, seed: int, step: int) -> Tensor:
        try:
            from torchvision import transforms
        except ImportError as error:
            raise MissingExtra(f"training {self.name} needs torchvision: pip install 'curvscope[vision]'") from error
        change = transforms.Compose(
            [
                transforms.Pad(2),
                transforms.RandomCrop(32),
                transforms.RandomHorizontalFlip(),
                transforms.ColorJitter(brightness=63 / 255, saturation=(0.5, 1.5), contrast=(0.2, 1.8)),
            ]
        )
        with seeded(seed + step):
            return torch.stack([change(image) for image in images])
