"""A run that is killed again and again, without a word of warning, ends as one that was not."""

import json
from pathlib import Path

import pytest

from tests import forks

PROGRAM = """
import json, os, random, re, signal, sys
from embedsmith.cli.main import main
from embedsmith.data import files
from embedsmith.mining import candidates
from embedsmith.mining import mine  # imported once: every attempt is a fork of this process
from embedsmith.teachers import dense, joined

candidates.mine_candidates.__kwdefaults__["block"] = 6
dense._SHARD = 8
*words, out = sys.argv[1:]
replace, sync = os.replace, os.fsync


def attempt(folder, killed_at):
    # Returns the moments that it came to, before a file was whole and before it got its name, and how it ended.
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        def moment(act):
            def notes(*arguments):
                path = str(arguments[-1]) if act is replace else os.readlink(f"/proc/self/fd/{arguments[0]}")
                name = re.sub(r"[.][0-9a-f]{8}(?=[.]partial)", "", path.replace(folder, ""))
                what = f"{act.__name__} {name}"
                os.write(writer, f"{what}\\n".encode())
                if what == killed_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return act(*arguments)
            return notes
        files.os.fsync, files.os.replace = moment(sync), moment(replace)
        sys.argv = ["embedsmith", *words, "--out", folder]
        main()
    os.close(writer)
    with open(reader) as notes:
        moments = notes.read().splitlines()
    _, status = os.waitpid(child, 0)
    return moments, os.waitstatus_to_exitcode(status)


moments, code = attempt(out + "/whole", "")
assert code == 0
moments = list(dict.fromkeys(moments))
# What is written once is hit for certain, the rest at random.
kills = [moment for moment in moments if re.search("fsync .*(manifest|joined|negatives)", moment)]
kills += random.Random(0).sample([moment for moment in moments if moment not in kills], 20 - len(kills))
kills.sort(key=moments.index)
assert [attempt(out + "/cut", moment)[1] for moment in kills] == [-signal.SIGKILL] * 20, kills
assert attempt(out + "/cut", "")[1] == 0
print(json.dumps(kills))
"""


@pytest.mark.slow
def test_a_run_killed_at_twenty_moments_ends_byte_for_byte_as_one_never_killed(tmp_path: Path, tiny_bert: Path):
    data = tmp_path / "pairs.jsonl"
    rows = [{"query": f"find {a} {b}", "positive": f"the {a} on the {b}"} for a in "pqrs" for b in "wxyz"]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    teachers = ["--teacher", tiny_bert, "--teacher", "bm25", "--teacher-dtype", "float32"]
    words = ["mine", data, *teachers, "--ensemble", "pca", "--method", "naive", "--json", tmp_path]
    done = forks.run(PROGRAM, *words)
    assert done.returncode == 0, done.stderr
    kills = json.loads(done.stdout.splitlines()[-1])
    for phase in ("manifest", "shard-", "joined-", "block-", "candidates.partial", "negatives.jsonl"):
        assert any(phase in moment for moment in kills), (phase, kills)
    whole, cut = (
        {path.relative_to(tmp_path / out): path.read_bytes() for path in (tmp_path / out).rglob("*") if path.is_file()}
        for out in ("whole", "cut")
    )
    assert whole.keys() == cut.keys()
    # The manifest tells the seconds of each attempt; on a fast machine they may even be the same.
    assert {str(path) for path in whole if whole[path] != cut[path]} <= {"manifest.json"}
