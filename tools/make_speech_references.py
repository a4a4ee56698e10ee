#!/usr/bin/env python3
"""Makes the tiny speech models under crates/arcuate-model/tests/references whose names begin with `speech_`.

    pip install torch transformers safetensors
    python3 tools/make_speech_references.py crates/arcuate-model/tests/references

Each folder is one option that a loader or a forward pass can get wrong: padded rows, either norm, adapters, positions,
other activations, hidden frames. Weights are random, and unlike fresh ones no bias is 0 and no scale is 1. See
record_reference.py for the files in a folder; losses are the sums that the classes return, or for SpeechT5 the mean.
"""

import argparse
import pathlib
import shutil

import numpy
import torch
import transformers
from safetensors.torch import save_file
from transformers.models.wav2vec2.modeling_wav2vec2 import _sample_negative_indices

import record_reference as reference

COMMON = dict(vocab_size=11, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
              pad_token_id=0, layerdrop=0.0, ctc_loss_reduction="sum", apply_spec_augment=False, mask_time_prob=0.0)
WAVES = dict(conv_dim=(12, 12, 12), conv_kernel=(10, 3, 2), conv_stride=(5, 2, 2), num_conv_pos_embeddings=6,
             num_conv_pos_embedding_groups=3, num_codevectors_per_group=6, num_codevector_groups=2, codevector_dim=10,
             proj_codevector_dim=9, num_negatives=4)
LARGE = dict(feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True)
TOKENS = dict(vocab_size=13, hidden_size=24, encoder_layers=2, encoder_attention_heads=3, encoder_ffn_dim=40,
              decoder_layers=2, decoder_attention_heads=3, decoder_ffn_dim=36, apply_spec_augment=False,
              mask_time_prob=0.0, conv_dim=(12, 12, 12), conv_kernel=(10, 3, 2), conv_stride=(5, 2, 2),
              num_conv_pos_embeddings=6, num_conv_pos_embedding_groups=3, encoder_max_relative_position=5)
ROWS, SAMPLES, FRAMES, WRITTEN = 2, 700, 26, 6


def build(name, suffix, **options):
    config = getattr(transformers, name + "Config")(**{**COMMON, **options})
    return getattr(transformers, name + suffix)(config)


def waves(name, suffix="ForCTC", **options):
    return build(name, suffix, **{**WAVES, **options})


def bert(suffix="ForCTC", **options):
    sizes = dict(feature_projection_input_dim=8, conv_depthwise_kernel_size=5, left_max_position_embeddings=5,
                 right_max_position_embeddings=3)
    return build("Wav2Vec2Bert", suffix, **{**sizes, **options})


def conformer(suffix="ForCTC", **options):
    return waves("Wav2Vec2Conformer", suffix, **{**LARGE, "conv_depthwise_kernel_size": 5, **options})


def speecht5(**options):
    return transformers.SpeechT5ForSpeechToText(transformers.SpeechT5Config(**{**TOKENS, **options}))


def roughen(model, generator):
    """Nothing may hide behind a 0 or a 1."""
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            is_sines = "embed_positions" in name and "pe_k" not in name or "pos_sinusoidal_embed" in name
            if not tensor.is_floating_point() or is_sines:
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var") or "norm" in name and name.endswith("weight"):
                tensor.copy_(1 + noise.clamp(-2, 2) * 0.2)
            elif "pe_k" in name:
                tensor.copy_(noise)
            elif "codevectors" in name or "original0" in name:
                tensor.copy_(0.5 + noise * 0.3)
            elif "conv_layers" in name or "original1" in name:
                tensor.copy_(noise * 0.4)
            else:
                tensor.copy_(noise * 0.15)


def sound(model, padded, generator):
    config = model.config
    features = getattr(config, "feature_projection_input_dim", None)
    steps = SAMPLES if features is None else FRAMES
    shape = (ROWS, steps) if features is None else (ROWS, steps, features)
    values = torch.randn(shape, generator=generator)
    inputs = {"input_values" if features is None else "input_features": values}
    if padded:
        mask = torch.ones(ROWS, steps, dtype=torch.long)
        mask[1, steps * 5 // 8:] = 0
        values[1, steps * 5 // 8:] = 0
        inputs["attention_mask"] = mask
    return inputs, steps


def hidden(model, inputs, steps, generator):
    """Hidden frames of every row and other hidden frames for each."""
    lengths = inputs.get("attention_mask", torch.ones(ROWS, steps)).sum(-1).long()
    frames = int(model._get_feat_extract_output_lengths(torch.tensor(steps)))
    mask = torch.zeros(ROWS, frames, dtype=torch.bool)
    for row, length in enumerate(model._get_feat_extract_output_lengths(lengths).tolist()):
        mask[row, torch.randperm(int(length), generator=generator)[:int(length) // 2]] = True
    negatives = _sample_negative_indices((ROWS, frames), model.config.num_negatives, mask.numpy())
    return {"mask_time_indices": mask, "sampled_negative_indices": torch.from_numpy(negatives)}


def tokens(config, generator):
    """Random tokens that are none of the special ones 0 to 3."""
    return torch.randint(4, config.vocab_size, (ROWS, WRITTEN), generator=generator)


def read(config, padded, generator):
    """What the decoder reads; with padding the first row ends earlier."""
    ids = tokens(config, generator)
    ids[:, 0] = config.decoder_start_token_id
    if not padded:
        return {"decoder_input_ids": ids}
    mask = torch.ones(ROWS, WRITTEN, dtype=torch.long)
    ids[0, WRITTEN - 2:] = config.pad_token_id
    mask[0, WRITTEN - 2:] = 0
    return {"decoder_input_ids": ids, "decoder_attention_mask": mask}


def record(model, out, padded, seed, note):
    generator = torch.Generator().manual_seed(seed)
    roughen(model, generator)
    model = model.float().eval()
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    model.save_pretrained(out)
    name = type(model).__name__
    inputs, steps = sound(model, padded, generator)
    batches = []
    if name.endswith("ForPreTraining"):
        inputs.update(hidden(model, inputs, steps, generator))
        batches = [dict(inputs)]
    elif name.endswith("ForCTC"):
        for _ in range(2):
            batch, _ = sound(model, padded, generator)
            labels = torch.randint(1, model.config.vocab_size, (ROWS, 3), generator=generator)
            labels[1, 2] = -100
            batches.append({**batch, "labels": labels})
    elif name.endswith("ForSpeechToText"):
        inputs.update(read(model.config, padded, generator))
        for last in (4, 3):
            batch, _ = sound(model, padded, generator)
            labels = tokens(model.config, generator)
            labels[0, last] = model.config.eos_token_id
            labels[0, last + 1:] = -100
            batches.append({**batch, "labels": labels})
    tensors = {f"input.{key}": value for key, value in inputs.items()}
    with torch.no_grad():
        result = model(**inputs)
    for key, value in result.items():
        if torch.is_tensor(value):
            tensors[f"output.{key}"] = value.float().reshape(value.shape if value.ndim else (1,))
    for i, batch in enumerate(batches):
        tensors.update({f"train.{i}.{key}": value for key, value in batch.items()})
    facts = {"class": name, "transformers": transformers.__version__, "torch": torch.__version__, "note": note,
             "num_parameters": sum(p.numel() for p in model.parameters()), "tolerance": reference.TOLERANCE}
    if batches:
        train(model, batches, tensors, facts)
    tensors = {key: value.detach().clone().contiguous() for key, value in tensors.items()}
    save_file(tensors, str(out / "reference.safetensors"))
    (out / "reference.json").write_text(reference.json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def train(model, batches, tensors, facts, steps=6, lr=2e-3):
    model.zero_grad()
    loss = model(**batches[0]).loss
    loss.backward()
    parameters = dict(model.named_parameters())
    names = reference.pick_gradients(model, 9)
    # Tables that several layers share, or whose padding row is special.
    names += [name for name in parameters if name.endswith(("pe_k.weight", "embed_tokens.weight"))]
    for name in names:
        tensors[f"grad.{name}"] = parameters[name].grad.detach().clone()
    tensors["grad.loss"] = loss.detach().reshape(1)
    tensors["grad.global_norm"] = reference.global_norm(model).reshape(1)
    options = dict(betas=(0.9, 0.95), eps=1e-8)
    optimizer = torch.optim.AdamW(reference.decay_groups(model, 0.1), lr=lr, **options)
    losses, norms = [], []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = reference.learning_rate(step, lr, 4)
        optimizer.zero_grad()
        loss = model(**batches[step % len(batches)]).loss
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)))
        losses.append(float(loss.detach()))
        optimizer.step()
    tensors["trajectory.loss"] = torch.tensor(losses)
    tensors["trajectory.grad_norm"] = torch.tensor(norms)
    facts["trajectory"] = {
        "steps": steps, "optimizer": "AdamW, decoupled decay on tensors of 2+ dimensions only", "lr": lr,
        "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1,
        "warmup": "learning rate = lr * min(1, (step + 1) / 4), step from 0", "clip_global_norm": 1.0,
        "batches": "train.<i>.<input>, used in turn", "mode": "eval (no dropout), gradients on"}
    facts["gradients_recorded"] = names


ADAPTER = dict(add_adapter=True, num_adapter_layers=2, output_hidden_size=18)
HIDING = dict(apply_spec_augment=True, mask_time_prob=0.5)
# Name, model, whether the second row is padded.
CASES = [
    ("speech_group_padded", lambda: waves("Wav2Vec2"), True),
    ("speech_group_pre_norm_bias", lambda: waves("Wav2Vec2", do_stable_layer_norm=True, conv_bias=True), False),
    ("speech_layer_post_norm_gelu_new",
     lambda: waves("Wav2Vec2", feat_extract_norm="layer", hidden_act="gelu_new", feat_extract_activation="gelu_new",
                   layer_norm_eps=1e-3, num_conv_pos_embeddings=5, ctc_loss_reduction="mean"), True),
    ("speech_relu_silu", lambda: waves("Wav2Vec2", hidden_act="relu", feat_extract_activation="silu"), False),
    ("speech_adapter", lambda: waves("Wav2Vec2", **LARGE, **ADAPTER), True),
    ("speech_attention_adapter", lambda: waves("Wav2Vec2", **LARGE, adapter_attn_dim=5), True),
    ("speech_pretraining_hiding", lambda: waves("Wav2Vec2", "ForPreTraining", **HIDING), False),
    ("speech_pretraining_hiding_padded",
     lambda: waves("Wav2Vec2", "ForPreTraining", **LARGE, **HIDING, contrastive_logits_temperature=0.3,
                   diversity_loss_weight=0.5), True),
    ("speech_bare", lambda: waves("Wav2Vec2", "Model", **LARGE), True),
    ("speech_hubert_large", lambda: waves("Hubert", **LARGE, feat_proj_layer_norm=False), True),
    ("speech_hubert_bare", lambda: waves("Hubert", "Model"), False),
    ("speech_conformer_relative_padded", lambda: conformer(hidden_act="swish"), True),
    ("speech_conformer_rotary", lambda: conformer(position_embeddings_type="rotary", conv_depthwise_kernel_size=7), True),
    ("speech_conformer_group", lambda: conformer(feat_extract_norm="group", conv_bias=False,
                                                 position_embeddings_type=None), False),
    ("speech_conformer_pretraining", lambda: conformer("ForPreTraining", **HIDING), False),
    ("speech_bert_adapter", lambda: bert(add_adapter=True, output_hidden_size=18,
                                         use_intermediate_ffn_before_adapter=True), True),
    ("speech_bert_rotary", lambda: bert(position_embeddings_type="rotary", layer_norm_eps=1e-3), True),
    ("speech_bert_relative", lambda: bert(position_embeddings_type="relative", hidden_act="gelu"), True),
    ("speech_speecht5_padded", lambda: speecht5(), True),
    ("speech_speecht5_far", lambda: speecht5(encoder_max_relative_position=2, encoder_layers=3, decoder_layers=1,
                                             decoder_attention_heads=2), False),
    ("speech_speecht5_layer_scaled_untied",
     lambda: speecht5(feat_extract_norm="layer", conv_bias=True, scale_embedding=True, tie_word_embeddings=False,
                      hidden_act="relu", feat_extract_activation="silu", layer_norm_eps=1e-3), True),
    ("speech_speecht5_odd_pad_0",
     lambda: speecht5(hidden_size=21, num_conv_pos_embeddings=5, pad_token_id=0, bos_token_id=1,
                      decoder_start_token_id=3, encoder_max_relative_position=60, apply_spec_augment=True,
                      mask_time_prob=0.05), True),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path, help="folder of the references")
    parser.add_argument("--only", help="only the folder of this name")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for i, (name, make, padded) in enumerate(CASES):
        if args.only not in (None, name):
            continue
        torch.manual_seed(i)
        numpy.random.seed(i)
        model = make()
        model.set_attn_implementation("eager")
        note = "rows are padded; what is computed for padding is not compared" if padded else ""
        record(model, args.out / name, padded, 1000 + i, note)
        print(name)


if __name__ == "__main__":
    main()
