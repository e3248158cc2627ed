"""Any Hugging Face causal language model or text classifier as a problem: by name or folder, trained or as initialised."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from curvscope.errors import InvalidArgument, MissingExtra
from curvscope.problems._base import EPOCH_SEED_OFFSET, Defaults, Pair, Problem, Split, as_split, seeded
from curvscope.problems._text import Windows, read_text

TRAINED, CONFIGURED = "hf", "hf-config"
LONGEST, CURVATURE_ROWS, EVALUATION_BATCH = 64, 16, 16
CLASSIFIER = "ForSequenceClassification"
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")


class Logits(nn.Module):
    """A Hugging Face model as a function to logits, classes second: (B, C), or (B, C, T) for tokens.

    The parameters' names begin with ``model.``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the model's output for a batch of its inputs."""
        logits: Tensor = self.model(**inputs).logits
        return logits.movedim(-1, 1) if logits.ndim == 3 else logits


class HuggingFace(Problem):
    """A causal language model on text, or a sequence classifier on labelled texts.

    Made by ``problems.get("hf:NAME")`` with the trained weights of a model on the hub or in a local folder, or by
    ``problems.get("hf-config:NAME")`` from its configuration alone, with weights drawn from the seed. Each token that is
    predicted is a loss term of a language model; each text of a classifier.

    Args:
        place: the name or the folder.
        trained: whether to load weights.
        data: for a language model, text as for :func:`.text.read_text` (default: the packaged sonnets); for a classifier, a
            folder with ``train.jsonl`` and ``test.jsonl``, lines of ``{"text": ..., "label": ...}`` (``test`` may be missing
            where only ``train`` is asked for, and the other way round).

    Raises:
        MissingExtra: transformers is not installed. InvalidArgument: there is no such model.
    Limits: vision models and others: pass them with ``--target``. A folder without a tokenizer is fed bytes.
    """

    criterion = nn.CrossEntropyLoss()
    source = "Hugging Face transformers"

    def __init__(self, place: str, *, trained: bool, data: str | os.PathLike[str] | None = None) -> None:
        self.place, self.trained, self._data = place, trained, data
        self.name = f"{TRAINED if trained else CONFIGURED}:{place}"
        self.defaults = Defaults(seed=12345, batch_size=8, learning_rate=0.01, steps=(0,), num_outer=200, num_inner=400)
        self.description = f"{(self.config.architectures or [self.config.model_type])[0]} of {place}"
        self.definition = {"weights": "trained" if trained else "drawn from the seed, by its configuration"}

    @property
    def classifies(self) -> bool:
        """True if the model is a text classifier."""
        return any(name.endswith(CLASSIFIER) for name in self.config.architectures or [])

    @cached_property
    def config(self) -> Any:
        """The model's configuration."""
        return _loaded(_transformers().AutoConfig.from_pretrained, self.place)

    def model(self, seed: int | None = None) -> nn.Module:
        """The network, its attention computed so that it can be differentiated twice; ``seed`` draws weights of ``hf-config``.

        Raises:
            InvalidArgument: no weights there.
        """
        library = _transformers()
        kind = library.AutoModelForSequenceClassification if self.classifies else library.AutoModelForCausalLM
        options = {"attn_implementation": "eager"}
        with seeded(self.defaults.seed if seed is None else seed):
            if self.trained:
                model = _loaded(kind.from_pretrained, self.place, dtype=torch.float32, **options)
            else:
                model = kind.from_config(self.config, **options)
        model.config.use_cache = False
        return Logits(model)

    def train_batches(self, seed: int | None = None, start: int = 0) -> Iterator[Pair]:
        """Windows, or texts, drawn anew for each step."""
        seed = self.defaults.seed if seed is None else seed
        if not self.classifies:
            for x, y in self._windows.random(self.defaults.batch_size, seed, start):
                yield {"input_ids": x}, y
            return
        inputs, labels = self._labelled("train")
        step = start
        while True:
            generator = torch.Generator().manual_seed(seed + EPOCH_SEED_OFFSET + step)
            chosen = torch.randint(len(labels), (self.defaults.batch_size,), generator=generator, device="cpu")
            yield {name: value[chosen] for name, value in inputs.items()}, labels[chosen]
            step += 1

    def curvature_batches(self, split: Split = "train") -> list[Pair]:
        """16 windows of up to 64 tokens evenly in the split, or its 16 first texts, in one batch."""
        if not self.classifies:
            x, y = self._windows.even(split, CURVATURE_ROWS)
            return [({"input_ids": x}, y)]
        inputs, labels = self._labelled(split)
        return [({name: value[:CURVATURE_ROWS] for name, value in inputs.items()}, labels[:CURVATURE_ROWS])]

    def evaluation_batches(self, split: Split = "test") -> list[Pair]:
        """All windows that do not overlap, or all texts."""
        if not self.classifies:
            x, labels = self._windows.even(split)
            inputs = {"input_ids": x}
        else:
            inputs, labels = self._labelled(split)
        parts = zip(*(value.split(EVALUATION_BATCH) for value in inputs.values()), strict=True)
        pieces = [dict(zip(inputs, part, strict=True)) for part in parts]
        return list(zip(pieces, labels.split(EVALUATION_BATCH), strict=True))

    @cached_property
    def _tokenizer(self) -> Any:
        """The model's own, or None where its folder has none: its text is then fed as bytes."""
        folder = Path(self.place)
        if not folder.is_dir() or any((folder / name).exists() for name in TOKENIZERS):
            return _loaded(_transformers().AutoTokenizer.from_pretrained, self.place)
        if self._vocabulary < 256:
            raise InvalidArgument(f"{self.place} has no tokenizer, and a vocabulary of {self._vocabulary}: bytes need 256")
        return None

    @property
    def _vocabulary(self) -> int:
        return int(self.config.get_text_config().vocab_size)

    @property
    def _length(self) -> int:
        return min(LONGEST, int(getattr(self.config.get_text_config(), "max_position_embeddings", LONGEST)))

    @cached_property
    def _windows(self) -> Windows:
        text = read_text(self._data)
        ids = list(text.encode()) if self._tokenizer is None else self._tokenizer(text, verbose=False)["input_ids"]
        return Windows(torch.tensor(ids, device="cpu"), self._length)

    def _labelled(self, split: str) -> tuple[dict[str, Tensor], Tensor]:
        """Inputs, padded to the same length, and labels."""
        as_split(split)
        if self._data is None:
            raise InvalidArgument(f"{self.place} is a classifier: pass data=DIR (--data DIR) with {split}.jsonl in it")
        file = Path(self._data) / f"{split}.jsonl"
        if not file.is_file():
            raise InvalidArgument(f"{file} is missing: lines of {{'text': ..., 'label': ...}} are expected")
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        if not rows or any({"text", "label"} - set(row) for row in rows):
            raise InvalidArgument(f"{file} must hold lines of {{'text': ..., 'label': ...}}")
        labels = torch.tensor([int(row["label"]) for row in rows], device="cpu")
        if int(labels.min()) < 0 or int(labels.max()) >= self.config.num_labels:
            raise InvalidArgument(f"{file} has labels up to {int(labels.max())}, the model {self.config.num_labels} classes")
        return self._encoded([row["text"] for row in rows]), labels

    def _encoded(self, texts: list[str]) -> dict[str, Tensor]:
        if self._tokenizer is not None:
            made = self._tokenizer(texts, padding=True, truncation=True, max_length=self._length, return_tensors="pt")
            return {name: made[name] for name in ("input_ids", "attention_mask")}
        rows = [list(text.encode())[: self._length] for text in texts]
        longest = max(len(row) for row in rows)
        padding = self.config.get_text_config().pad_token_id or 0
        return {
            "input_ids": torch.tensor([row + [padding] * (longest - len(row)) for row in rows], device="cpu"),
            "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device="cpu"),
        }


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("hf problems need transformers: pip install 'curvscope[hf]'") from error
    return transformers


def _loaded(read: Any, place: str, **options: Any) -> Any:
    try:
        return read(place, **options)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidArgument(f"no Hugging Face model {place!r} ({reason}): pass a name or a local folder") from error
