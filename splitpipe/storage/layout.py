"""Which rows lie in which bin, as arithmetic.

Responsible for: `Segment` (what one writer session dealt round-robin to its bins) and
`BinLayout` (all segments of a column). A layout costs memory for its bins and segments,
never for its records: orders are computed from it without opening a file.

Rules:
- segments follow each other without a gap, in rows and in bins;
- a bin belongs to one segment only;
- inside a segment, row ``first_row + k`` lies in the bin at place ``k % bins``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from splitpipe.storage.format import ENTRY_NBYTES, RUN_RECORDS

__all__ = ["BinLayout", "Segment", "Stretch"]


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows dealt round-robin to a range of bins.

    Attributes:
        first_row: the first row.
        rows: how many rows.
        first_bin: the lowest bin number.
        bins: how many bins.
        dealing: for every place in the round, the bin (counted from ``first_bin``) that takes
            the record; ``None`` when the bins take their turn by number.
        tail: the sums entry of the last, incomplete stripe (empty when there is none).
    """

    first_row: int
    rows: int
    first_bin: int
    bins: int
    dealing: tuple[int, ...] | None = None
    tail: bytes = b""

    @property
    def stripe_rows(self) -> int:
        """Rows of one complete stripe: one run in every bin."""
        return self.bins * RUN_RECORDS

    @property
    def stripes(self) -> int:
        """Number of complete stripes."""
        return self.rows // self.stripe_rows

    @property
    def tail_rows(self) -> int:
        """Rows of the last, incomplete stripe."""
        return self.rows % self.stripe_rows

    @property
    def sums_nbytes(self) -> int:
        """Size of one complete stripe's entry in the sums file."""
        return 4 * (1 + self.bins)

    @property
    def tail_nbytes(self) -> int:
        """Size that ``tail`` must have: as a sums entry, without the bins not yet reached."""
        return 4 * (1 + min(self.tail_rows, self.bins)) if self.tail_rows else 0

    def bin_at(self, turn: int) -> int:
        """The bin that takes the record at place ``turn`` of a round."""
        return self.first_bin + (turn if self.dealing is None else self.dealing[turn])

    def rows_at(self, turn: int) -> range:
        """The rows that went to the bin at place ``turn`` of a round."""
        return range(self.first_row + turn, self.first_row + self.rows, self.bins)


class BinLayout:
    """The rows of every bin of a dataset.

    Args:
        segments: in row order.

    Example:
        >>> layout = BinLayout([Segment(first_row=0, rows=7, first_bin=0, bins=3)])
        >>> layout
        BinLayout(rows=7, bins=3)
        >>> [list(rows) for rows in layout.bins()]
        [[0, 3, 6], [1, 4], [2, 5]]
    """

    __slots__ = ("rows", "segments")

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = tuple(segments)
        self.rows = sum(segment.rows for segment in self.segments)

    def __repr__(self) -> str:
        return f"BinLayout(rows={self.rows}, bins={sum(s.bins for s in self.segments)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BinLayout) and self.segments == other.segments

    def __hash__(self) -> int:
        return hash(self.segments)

    def bins(self) -> list[range]:
        """The rows of every bin that has any, in order of the bin's number."""
        return [rows for _, rows in self.numbered_bins()]

    def numbered_bins(self) -> list[tuple[int, range]]:
        """``(bin number, its rows)`` of every bin that has any, in order of the number."""
        return sorted(
            (
                (segment.bin_at(turn), segment.rows_at(turn))
                for segment in self.segments
                for turn in range(min(segment.bins, segment.rows))
            ),
            key=lambda pair: pair[0],
        )

    def limited(self, rows: int) -> BinLayout:
        """The layout of the first ``rows`` rows: what a reader pinned to them sees."""
        kept: list[Segment] = []
        for segment in self.segments:
            left = rows - segment.first_row
            if left <= 0:
                break
            if left < segment.rows:
                segment = Segment(
                    segment.first_row, left, segment.first_bin, segment.bins, segment.dealing
                )
            kept.append(segment)
        return BinLayout(kept)

    def stretch(self, first: int, stop: int) -> Stretch:
        """What the bins have of rows ``first`` to ``stop - 1``."""
        return Stretch(self, first, stop)

    def sums_nbytes(self) -> int:
        """Bytes of all complete stripes' entries in the sums file."""
        return sum(segment.stripes * segment.sums_nbytes for segment in self.segments)

    def index_nbytes(self) -> int:
        """Bytes of all index entries."""
        return self.rows * ENTRY_NBYTES


@dataclass(frozen=True, slots=True)
class Stretch:
    """A layout of which only neighbouring rows count: of every bin a piece.

    Attributes:
        layout: of all rows.
        first: the first row.
        stop: the row after the last one.

    Example:
        >>> layout = BinLayout([Segment(first_row=0, rows=7, first_bin=0, bins=3)])
        >>> [(number, list(rows)) for number, rows in layout.stretch(2, 5).numbered_bins()]
        [(0, [3]), (1, [4]), (2, [2])]
    """

    layout: BinLayout
    first: int
    stop: int

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.stop - self.first

    def numbered_bins(self) -> list[tuple[int, range]]:
        """See `BinLayout.numbered_bins`."""
        bins = self.layout.numbered_bins()
        cut = ((number, _cut(rows, self.first, self.stop)) for number, rows in bins)
        return [(number, rows) for number, rows in cut if rows]


def _cut(rows: range, first: int, stop: int) -> range:
    """Those of rows that go up which lie from ``first`` to ``stop - 1``."""
    before = max(0, -(-(first - rows.start) // rows.step))
    upto = max(before, min(len(rows), -(-(stop - rows.start) // rows.step)))
    return rows[before:upto]
