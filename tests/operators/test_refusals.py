"""Operations that PyTorch cannot differentiate once more are refused by name, in products and in preflight."""

import pytest
import torch
from torch import Tensor, nn

import curvscope as cs
from curvscope.errors import NotDifferentiable
from curvscope.operators.products._refusals import explanation


class Rois(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(2, 3, 3), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        ops = pytest.importorskip("torchvision").ops
        boxes = [torch.tensor([[0.0, 0.0, 2.0, 2.0]])] * len(x)
        return self.out(ops.roi_align(torch.tanh(self.conv(x)), boxes, 2).flatten(1))


CASES = {
    "roi_align": (
        Rois,
        nn.CrossEntropyLoss(),
        lambda: [(torch.randn(3, 2, 5, 5), torch.tensor([0, 1, 2]))],
        "roi_align not supported",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_refusals_name_the_operation(case):
    torch.manual_seed(0)
    make, loss, data, message = CASES[case]
    model, batches = make(), data()
    with pytest.raises(NotDifferentiable, match=message) as caught:
        _ = cs.hessian(model, loss, batches) @ torch.ones(sum(p.numel() for p in model.parameters()))
    assert "once_differentiable" not in str(caught.value)
    report = cs.preflight(cs.hessian(model, loss, batches))
    assert not report.passed
    assert case.split()[-1] in str(report)


def test_third_derivatives_are_not_called_marked_functions():
    told = explanation("batch_norm does not support 3rd+ order derivatives")
    assert "third derivative" in told
    assert "once_differentiable" not in told
