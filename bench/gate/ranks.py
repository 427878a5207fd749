"""The rank-sum test for rounds in turns: aligned within blocks of neighbours, exact under exchange within a block.

A machine's speed drifts and jumps, and with it both sides. Pooled, rounds from different spells differ more than the
code does. So each block's own middle is taken from its rounds before all are ranked together (Hodges & Lehmann 1962,
Ann. Math. Stat. 33, 482-497), and the sum of the head's ranks is compared with what it would be had the two sides been
exchanged at random within each block, whatever the blocks' speeds were.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy.stats import rankdata

BLOCK = 2
"""Rounds of each side in a block: A B B A."""


def aligned_p(base: Sequence[float], head: Sequence[float], block: int = BLOCK) -> float:
    """One-sided p of "the head is slower", exact.

    Args:
        base, head: seconds above 0, as many of each; round i of one beside round i of the other.
        block: rounds of each side that count as neighbours; the last block may have fewer.

    Returns:
        The share of all exchanges within blocks whose rank sum of the head is at least the one found.
    """
    if len(base) != len(head) or not len(base):
        raise ValueError(f"expected as many rounds of each side, at least one, got {len(base)} and {len(head)}")
    logs = np.log(np.stack([base, head], 1))
    starts = range(0, len(logs), block)
    aligned = np.concatenate([logs[i : i + block] - np.median(logs[i : i + block]) for i in starts])
    # twice the ranks, so that ties leave whole numbers; rounding keeps equal times equal after the alignment
    ranks = np.rint(2 * rankdata(np.round(aligned, 12), axis=None)).astype(int).reshape(aligned.shape)
    found, share = int(ranks[:, 1].sum()), np.ones(1)
    for i in starts:
        held = ranks[i : i + block].ravel()
        sums = [int(held[list(chosen)].sum()) for chosen in combinations(range(held.size), held.size // 2)]
        least = min(sums)
        grown = np.zeros(len(share) + max(sums) - least)
        for total in sums:
            grown[total - least : total - least + len(share)] += share / len(sums)
        share, found = grown, found - least
    return float(min(1.0, share[max(found, 0) :].sum()))
