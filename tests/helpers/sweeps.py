"""Tests of many cases, of which a run takes some: see the mark ``sweep``."""

from collections import defaultdict

import pytest


def leave_to_the_night(items):
    """Mark as nightly what sweeps leave out: all but some, evenly spread.

    Of what was collected, so that a case that is named alone is run.
    """
    sweeps = defaultdict(list)
    for item in items:
        mark = item.get_closest_marker('sweep')
        if mark is not None:
            (kept,) = mark.args
            sweeps[item.nodeid.split('[')[0], kept].append(item)
    for (_, kept), cases in sweeps.items():
        taken = {round(i * len(cases) / kept) for i in range(kept)}
        for number, item in enumerate(cases):
            if number not in taken:
                item.add_marker(pytest.mark.nightly)
