"""Curvature of the LoRA parameters of a language model, before and after the Hugging Face Trainer has tuned them."""

import tempfile

import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, PrinterCallback, Trainer, TrainingArguments
from transformers.utils import logging

import curvscope as cs
from curvscope.training import trainer_callback

logging.set_verbosity_error()
torch.manual_seed(0)
base = GPT2LMHeadModel(
    GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=0)
)
model = get_peft_model(base, LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
starts = torch.randint(64, (64, 1))
tokens = (starts + torch.arange(16)) % 64  # every sequence counts up: something to learn
data = [{"input_ids": row, "labels": row} for row in tokens]
batches = [{"input_ids": rows, "labels": rows} for rows in tokens.split(32)]

G = cs.ggn(model, "model", batches)  # of the parameters that train: the LoRA factors
print(f"{G.shape[0]} parameters of {sum(p.numel() for p in model.parameters())} train")
before = cs.eigsh(G, k=5, tol=1e-2)

tracker = cs.Tracker(cs.Objective(model, "model", batches), k=1, every=8)
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        folder,
        num_train_epochs=10,
        per_device_train_batch_size=16,
        learning_rate=1e-2,
        report_to="none",  # or "tensorboard", "wandb": the curvature goes there, too
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(model, arguments, train_dataset=data, callbacks=[trainer_callback(tracker)])
    trainer.remove_callback(PrinterCallback)
    trainer.train()

after = cs.eigsh(cs.ggn(model, "model", batches), k=5, tol=1e-2)
for step, found in tracker.history.items():
    print(f"step {step:3}: loss {found['curvature/loss']:.3f}, largest Hessian eigenvalue {found['curvature/largest']:.4f}")
print("Gauss-Newton before:", ", ".join(f"{value:.4f}" for value in before.values))
print("Gauss-Newton after: ", ", ".join(f"{value:.4f}" for value in after.values))
shared = cs.overlap(before.vectors, after.vectors)
print(f"overlap of the two top spaces: {float(shared.at([5])[0]):.2f}, by chance {5 / G.shape[0]:.3f}")
