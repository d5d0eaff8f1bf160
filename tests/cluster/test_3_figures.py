"""The short form of the bench: no figure is twice as bad as that of docs/figures.md."""

from __future__ import annotations

import support
from support import NAME, Cluster


def test_no_figure_is_twice_as_bad_as_on_the_page(cluster: Cluster) -> None:
    with cluster.lent():
        support.console.print(support.berny("bench", "short", "--name", NAME), highlight=False)
