"""The chain of openweather on the cluster: aggregates under kills, HBase's linked list, and the symptoms of its page."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from berny.lab.harness import PYTHON
from support import Cluster, Play, play, wait_until

PIPELINE = "openweather"
STAGES = {
    "consumer": "worker_1",
    "export": "worker_1",
    "mapreduce": "master",
    "hbase": "worker_1",
    "producer": "master",
}
LOAD = 40


def unit(stage: str) -> str:
    """Return the unit of a stage."""
    return f"berny-{PIPELINE}-{stage}"


def run_timer(cluster: Cluster, stage: str) -> None:
    """Run a timer's stage now, or wait for the run that its timer has begun."""
    cluster.sh(STAGES[stage], f"sudo systemctl start {unit(stage)}", timeout=300)


def check_aggregates(cluster: Cluster, run: str) -> None:
    """Aggregate what is exported, and compare what a run served with all sinks."""
    run_timer(cluster, "mapreduce")
    run_timer(cluster, "hbase")

    def done() -> bool:
        status = cluster.status(PIPELINE)
        return not (status["to_export"] or status["days_to_aggregate"] or status["aggregates_to_store"])

    wait_until(done, 120, lambda: str(cluster.status(PIPELINE)))
    clean, report = cluster.check(run, PIPELINE)
    assert clean and " 0 lost" in report, report
    for sink in ("aggregates", "hbase"):
        (line,) = (one for one in report.splitlines() if one.startswith(f"{sink}: "))
        assert int(line.split()[1]) >= 6, report


def test_aggregates_are_those_of_the_rows_and_hbase_has_them(every: Cluster, run: str) -> None:
    """Also though the job is killed once. The check computes them by SQL; what waits is in the status."""
    every.sh("master", f"sudo systemctl start --no-block {unit('mapreduce')}; sleep 8")
    every.sh("master", f"sudo systemctl kill -s KILL {unit('mapreduce')}", ok=False)
    run_timer(every, "export")
    check_aggregates(every, run)


@pytest.mark.second_tier
def test_aggregates_outlive_node_managers_that_are_killed_under_their_job(every: Cluster) -> None:
    """Each is killed while the job of new rows runs."""
    run = f"node-managers-{time.time():.0f}"
    every.load(run, LOAD, PIPELINE)
    every.serve(12, 90, PIPELINE)
    every.settle(run, 150, PIPELINE)
    every.sh("master", f"sudo systemctl start --no-block {unit('mapreduce')}")
    running = "sudo -u hdfs yarn application -list -appStates RUNNING 2> /dev/null"
    wait_until(lambda: "application_" in every.sh("master", running), 90, "no job runs")
    every.each("sudo systemctl kill -s KILL --kill-who main yarn-nodemanager", every.groups["nodemanager"])
    check_aggregates(every, run)


def hbase_shell(cluster: Cluster, *lines: str) -> None:
    """Run lines in HBase's shell; the first that fails ends it."""
    text = "\n".join(lines)
    cluster.sh("master", f"sudo -u hbase hbase shell -n <<'END'\n{text}\nEND", timeout=180)


def linked_list(cluster: Cluster, what: str, *words: str) -> dict[str, float]:
    """Write or follow a linked list on worker_1; return what it prints."""
    script = Path(__file__).with_name("linked_list.py").read_text()
    command = f"{PYTHON} - {what} worker-1 9090 linked {' '.join(words)} <<'END'\n{script}\nEND"
    found: dict[str, float] = json.loads(cluster.sh("worker_1", command, timeout=400))
    return found


@pytest.mark.second_tier
def test_a_linked_list_of_hbase_survives_a_move_and_a_kill(every: Cluster) -> None:
    """All regions move to one region server while rows are written, and that one is killed."""
    hbase_shell(every, "create 'linked', 'l', SPLITS => ['4', '8', 'c']")
    try:
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(linked_list, every, "write", "90")
            time.sleep(5)
            every.sh("worker_0", "sudo -u hbase /usr/local/lib/berny/hbase-regions unload", timeout=180)
            time.sleep(5)
            every.sh("worker_1", "sudo systemctl kill -s KILL hbase-regionserver")
            written = writing.result()
        print(f"the longest batch took {written['longest']:.1f} s")
        assert linked_list(every, "follow") == {"rows": written["rows"], "dangling": 0}
    finally:
        hbase_shell(every, "disable 'linked'", "drop 'linked'")
    every.sh("master", "sudo berny-probe hbase --wait 180 --want healthy")


def deploy(cluster: Cluster, ok: bool = True, **environment: str) -> Play:
    """Deploy the pipelines with other settings of openweather, beside those of the lab's simulators."""
    settings = {name: one["settings"] for name, one in cluster.lab.plan.describe()["simulations"].items()}
    settings[PIPELINE] = settings[PIPELINE] | environment
    words = json.dumps({"pipeline_environment": settings, "service_wait_seconds": 60})
    return play("playbooks/deploy.yml", "-e", words, ok=ok)


def wait_for_journal(cluster: Cluster, stage: str, words: str, since: float) -> None:
    """Wait until a stage's journal contains a text."""
    command = f"sudo journalctl -u {unit(stage)} --since @{since:.0f} --no-pager"
    wait_until(
        lambda: words in cluster.sh(STAGES[stage], command), 90, f"the journal of {stage} does not contain {words!r}"
    )


@pytest.mark.second_tier
def test_symptoms_of_the_runbook_and_their_remedies(every: Cluster) -> None:
    """Each entry of its troubleshooting, with the remedy that the pipeline's page names."""
    since = time.time()
    # Kafka is not ready, and the consumer waits.
    failed = deploy(every, ok=False, BOOTSTRAP_SERVERS="worker-2:1")
    assert failed.code != 0 and unit("consumer") in failed.output, failed.tail
    wait_for_journal(every, "consumer", "waiting for the topic", since)
    # The export fails; HBase is not available.
    for stage, setting, words in (
        ("export", {"HDFS_URL": "http://localhost:1"}, "/user/hdfs/weather"),
        ("hbase", {"HBASE_PORT": "1"}, "weather:aggregates of HBase at"),
    ):
        deploy(every, **setting)
        every.flows(PIPELINE)
        if stage == "hbase":
            run_timer(every, "export")
            run_timer(every, "mapreduce")
        every.sh(STAGES[stage], f"sudo systemctl start --no-block {unit(stage)}")
        wait_for_journal(every, stage, words, since)
        wait_for_journal(every, stage, "refused", since)
    # To do without HBase; and no aggregates of other days than today.
    deploy(every, HBASE_PORT="1", HBASE_ENABLED="false", MR_PROCESS_ONLY_TODAY="true")
    run_timer(every, "hbase")
    wait_for_journal(every, "hbase", "HBASE_ENABLED is false", since)
    # No rows in PostgreSQL, since the key is refused.
    simulator = every.lab.simulators[PIPELINE]
    simulator.ask("/_simulator/faults", {"kind": "401", "seconds": 600})
    wait_for_journal(every, "producer", "OPENWEATHER_API_KEY is missing, wrong, or not active yet", since)
    wait_for_journal(every, "producer", "status=78/CONFIG", since)
    simulator.ask("/_simulator/faults", {"kind": "none"})
    # The remedy of all of them: the settings of the inventory, and the stages are started.
    play("site.yml")
    every.flows(PIPELINE)
    for stage in ("export", "mapreduce", "hbase"):
        run_timer(every, stage)
