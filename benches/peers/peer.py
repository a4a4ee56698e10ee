#!/usr/bin/env python3
"""The PyTorch side of `arcuate bench`: the same row with the same sizes, one JSON line with the same keys.

    python3 benches/peers/peer.py gpt --precision bf16 --variant compile --sizes '{"batch": 8, "seq_len": 256, ...}'

`cargo xtask peers` calls it with the sizes that `arcuate bench` reported. Every step is forward, backward and the fused
AdamW of PyTorch on random tokens; rows without weights of their own are forward and backward.
"""

import argparse
import importlib.metadata
import json
import resource
import statistics
import sys
import time

WARM_UP = 2


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=sorted(ROWS))
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--variant", choices=["eager", "compile"], default="eager")
    parser.add_argument("--sizes", type=json.loads, required=True)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, required=True)
    return parser.parse_args()


def timed(args, step):
    """Seconds of every step after the warm-up, and what every step returned."""
    seconds, losses = [], []
    for number in range(WARM_UP + args.steps):
        start = time.perf_counter()
        losses.append(step())
        if number >= WARM_UP:
            seconds.append(time.perf_counter() - start)
    return seconds, losses


def training(args, model, inputs, tokens):
    """Times `model(*inputs)`, which is the loss, with its gradients and an update."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1,
                                  fused=True)
    loss_of = torch.compile(model) if args.variant == "compile" else model

    def step():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.precision == "bf16"):
            loss = loss_of(*inputs)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    seconds, losses = timed(args, step)
    count = sum(p.numel() for p in model.parameters())
    return dict(seconds=seconds, amount=tokens, unit="tokens", losses=[losses[0], losses[-1]], parameters=count)


def gpt(args, s):
    import torch
    from torch import nn
    from torch.nn import functional as F

    width, heads = s["hidden"], s["heads"]

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, s["inner"]), nn.Linear(s["inner"], width)

        def forward(self, x):
            b, t, _ = x.shape
            q, k, v = (p.transpose(1, 2) for p in self.qkv(self.ln_1(x)).view(b, t, 3, heads, -1).unbind(2))
            seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(seen.transpose(1, 2).reshape(b, t, width))
            return x + self.down(F.gelu(self.up(self.ln_2(x))))

    class Gpt(nn.Module):
        def __init__(self):
            super().__init__()
            self.wte, self.wpe = nn.Embedding(s["vocab"], width), nn.Embedding(s["seq_len"], width)
            self.blocks, self.ln_f = nn.ModuleList([Block() for _ in range(s["layers"])]), nn.LayerNorm(width)
            self.head = nn.Linear(width, s["vocab"], bias=False)
            initialise(self)
            if s["tied"]:
                self.head.weight = self.wte.weight

        def forward(self, ids, targets):
            x = self.wte(ids) + self.wpe.weight
            for block in self.blocks:
                x = block(x)
            logits = self.head(self.ln_f(x))
            return F.cross_entropy(logits.view(-1, s["vocab"]).float(), targets.view(-1))

    ids, targets = (torch.randint(0, s["vocab"], (s["batch"], s["seq_len"])) for _ in range(2))
    return training(args, Gpt(), (ids, targets), ids.numel())


def llama(args, s):
    import torch
    from torch import nn
    from torch.nn import functional as F

    width, heads, kv = s["hidden"], s["heads"], s["kv_heads"]
    head = width // heads

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            linear = lambda i, o: nn.Linear(i, o, bias=False)
            self.norm_1, self.norm_2 = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)
            self.q, self.k, self.v = linear(width, width), linear(width, kv * head), linear(width, kv * head)
            self.o, self.gate, self.up = linear(width, width), linear(width, s["inner"]), linear(width, s["inner"])
            self.down = linear(s["inner"], width)

        def forward(self, x, cos, sin):
            b, t, _ = x.shape
            h = self.norm_1(x)

            def rotate(p):
                a, c = p.chunk(2, -1)
                return p * cos + torch.cat((-c, a), -1) * sin

            q, k, v = (f(h).view(b, t, -1, head).transpose(1, 2) for f in (self.q, self.k, self.v))
            seen = F.scaled_dot_product_attention(rotate(q), rotate(k), v, is_causal=True, enable_gqa=heads != kv)
            x = x + self.o(seen.transpose(1, 2).reshape(b, t, width))
            h = self.norm_2(x)
            return x + self.down(F.silu(self.gate(h)) * self.up(h))

    class Llama(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(s["vocab"], width)
            self.blocks = nn.ModuleList([Block() for _ in range(s["layers"])])
            self.norm, self.head = nn.RMSNorm(width, eps=1e-5), nn.Linear(width, s["vocab"], bias=False)
            initialise(self)
            if s["tied"]:
                self.head.weight = self.embed.weight
            angles = torch.outer(torch.arange(s["seq_len"]), 10000.0 ** (-torch.arange(0, head, 2) / head))
            angles = torch.cat((angles, angles), -1)
            self.register_buffer("cos", angles.cos())
            self.register_buffer("sin", angles.sin())

        def forward(self, ids, targets):
            x = self.embed(ids)
            for block in self.blocks:
                x = block(x, self.cos, self.sin)
            logits = self.head(self.norm(x))
            return F.cross_entropy(logits.view(-1, s["vocab"]).float(), targets.view(-1))

    ids, targets = (torch.randint(0, s["vocab"], (s["batch"], s["seq_len"])) for _ in range(2))
    return training(args, Llama(), (ids, targets), ids.numel())


def bert(args, s):
    """`BertForMaskedLM` of Transformers as its users call it: padded batch, attention mask, labels -100 elsewhere."""
    import torch
    from torch import nn
    from transformers import BertConfig, BertForMaskedLM

    network = BertForMaskedLM(BertConfig(
        vocab_size=s["vocab"], hidden_size=s["hidden"], num_hidden_layers=s["layers"], num_attention_heads=s["heads"],
        intermediate_size=s["inner"], max_position_embeddings=s["seq_len"], hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, attn_implementation="sdpa"))

    class Loss(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, ids, mask, labels):
            return self.network(input_ids=ids, attention_mask=mask, labels=labels).loss

    b, t = s["batch"], s["seq_len"]
    ids = torch.randint(4, s["vocab"], (b, t))
    mask, labels = torch.zeros(b, t, dtype=torch.long), torch.full((b, t), -100)
    for row in range(b):
        # As `arcuate bench bert`: lengths fall evenly from whole rows to half rows; 15% are predicted.
        length = max(1, int((1.0 - 0.5 * row / b) * t))
        mask[row, :length] = 1
        ids[row, length:] = 0
        hidden = torch.randperm(length)[:max(1, round(0.15 * length))]
        labels[row, hidden] = ids[row, hidden]
        draw = torch.rand(len(hidden))
        ids[row, hidden[draw < 0.8]] = 3
        swapped = hidden[(draw >= 0.8) & (draw < 0.9)]
        ids[row, swapped] = torch.randint(4, s["vocab"], (len(swapped),))
    network.train()
    return training(args, Loss(), (ids, mask, labels), int(mask.sum()))


def decode(args, s):
    """Greedy `generate` of Transformers with its cache; every row gets all its new tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=s["vocab"], hidden_size=s["hidden"], num_hidden_layers=s["layers"], num_attention_heads=s["heads"],
        num_key_value_heads=s["kv_heads"], intermediate_size=s["inner"], tie_word_embeddings=bool(s["tied"]),
        max_position_embeddings=s["prompt"] + s["new_tokens"], attn_implementation="sdpa", pad_token_id=0,
        bos_token_id=1, eos_token_id=2)).eval()
    if args.precision == "bf16":
        model = model.to(torch.bfloat16)
    ids = torch.randint(3, s["vocab"], (s["batch"], s["prompt"]))
    options = dict(do_sample=False, min_new_tokens=s["new_tokens"], max_new_tokens=s["new_tokens"], use_cache=True)

    def step():
        with torch.inference_mode():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        assert out.shape[1] == s["prompt"] + s["new_tokens"]

    seconds, _ = timed(args, step)
    count = sum(p.numel() for p in model.parameters())
    return dict(seconds=seconds, amount=s["batch"] * s["new_tokens"], unit="tokens", parameters=count)


def products(args, s):
    """The three products of each layer, into memory that is there already."""
    import torch

    kind = torch.bfloat16 if args.precision == "bf16" else torch.float32
    lines, totals, flops = [], [0.0] * args.steps, 0.0
    for inputs, outputs in ((s["hidden"], s["inner"]), (s["inner"], s["hidden"]), (s["hidden"], s["vocab"])):
        x, y, w = torch.randn(s["tokens"], inputs), torch.randn(s["tokens"], outputs), torch.randn(outputs, inputs)
        x, y, w = x.to(kind), y.to(kind), w.to(kind)
        for name, left, right in (("forward", x, w.t()), ("input gradient", y, w), ("weight gradient", y.t(), x)):
            out = torch.empty(left.shape[0], right.shape[1], dtype=kind)
            seconds, _ = timed(args, lambda: torch.mm(left, right, out=out).data_ptr())
            totals = [a + b for a, b in zip(totals, seconds)]
            work = 2.0 * s["tokens"] * inputs * outputs
            flops += work
            lines.append({"pass": name, "tokens": s["tokens"], "inputs": inputs, "outputs": outputs,
                          "flops_per_second": work / statistics.median(seconds)})
    return dict(seconds=totals, amount=flops, unit="FLOP", flops=flops, products=lines)


def frontend(args, s):
    """The feature encoder of wav2vec 2.0 (base): seven convolutions, group norm after the first."""
    import torch
    from torch import nn

    layers, channels = [], 1
    for index, (kernel, stride) in enumerate(((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))):
        layers.append(nn.Conv1d(channels, s["channels"], kernel, stride, bias=False))
        channels = s["channels"]
        if index == 0:
            layers.append(nn.GroupNorm(channels, channels))
        layers.append(nn.GELU())
    return audio(args, nn.Sequential(*layers), torch.randn(s["batch"], 1, s["samples"]), s["samples"] / 16000.0)


def positional_conv(args, s):
    """The positional convolution of wav2vec 2.0: grouped, with weight norm over the kernel's places; same length."""
    import torch
    from torch import nn

    conv = nn.Conv1d(s["channels"], s["channels"], s["kernel"], padding=s["kernel"] // 2, groups=s["groups"])
    conv = nn.utils.parametrizations.weight_norm(conv, name="weight", dim=2)
    x = torch.randn(s["batch"], s["channels"], s["frames"], requires_grad=True)
    return audio(args, conv, x, s["frames"] * 0.02, cut=s["kernel"] % 2 == 0)


def audio(args, module, x, seconds_per_row, cut=False):
    """Forward and backward of the mean square of the output."""
    import torch

    run = torch.compile(module) if args.variant == "compile" else module

    def step():
        module.zero_grad(set_to_none=True)
        x.grad = None
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.precision == "bf16"):
            y = run(x)
            y = y[..., :-1] if cut else y
            loss = y.float().pow(2).mean()
        loss.backward()
        return loss.item()

    seconds, losses = timed(args, step)
    return dict(seconds=seconds, amount=x.shape[0] * seconds_per_row, unit="seconds of audio",
                losses=[losses[0], losses[-1]])


def ctc(args, s):
    """Log-softmax and CTC with the gradient of the logits."""
    import torch
    from torch.nn import functional as F

    logits = torch.randn(s["frames"], s["batch"], s["vocab"], requires_grad=True)
    targets = torch.randint(1, s["vocab"], (s["batch"], s["labels"]))
    frames, labels = torch.full((s["batch"],), s["frames"]), torch.full((s["batch"],), s["labels"])

    def step():
        logits.grad = None
        loss = F.ctc_loss(F.log_softmax(logits, -1), targets, frames, labels, blank=0, reduction="sum")
        loss.backward()
        return loss.item()

    seconds, losses = timed(args, step)
    return dict(seconds=seconds, amount=s["batch"] * s["frames"], unit="frames", losses=[losses[0], losses[-1]])


def features(args, s, compute, rate=16000):
    """Times features of noise; seconds of audio a second is how many times faster than real time they are."""
    import torch

    sound = 0.1 * torch.randn(1, s["seconds"] * rate)

    def step():
        with torch.inference_mode():
            assert compute(sound).numel() > 0

    seconds, _ = timed(args, step)
    return dict(seconds=seconds, amount=s["seconds"], unit="seconds of audio")


def fbank(args, s):
    from torchaudio.compliance import kaldi

    return features(args, s, lambda sound: kaldi.fbank(sound * 32768.0, num_mel_bins=s["bins"], dither=0.0))


def mfcc(args, s):
    from torchaudio.compliance import kaldi

    return features(args, s, lambda sound: kaldi.mfcc(sound * 32768.0, num_mel_bins=s["bins"], dither=0.0))


def log_mel(args, s):
    """The log-mel energies of Whisper from the spectrogram of torchaudio."""
    import torch
    import torchaudio

    mel = torchaudio.transforms.MelSpectrogram(16000, n_fft=400, hop_length=160, n_mels=s["bins"], norm="slaney",
                                               mel_scale="slaney")

    def compute(sound):
        logs = mel(sound)[..., :-1].clamp(min=1e-10).log10()
        return (torch.maximum(logs, logs.max() - 8.0) + 4.0) / 4.0

    return features(args, s, compute)


def resample(args, s):
    import torchaudio

    change = torchaudio.transforms.Resample(s["from_hz"], s["to_hz"])
    return features(args, s, change, rate=s["from_hz"])


def beam(args, s):
    """The beam search of pyctcdecode without a language model, on emissions like those of `arcuate bench beam`."""
    import numpy as np
    from pyctcdecode import build_ctcdecoder

    random = np.random.default_rng(2)
    logits = random.standard_normal((s["frames"], s["vocab"]), dtype=np.float32)
    spoken = np.where(np.arange(s["frames"]) % 3 == 0, random.integers(1, s["vocab"], s["frames"]), 0)
    logits[np.arange(s["frames"]), spoken] += 4.0
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    decoder = build_ctcdecoder(["", " "] + [chr(0x4E02 + at) for at in range(s["vocab"] - 2)])
    seconds, _ = timed(args, lambda: len(decoder.decode(logits, beam_width=s["beam"])))
    return dict(seconds=seconds, amount=s["frames"] * 0.02, unit="seconds of audio")


def initialise(model):
    from torch import nn

    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


ROWS = {f.__name__: f for f in (beam, bert, ctc, decode, fbank, frontend, gpt, llama, log_mel, mfcc, positional_conv,
                                products, resample)}


def main():
    args = arguments()
    import torch

    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    if args.row in ("bert", "decode"):
        import transformers  # noqa: F401  before the start is noted
    unit = 1 if sys.platform == "darwin" else 1024
    start_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    found = ROWS[args.row](args, args.sizes)
    seconds = sorted(found.pop("seconds"))
    median = statistics.median(seconds)
    versions = {"torch": torch.__version__}
    versions.update((name, importlib.metadata.version(name)) for name in ("transformers", "torchaudio", "pyctcdecode")
                    if name in sys.modules)
    print(json.dumps({
        "row": args.row, "variant": args.variant, "precision": args.precision, "threads": torch.get_num_threads(),
        "sizes": args.sizes, "steps": args.steps, "median_ms": median * 1e3, "min_ms": seconds[0] * 1e3,
        "unit": found.pop("unit"), "per_second": found.pop("amount") / median,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "start_bytes": start_bytes, "versions": versions, **found,
    }))


if __name__ == "__main__":
    main()
