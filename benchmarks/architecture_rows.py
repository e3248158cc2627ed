"""Architectures of timm, torchvision, Transformers and PEFT, small and with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import peft
import timm
import torch
import torchvision
import transformers
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.models.googlenet import Inception
from torchvision.models.segmentation.deeplabv3 import ASPP

TOKENS, WIDTH = 30, 16


@dataclass(frozen=True)
class Problem:
    """A network, a loss and one batch.

    Attributes:
        model: in evaluation mode, with random weights.
        loss: as :func:`curvscope.hessian` takes it.
        batch: the only one.
        evaluate: (model, batch) to the loss, written without the library.
        outputs: (model, batch) to the outputs at which a Gauss-Newton matrix cuts the network; None: the loss has no such cut.
        criterion: (outputs, batch) to the loss.
        detaches: whether the network detaches intermediate values that depend on the parameters.
    """

    model: nn.Module
    loss: Any
    batch: Any
    evaluate: Callable[[nn.Module, Any], Tensor]
    outputs: Callable[[nn.Module, Any], Tensor] | None = None
    criterion: Callable[[Tensor, Any], Tensor] | None = None
    detaches: bool = False


Maker = Callable[[], Problem]
ARCHITECTURES: dict[str, Maker] = {}


def build(name: str) -> Problem:
    """The problem with this name, always the same.

    The parameters are moved by noise: at zero biases, units with empty inputs lie exactly on the kink of a rectifier, and other
    parts (layer scales, gates) have no curvature yet.
    """
    torch.manual_seed(0)
    problem = ARCHITECTURES[name]()
    with torch.no_grad():
        for p in problem.model.parameters():
            p.add_(torch.randn_like(p), alpha=0.05)
    return problem


def supervised(model: nn.Module, batch: Any) -> Problem:
    """A classifier of pairs (x, y) under cross-entropy."""
    return Problem(
        model.eval(),
        nn.CrossEntropyLoss(),
        batch,
        lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1]),
        lambda model, batch: model(batch[0]),
        lambda outputs, batch: functional.cross_entropy(outputs, batch[1]),
    )


def vision(name: str, make: Callable[[], nn.Module], size: int = 16) -> None:
    """An image classifier with three classes."""
    ARCHITECTURES[name] = lambda: supervised(make(), (torch.randn(3, 3, size, size), torch.tensor([0, 2, 1])))


def own_loss(model: nn.Module, batch: Any) -> Tensor:
    """The loss that a model of Transformers computes itself."""
    return model(**batch).loss


def labelled(model: nn.Module, batch: dict[str, Any], *, shifted: bool = False) -> Problem:
    """A model of Transformers with the cross-entropy of its logits; ``shifted``: of each token with the next label."""

    def outputs(model: nn.Module, batch: dict[str, Any]) -> Tensor:
        logits = model(**batch).logits
        return (logits[:, :-1] if shifted else logits).flatten(0, -2)

    def criterion(outputs: Tensor, batch: dict[str, Any]) -> Tensor:
        labels = batch["labels"]
        return functional.cross_entropy(outputs, (labels[:, 1:] if shifted else labels).flatten())

    return Problem(model.eval(), "model", batch, own_loss, outputs, criterion)


def language(name: str, kind: str, head: str, **options: Any) -> None:
    """A language model of Transformers that computes its own loss from labels."""

    def make() -> Problem:
        config = getattr(transformers, f"{kind}Config")(
            **{"vocab_size": TOKENS, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **options}
        )
        model = getattr(transformers, f"{kind}{head}")(config)
        ids = torch.randint(3, TOKENS, (2, 6))
        ids[0, 4:] = 0 if head == "ForSequenceClassification" else 5
        labels = torch.tensor([0, 1]) if head == "ForSequenceClassification" else ids.clone()
        return labelled(model, {"input_ids": ids, "labels": labels}, shifted=head in ("ForCausalLM", "LMHeadModel"))

    ARCHITECTURES[name] = make


BODY = {"hidden_size": WIDTH, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2}
GROUPED = {**BODY, "num_key_value_heads": 1}

# --- timm ---------------------------------------------------------------------------------------------------------------------

TINY = {"img_size": 16, "patch_size": 4, "num_classes": 3}
DEEP = {**TINY, "embed_dim": 16, "depth": 2, "num_heads": 2}
M = timm.models
vision("ViT (timm)", lambda: M.vision_transformer.VisionTransformer(**DEEP))
vision("DeiT, distilled (timm)", lambda: M.deit.VisionTransformerDistilled(**DEEP))
vision("BEiT (timm)", lambda: M.beit.Beit(**DEEP, use_rel_pos_bias=True, use_abs_pos_emb=False))
vision("CaiT (timm)", lambda: M.cait.Cait(**DEEP))
vision(
    "Swin (timm)",
    lambda: M.swin_transformer.SwinTransformer(
        img_size=16, patch_size=2, num_classes=3, embed_dim=8, depths=(2, 1), num_heads=(2, 2), window_size=4
    ),
)
vision(
    "Swin V2 (timm)",
    lambda: M.swin_transformer_v2.SwinTransformerV2(
        img_size=16, patch_size=2, num_classes=3, embed_dim=8, depths=(2, 1), num_heads=(2, 2), window_size=4
    ),
)
vision("ConvNeXt (timm)", lambda: M.convnext.ConvNeXt(num_classes=3, depths=(1, 1, 1, 1), dims=(8, 8, 8, 8)), 32)
vision("MLP-Mixer (timm)", lambda: M.mlp_mixer.MlpMixer(**TINY, num_blocks=2, embed_dim=16))
vision("PoolFormer (timm)", lambda: M.metaformer.MetaFormer(num_classes=3, depths=(1, 1), dims=(8, 16)))
SMALL = {"num_classes": 3, "num_features": 16, "stem_size": 8, "round_chs_fn": lambda channels, **_: channels}


def _mobile(kind: type[nn.Module], blocks: list[str], activation: type[nn.Module]) -> nn.Module:
    stages = M.efficientnet.decode_arch_def([[block] for block in blocks])
    return kind(block_args=stages, act_layer=activation, **SMALL)


vision(
    "EfficientNet (timm)",
    lambda: _mobile(
        M.efficientnet.EfficientNet,
        ["ds_r1_k3_s1_e1_c8_se0.25", "ir_r2_k3_s2_e2_c8_se0.25", "ir_r1_k5_s2_e2_c8_se0.25"],
        nn.SiLU,
    ),
    32,
)
vision(
    "MobileNetV3 (timm)",
    lambda: _mobile(M.mobilenetv3.MobileNetV3, ["ds_r1_k3_s1_e1_c8_se0.25_nre", "ir_r2_k3_s2_e2_c8_se0.25"], nn.Hardswish),
    32,
)
vision(
    "ResNet (timm)",
    lambda: M.resnet.ResNet(M.resnet.BasicBlock, [1, 1, 1, 1], num_classes=3, stem_width=8, channels=(8, 8, 8, 8)),
    32,
)

# --- torchvision --------------------------------------------------------------------------------------------------------------

T = torchvision.models
vision("DenseNet", lambda: T.DenseNet(4, (2, 2), 8, num_classes=3), 32)
vision("GoogLeNet block", lambda: nn.Sequential(Inception(3, 4, 4, 4, 4, 4, 4), nn.Flatten(), nn.Linear(16 * 64, 3)), 8)
vision(
    "SqueezeNet fire",
    lambda: nn.Sequential(T.squeezenet.Fire(3, 4, 6, 6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 3)),
)
vision("VisionTransformer", lambda: T.VisionTransformer(16, 4, 2, 2, 16, 20, num_classes=3))


def _vgg() -> nn.Module:
    features = T.vgg.make_layers([4, "M", 8, "M"], batch_norm=True)
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3))


vision("VGG", _vgg)


def _segmentation() -> Problem:
    body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU())
    head = nn.Sequential(ASPP(6, [2, 3], 4), nn.Conv2d(4, 3, 1), nn.Upsample(scale_factor=2, mode="bilinear"))
    return supervised(nn.Sequential(body, head), (torch.randn(2, 3, 8, 8), torch.randint(3, (2, 8, 8))))


ARCHITECTURES["DeepLab head"] = _segmentation


class Pooling(torchvision.ops.MultiScaleRoIAlign):
    """Four bilinear samples of each region, for ``torchvision.ops.roi_align`` cannot be differentiated twice."""

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor], shapes: list[tuple[int, int]]) -> Tensor:
        """(regions, channels, 2, 2)."""
        (maps,) = features.values()
        scale = maps.shape[-1] / shapes[0][1]
        return torch.cat([self._of_image(image, scale * own) for image, own in zip(maps, boxes, strict=True)])

    def _of_image(self, image: Tensor, boxes: Tensor) -> Tensor:
        inside = torch.tensor([0.25, 0.75], dtype=boxes.dtype)
        x = boxes[:, 0, None] + inside * (boxes[:, 2] - boxes[:, 0])[:, None]
        y = boxes[:, 1, None] + inside * (boxes[:, 3] - boxes[:, 1])[:, None]
        cells = torch.arange(image.shape[-1], dtype=boxes.dtype)
        near_x, near_y = ((1 - (t[..., None] - cells).abs()).clamp(min=0) for t in (x, y))
        return torch.einsum("nih,chw,njw->ncij", near_y, image, near_x)


def _detection() -> Problem:
    body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.GELU(), nn.Conv2d(6, 8, 3, 2, 1), nn.GELU())
    body.out_channels = 8
    model = FasterRCNN(
        body,
        min_size=32,
        max_size=32,
        rpn_anchor_generator=AnchorGenerator(((8, 16),), ((1.0,),)),
        box_roi_pool=Pooling(["0"], 2, 2),
        box_head=nn.Sequential(nn.Flatten(), nn.Linear(32, 12), nn.Tanh()),
        box_predictor=FastRCNNPredictor(12, 3),
        box_batch_size_per_image=10_000,
        rpn_batch_size_per_image=10_000,
    )

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """All losses of the detector, which computes them in training mode alone."""
        targets = [{"boxes": batch["boxes"][i], "labels": batch["labels"][i]} for i in range(len(batch["images"]))]
        model.train()
        return sum(model(list(batch["images"]), targets).values())

    boxes = torch.tensor([[[2.0, 3.0, 20.0, 22.0]], [[5.0, 5.0, 28.0, 30.0]]])
    batch = {"images": torch.rand(2, 3, 32, 32), "boxes": boxes, "labels": torch.tensor([[1], [2]])}
    return Problem(model.train(), loss, batch, loss, detaches=True)


ARCHITECTURES["Faster R-CNN"] = _detection

# --- Transformers -------------------------------------------------------------------------------------------------------------

language("BERT", "Bert", "ForSequenceClassification", **BODY)
language("BERT, masked words", "Bert", "ForMaskedLM", **BODY)
language("RoBERTa", "Roberta", "ForSequenceClassification", **BODY, max_position_embeddings=20)
language("ALBERT", "Albert", "ForSequenceClassification", **BODY, embedding_size=8)
language("ELECTRA", "Electra", "ForSequenceClassification", **BODY, embedding_size=8)
language("DistilBERT", "DistilBert", "ForSequenceClassification", dim=WIDTH, n_layers=2, n_heads=2, hidden_dim=20)
language("DeBERTa", "DebertaV2", "ForSequenceClassification", **BODY, relative_attention=True, pos_att_type=["p2c", "c2p"])
language("GPT-2", "GPT2", "LMHeadModel", n_embd=WIDTH, n_layer=2, n_head=2, n_positions=10)
language("GPT-NeoX", "GPTNeoX", "ForCausalLM", **BODY)
language(
    "OPT",
    "OPT",
    "ForCausalLM",
    hidden_size=WIDTH,
    ffn_dim=20,
    num_hidden_layers=2,
    num_attention_heads=2,
    word_embed_proj_dim=WIDTH,
)
language("BLOOM", "Bloom", "ForCausalLM", hidden_size=WIDTH, n_layer=2, n_head=2)
language("Llama", "Llama", "ForCausalLM", **GROUPED)
language("Mistral", "Mistral", "ForCausalLM", **GROUPED, sliding_window=4)
language("Mixtral", "Mixtral", "ForCausalLM", **GROUPED, num_local_experts=3, experts_implementation="eager")
language("Gemma", "Gemma", "ForCausalLM", **GROUPED, head_dim=8)
language("Gemma 2", "Gemma2", "ForCausalLM", **GROUPED, head_dim=8, sliding_window=4)
language("Qwen2", "Qwen2", "ForCausalLM", **GROUPED)
language("Phi-3", "Phi3", "ForCausalLM", **GROUPED)
language("Mamba", "Mamba", "ForCausalLM", hidden_size=8, num_hidden_layers=2, state_size=4, time_step_rank=2)
language(
    "T5", "T5", "ForConditionalGeneration", d_model=WIDTH, d_kv=8, d_ff=20, num_layers=2, num_heads=2, decoder_start_token_id=0
)
language(
    "BART",
    "Bart",
    "ForConditionalGeneration",
    d_model=WIDTH,
    encoder_layers=1,
    decoder_layers=1,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    encoder_ffn_dim=20,
    decoder_ffn_dim=20,
    max_position_embeddings=10,
    decoder_start_token_id=2,
)


def _whisper() -> Problem:
    config = transformers.WhisperConfig(
        vocab_size=TOKENS,
        num_mel_bins=4,
        d_model=WIDTH,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=20,
        decoder_ffn_dim=20,
        max_source_positions=8,
        max_target_positions=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=3,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    batch = {"input_features": torch.randn(2, 4, 16), "labels": torch.randint(4, TOKENS, (2, 4))}
    return labelled(transformers.WhisperForConditionalGeneration(config), batch)


def _speech() -> Problem:
    config = transformers.Wav2Vec2Config(
        vocab_size=8,
        **BODY,
        conv_dim=(6, 6),
        conv_stride=(4, 4),
        conv_kernel=(6, 6),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        num_feat_extract_layers=2,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        apply_spec_augment=False,
    )
    batch = {"input_values": torch.randn(2, 200), "labels": torch.randint(1, 8, (2, 3))}
    return Problem(transformers.Wav2Vec2ForCTC(config).eval(), "model", batch, own_loss)


def _clip() -> Problem:
    config = transformers.CLIPConfig(
        text_config={**BODY, "vocab_size": TOKENS, "max_position_embeddings": 8, "eos_token_id": 2, "projection_dim": 8},
        vision_config={**BODY, "image_size": 8, "patch_size": 4, "projection_dim": 8},
        projection_dim=8,
    )
    ids = torch.randint(3, TOKENS, (3, 5))
    ids[:, -1] = 2

    batch = {"input_ids": ids, "pixel_values": torch.randn(3, 3, 8, 8), "return_loss": True}

    def criterion(outputs: Tensor, batch: dict[str, Any]) -> Tensor:
        """Each text with its image, each image with its text."""
        own = torch.arange(len(outputs))
        return (functional.cross_entropy(outputs, own) + functional.cross_entropy(outputs.T, own)) / 2

    model = transformers.CLIPModel(config).eval()
    return Problem(model, "model", batch, own_loss, lambda model, batch: model(**batch).logits_per_text, criterion)


def _lora() -> Problem:
    plain = ARCHITECTURES["Llama"]()
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], lora_dropout=0.0, init_lora_weights=False)
    return labelled(peft.get_peft_model(plain.model, config), plain.batch, shifted=True)


ARCHITECTURES |= {"Whisper": _whisper, "wav2vec 2.0": _speech, "CLIP": _clip, "Llama with LoRA": _lora}
