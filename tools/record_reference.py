#!/usr/bin/env python3
"""Records what Hugging Face Transformers computes for a model, so that `arcuate verify` can be held against it.

    pip install torch transformers safetensors

    # your own model folder (config.json + model.safetensors), random token ids
    python3 tools/record_reference.py path/to/model --out reference/

    # a longer row, rows of different lengths filled up on the right, more optimiser steps
    python3 tools/record_reference.py path/to/model --out reference/ --length 64 --padding right --steps 20

    # your own text, cut by the tokenizer in the model folder
    python3 tools/record_reference.py path/to/model --out reference/ --text sample.txt

    # a tiny model with random weights, made of a config.json alone
    python3 tools/record_reference.py path/to/config.json --out reference/ --random-weights

    arcuate verify reference/ --reference reference/reference.safetensors

Written to the output folder: config.json and model.safetensors (as Transformers saves them, f32), reference.json, and
reference.safetensors with

    input.<name>        keyword inputs of the forward pass
    output.<name>       outputs for them (f32)
    train.<i>.<name>    training batches with labels (-100 = ignored)
    grad.loss, grad.<parameter>, grad.global_norm
                        loss and some gradients for batch 0 before any step, without clipping
    trajectory.loss, trajectory.grad_norm
                        loss and norm before clipping at each optimiser step, batches in turn

Everything is computed on the CPU in f32, by one thread, with eager attention, in evaluation mode (no dropout).
Classes: what AutoModelForCausalLM gives (Llama, Qwen2, GPT-2, ...), masked language models and sequence classifiers
(BERT, ...). The class is taken from `architectures` in config.json; --task overrides it.
"""

import argparse
import json
import pathlib

import torch
import transformers
from safetensors.torch import save_file

TASKS = {
    "causal": transformers.AutoModelForCausalLM,
    "masked": transformers.AutoModelForMaskedLM,
    "classifier": transformers.AutoModelForSequenceClassification,
}
TOLERANCE = {"output_abs": 2e-4, "loss_rel": 1e-4, "trajectory_rel": 2e-3}


def learning_rate(step, peak, warmup_steps):
    return peak * min(1.0, (step + 1) / warmup_steps)


def decay_groups(model, weight_decay):
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def global_norm(model):
    squares = [p.grad.detach().double().pow(2).sum() for p in model.parameters() if p.grad is not None]
    return torch.stack(squares).sum().sqrt().float()


def pick_gradients(model, wanted):
    """Names of `wanted` parameters spread over the model: the first, then every so many-th."""
    names = [name for name, p in model.named_parameters() if p.grad is not None]
    if wanted <= 0 or wanted >= len(names):
        return names
    step = len(names) / wanted
    return [names[int(i * step)] for i in range(wanted)]


def record(model, out, inputs, batches, note="", num_gradients=7, steps=8, lr=3e-3, betas=(0.9, 0.95), eps=1e-8,
           weight_decay=0.1, warmup_steps=4, clip=1.0):
    """Saves the model as it is and everything computed for it; afterwards the model is trained."""
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    model = model.float().eval()
    model.save_pretrained(out)
    tensors = {}
    for name, value in inputs.items():
        tensors[f"input.{name}"] = value
    with torch.no_grad():
        result = model(**inputs)
    tensors["output.logits"] = result.logits.float()
    for i, batch in enumerate(batches):
        for name, value in batch.items():
            tensors[f"train.{i}.{name}"] = value
    model.zero_grad()
    loss = model(**batches[0]).loss
    loss.backward()
    recorded = pick_gradients(model, num_gradients)
    parameters = dict(model.named_parameters())
    for name in recorded:
        tensors[f"grad.{name}"] = parameters[name].grad.detach().clone()
    tensors["grad.loss"] = loss.detach().reshape(1)
    tensors["grad.global_norm"] = global_norm(model).reshape(1)

    optimizer = torch.optim.AdamW(decay_groups(model, weight_decay), lr=lr, betas=betas, eps=eps)
    losses, norms = [], []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, lr, warmup_steps)
        optimizer.zero_grad()
        loss = model(**batches[step % len(batches)]).loss
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), clip)))
        losses.append(float(loss.detach()))
        optimizer.step()
    tensors["trajectory.loss"] = torch.tensor(losses)
    tensors["trajectory.grad_norm"] = torch.tensor(norms)

    tensors = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
    save_file(tensors, str(out / "reference.safetensors"))
    facts = {
        "class": type(model).__name__,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "note": note,
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "tolerance": TOLERANCE,
        "trajectory": {
            "steps": steps,
            "optimizer": "AdamW, decoupled decay on tensors of 2+ dimensions only",
            "lr": lr,
            "betas": list(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "warmup": f"learning rate = lr * min(1, (step + 1) / {warmup_steps}), step from 0",
            "clip_global_norm": clip,
            "batches": "train.<i>.<input>, used in turn",
            "mode": "eval (no dropout), gradients on",
        },
        "gradients_recorded": recorded,
    }
    (out / "reference.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return losses


def padding_mask(rows, length, side, generator):
    """1 = a real token; the first row is full, the others lose up to half of it on one side."""
    mask = torch.ones(rows, length, dtype=torch.long)
    for row in range(1, rows):
        gone = int(torch.randint(1, max(2, length // 2), (1,), generator=generator))
        if side == "right":
            mask[row, length - gone:] = 0
        else:
            mask[row, :gone] = 0
    return mask


def random_ids(vocab_size, rows, length, generator):
    return torch.randint(0, vocab_size, (rows, length), generator=generator)


def causal_labels(ids, mask=None):
    """Labels of a causal model, which shifts them itself. What a filler position predicts does not count."""
    labels = ids.clone()
    if mask is not None:
        labels[mask == 0] = -100
        labels[:, 1:][mask[:, :-1] == 0] = -100
    return labels


def masked_batch(ids, mask, mask_id, generator, probability=0.2):
    """Hides some of the real tokens behind the mask token; only those have labels."""
    chosen = (torch.rand(ids.shape, generator=generator) < probability) & (mask == 1)
    chosen[:, 2] |= mask[:, 2] == 1
    labels = torch.where(chosen, ids, torch.full_like(ids, -100))
    return torch.where(chosen, torch.full_like(ids, mask_id), ids), labels


def text_ids(folder, file, rows, length):
    """Consecutive rows of a text, as the tokenizer in the model folder cuts it."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(pathlib.Path(file).read_text("utf-8"), add_special_tokens=False)["input_ids"]
    if len(ids) < rows * length:
        raise SystemExit(f"{file} has {len(ids)} tokens, {rows * length} are needed; use a longer text or fewer rows")
    return torch.tensor(ids[: rows * length]).reshape(rows, length)


def task_of(config):
    names = config.architectures or []
    for suffix, task in [("MaskedLM", "masked"), ("SequenceClassification", "classifier"), ("CausalLM", "causal"),
                         ("LMHeadModel", "causal")]:
        if any(name.endswith(suffix) for name in names):
            return task
    raise SystemExit(f"cannot tell the task of {names or 'a config without architectures'}; give --task")


def make_batch(task, config, ids, mask, mask_id, generator, labelled):
    batch = {"input_ids": ids}
    if mask is not None:
        batch["attention_mask"] = mask
    if not labelled:
        return batch
    if task == "causal":
        batch["labels"] = causal_labels(ids, mask)
    elif task == "masked":
        full = mask if mask is not None else torch.ones_like(ids)
        batch["input_ids"], batch["labels"] = masked_batch(ids, full, mask_id, generator)
    else:
        batch["labels"] = torch.randint(0, config.num_labels, (ids.shape[0],), generator=generator)
    return batch


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path, help="a model folder; with --random-weights also a config.json")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write; must not be the model folder")
    parser.add_argument("--task", choices=TASKS, help="default: from `architectures` in config.json")
    parser.add_argument("--random-weights", action="store_true", help="take the config only and draw weights from --seed")
    parser.add_argument("--text", type=pathlib.Path, help="text to use instead of random token ids")
    parser.add_argument("--rows", type=int, default=3, help="rows of each batch (default 3)")
    parser.add_argument("--length", type=int, default=24, help="tokens of each row (default 24)")
    parser.add_argument("--padding", choices=["none", "right", "left"], default="none",
                        help="fill rows up on one side and pass attention_mask (default none)")
    parser.add_argument("--mask-id", type=int, default=1, help="mask token of masked language models (default 1)")
    parser.add_argument("--batches", type=int, default=2, help="training batches, used in turn (default 2)")
    parser.add_argument("--steps", type=int, default=8, help="optimiser steps (default 8)")
    parser.add_argument("--lr", type=float, default=3e-3, help="peak learning rate (default 3e-3)")
    parser.add_argument("--weight-decay", type=float, default=0.1, help="decoupled decay of matrices (default 0.1)")
    parser.add_argument("--clip", type=float, default=1.0, help="largest global gradient norm (default 1.0)")
    parser.add_argument("--gradients", type=int, default=7, help="how many gradients to keep; 0 keeps all (default 7)")
    parser.add_argument("--seed", type=int, default=17, help="seed of ids, labels and random weights (default 17)")
    options = parser.parse_args()
    if options.out.resolve() == options.model.resolve():
        parser.error("--out would overwrite the model folder; name another one")

    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    config = transformers.AutoConfig.from_pretrained(options.model)
    task = options.task or task_of(config)
    if options.random_weights:
        model = TASKS[task].from_config(config, attn_implementation="eager")
    else:
        model = TASKS[task].from_pretrained(options.model, attn_implementation="eager", dtype=torch.float32)

    total = options.rows * (options.batches + 1)
    if options.text:
        ids = text_ids(options.model, options.text, total, options.length)
    else:
        ids = random_ids(config.vocab_size, total, options.length, generator)
    groups = ids.reshape(options.batches + 1, options.rows, options.length)
    made = []
    for index, group in enumerate(groups):
        mask = None
        if options.padding != "none":
            mask = padding_mask(options.rows, options.length, options.padding, generator)
        made.append(make_batch(task, config, group, mask, options.mask_id, generator, labelled=index > 0))
    note = "" if options.padding == "none" else (
        f"rows are filled up on the {options.padding}; positions with attention_mask 0 are not compared; positions count "
        "from 0 at the first column, fillers included")
    losses = record(model, options.out, made[0], made[1:], note=note, num_gradients=options.gradients,
                    steps=options.steps, lr=options.lr, weight_decay=options.weight_decay, clip=options.clip)
    print(f"{options.out}: {type(model).__name__}, loss {losses[0]:.4f} -> {losses[-1]:.4f} in {options.steps} steps")


if __name__ == "__main__":
    main()
