"""The keys of [promotion]: type, bounds, unit, default and help of each, stated only here.

Apart from config/evaluate.py, which is part of the code of an evaluation: no limit here can change a score.
"""

from dataclasses import dataclass

from thunder_train.config.fields import switch, text, whole


@dataclass(frozen=True, eq=False, kw_only=True)
class Promotion:
    """The [promotion] table: what an adapter must show to be promoted.

    The defaults are floors: with a weaker limit, the decision is RELAXED at best, never GO.
    """

    min_rows: int = whole(help="Test rows that must have been scored", unit="rows", low=1, high=2**31 - 1, default=500)
    max_worse: int = whole(
        help="Test rows that the gated adapter may make worse", unit="rows", low=0, high=2**31 - 1, default=0
    )
    max_near_duplicates: int = whole(
        help="Pairs of nearly equal texts of which one is in train and one in test",
        unit="pairs",
        low=0,
        high=2**31 - 1,
        default=5,
        later=True,
    )
    needs_witness: bool = switch(help="Every decision must carry a witness", default=True)
    provenance: str = text(
        help='Provenance that the dataset must declare ("" = any, but one must be declared)', default=""
    )
