"""The version of what we ourselves compute, in every contract; importing it loads no model library."""

ARITHMETIC = 1
"""Of everything between a text and its stored number: how a prompt is put before it, what is masked, packed, pooled and
brought to length 1, how words are counted, how vectors are joined. Raise it when the same model, settings and texts
give other numbers than before, beyond rounding. All that is stored is then made anew."""
