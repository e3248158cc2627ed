"""The block size that a cost gives."""

import torch
from torch import nn

import curvscope as cs
from curvscope.solvers.width import best_width, expected_products, measured_width

FREE = dict.fromkeys((1, 2, 4, 8, 16), 0.0)
FLAT = dict.fromkeys((1, 2, 4, 8, 16), 1.0)


def test_narrow_when_products_are_all_wide_when_passes_are():
    assert best_width(100, FLAT, FREE) == 1
    assert best_width(100, FREE, FLAT) == 16
    between = [best_width(300, FLAT, dict.fromkeys(FLAT, cost)) for cost in (0.0, 3e-4, 1e-3, 1e-2)]
    assert between == sorted(between)
    assert len(set(between)) >= 3


def test_wide_when_wide_products_are_cheaper():
    halved = {width: 1 / width for width in FLAT}
    assert best_width(300, halved, FREE) == 16


def test_choice_is_the_minimum_of_the_stated_cost():
    product, sweep = {2: 0.3, 4: 0.2, 8: 0.18}, {2: 1e-3, 4: 1.2e-3, 8: 1.5e-3}
    cost = {}
    for width in product:
        count = expected_products(120, width)
        cost[width] = count * product[width] + count**2 / (2 * width) * sweep[width]
    least = min(cost.values())
    assert best_width(120, product, sweep) == min(width for width in cost if cost[width] <= 1.05 * least)


def test_operators_without_a_cost_and_few_pairs_follow_a_fixed_rule():
    dense = cs.as_operator(torch.eye(3000))
    assert [measured_width(dense, k) for k in (1, 100, 300, 2000)] == [2, 2, 4, 16]
    net = nn.Sequential(nn.Linear(40, 50), nn.Tanh(), nn.Linear(50, 5))
    H = cs.hessian(net, nn.CrossEntropyLoss(), [(torch.randn(20, 40), torch.arange(20) % 5)])
    assert measured_width(H, 10) == 2
    assert measured_width(H, 100) in (2, 4, 8)
    assert H @ torch.ones(H.shape[0]) is not None
