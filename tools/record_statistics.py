"""Records what SciPy and statsmodels compute for small samples: crates/arcuate-record/tests/statistics.json.

    python tools/record_statistics.py        # needs scipy and statsmodels
"""

import json
import math
from pathlib import Path

import numpy as np
import scipy
import statsmodels
from scipy import special, stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower


def hedges(values):
    freedom = len(values) - 1
    factor = math.exp(special.gammaln(freedom / 2) - special.gammaln((freedom - 1) / 2)) / math.sqrt(freedom / 2)
    return float(np.mean(values) / np.std(values, ddof=1) * factor)


def sample(baseline, arm):
    a, b = np.array(baseline), np.array(arm)
    difference = b - a
    test = stats.ttest_rel(b, a)
    positive, apart = int((difference > 0).sum()), int((difference != 0).sum())
    interval = stats.t.interval(0.95, len(difference) - 1, loc=difference.mean(), scale=stats.sem(difference))
    out = {
        "baseline": baseline,
        "arm": arm,
        "mean": float(difference.mean()),
        "t": float(test.statistic),
        "p": float(test.pvalue),
        "t_interval": [float(x) for x in interval],
        "positive": positive,
        "sign_p": float(stats.binomtest(positive, apart, 0.5).pvalue),
        "dz": float(difference.mean() / difference.std(ddof=1)),
        "hedges_g": hedges(difference),
    }
    for name, method in [("percentile", "percentile"), ("bca", "BCa")]:
        result = stats.bootstrap(
            (difference,), np.mean, n_resamples=200_000, batch=20_000, method=method, rng=np.random.default_rng(1)
        )
        out[name] = [float(result.confidence_interval.low), float(result.confidence_interval.high)]
    return out


def main():
    rng = np.random.default_rng(20)
    samples = [
        ([61.2, 60.3, 62.1, 61.0, 60.8], [68.9, 69.4, 68.0, 70.1, 68.3]),
        ([1.51, 1.49, 1.52], [1.50, 1.50, 1.49]),
        ([0.0, 0.0], [1.0, 3.0]),
        (np.round(rng.normal(50, 3, 12), 3).tolist(), np.round(rng.normal(51, 3, 12), 3).tolist()),
        (np.round(rng.normal(0, 1, 30), 4).tolist(), np.round(rng.gamma(1.0, 1.0, 30), 4).tolist()),
        ([3.0, 4.0, 5.0, 6.0], [3.0, 3.0, 7.0, 5.0]),
    ]
    fixtures = {
        "versions": {"scipy": scipy.__version__, "statsmodels": statsmodels.__version__, "numpy": np.__version__},
        "samples": [sample(a, b) for a, b in samples],
        "corrections": [],
        "needed": [],
        "power": [],
        "noncentral_t": [],
        "t": [],
    }
    # Hedges' factor has no finite value for two pairs.
    fixtures["samples"][2]["hedges_g"] = None
    for p in [[0.01, 0.04, 0.03, 0.005], [0.5], [0.2, 0.2, 0.001, 0.9, 0.04], [1e-9, 0.049, 0.051]]:
        adjust = lambda method: multipletests(p, method=method)[1].tolist()
        fixtures["corrections"].append({"p": p, "holm": adjust("holm"), "bh": adjust("fdr_bh")})
    for effect in [0.2, 0.35, 0.5, 0.8, 1.2, 2.0, 3.0]:
        for power in [0.5, 0.8, 0.9]:
            for alpha in [0.05, 0.01]:
                pairs = TTestPower().solve_power(effect_size=effect, power=power, alpha=alpha, alternative="two-sided")
                fixtures["needed"].append([effect, power, alpha, float(np.squeeze(pairs))])
    for effect in [0.0, 0.1, 0.5, 1.0, 2.5]:
        for pairs in [2, 3, 5, 10, 40, 200]:
            power = float(TTestPower().power(effect, pairs, 0.05, alternative="two-sided"))
            if math.isfinite(power):
                fixtures["power"].append([effect, pairs, 0.05, power])
    for t in [-3.0, -0.5, 0.0, 0.7, 2.0, 6.0, 20.0]:
        for freedom in [1, 2, 4, 9, 99]:
            for shift in [-1.0, 0.0, 0.5, 2.0, 8.0]:
                value = float(stats.nct.cdf(t, freedom, shift))
                if math.isfinite(value):
                    fixtures["noncentral_t"].append([t, freedom, shift, value])
    for share in [1e-6, 0.005, 0.025, 0.2, 0.5, 0.9, 0.975, 0.9999]:
        for freedom in [1, 2, 4, 9, 99]:
            fixtures["t"].append([share, freedom, float(stats.t.ppf(share, freedom))])
    path = Path(__file__).parent.parent / "crates/arcuate-record/tests/statistics.json"
    parts = [f'"{name}": ' + one_a_line(value) for name, value in fixtures.items()]
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def one_a_line(value):
    if not isinstance(value, list):
        return json.dumps(value)
    return "[\n" + ",\n".join("  " + json.dumps(item) for item in value) + "\n]"


if __name__ == "__main__":
    main()
