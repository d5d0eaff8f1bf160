"""The other pipelines are removed, and with them everything that is theirs."""

from __future__ import annotations

import pytest

from support import NAME, Cluster, play, start


@pytest.mark.parametrize(
    ("pipeline", "database", "topic", "folder"),
    [("customers", "customers", "customers", "customers"), ("openweather", "openweather", "weather", "weather")],
)
def test_a_reset_removes_what_a_pipeline_has(
    every: Cluster, pipeline: str, database: str, topic: str, folder: str
) -> None:
    play("playbooks/reset.yml", "-e", f"pipeline={pipeline}", "-e", f"data={NAME}")
    databases = every.sh("worker_1", "psql -At -d postgres -c 'SELECT datname FROM pg_database'").split()
    topics = every.sh("master", "kafka-topics.sh --bootstrap-server master:9092 --list").split()
    assert database not in databases and not [one for one in topics if one.startswith(topic)]
    assert folder not in every.sh("master", "hdfs dfs -ls -R /user /data | grep ^d")


def test_nothing_else_was_ever_restarted(cluster: Cluster, every: Cluster, before: dict[tuple[str, str], str]) -> None:
    """And the first pipeline flows."""
    start(cluster, *cluster.lab.plan.pipelines)
    now = cluster.processes()
    assert now.keys() == before.keys()
    assert not [key for key, process in before.items() if not key[1].startswith("berny-") and now[key] != process]
    cluster.flows()
