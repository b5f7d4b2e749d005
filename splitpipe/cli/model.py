"""The demo's model: it guesses the next byte of a text from the eight before it.

Responsible for: something small and real for batches to be fed to. One hidden layer over learned
byte embeddings, trained by plain stochastic gradient descent, all in numpy (the neural language
model of Bengio et al., 2003, on bytes instead of words).
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from splitpipe.cli.text import Bytes

__all__ = ["NextByteModel"]

Floats: TypeAlias = npt.NDArray[np.float32]

VALUES = 256


class NextByteModel:
    """Predicts a byte from the ``context`` bytes before it.

    Args:
        context: how many bytes it sees.
        width: numbers in the embedding of a byte.
        hidden: units in the hidden layer.
        guesses: positions of a batch that one step learns from. A step's cost is theirs alone, so
            a batch may be as large as the pipeline makes it.
        rate: learning rate.
        seed: of the first weights and of the positions chosen.

    Example:
        >>> model = NextByteModel(guesses=64)
        >>> batch = np.tile(np.arange(65, 75, dtype=np.uint8), (4, 10))
        >>> first, *_, last = [model.step(batch) for _ in range(200)]
        >>> last < first / 4
        True
    """

    def __init__(
        self,
        *,
        context: int = 8,
        width: int = 16,
        hidden: int = 128,
        guesses: int = 2048,
        rate: float = 1.0,
        seed: int = 0,
    ) -> None:
        self._context = context
        self._guesses = guesses
        self._rate = np.float32(rate)
        self._rng = rng = np.random.default_rng(seed)

        def weights(rows: int, columns: int, scale: float) -> Floats:
            return rng.normal(0, scale, (rows, columns)).astype(np.float32)

        self._embedding = weights(VALUES, width, 0.3)
        self._inner = weights(context * width, hidden, (context * width) ** -0.5)
        self._inner_bias = np.zeros(hidden, np.float32)
        # Small, so that the first guess is uniform and the first loss is 8 bits.
        self._outer = weights(hidden, VALUES, 0.1 * hidden**-0.5)
        self._outer_bias = np.zeros(VALUES, np.float32)

    def step(self, batch: Bytes) -> float:
        """Learn from one batch.

        Args:
            batch: uint8 array of shape (sequences, length), length > context.

        Returns:
            The mean loss before this step, in bits a byte (8 is knowing nothing).
        """
        rows = self._rng.integers(0, batch.shape[0], self._guesses)
        columns = self._rng.integers(self._context, batch.shape[1], self._guesses)
        seen = batch[rows[:, None], columns[:, None] - np.arange(1, self._context + 1)]
        wanted = batch[rows, columns]
        inputs, hidden, chances = self._forward(seen)
        each = np.arange(self._guesses)
        loss = -np.log2(chances[each, wanted] + np.float32(1e-9)).mean()
        chances[each, wanted] -= 1
        self._learn(seen, inputs, hidden, chances * (self._rate / self._guesses))
        return float(loss)

    def write(self, nbytes: int, *, start: bytes = b"\ndef ") -> bytes:
        """Let the model continue ``start`` by ``nbytes`` bytes, drawn from its own guesses.

        Example:
            >>> len(NextByteModel().write(5, start=b"a"))
            6
        """
        text = bytearray(start.rjust(self._context, b"\0"))
        for _ in range(nbytes):
            seen = np.frombuffer(bytes(text[: -self._context - 1 : -1]), np.uint8)
            chances = self._forward(seen[None])[2][0].astype(np.float64)
            text.append(int(self._rng.choice(VALUES, p=chances / chances.sum())))
        return bytes(text[-nbytes - len(start) :])

    def _forward(self, seen: Bytes) -> tuple[Floats, Floats, Floats]:
        inputs: Floats = self._embedding[seen].reshape(len(seen), -1)
        hidden: Floats = np.maximum(inputs @ self._inner + self._inner_bias, 0)
        scores: Floats = hidden @ self._outer + self._outer_bias
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        return inputs, hidden, scores

    def _learn(self, seen: Bytes, inputs: Floats, hidden: Floats, errors: Floats) -> None:
        """One step down the gradient; ``errors`` is the loss's own, already scaled by the rate."""
        inner_errors = (errors @ self._outer.T) * (hidden > 0)
        input_errors = inner_errors @ self._inner.T
        self._outer -= hidden.T @ errors
        self._outer_bias -= errors.sum(axis=0)
        self._inner -= inputs.T @ inner_errors
        self._inner_bias -= inner_errors.sum(axis=0)
        width = self._embedding.shape[1]
        np.subtract.at(self._embedding, seen.ravel(), input_errors.reshape(-1, width))
