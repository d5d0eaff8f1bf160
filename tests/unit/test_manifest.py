"""The manifest of the pipeline idfm against the programs that it describes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from influx_lines import FULL, parse_line

from berny.lab.simulation import load_simulations
from berny.model.catalog import CatalogError, _Yaml12Loader, load_catalog
from berny.model.component import seconds, size_in_bytes
from berny.model.manifest import load_pipelines
from berny.model.topology import read_mapping
from berny.pipelines.idfm import harness, influx_consumer, points, producer
from berny.pipelines.idfm.controller import simulator
from berny.runtime.stage import EnvironmentSettings

IDFM = load_pipelines()["idfm"]
FOLDER = Path(producer.__file__).parent


def write(folder: Path, text: str) -> Path:
    """Write a manifest of a pipeline ``one`` and return its file."""
    file = folder / "one" / "pipeline.yml"
    file.parent.mkdir()
    file.write_text(text)
    return file


# -- topics ------------------------------------------------------------------------------------------------------------


def test_topics_are_the_designs() -> None:
    """Names are the seeds'; one copy on each of two brokers; three partitions for three slots; a week to replay."""
    for name in ("idfm-realtime", "idfm-processed"):
        topic = IDFM.topics[name]
        assert (topic.partitions, topic.replication, topic.keep) == (3, 2, "7d")
    assert set(IDFM.topics) == {"idfm-realtime", "idfm-processed", "idfm-realtime.dlq", "idfm-processed.dlq"}


def test_topics_fit_the_brokers() -> None:
    """No more copies than brokers; all partitions full leave the small data disk half empty."""
    brokers = read_mapping()["kafka"]
    assert all(topic.replication <= len(brokers) for topic in IDFM.topics.values())
    on_each = sum(topic.partitions * size_in_bytes(topic.keep_bytes) for topic in IDFM.topics.values())
    disk = load_catalog().services["kafka"].disk
    assert disk
    assert on_each <= disk.small * 2**30 / 2


def test_every_topic_that_is_read_has_dead_letters() -> None:
    """What can't be parsed goes to ``<topic>.dlq``, and is kept longer than what it came from."""
    for topic in ("idfm-realtime", "idfm-processed"):
        letters = IDFM.topics[f"{topic}.dlq"]
        assert letters.replication == IDFM.topics[topic].replication
        assert seconds(letters.keep) > seconds(IDFM.topics[topic].keep)


def test_programs_use_the_manifests_topics() -> None:
    """A topic that a program names and the manifest does not would never be made: brokers don't make topics."""
    told = {producer.TOPIC, influx_consumer.TOPIC, harness.REALTIME, harness.PROCESSED}
    for file in FOLDER.glob("*.py"):
        told |= set(re.findall(r'^[A-Z]+ = "(idfm-(?:realtime|processed)[a-z.]*)"$', file.read_text(), re.M))
    assert told | {f"{producer.TOPIC}.dlq", f"{influx_consumer.TOPIC}.dlq"} == set(IDFM.topics)


# -- stages ------------------------------------------------------------------------------------------------------------


def test_stages_are_in_the_runbooks_order() -> None:
    """Spark analytics, InfluxDB consumer, producer: who reads is there before who writes."""
    assert list(IDFM.stages) == ["analytics", "influx-consumer", "producer"]


def test_stages_run_where_the_runbook_says() -> None:
    """Producer and driver on master, the consumer beside InfluxDB on worker_2."""
    mapping = read_mapping()
    nodes = {name: mapping[stage.on] for name, stage in IDFM.stages.items()}
    assert nodes == {"analytics": ["master"], "influx-consumer": ["worker_2"], "producer": ["master"]}


def test_stages_can_be_run() -> None:
    """Programs are beside the manifest; what a stage waits for has a probe; ports of metrics differ."""
    catalog = load_catalog()
    for stage in IDFM.stages.values():
        assert (FOLDER / stage.run).is_file()
        assert set(stage.needs) <= set(catalog.components)
    ports = [stage.metrics_port for pipeline in load_pipelines().values() for stage in pipeline.stages.values()]
    assert len(ports) == len(set(ports))


@pytest.mark.parametrize(
    ("stage", "settings"), [("producer", producer.Settings), ("influx-consumer", influx_consumer.Settings)]
)
def test_environment_has_what_a_stage_requires(checkout: Path, stage: str, settings: type[EnvironmentSettings]) -> None:
    """What a program's settings require is written by the role ``pipeline`` or is a secret of the manifest."""
    given = (checkout / "roles" / "pipeline" / "vars" / "main.yml").read_text()
    names = set(re.findall(r"^  '([A-Z_]+)':", given, re.M))
    secrets = {{"influxdb_write_token": "INFLUX_TOKEN"}.get(name, name.upper()) for name in IDFM.stages[stage].secrets}
    required = {name.upper() for name, field in settings.model_fields.items() if field.is_required()}
    assert required <= names | secrets
    assert secrets <= {name.upper() for name in settings.model_fields}


def test_lab_overrides_settings_that_exist() -> None:
    """A setting that no program reads would be a lab that is not what its simulation says."""
    given = load_simulations()["idfm"].settings
    assert given and set(given) <= {name.upper() for name in producer.Settings.model_fields}


def test_simulator_knows_the_faults_that_it_is_said_to() -> None:
    assert {*load_simulations()["idfm"].faults} <= {*simulator.FAULTS}


# -- sinks -------------------------------------------------------------------------------------------------------------


def test_tags_are_those_that_points_have() -> None:
    """Dashboards and the check group by the manifest's tags."""
    _, tags, _, _ = parse_line(points.point(FULL).to_line_protocol())
    assert set(IDFM.sinks["influxdb"]["tags"]) == set(tags)


def test_fields_are_those_that_points_can_have() -> None:
    """A manifest declares every field of its sinks."""
    _, _, fields, _ = parse_line(points.point(FULL).to_line_protocol())
    assert set(IDFM.sinks["influxdb"]["fields"]) == set(fields)


def test_measurement_and_bucket_are_the_seeds() -> None:
    """Names keep the seeds' exactly."""
    assert IDFM.sinks["influxdb"]["measurement"] == points.MEASUREMENT == "health"
    assert IDFM.sinks["influxdb"]["bucket"] == "idfm_metrics"
    assert IDFM.sinks["hdfs"]["path"] == "/data/idfm/raw_landing.json"


def test_sinks_keep_for_a_time() -> None:
    """Nothing is kept for ever; raw answers no shorter than the points made of them."""
    keeps = {name: seconds(sink["keep"]) for name, sink in IDFM.sinks.items()}
    assert keeps == {"hdfs": 90 * 86400, "influxdb": 90 * 86400}


def test_paths_of_hdfs_are_the_pipelines_own() -> None:
    """The role makes ``/data/<pipeline>`` for the pipeline's user and nothing beside it."""
    for name, pipeline in load_pipelines().items():
        for key in ("path", "checkpoint"):
            assert pipeline.sinks["hdfs"][key].startswith(f"/data/{name}/")
    assert not IDFM.sinks["hdfs"]["checkpoint"].startswith(IDFM.sinks["hdfs"]["path"])


# -- parsing -----------------------------------------------------------------------------------------------------------


def test_on_is_a_key() -> None:
    """YAML 1.1 would read the key ``on`` as true."""
    text = "{on: namenode, off: no, yes: y, t: true, f: false, n: 7}"
    assert yaml.load(text, Loader=_Yaml12Loader) == {
        "on": "namenode", "off": "no", "yes": "y", "t": True, "f": False, "n": 7,
    }  # fmt: skip
    assert yaml.safe_load("on: 1") == {True: 1}, "the loader of others must stay what it was"


MANIFEST = """
title: One
user: {name: one, uid: 6900}
topics:
  one: {partitions: 1, replication: 1, keep: 7d, keep_bytes: 1MiB}
stages:
  only: {on: kafka, run: only.py, needs: [], metrics_port: 9399}
sinks: {}
"""


def test_manifest_is_read(tmp_path: Path) -> None:
    """A pipeline is a folder with a manifest; its name is the folder's."""
    write(tmp_path, MANIFEST)
    (tmp_path / "no-pipeline").mkdir()
    found = load_pipelines(tmp_path)
    assert list(found) == ["one"]
    assert found["one"].name == "one"
    assert found["one"].stages["only"].on == "kafka"
    assert found["one"].stages["only"].submit is False


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("on: kafka", "at: kafka", "stages.only.at"),
        ("keep: 7d", "keep: 7 days", "topics.one.keep: "),
        ("keep_bytes: 1MiB", "keep_bytes: 1MB", "topics.one.keep_bytes"),
        ("partitions: 1", "partitions: 0", "topics.one.partitions"),
        ("sinks:", "sink:", "sinks"),
    ],
)
def test_wrong_manifest_names_file_and_key(tmp_path: Path, old: str, new: str, told: str) -> None:
    """A typing error is a sentence with the file, not a unit that never starts."""
    assert old in MANIFEST
    file = write(tmp_path, MANIFEST.replace(old, new))
    with pytest.raises(CatalogError) as error:
        load_pipelines(tmp_path)
    assert str(file) in str(error.value)
    assert told in str(error.value)


@pytest.mark.parametrize("text", ["", "topics: {\n"])
def test_unreadable_manifest_names_the_file(tmp_path: Path, text: str) -> None:
    """An empty or torn manifest is named like any other mistake."""
    file = write(tmp_path, text)
    with pytest.raises(CatalogError) as error:
        load_pipelines(tmp_path)
    assert str(file) in str(error.value)
