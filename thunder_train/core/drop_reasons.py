"""Why rows are dropped for want of a reference or a text: readers of data give these reasons, a promotion reads them.

The rows that are left may be the easy ones, so each such row is one that an evaluation does not cover.
"""

NO_REFERENCE = "prediction without a reference"
NULL_REFERENCE = "prediction whose reference is null"
NO_PREDICTION = "reference without a prediction"
REJECTED_UNREFERENCED = "rejected without a reference"
ACCEPTED_UNWRITTEN = "accepted without a final text"
EMPTY_TARGET = "empty target"
LACKING = frozenset(
    {NO_REFERENCE, NULL_REFERENCE, NO_PREDICTION, REJECTED_UNREFERENCED, ACCEPTED_UNWRITTEN, EMPTY_TARGET}
)
"""All of them."""
