#!/usr/bin/env bash
# Builds arcuate with the feature `cuda`, strips and compresses it: target/package/arcuate-cuda.xz, for tools/gpu_check.py.
# Needs no GPU and no CUDA toolkit.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo build --release --locked --package arcuate --features cuda "$@"
target="${CARGO_TARGET_DIR:-target}"
mkdir -p target/package
strip -o target/package/arcuate-cuda "$target/release/arcuate"
bytes="$(stat -c %s target/package/arcuate-cuda)"
xz -T0 -6 --force target/package/arcuate-cuda
echo "target/package/arcuate-cuda.xz: $(stat -c %s target/package/arcuate-cuda.xz) bytes, $bytes unpacked"
