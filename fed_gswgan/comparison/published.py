"""What the GS-WGAN paper prints, for a column of its own: never mixed with what is measured here.

Source: arXiv 2006.08265, tables 1 and 4. Its epsilon of 10 is that of its own accounting, under
which the rows' true epsilons differ; ``docs/privacy.md`` corrects it.
"""

from collections.abc import Mapping

PublishedRow = Mapping[str, float]

PUBLISHED_TABLE1: Mapping[str, Mapping[str, PublishedRow]] = {
    "mnist": {
        "real": {"IS": 9.80, "FID": 1.02, "MLP": 0.98, "CNN": 0.99, "Avg": 0.88},
        "gs-wgan": {
            "IS": 9.23, "FID": 61.34, "MLP": 0.79, "CNN": 0.80, "Avg": 0.60, "Calibrated": 0.69,
        },
    },
    "fashion-mnist": {
        "real": {"IS": 8.98, "FID": 1.49, "MLP": 0.88, "CNN": 0.91, "Avg": 0.79},
        "gs-wgan": {
            "IS": 5.32, "FID": 131.34, "MLP": 0.65, "CNN": 0.65, "Avg": 0.53, "Calibrated": 0.67,
        },
    },
}  # fmt: skip

# Inception features, all 62 classes, delta 1.15e-3; epsilon and bytes as the paper counts them.
PUBLISHED_TABLE4: Mapping[str, PublishedRow] = {
    "gs-wgan": {"IS": 11.25, "FID": 60.76, "epsilon": 5.99e2, "bytes": 1.50e5},
    "fedavg-gan": {"IS": 10.88, "FID": 218.24, "epsilon": 9.99e6, "bytes": 3.94e7},
}
