"""A run that is killed again and again, without a word of warning, ends as one that was not."""

import json
import random
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, signal, sys
from embedsmith.cli.main import main
from embedsmith.data import files
from embedsmith.mining import candidates

candidates.mine_candidates.__kwdefaults__["block"] = 4
left, replace, sync = int(sys.argv.pop()), os.replace, os.fsync

def step(act):
    # SIGKILL at a write: before it is whole, or before it has its name.
    def counted(*words):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return act(*words)
    return counted

files.os.fsync, files.os.replace = step(sync), step(replace)
main()
"""


def test_a_run_killed_at_random_writes_ends_byte_for_byte_as_one_never_killed(tmp_path: Path):
    data = tmp_path / "pairs.jsonl"
    rows = [{"query": f"find {a} {b}", "positive": f"the {a} on the {b}"} for a in "pqrs" for b in "wxyz"]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def mine(out: str, killed_at: int) -> int:
        words = ["mine", data, "--out", tmp_path / out, "--teacher", "random", "--method", "naive", killed_at]
        return subprocess.run([sys.executable, "-c", PROGRAM, *map(str, words)], capture_output=True).returncode

    assert mine("whole", -1) == 0
    # The first kill is in the first file, the others wherever they fall.
    kills = [1, *random.Random(0).sample(range(2, 30), 3)]
    assert {mine("cut", killed_at) for killed_at in kills} == {-9}
    assert mine("cut", -1) == 0
    whole, cut = (
        {path.relative_to(tmp_path / out): path.read_bytes() for path in (tmp_path / out).rglob("*") if path.is_file()}
        for out in ("whole", "cut")
    )
    assert whole.keys() == cut.keys()
    # The manifest tells the seconds of each attempt; on a fast machine they may even be the same.
    assert {str(path) for path in whole if whole[path] != cut[path]} <= {"manifest.json"}
