"""A pseudo-random permutation of 0 to n - 1 as a function: any part of it is computed without the rest.

A Feistel network permutes the numbers of an even number of bits; a result beyond n is permuted again until it is below
(cycle walking). Source: Black and Rogaway, "Ciphers with Arbitrary Finite Domains" (CT-RSA 2002).
"""

import numpy as np
from numpy.typing import NDArray

ROUNDS = 8  # four make a Feistel network pseudo-random; short halves need more

Numbers = NDArray[np.uint64]


class Permutation:
    """A permutation of the numbers 0 to count - 1.

    Args:
        rng: draws the keys of the rounds.
        count: of numbers; at least 1.
    """

    def __init__(self, rng: np.random.Generator, count: int) -> None:
        self._count = np.uint64(count)
        self._bits = np.uint64(max(-(-(count - 1).bit_length() // 2), 1))  # of a half
        self._keys = rng.integers(2**64, size=ROUNDS, dtype=np.uint64)

    def __call__(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) numbers at these places of the permutation."""
        found = self._network(numbers.astype(np.uint64))
        while len(outside := np.flatnonzero(found >= self._count)):
            found[outside] = self._network(found[outside])
        return found.astype(np.int64)

    def _network(self, numbers: Numbers) -> Numbers:
        mask = (np.uint64(1) << self._bits) - np.uint64(1)
        left, right = numbers >> self._bits, numbers & mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right ^ key) & mask)
        return left << self._bits | right


def _mixed(values: Numbers) -> Numbers:
    """Each bit of the result depends on all bits of the value: the finaliser of MurmurHash3."""
    values = (values ^ values >> np.uint64(33)) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ values >> np.uint64(33)) * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ values >> np.uint64(33)
