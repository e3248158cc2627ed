"""Architectures of timm, torchvision, Transformers and PEFT pass through ``hessian``, ``ggn``, ``eigsh`` and ``trace``.

Products agree with central differences of the user's own model: see ``benchmarks/architectures.py``.
"""

import importlib
import math
import sys
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # those of other packages while they build a network
]
# Names, so that collection imports none of the packages.
WITH_GGN = """
ViT (timm); DeiT, distilled (timm); BEiT (timm); CaiT (timm); Swin (timm); Swin V2 (timm); ConvNeXt (timm); MLP-Mixer (timm);
PoolFormer (timm); EfficientNet (timm); MobileNetV3 (timm); ResNet (timm); DenseNet; GoogLeNet block; SqueezeNet fire;
VisionTransformer; VGG; DeepLab head; BERT; BERT, masked words; RoBERTa; ALBERT; ELECTRA; DistilBERT; DeBERTa; GPT-2; GPT-NeoX;
OPT; BLOOM; Llama; Mistral; Mixtral; Gemma; Gemma 2; Qwen2; Phi-3; Mamba; T5; BART; Whisper; CLIP; Llama with LoRA
"""
WITHOUT = "Faster R-CNN; wav2vec 2.0"
NAMES = [" ".join(name.split()) for name in f"{WITH_GGN};{WITHOUT}".split(";")]


@pytest.fixture(scope="module")
def benchmarks():
    """The module with the networks and the one that measures them."""
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    yield importlib.import_module("architecture_rows"), importlib.import_module("architectures")
    sys.path.remove(folder)


def test_all_are_listed(benchmarks):
    assert set(NAMES) == set(benchmarks[0].ARCHITECTURES)
    assert len(NAMES) >= 40


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_are_verified_and_right(benchmarks, name):
    found = benchmarks[1].measure(name)
    assert found.derivatives.startswith("verified by")
    assert found.hessian < 1e-7
    assert math.isnan(found.ggn) if name in WITHOUT else found.ggn < 1e-7
    assert all(map(math.isfinite, (*found.eigenvalues, found.trace)))


def test_the_comparison_sees_another_matrix(benchmarks):
    problem = benchmarks[0].build("VGG")
    oracle = benchmarks[1].Differences(problem)
    v = torch.randn(sum(p.numel() for p in problem.model.parameters()), dtype=torch.float64)
    assert benchmarks[1].distance(oracle.ggn(v), oracle.hessian(v)) > 1e-3
