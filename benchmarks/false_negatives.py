"""How many mined negatives are false, how hard are they, how many queries get all of them? The hold-out audit.

Each data set is mined with MiniLM and BM25, all splits together, and audited over ten draws. Every rule stands in a
row of its own: the paper's methods with one teacher, then what goes beyond it, one rule at a time.

Two settings go beyond the paper. `cleaner` follows the data: a candidate falls when it is nearer to the positive than
the query is, or when BM25 too puts it above the positive and 2.5 deviations above its mean; what that saves is spent
on a higher ratio. `strict` has limits of its own for both, and loses hardness where passages are alike (medquad).
Numbers were chosen on cranfield and cacm, by the mean rate among settings no less hard and no less full than PercPos
.95 on both; that they follow the data was decided after `strict` had been seen on stackfaq and medquad too.

    python benchmarks/false_negatives.py --out runs/false-negatives [--data DIR] [--sets cranfield,cacm]

A data set that is mined already is read again.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from statistics import mean

from embedsmith import MiningSettings
from embedsmith.data.source import SourceSettings
from embedsmith.mining.audit import Audit, audit
from embedsmith.mining.mine import mine
from embedsmith.mining.select import read_mined
from embedsmith.mining.settings import SelectionSettings
from embedsmith.models.settings import MINILM

CLEANER = SelectionSettings(ratio=1.05, neighbour_ratio=1.0, veto=True, veto_deviations=2.5)
WAYS = {
    "naive": SelectionSettings(method="naive"),
    "shifted 10": SelectionSettings(method="shifted"),
    "abs .7": SelectionSettings(method="abs"),
    "marginpos .05": SelectionSettings(method="marginpos"),
    "percpos .95": SelectionSettings(),
    "percpos 1.05": SelectionSettings(ratio=1.05),
    "percpos 1.05, neighbour ratio 1": SelectionSettings(ratio=1.05, neighbour_ratio=1.0),
    "percpos 1.05, veto": SelectionSettings(ratio=1.05, veto=True, veto_deviations=2.5),
    "cleaner: percpos 1.05 and both": CLEANER,
    "strict: 1.2, neighbour .55, 3 deviations": SelectionSettings(ratio=1.2, neighbour=0.55, veto_deviations=3),
    "fuse, ratio .8": SelectionSettings(ensemble="fuse", ratio=0.8),
}


def audit_of(data: Path, out: Path) -> dict[str, Audit]:
    """Return the audit of every way on one data set."""
    if not (out / "negatives.jsonl").is_file():
        settings = MiningSettings(teachers=[MINILM, "bm25"], depth=200)
        mine(data, out=out, settings=settings, source=SourceSettings(split="all"))
    mined = read_mined(out)
    return audit(mined.candidates, WAYS, listed=mined.listed, draws=10)


def main() -> None:
    """Print one table a data set, and the changes against PercPos .95."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=os.environ.get("EMBEDSMITH_DATA"), help="folder of BEIR folders")
    parser.add_argument("--sets", default="cranfield,cacm,stackfaq,medquad")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("name the folder of the data sets: --data DIR, or the variable EMBEDSMITH_DATA")
    changes: dict[str, list[float]] = {}
    for name in arguments.sets.split(","):
        found = audit_of(Path(arguments.data) / name, arguments.out / name)
        base = found["percpos .95"]
        print(f"\n{name}: {base.queries:,} queries with several positives\n")
        print("| | false negatives | against percpos .95 | hardness | full rows |\n| --- | --- | --- | --- | --- |")
        for way, row in found.items():
            change = row.false_negative_rate / base.false_negative_rate - 1
            changes.setdefault(way, []).append(change)
            print(
                f"| {way} | {row.false_negative_rate:.3f} ± {row.spread:.3f} | {change:+.0%} | {row.hardness:.3f} "
                f"| {row.full_rows:.2f} |",
                flush=True,
            )
    print("\nmean change against percpos .95:")
    for way, values in changes.items():
        print(f"{way}: {mean(values):+.0%}")


if __name__ == "__main__":
    main()
