#!/usr/bin/env python3
"""Makes the tiny reference models under crates/arcuate-model/tests/references that Transformers can make.

    pip install torch transformers safetensors
    python3 tools/make_references.py crates/arcuate-model/tests/references

Each folder is one case that a loader or a forward pass can get wrong: scaled rotary embeddings, biases, tied heads,
filler on either side, another activation. Weights are random, and unlike fresh ones no bias is 0 and no scale is 1.
See record_reference.py for the files in a folder. The folders llama, qwen2, gpt2, bert_mlm and bert_classifier are not made here.
"""

import argparse
import json
import pathlib
import shutil

import torch
import transformers
from transformers import (BertConfig, BertForMaskedLM, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel,
                          LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM)

import record_reference as reference

FILLER = "positions with attention_mask 0 are not compared, and neither they nor what they predict have labels; "
COUNTED = ("position_ids are not given: Transformers counts them from 0 at the first column, fillers included")


def llama(**changes):
    base = dict(vocab_size=61, hidden_size=32, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2,
                rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, tie_word_embeddings=False)
    return LlamaForCausalLM(LlamaConfig(**{**base, **changes}))


def qwen2(**changes):
    base = dict(vocab_size=61, hidden_size=32, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=False,
                rope_parameters={"rope_type": "default", "rope_theta": 1000000.0})
    return Qwen2ForCausalLM(Qwen2Config(**{**base, **changes}))


def gpt2(**changes):
    base = dict(vocab_size=61, n_embd=32, n_layer=2, n_head=4, n_positions=48, bos_token_id=0, eos_token_id=0)
    return GPT2LMHeadModel(GPT2Config(**{**base, **changes}))


def bert(model=BertForMaskedLM, **changes):
    base = dict(vocab_size=61, hidden_size=32, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4,
                max_position_embeddings=48, pad_token_id=0)
    return model(BertConfig(**{**base, **changes}))


def roughen(model, generator):
    """Nothing may hide behind a 0 or a 1."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim >= 2:
                parameter.copy_(noise * 0.12)
            elif "norm" in name.lower() and name.endswith("weight") or ".ln_" in name and name.endswith("weight"):
                parameter.copy_(1.0 + 0.2 * noise)
            else:
                parameter.copy_(0.1 * noise)


def causal(model, out, seed, padding=None, rows=3, length=24, input_length=40, note="", own_positions=False):
    generator = torch.Generator().manual_seed(seed)
    roughen(model, generator)
    vocab = model.config.vocab_size

    def batch(width, labelled):
        ids = reference.random_ids(vocab, rows, width, generator)
        made = {"input_ids": ids}
        mask = reference.padding_mask(rows, width, padding, generator) if padding else None
        if mask is not None:
            made["attention_mask"] = mask
            if own_positions:
                made["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
        if labelled:
            made["labels"] = reference.causal_labels(ids, mask)
            made["labels"][0, 5:8] = -100
        return made

    batches = [batch(length, True) for _ in range(2)]
    reference.record(model, out, batch(input_length, False), batches, note=note)


def encoder(model, out, seed, padding="right", rows=3, length=20, note=""):
    generator = torch.Generator().manual_seed(seed)
    roughen(model, generator)
    config = model.config

    def batch(labelled):
        ids = torch.randint(2, config.vocab_size, (rows, length), generator=generator)
        mask = reference.padding_mask(rows, length, padding, generator)
        ids[mask == 0] = config.pad_token_id
        types = torch.zeros_like(ids)
        types[:, length // 2:] = 1
        made = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        if labelled and isinstance(model, BertForMaskedLM):
            made["input_ids"], made["labels"] = reference.masked_batch(ids, mask, 1, generator)
        elif labelled:
            made["labels"] = torch.randint(0, config.num_labels, (rows,), generator=generator)
        return made

    batches = [batch(True) for _ in range(2)]
    reference.record(model, out, batch(False), batches, note=note)


def old_style_rope(folder):
    """Rewrites config.json as releases before 5 did: `rope_theta` and `rope_scaling` beside each other."""
    file = folder / "config.json"
    config = json.loads(file.read_text("utf-8"))
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


CASES = {
    "llama_rope_linear": lambda out: (
        causal(llama(rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}), out, 1,
               note="config.json in the style of releases before 5: rope_theta and rope_scaling"),
        old_style_rope(out)),
    "llama_rope_llama3": lambda out: causal(
        llama(rope_parameters={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                               "original_max_position_embeddings": 16, "rope_theta": 500.0}), out, 2),
    "llama_biases_tied": lambda out: causal(
        llama(attention_bias=True, mlp_bias=True, tie_word_embeddings=True, num_key_value_heads=1), out, 3),
    "llama_head_dim": lambda out: causal(llama(head_dim=12, num_key_value_heads=4), out, 4),
    "llama_right_padded": lambda out: causal(llama(), out, 5, padding="right", note=FILLER + COUNTED),
    "llama_left_padded": lambda out: causal(
        llama(), out, 6, padding="left",
        note=FILLER + COUNTED + "; rotary positions are relative, so any common offset gives the same outputs"),
    "qwen2_right_padded": lambda out: causal(qwen2(), out, 7, padding="right", note=FILLER + COUNTED),
    "gpt2_right_padded": lambda out: causal(gpt2(), out, 8, padding="right", note=FILLER + COUNTED),
    "gpt2_left_padded": lambda out: causal(
        gpt2(), out, 9, padding="left", own_positions=True,
        note=FILLER + "position_ids are given and count real tokens from 0 (0 at fillers), as generation does; they decide the outputs, "
        "because positions are absolute"),
    "gpt2_n_inner": lambda out: causal(gpt2(n_inner=72, activation_function="gelu"), out, 10),
    "bert_gelu_new": lambda out: encoder(bert(hidden_act="gelu_new"), out, 11, note=FILLER + COUNTED),
    "bert_left_padded": lambda out: encoder(bert(), out, 12, padding="left", note=FILLER + COUNTED),
    "bert_classifier_left_padded": lambda out: encoder(
        bert(BertForSequenceClassification, num_labels=4), out, 13, padding="left",
        note="the classifier reads the first column, which may be filler; " + COUNTED),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path, help="folder that gets one folder per case")
    parser.add_argument("--only", help="make the cases whose name contains this")
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    for name, make in CASES.items():
        if options.only and options.only not in name:
            continue
        out = options.out / name
        shutil.rmtree(out, ignore_errors=True)
        make(out)
        size = sum(file.stat().st_size for file in out.iterdir())
        losses = json.loads((out / "reference.json").read_text())
        print(f"{name:30} {size:7} bytes, {losses['num_parameters']} parameters")


if __name__ == "__main__":
    main()
