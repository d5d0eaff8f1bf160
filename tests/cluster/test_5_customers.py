"""The customers stream beside idfm, under load at the same time: from a file in S3 to topics, directories and tables, once each."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from support import Cluster, beside

PIPELINE = "customers"
STAGES = {"kafka-hdfs": "master", "db": "master", "alerts": "worker_1", "producer": "master"}
FOLDERS = ("/user/maria_dev/customers_usa", "/user/maria_dev/customers_alerts")
LOAD = 40


def unit(stage: str) -> str:
    """Return the unit of a stage."""
    return f"berny-{PIPELINE}-{stage}"


@pytest.fixture(scope="module", autouse=True)
def both(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with both pipelines; whatever happens, customers is gone afterwards."""
    with beside(cluster, PIPELINE) as found:
        yield found


def test_every_row_is_in_every_sink_once_though_stages_are_killed(both: Cluster) -> None:
    """Each stage, while it works."""
    run = "customers"
    both.load(run, LOAD)
    both.serve(LOAD)
    for stage, node in STAGES.items():
        both.sh(node, f"sudo systemctl kill -s KILL {unit(stage)}")
        both.serve(LOAD)
    report = both.settle(run, 300)
    assert report.count(" expected") == 2 and " 0 expected" not in report, report


def test_compaction_keeps_every_row(both: Cluster) -> None:
    """Also though it is killed; there are fewer files, and Parquet has them."""
    command = f"hdfs dfs -ls {FOLDERS[0]} | grep -c part-"
    before = int(both.sh("master", command))
    both.sh("master", f"sudo systemctl start --no-block {unit('compact')}; sleep 12")
    both.sh("master", f"sudo systemctl kill -s KILL {unit('compact')}", ok=False)
    both.sh("master", f"sudo systemctl start {unit('compact')}", timeout=300)
    assert int(both.sh("master", command)) < before
    for folder in FOLDERS:
        assert ".parquet" in both.sh("master", f"hdfs dfs -ls -R {folder}/parquet")
    clean, report = both.check("customers", PIPELINE)
    assert clean, report


@pytest.mark.second_tier
def test_the_environment_is_reset_and_everything_comes_again(both: Cluster) -> None:
    """As its document has it; a checkpoint that was removed by hand is reported with that remedy."""
    since = time.time()
    both.sh("master", f"sudo systemctl stop {unit('kafka-hdfs')}")
    both.sh("master", "sudo -u hdfs hdfs dfs -rm -r /data/customers/checkpoints/checkpoint_customers_hdfs")
    both.sh("master", f"sudo systemctl start --no-block {unit('kafka-hdfs')}; sleep 60")
    journal = both.sh("master", f"sudo journalctl -u {unit('kafka-hdfs')} --since @{since:.0f} --no-pager")
    assert "reset_environment.sh" in journal and "status=78/CONFIG" in journal, journal[-3000:]
    both.sh("master", "sh /opt/berny/berny-customers/scripts/reset_environment.sh --yes", timeout=300)
    report = both.settle("customers", 300, PIPELINE)
    assert " 0 expected" not in report, report
