"""The figures of a checkpoint's model card.

    python benchmarks/model_card.py checkpoints/melcodec-base.safetensors --train DATA/train --test DATA/test -o report

The test files are evaluated with every metric and anchor that is there, k-means learned from the training files; over the
training files it is measured how the codebook is used. Both reports stay in OUT; a run that was stopped is resumed.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from melcodec.evaluation.run import EvaluationSettings, evaluate
from melcodec.evaluation.summary import table, usage_lines, verdict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--metrics", default="all", help="core, or names, for less than all")
    options = parser.parse_args()

    settings = EvaluationSettings(options.checkpoint, options.metrics, train=(options.train,))
    report = evaluate([options.test], options.output / "test", settings)
    print("\n".join([*verdict(report), *usage_lines(report), "", *table(report)]))

    settings = replace(settings, metrics="log_mel_l1", anchors=False, train=())
    report = evaluate([options.train], options.output / "train", settings)
    print("\n".join([f"\nOver {report.files} training files:", *usage_lines(report)]))


if __name__ == "__main__":
    main()
