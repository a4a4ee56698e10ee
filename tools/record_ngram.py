"""Records what KenLM trains, packs and scores: the fixtures in crates/arcuate-text/tests/ngram.

    python tools/record_ngram.py FOLDER      # needs the kenlm module; FOLDER holds lmplz and build_binary

Both programs are built from the source package of the kenlm module: `cmake`, then `make lmplz build_binary`.
"""

import gzip
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import kenlm

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "crates/arcuate-text/tests/ngram"
SPEECHES = ROOT / "data/sotu/sotu.jsonl.zst"
NUM_SENTENCES = 300
MAX_WORDS = 20

# Name, options of lmplz, how many sentences.
ESTIMATES = [
    ("unigram", ["-o", "1", "--discount_fallback"], NUM_SENTENCES),
    ("bigram", ["-o", "2"], NUM_SENTENCES),
    ("trigram", ["-o", "3"], NUM_SENTENCES),
    ("pruned", ["-o", "4", "--prune", "0", "0", "1"], NUM_SENTENCES),
    ("limited", ["-o", "3", "--limit_vocab_file", "VOCABULARY"], NUM_SENTENCES),
    ("sixgram", ["-o", "6", "--prune", "0", "0", "0", "0", "1", "2", "--discount_fallback"], 60),
]

# Name, arguments of build_binary before the files; all from the pruned model.
BINARIES = [
    ("probing", ["probing"]),
    ("rest_probing", ["-r", "unigram.arpa bigram.arpa trigram.arpa", "probing"]),
    ("probing_no_words", ["-i", "-v", "probing"]),
    ("trie", ["trie"]),
    ("trie_quantized", ["-q", "7", "-b", "6", "trie"]),
    ("trie_array", ["-a", "4", "trie"]),
    ("trie_quantized_array", ["-q", "8", "-b", "8", "-a", "22", "trie"]),
]


def sentences():
    text = subprocess.run(["zstd", "-dc", SPEECHES], check=True, capture_output=True, text=True).stdout
    found = []
    for line in text.splitlines():
        for sentence in re.split(r"[.;:?!]", json.loads(line)["text"].lower()):
            words = re.findall(r"[a-z']+", sentence)
            if 2 <= len(words) <= MAX_WORDS:
                found.append(" ".join(words))
            if len(found) == NUM_SENTENCES:
                return found
    return found


def scores(model, lines):
    return [round(model.score(line, bos=True, eos=True), 6) for line in lines]


def pack(name, data):
    (OUT / name).write_bytes(gzip.compress(data, 9, mtime=0))


def main():
    programs = Path(sys.argv[1]).resolve()
    OUT.mkdir(exist_ok=True)
    found = sentences()
    (OUT / "text.txt").write_text("\n".join(found) + "\n")
    allowed = sorted({word for line in found for word in line.split() if len(word) != 5})
    (OUT / "allowed.txt").write_text("\n".join(allowed) + "\n")
    # Sentences of the text, and others of its words with some that it lacks.
    words = [line.split() for line in found]
    asked = found[::15] + [" ".join(words[n][:3] + ["zyx"] + words[n + 7][1:5] + words[n + 3][-4:]) for n in range(20)]
    asked += ["", "zyx", "the the the the the the"]
    recorded = {"sentences": asked, "scores": {}}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "vocabulary").write_text("\n".join(allowed))
        for name, options, num in ESTIMATES:
            options = [str(folder / "vocabulary") if option == "VOCABULARY" else option for option in options]
            text = "\n".join(found[:num]) + "\n"
            command = [programs / "lmplz", *options, "-S", "100M", "-T", folder]
            done = subprocess.run(command, input=text, check=True, capture_output=True, text=True)
            pack(f"{name}.arpa.gz", done.stdout.encode())
            (folder / f"{name}.arpa").write_text(done.stdout)
            if name != "unigram":
                recorded["scores"][f"{name}.arpa"] = scores(kenlm.Model(str(folder / f"{name}.arpa")), asked)
        for name, options in BINARIES:
            subprocess.run([programs / "build_binary", *options, "pruned.arpa", name], check=True, cwd=folder)
            pack(f"{name}.bin.gz", (folder / name).read_bytes())
            recorded["scores"][name] = scores(kenlm.Model(str(folder / name)), asked)
    (OUT / "scores.json").write_text(json.dumps(recorded, indent=0) + "\n")


main()
