"""Gauss-Newton eigenvalues of a text classifier from Hugging Face, padding and all.

A random BERT stands for yours: ``AutoModelForSequenceClassification.from_pretrained(name)`` and a tokenizer's batches.
"""

import torch
from transformers import BertConfig, BertForSequenceClassification

import curvscope as cs

torch.manual_seed(0)
config = BertConfig(
    vocab_size=200, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, num_labels=3
)
model = BertForSequenceClassification(config)

batches = []
for _ in range(2):
    tokens = torch.randint(200, (8, 20))
    mask = (torch.arange(20) < torch.randint(5, 20, (8, 1))).long()  # sentences of different length
    batches.append({"input_ids": tokens, "attention_mask": mask, "labels": torch.randint(3, (8,))})

G = cs.ggn(model, "model", batches)  # "model": the loss that the model computes from its labels
print(cs.eigsh(G, k=6, tol=1e-2))

for layer, estimate in sorted(cs.trace(G, max_products=40).layers.items(), key=lambda item: -item[1].value)[:5]:
    print(f"{layer:55} {estimate.value:9.4f} +- {estimate.stderr:.4f}")
