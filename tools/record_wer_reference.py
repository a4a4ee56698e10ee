"""Records what jiwer finds in odd pairs of transcripts: crates/arcuate-eval/tests/wer.json.

    python tools/record_wer_reference.py        # needs jiwer
"""

import json
import random
from importlib.metadata import version
from pathlib import Path

import jiwer

PAIRS = [
    ("", ""),
    ("", "a"),
    ("", "so it was"),
    ("a", ""),
    ("so it was", ""),
    ("a", "a"),
    ("a", "b"),
    ("a b", "b a"),
    ("a b c", "b c a"),
    ("a b c d", "d c b a"),
    ("a b", "a a b"),
    ("a a b", "a b"),
    ("a a a a", "a a"),
    ("a a", "a a a a a"),
    ("a b a b a b", "b a b a b a"),
    ("a x b x c", "x a x b x"),
    ("the cat sat on the mat", "the cat sat on the mat"),
    ("the cat sat on the mat", "the cat sit on mat"),
    ("the cat sat on the mat", "cat sat on the the mat"),
    ("the cat sat on the mat", "a dog"),
    ("the cat sat on the mat", "mat the on sat cat the"),
    ("i think that that that he said is wrong", "i think that that he said it is wrong"),
    ("we are here", "we're here"),
    ("ice cream", "icecream"),
    ("icecream", "ice cream"),
    ("Case Matters", "case matters"),
    ("full stop.", "full stop"),
    ("don't", "dont"),
    ("příliš žluťoučký kůň úpěl", "prilis žlutoučký kůň úpěl ďábelské"),
    ("кошка сидит на окне", "кошка сидела на окне дома"),
    ("हिन्दी में बात करें", "हिंदी मे बात कर"),
    ("আমি বাংলায় গান গাই", "আমি বাংলা গান গাই"),
    ("مرحبا كيف الحال", "مرحبا كف حالك"),
    ("你 好 世 界", "你 世 界 好"),
    ("今天天气很好", "今天天汽好"),
    ("👩‍👩‍👧 is a family", "👩 is family"),
    ("e\u0301", "\u00e9"),
    ("ısparta", "isparta"),
    ("a" * 70, "b" + "a" * 70),
    ("ab" * 40, "ba" * 40),
    ("kitten", "sitting"),
    ("intention", "execution"),
]


def drawn(generator, num_words, letters, errors):
    words = ["".join(generator.choice(letters) for _ in range(generator.randint(1, 3))) for _ in range(num_words)]
    heard = []
    for word in words:
        draw = generator.random()
        if draw < errors / 3:
            continue
        heard.append(generator.choice(words) if draw < 2 * errors / 3 else word)
        if 2 * errors / 3 < draw < errors:
            heard.append(generator.choice(words))
    return " ".join(words), " ".join(heard)


def counts(output):
    return [output.hits, output.substitutions, output.insertions, output.deletions]


def edits(chunks):
    letter = {"equal": "=", "substitute": "s", "insert": "i", "delete": "d"}
    return "".join(
        letter[chunk.type] * max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
        for chunk in chunks
    )


def main():
    generator = random.Random(7)
    pairs = list(PAIRS)
    for num_words, letters, errors in [(5, "ab", 0.5), (12, "ab", 0.6), (30, "abc", 0.4), (90, "ab", 0.5), (150, "abcde", 0.3)]:
        pairs += [drawn(generator, num_words, letters, errors) for _ in range(4)]
    recorded = []
    for reference, hypothesis in pairs:
        words = jiwer.process_words(reference, hypothesis)
        characters = jiwer.process_characters(reference, hypothesis)
        recorded.append(
            {
                "reference": reference,
                "hypothesis": hypothesis,
                "words": counts(words),
                "wer": words.wer,
                "edits": edits(words.alignments[0]),
                "characters": counts(characters),
                "cer": characters.cer,
            }
        )
    references, hypotheses = [list(texts) for texts in zip(*pairs)]
    words = jiwer.process_words(references, hypotheses)
    characters = jiwer.process_characters(references, hypotheses)
    corpus = {"words": counts(words), "wer": words.wer, "characters": counts(characters), "cer": characters.cer}
    path = Path(__file__).parent.parent / "crates/arcuate-eval/tests/wer.json"
    lines = ",\n".join("  " + json.dumps(pair, ensure_ascii=False) for pair in recorded)
    head = f'{{\n"versions": {json.dumps({"jiwer": version("jiwer"), "rapidfuzz": version("rapidfuzz")})},\n'
    path.write_text(f'{head}"corpus": {json.dumps(corpus)},\n"pairs": [\n{lines}\n]\n}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
