#!/usr/bin/env python3
"""Checks and measures arcuate on a machine that has an NVIDIA GPU and Python with PyTorch, and needs nothing else.

    tools/package_cuda.sh                              # where there is Rust: writes target/package/arcuate-cuda.xz
    python3 tools/gpu_check.py target/package/arcuate-cuda.xz          # where there is a GPU

In one call: what the machine has; every operation on the GPU against the CPU; `arcuate verify` on the recorded
references; training steps of GPT and Llama at about 124 M, 350 M and 1 B parameters in bf16, beside PyTorch eager and
torch.compile with the same sizes. Prints tables, writes everything to gpu_check.json, and ends with 1 if a check failed.

NVRTC and the headers of CUDA are taken from CUDA_PATH or /usr/local/cuda if they are complete there, else put together
from the Python packages that PyTorch brings (nvidia-*, triton).

Model FLOPs utilisation (MFU) = operations of a step / seconds of a step / peak of the GPU in dense bf16, where a step has
6 operations for every weight of a product and every token, and 12 for every channel and every key a token may attend to,
in every layer. Embedding tables and recomputation do not count. The same number of operations stands for both sides.
"""

import argparse
import glob
import gzip
import json
import lzma
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

# Dense bf16 peaks by part of the GPU's name, in FLOP/s; the first that fits counts.
PEAKS = [("H100 PCIe", 756e12), ("H100 NVL", 835e12), ("H100", 989e12), ("H200", 989e12), ("B200", 2250e12),
         ("A100", 312e12), ("L40S", 362e12), ("L4", 121e12), ("4090", 165e12), ("A10", 125e12)]

GPT = dict(seq_len=1024, vocab=50257, tied=1)
LLAMA = dict(seq_len=1024, vocab=32000, tied=0)
BENCHES = {
    ("gpt", "124M"): dict(GPT, layers=12, hidden=768, heads=12, inner=3072),
    ("gpt", "350M"): dict(GPT, layers=24, hidden=1024, heads=16, inner=4096),
    ("gpt", "1B"): dict(GPT, layers=20, hidden=2048, heads=16, inner=8192),
    ("llama", "124M"): dict(LLAMA, layers=12, hidden=768, heads=12, kv_heads=12, inner=2048),
    ("llama", "350M"): dict(LLAMA, layers=24, hidden=1024, heads=16, kv_heads=16, inner=2816),
    ("llama", "1B"): dict(LLAMA, layers=22, hidden=2048, heads=32, kv_heads=4, inner=5632),
}
BATCHES = [16, 8, 4, 2, 1]
WARM_UP = 3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=pathlib.Path, help="arcuate built with the feature `cuda`; may end in .xz or .gz")
    here = pathlib.Path(__file__).resolve().parent.parent
    parser.add_argument("--references", type=pathlib.Path, default=here / "crates/arcuate-model/tests/references")
    parser.add_argument("--parts", default="ops,verify,bench", help="what is done [default: ops,verify,bench]")
    parser.add_argument("--models", default="gpt,llama")
    parser.add_argument("--sizes", default="124M,350M,1B")
    parser.add_argument("--steps", type=int, default=10, help="timed steps")
    parser.add_argument("--limit", type=float, default=540, help="seconds for one measurement")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("gpu_check.json"))
    parser.add_argument("--peer", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        print(json.dumps(peer(args.peer)))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        program = [str(unpack(args.binary, scratch))]
        env = dict(os.environ, **toolkit(scratch))
        print(run(program + ["doctor"], env, args.limit).stdout, flush=True)
        parts, found = args.parts.split(","), {}
        if "ops" in parts:
            found["operations"] = operations(program, env, args)
        if "verify" in parts:
            found["references"] = references(program, env, args)
        if "bench" in parts:
            found["benches"] = benches(program, env, args)
    args.output.write_text(json.dumps(found, indent=1))
    wrong = [name for name, part in found.items() if not part["holds"]]
    print(f"\n{'FAILED: ' + ', '.join(wrong) if wrong else 'all checks passed'}; details in {args.output}")
    return 1 if wrong else 0


def unpack(binary, scratch):
    opened = {".xz": lzma.open, ".gz": gzip.open}.get(binary.suffix, open)
    program = scratch / "arcuate"
    with opened(binary, "rb") as source, open(program, "wb") as target:
        shutil.copyfileobj(source, target)
    program.chmod(0o755)
    return program


def run(command, env, limit):
    try:
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no answer after {limit:.0f} s")


def answer(command, env, limit):
    """The JSON that a command prints, or what went wrong."""
    done = run(command, env, limit)
    for text in (done.stdout, (done.stdout.strip().splitlines() or [""])[-1]):
        try:
            return json.loads(text)
        except ValueError:
            continue
    said = [line for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()]
    return {"error": " ".join(said[-3:])[:500] or f"exit code {done.returncode}"}


def toolkit(scratch):
    """Variables that show NVRTC and the headers of CUDA to the program."""
    for folder in filter(None, [os.environ.get("CUDA_PATH"), "/usr/local/cuda"]):
        folder = pathlib.Path(folder)
        libraries = [str(lib) for lib in (folder / "lib64", folder / "lib") if list(lib.glob("libnvrtc.so*"))]
        if libraries and (folder / "include/crt/mma.h").is_file():
            return with_libraries(folder, libraries)
    folder = scratch / "cuda"
    (folder / "include").mkdir(parents=True)
    (folder / "lib").mkdir()
    sites = [pathlib.Path(path) for path in sys.path if path.endswith("-packages")]
    for include in [i for site in sites for i in glob.glob(f"{site}/nvidia/**/include", recursive=True)]:
        for entry in pathlib.Path(include).iterdir():
            link(entry, folder / "include" / entry.name)
    for site in sites:
        link(site / "triton/backends/nvidia/include/crt", folder / "include/crt")
    originals = []
    for library in [l for site in sites for l in sorted(glob.glob(f"{site}/nvidia/**/libnvrtc.so.*", recursive=True))]:
        link(pathlib.Path(library), folder / "lib/libnvrtc.so")
        originals.append(str(pathlib.Path(library).parent))
    return with_libraries(folder, [str(folder / "lib")] + originals)


def with_libraries(folder, libraries):
    before = os.environ.get("LD_LIBRARY_PATH")
    return {"CUDA_PATH": str(folder), "LD_LIBRARY_PATH": ":".join(libraries + ([before] if before else []))}


def link(source, target):
    if source.exists() and not target.exists():
        target.symlink_to(source)


def table(head, rows):
    rows = [head] + [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    print(flush=True)


def operations(program, env, args):
    found = answer(program + ["doctor", "--test-device", "cuda", "--json"], env, args.limit)
    said = lambda o: o["failure"] or ("nan" if o["difference"] is None else f"{o['difference']:.1e}")
    rows = [[o["what"], said(o)[:80], f"{o['tolerance']:.0e}", "ok" if o["holds"] else "DIFFERS"]
            for o in found.get("operations", [])]
    print("Operations on the GPU against the CPU, relative L2 distance of value and gradients")
    table(["operation", "difference", "tolerance", ""], rows or [["-", found.get("error"), "", "FAILED"]])
    return dict(found, holds=bool(found.get("holds")))


def references(program, env, args):
    rows, found = [], []
    for folder in sorted(path.parent for path in args.references.glob("*/reference.json")):
        one = answer(program + ["verify", str(folder), "--reference", str(folder), "--device", "cuda", "--json"],
                     env, args.limit)
        lines = one.get("comparisons", [])
        wrong = [line["what"] for line in lines if not line["holds"]]
        worst = max(((line["difference"] or 0) / line["tolerance"] for line in lines), default=float("nan"))
        verdict = "ok" if one.get("holds") else one.get("error") or "DIFFERS: " + ", ".join(wrong[:3])
        rows.append([folder.name, f"{len(lines) - len(wrong)} of {len(lines)}", f"{worst:.2f}", verdict])
        found.append(dict(one, name=folder.name))
    print("Recorded references on the GPU; the tolerances are those of f32")
    table(["reference", "hold", "worst / tolerance", ""], rows)
    return {"holds": bool(found) and all(one.get("holds") for one in found), "references": found}


class Memory:
    """The most memory of the GPU that was in use while something ran, in bytes above what was before."""

    def __enter__(self):
        import torch

        self.info, self.peak, self.stop = torch.cuda.mem_get_info, 0, threading.Event()
        free, _ = self.info()
        self.thread = threading.Thread(target=self.watch, args=(free,))
        self.thread.start()
        return self

    def watch(self, before):
        while not self.stop.wait(0.05):
            self.peak = max(self.peak, before - self.info()[0])

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


def benches(program, env, args):
    import torch

    name = torch.cuda.get_device_name()
    peak = next((peak for part, peak in PEAKS if part in name), None)
    print(f"Training steps in bf16 on {name}, PyTorch {torch.__version__}; peak "
          f"{f'{peak / 1e12:.0f} TFLOP/s' if peak else 'unknown: no MFU'}")
    rows, found, holds = [], [], True
    for (model, size), sizes in BENCHES.items():
        if model not in args.models.split(",") or size not in args.sizes.split(","):
            continue
        ours = {"error": "not run"}
        for batch in BATCHES:
            sizes = dict(sizes, batch=batch)
            with Memory() as memory:
                ours = answer(program + ["bench", model, "--device", "cuda", "--precision", "bf16", "--json",
                                         "--steps", str(args.steps)]
                              + [part for key, value in sizes.items() for part in ("--set", f"{key}={value}")],
                              env, args.limit)
            ours = dict(ours["rows"][0], memory=memory.peak) if ours.get("rows") else ours
            # A smaller batch helps against everything but a mistake in the arguments.
            if "error" not in ours or "argument" in ours["error"]:
                break
        holds &= "error" not in ours
        sides = [("arcuate", ours)]
        for variant in ("eager", "compile"):
            job = dict(model=model, sizes=sizes, variant=variant, steps=args.steps)
            with Memory() as memory:
                one = answer([sys.executable, __file__, "-", "--peer", json.dumps(job)], dict(os.environ), args.limit)
            sides.append((f"PyTorch {variant}", dict(one, memory=memory.peak)))
        flops = operations_of(model, sizes)
        for side, one in sides:
            if "error" in one:
                rows.append([model, size, sizes["batch"], side, one["error"][:60], "", "", "", ""])
                continue
            seconds = one["median_ms"] / 1e3
            one.update(tokens_per_second=sizes["batch"] * sizes["seq_len"] / seconds,
                       mfu=flops / seconds / peak if peak else None)
            baseline = sides[-1][1].get("median_ms")
            rows.append([model, size, sizes["batch"], side, f"{one['median_ms']:.1f}",
                         f"{one['tokens_per_second']:.0f}", f"{one['mfu']:.1%}" if peak else "-",
                         f"{one['memory'] / 2**30:.1f}", f"{baseline / one['median_ms']:.2f}" if baseline else "-"])
        found.append(dict(model=model, size=size, sizes=sizes, flops=flops, sides=dict(sides)))
    table(["model", "size", "batch", "side", "ms/step", "tokens/s", "MFU", "GiB", "x compile"], rows)
    return {"holds": holds, "gpu": name, "torch": torch.__version__, "rows": found}


def operations_of(model, s):
    """Operations of a training step, by the formula above."""
    width, kv = s["hidden"], s["hidden"] // s["heads"] * s.get("kv_heads", s["heads"])
    layer = 2 * width * width + 2 * width * kv + (2 if model == "gpt" else 3) * width * s["inner"]
    keys = s["seq_len"] * (s["seq_len"] + 1) / 2
    tokens = s["batch"] * s["seq_len"]
    return 6 * tokens * (s["layers"] * layer + s["vocab"] * width) + 12 * s["batch"] * keys * s["layers"] * width


def peer(job):
    """The same step in PyTorch: bf16 autocast, flash attention, fused AdamW."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    s, model = job["sizes"], job["model"]
    width, heads, kv = s["hidden"], s["heads"], s.get("kv_heads", s["heads"])
    head, is_gpt = width // heads, model == "gpt"
    linear = lambda i, o: nn.Linear(i, o, bias=is_gpt)
    norm = (lambda: nn.LayerNorm(width)) if is_gpt else (lambda: nn.RMSNorm(width, eps=1e-5))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm_1, self.norm_2 = norm(), norm()
            self.q, self.k, self.v = linear(width, width), linear(width, kv * head), linear(width, kv * head)
            self.o, self.up, self.down = linear(width, width), linear(width, s["inner"]), linear(s["inner"], width)
            self.gate = None if is_gpt else linear(width, s["inner"])

        def forward(self, x, cos, sin):
            b, t, _ = x.shape
            h = self.norm_1(x)
            q, k, v = (f(h).view(b, t, -1, head).transpose(1, 2) for f in (self.q, self.k, self.v))
            if not is_gpt:
                q, k = (p * cos + torch.cat((-p.chunk(2, -1)[1], p.chunk(2, -1)[0]), -1) * sin for p in (q, k))
            seen = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True,
                                                  enable_gqa=heads != kv)
            x = x + self.o(seen.transpose(1, 2).reshape(b, t, width))
            h = self.norm_2(x)
            return x + self.down(F.gelu(self.up(h)) if is_gpt else F.silu(self.gate(h)) * self.up(h))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.norm = nn.Embedding(s["vocab"], width), norm()
            self.positions = nn.Embedding(s["seq_len"], width) if is_gpt else None
            self.blocks = nn.ModuleList([Block() for _ in range(s["layers"])])
            self.head = nn.Linear(width, s["vocab"], bias=False)
            for part in self.modules():
                if isinstance(part, (nn.Linear, nn.Embedding)):
                    nn.init.normal_(part.weight, std=0.02)
            if s["tied"]:
                self.head.weight = self.embed.weight
            angles = torch.outer(torch.arange(s["seq_len"]), 10000.0 ** (-torch.arange(0, head, 2) / head))
            angles = torch.cat((angles, angles), -1)
            self.register_buffer("cos", angles.cos())
            self.register_buffer("sin", angles.sin())

        def forward(self, ids, targets):
            x = self.embed(ids)
            if is_gpt:
                x = x + self.positions.weight
            for block in self.blocks:
                x = block(x, self.cos, self.sin)
            return F.cross_entropy(self.head(self.norm(x)).view(-1, s["vocab"]).float(), targets.view(-1))

    torch.manual_seed(1)
    torch.set_float32_matmul_precision("high")
    network = Model().cuda()
    ids, targets = (torch.randint(0, s["vocab"], (s["batch"], s["seq_len"]), device="cuda") for _ in range(2))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    loss_of = torch.compile(network) if job["variant"] == "compile" else network
    seconds, losses = [], []
    for number in range(WARM_UP + job["steps"]):
        start = time.perf_counter()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = loss_of(ids, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        torch.cuda.synchronize()
        if number >= WARM_UP:
            seconds.append(time.perf_counter() - start)
    return dict(median_ms=1e3 * statistics.median(seconds), losses=[losses[0], losses[-1]],
                parameters=sum(p.numel() for p in network.parameters()))


if __name__ == "__main__":
    sys.exit(main())
