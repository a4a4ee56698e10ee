#!/usr/bin/env python3
"""Compares the CTC decoders with pyctcdecode 0.5.0 on the same emissions and the same bigram model.

    cargo build --release -p arcuate-decode --example decode_emissions
    python tools/compare_ctc_decoders.py target/release/examples/decode_emissions

Needs numpy, kenlm and pyctcdecode (pygtrie, hypothesis). Words and sentences are drawn with a fixed seed; the emissions of
a sentence have a peak for every letter, mostly the right one, and blanks between. Prints WER and seconds of both for
several widths of the beam, and the ratio of seconds. Both decode one recording after another in one thread.
"""

import argparse
import collections
import json
import logging
import math
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

LETTERS = "abcdefghijklmnopqrstuvwxyz'"
BLANK, SPACE = 0, 1
SECONDS_PER_FRAME = 0.02


def make_words(rng, num):
    onsets = ["b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "st", "tr", "pl", "gr", "sh", ""]
    vowels = ["a", "e", "i", "o", "u", "ai", "ou", "ee"]
    words = []
    while len(words) < num:
        syllables = rng.integers(1, 4)
        word = "".join(str(rng.choice(onsets)) + str(rng.choice(vowels)) for _ in range(syllables))
        word += str(rng.choice(["", "n", "s", "t", "l"]))
        if word not in words:
            words.append(word)
    return words


def make_sentences(rng, words, followers, num):
    share = 1 / np.arange(1, len(words) + 1)
    share /= share.sum()
    sentences = []
    for _ in range(num):
        sentence = [int(rng.choice(len(words), p=share))]
        while len(sentence) < rng.integers(4, 16):
            follower = followers[sentence[-1], rng.integers(followers.shape[1])]
            sentence.append(int(follower) if rng.random() < 0.8 else int(rng.choice(len(words), p=share)))
        sentences.append([words[at] for at in sentence])
    return sentences


def write_arpa(path, sentences, words, discount=0.7):
    """A bigram model with absolute discounting over add-one unigrams."""
    ones, twos, histories = collections.Counter(), collections.Counter(), collections.Counter()
    for sentence in sentences:
        padded = ["<s>", *sentence, "</s>"]
        ones.update(padded[1:])
        twos.update(zip(padded, padded[1:]))
        histories.update(padded[:-1])
    vocabulary = ["<unk>", "</s>", *words]
    total = sum(ones.values()) + len(vocabulary)
    prob = {word: (ones[word] + 1) / total for word in vocabulary}
    followers = collections.defaultdict(list)
    for before, after in twos:
        followers[before].append(after)
    rows = []
    backoff = {}
    for before, after_words in followers.items():
        left = 1.0
        for after in after_words:
            value = (twos[before, after] - discount) / histories[before]
            rows.append((math.log10(value), before, after))
            left -= value
        backoff[before] = math.log10(left / (1 - sum(prob[after] for after in after_words)))
    with open(path, "w") as file:
        file.write(f"\\data\\\nngram 1={len(vocabulary) + 1}\nngram 2={len(rows)}\n\n\\1-grams:\n")
        file.write(f"-99\t<s>\t{backoff['<s>']:.6f}\n")
        for word in vocabulary:
            file.write(f"{math.log10(prob[word]):.6f}\t{word}\t{backoff.get(word, 0.0):.6f}\n")
        file.write("\n\\2-grams:\n")
        for value, before, after in rows:
            file.write(f"{value:.6f}\t{before} {after}\n")
        file.write("\n\\end\\\n")


def emissions_of(rng, text, mistakes):
    ids = [SPACE if letter == " " else 2 + LETTERS.index(letter) for letter in text]
    width = 2 + len(LETTERS)
    rows = []
    for at, letter in enumerate(ids):
        if (at > 0 and ids[at - 1] == letter) or rng.random() < 0.7:
            rows += [BLANK] * int(rng.integers(1, 4))
        rows += [letter] * int(rng.integers(1, 3))
    rows += [BLANK] * 3
    logits = rng.normal(0, 1.5, (len(rows), width))
    other = int(rng.integers(1, width))
    for frame, best in enumerate(rows):
        if frame == 0 or rows[frame - 1] != best:
            other = int(rng.integers(1, width))
            is_mistake = best != BLANK and rng.random() < mistakes
        logits[frame, best] += 9
        if is_mistake:
            logits[frame, other] += 9 + rng.normal(0, 2)
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return log_probs.astype(np.float32)


def num_errors(found, wanted):
    row = list(range(len(wanted) + 1))
    for at, word in enumerate(found, 1):
        diagonal, row[0] = row[0], at
        for to, other in enumerate(wanted, 1):
            diagonal, row[to] = row[to], min(row[to] + 1, row[to - 1] + 1, diagonal + (word != other))
    return row[-1]


def wer(texts, sentences):
    errors = sum(num_errors(text.split(), sentence) for text, sentence in zip(texts, sentences))
    return 100 * errors / sum(map(len, sentences))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("example", type=Path, help="the built decode_emissions")
    parser.add_argument("--sentences", type=int, default=100)
    parser.add_argument("--mistakes", type=float, default=0.2, help="share of letters with a rival")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    import kenlm
    from pyctcdecode import build_ctcdecoder

    rng = np.random.default_rng(17)
    words = make_words(rng, 3000)
    followers = rng.integers(0, len(words), (len(words), 6))
    folder = Path(tempfile.mkdtemp())
    arpa = folder / "model.arpa"
    write_arpa(arpa, make_sentences(rng, words, followers, 8000), words)
    sentences = make_sentences(rng, words, followers, arguments.sentences)
    recordings = [emissions_of(rng, " ".join(sentence), arguments.mistakes) for sentence in sentences]
    num_frames = sum(map(len, recordings))
    alphabet = {"tokens": ["-", " ", *LETTERS], "blank": "-", "boundary": " "}
    (folder / "alphabet.json").write_text(json.dumps(alphabet))
    (folder / "lengths.json").write_text(json.dumps([len(recording) for recording in recordings]))
    np.concatenate(recordings).astype("<f4").tofile(folder / "emissions.f32")
    (folder / "words.txt").write_text("\n".join(words))
    print(f"{len(sentences)} sentences, {num_frames} frames ({num_frames * SECONDS_PER_FRAME:.0f} s of speech)")

    def ours(config):
        (folder / "decoder.json").write_text(json.dumps(config))
        command = [arguments.example.resolve(), folder, folder / "decoder.json"]
        *texts, seconds = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\n")[:-1]
        return texts, float(seconds)

    def theirs(alpha, beta, beam_width, with_model):
        labels = ["", " ", *LETTERS]
        if with_model:
            decoder = build_ctcdecoder(labels, str(arpa), words, alpha=alpha, beta=beta)
        else:
            decoder = build_ctcdecoder(labels)
        start = time.perf_counter()
        texts = [decoder.decode(recording, beam_width=beam_width) for recording in recordings]
        return texts, time.perf_counter() - start

    texts, seconds = ours({"greedy": {}})
    print(f"{'greedy':32} WER {wer(texts, sentences):6.2f} %  {seconds:8.3f} s")
    alpha, beta = 0.5, 1.5
    for with_model in (False, True):
        for beam_width in (10, 100, 500):
            config = {"beam_width": beam_width}
            if with_model:
                # The penalty of pyctcdecode is in log10 and weighted.
                unknown = -10 * alpha * math.log(10)
                config["language_model"] = {
                    "path": str(arpa), "weight": alpha, "word_score": beta, "unknown_word_score": unknown}
            own, own_seconds = ours({"prefix_beam": config})
            other, other_seconds = theirs(alpha, beta, beam_width, with_model)
            name = f"beam {beam_width}{', bigrams' if with_model else ''}"
            same = sum(a == b for a, b in zip(own, other))
            print(f"{name:32} WER {wer(own, sentences):6.2f} %  {own_seconds:8.3f} s   pyctcdecode {wer(other, sentences):6.2f} %"
                  f"  {other_seconds:8.3f} s   {other_seconds / own_seconds:6.1f} times   {same} texts the same")
    for beam_width in (50, 500):
        config = {"lexicon": str(folder / "words.txt"), "language_model": str(arpa), "beam_width": beam_width}
        texts, seconds = ours({"lexicon_beam": {**config, "language_model_weight": 1.15, "word_score": 1.5}})
        print(f"{f'lexicon {beam_width}, bigrams':32} WER {wer(texts, sentences):6.2f} %  {seconds:8.3f} s")


if __name__ == "__main__":
    main()
