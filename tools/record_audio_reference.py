"""Records what other programs compute from one fixture, as numbers for the tests of `arcuate-audio`.

Run at the root of the repository, with torch, torchaudio, transformers, and openai-whisper (its filter file only):

    python3 tools/record_audio_reference.py

It reads `crates/arcuate-audio/tests/data/speech_s16.wav` and writes `reference.json` beside it.
"""

import importlib.util
import json
import pathlib
import wave

import numpy as np
import torch
import torchaudio.compliance.kaldi as kaldi
from transformers import SpeechT5FeatureExtractor, WhisperFeatureExtractor

DATA = pathlib.Path("crates/arcuate-audio/tests/data")

# Options of torchaudio, by the name of the test case.
FBANK = {
    "default": {},
    "w2v_bert": {"num_mel_bins": 80, "scale": 32768.0},
    "80_bins_no_log": {"num_mel_bins": 80, "use_log_fbank": False},
    "reflected_edges": {"snip_edges": False, "num_mel_bins": 40},
    "hamming": {"window_type": "hamming", "num_mel_bins": 40, "low_freq": 100.0, "high_freq": -400.0},
    "hanning": {"window_type": "hanning", "preemphasis_coefficient": 0.0, "remove_dc_offset": False},
    "blackman": {"window_type": "blackman", "use_power": False},
    "rectangular_400": {"window_type": "rectangular", "round_to_power_of_two": False, "frame_shift": 12.5},
    "energy": {"use_energy": True, "energy_floor": 0.01, "scale": 32768.0},
    "windowed_energy": {"use_energy": True, "raw_energy": False, "energy_floor": 0.0, "subtract_mean": True},
}
MFCC = {
    "default": {},
    "20_of_40": {"num_ceps": 20, "num_mel_bins": 40, "cepstral_lifter": 0.0},
    "energy": {"use_energy": True, "energy_floor": 0.0, "snip_edges": False},
    "no_mean": {"subtract_mean": True, "high_freq": 7600.0},
}


def some_frames(features):
    """A few frames (rows) of a feature matrix, and its shape."""
    features = np.asarray(features, dtype=np.float64)
    rows = [0, 1, len(features) // 2, len(features) - 1]
    return {
        "num_frames": len(features),
        "num_bins": features.shape[1],
        "frames": {str(row): [float(f"{x:.6g}") for x in features[row]] for row in rows},
    }


def by_kaldi(function, samples, options):
    options = dict(options)
    scaled = torch.from_numpy(samples * options.pop("scale", 1.0))[None]
    return some_frames(function(scaled, dither=0.0, **options))


def filters(bank):
    """Of every filter its sum and its centre of gravity."""
    bank = np.asarray(bank, dtype=np.float64)
    sums = bank.sum(axis=1)
    return {"sums": [float(f"{x:.7g}") for x in sums],
            "centres": [float(f"{x:.7g}") for x in bank @ np.arange(bank.shape[1]) / sums]}


def main():
    with wave.open(str(DATA / "speech_s16.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768.0
    published = pathlib.Path(importlib.util.find_spec("whisper").submodule_search_locations[0]) / "assets/mel_filters.npz"
    out = {
        "fbank": {name: by_kaldi(kaldi.fbank, samples, options) for name, options in FBANK.items()},
        "mfcc": {name: by_kaldi(kaldi.mfcc, samples, options) for name, options in MFCC.items()},
        "whisper": {}, "whisper_filters": {}, "speecht5": {},
    }
    with np.load(published, allow_pickle=False) as banks:
        for num_bins in (80, 128):
            out["whisper_filters"][str(num_bins)] = filters(banks[f"mel_{num_bins}"])
            extractor = WhisperFeatureExtractor(feature_size=num_bins, chunk_length=1)
            features = extractor(samples, sampling_rate=16000, return_tensors="np").input_features[0]
            out["whisper"][str(num_bins)] = some_frames(features.T)
    extractor = SpeechT5FeatureExtractor()
    out["speecht5"] = some_frames(extractor(audio_target=samples, sampling_rate=16000).input_values[0])
    (DATA / "reference.json").write_text(json.dumps(out, indent=1) + "\n")


main()
