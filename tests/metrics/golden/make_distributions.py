"""Write distributions.json: what torch-fidelity computes from generated features.

Needs torch and torch-fidelity (made with 2.14.1 and 0.4.0), on a CPU:

    python tests/metrics/golden/make_distributions.py

torch-fidelity's own functions run twice: on the features in float64, which is what its
formulas give, and in float32, which is what its command gives.
"""

import json
import sys
from pathlib import Path

import torch
from torch_fidelity.metric_fid import (
    fid_features_to_statistics,
    fid_statistics_to_metric,
)
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import generated_features  # noqa: E402


def figures(name: str, dtype: torch.dtype) -> dict[str, float]:
    """All metrics of one case."""
    real, generated, logits = (
        torch.from_numpy(array).to(dtype) for array in generated_features.case(name)
    )
    statistics = [fid_features_to_statistics(x) for x in (generated, real)]
    return {
        **isc_features_to_metric(logits, splits=10),
        **fid_statistics_to_metric(*statistics, verbose=False),
        **kid_features_to_metric(
            generated,
            real,
            kid_subsets=generated_features.SUBSETS,
            kid_subset_size=generated_features.CASES[name]["subset"],
            verbose=False,
        ),
        **prc_features_to_metric(generated, real, verbose=False),
    }


def main() -> None:
    result = {
        name: {
            "float64": figures(name, torch.float64),
            "float32": figures(name, torch.float32),
        }
        for name in generated_features.CASES
    }
    text = json.dumps(result, indent=2)
    (HERE / "distributions.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
