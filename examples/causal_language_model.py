"""Hessian eigenvalues of a causal language model: every token with a label is a term of the loss, tied weights count once."""

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import curvscope as cs

torch.manual_seed(0)
model = GPT2LMHeadModel(GPT2Config(vocab_size=200, n_embd=32, n_layer=2, n_head=4, n_positions=64))
tokens = torch.randint(200, (6, 32))
labels = tokens.clone()
labels[:, :8] = -100  # the prompt does not count

H = cs.hessian(model, "model", [{"input_ids": tokens, "labels": labels}])
solution = cs.eigsh(H, k=6, which="BE", tol=1e-2)  # both ends: three of each
print(solution)

weights = solution.vector(0)
share = {name: float(tensor.square().sum()) for name, tensor in weights.items()}
for name in sorted(share, key=share.get, reverse=True)[:3]:
    print(f"the first eigenvector lies to {share[name]:.0%} in {name}")
