"""One rank of the test of `require_same`: rank 1 has other images."""

import sys

from nucleate.errors import NucleateError
from nucleate.parallel import launch

try:
    ranks = launch.join()
    launch.require_same(ranks, {"images": str(min(ranks.rank, 1))})
except NucleateError as error:
    print(launch.as_said_by_rank(f"nucleate: {error}"), file=sys.stderr, flush=True)
    launch.end_others(error, 2)
