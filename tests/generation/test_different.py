"""What is said twice, or almost, is found out; what differs in a word that matters is not."""

import random

from embedsmith.generation.answers import Different
from embedsmith.mining.near_duplicates import shingles
from tests.near import jaccard


def test_almost_the_same_is_what_reaches_the_share_of_shingles():
    """Against the share itself, of each text with every one that was taken."""
    draw = random.Random(0)
    words = [f"w{n}" for n in range(30)]
    different, taken, dropped = Different(0.7, shingles=shingles), [], 0
    for _ in range(300):
        text = draw.choice(taken).split() if taken and draw.random() < 0.6 else draw.choices(words, k=20)
        text[draw.randrange(20)] = draw.choice(words)
        text = " ".join(text)
        shares = {other: jaccard(frozenset(shingles(text)), frozenset(shingles(other))) for other in taken}
        twin = different.twin(text)
        if twin is not None:
            assert shares[twin] == max(shares.values()) >= 0.7
            dropped += 1
        else:
            assert max(shares.values(), default=0) < 0.85  # MinHash may miss what is just above the limit
            different.add(text)
            taken.append(text)
    assert dropped > 50
    assert different.texts == taken


def test_the_reason_says_whether_it_was_to_the_letter():
    different = Different(0.8, shingles=shingles)
    different.add("Where do cats sleep?")
    assert different.flaw("where do cats  SLEEP?") == "said twice"
    assert different.flaw("where do cats sleep") == "almost the same as another one"
    assert different.flaw("where do dogs sleep") == ""
