"""The manifest of the pipeline idfm against the programs that it describes."""

from __future__ import annotations

import re
from itertools import permutations, product
from pathlib import Path

import pytest
import yaml
from influx_lines import FULL, parse_line

from berny.lab.simulation import load_simulations
from berny.model import names
from berny.model.catalog import CatalogError, _Yaml12Loader, load_catalog
from berny.model.component import seconds, size_in_bytes
from berny.model.manifest import load_pipelines
from berny.model.topology import read_mapping, stage_environment
from berny.pipelines.idfm import harness, influx_consumer, points, producer
from berny.pipelines.idfm.controller import simulator
from berny.runtime.stage import EnvironmentSettings

IDFM = load_pipelines()["idfm"]
TOPICS = IDFM.resources["topics"]
BUCKET = IDFM.resources["influxdb"]["idfm_metrics"]
FOLDER = Path(producer.__file__).parent


# -- topics ------------------------------------------------------------------------------------------------------------


def test_topics_are_the_designs() -> None:
    """Names are the seeds'; one copy on each of two brokers; three partitions for three slots; a week to replay."""
    for name in ("idfm-realtime", "idfm-processed"):
        topic = TOPICS[name]
        assert (topic["partitions"], topic["replication"], topic["keep"]) == (3, 2, "7d")
    assert set(TOPICS) == {"idfm-realtime", "idfm-processed", "idfm-realtime.dlq", "idfm-processed.dlq"}


def test_topics_fit_the_brokers() -> None:
    """No more copies than brokers; all partitions full leave the small data disk half empty."""
    brokers = read_mapping()["kafka"]
    assert all(topic["replication"] <= len(brokers) for topic in TOPICS.values())
    on_each = sum(topic["partitions"] * size_in_bytes(topic["keep_bytes"]) for topic in TOPICS.values())
    disk = load_catalog().services["kafka"].disk
    assert disk
    assert on_each <= disk.small * 2**30 / 2


def test_every_topic_that_is_read_has_dead_letters() -> None:
    """What can't be parsed goes to ``<topic>.dlq``, and is kept longer than what it came from."""
    for topic in ("idfm-realtime", "idfm-processed"):
        letters = TOPICS[names.dead_letters(topic)]
        assert letters["replication"] == TOPICS[topic]["replication"]
        assert letters["partitions"] == 1
        assert seconds(letters["keep"]) > seconds(TOPICS[topic]["keep"])


def test_programs_use_the_manifests_topics() -> None:
    """A topic that a program names and the manifest does not would never be made: brokers don't make topics."""
    told = {producer.TOPIC, influx_consumer.TOPIC, harness.REALTIME, harness.PROCESSED}
    for file in FOLDER.glob("*.py"):
        told |= set(re.findall(r'^[A-Z]+ = "(idfm-(?:realtime|processed)[a-z.]*)"$', file.read_text(), re.M))
    assert told | {f"{producer.TOPIC}.dlq", f"{influx_consumer.TOPIC}.dlq"} == set(TOPICS)


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
    """What a program's settings require is said by the role ``pipeline``, by what the stage uses, or is a secret."""
    given = (checkout / "roles" / "pipeline" / "vars" / "main.yml").read_text()
    known = set(re.findall(r"^  '([A-Z_]+)':", given, re.M))
    catalog = load_catalog()
    addresses = {name: "x" for component in catalog.components.values() for name in component.endpoints}
    module = checkout / "roles" / "influxdb" / "library" / "influxdb_setup.py"
    granted = {"influxdb": dict.fromkeys(re.findall(r'^ +"(INFLUX_[A-Z_]+)": ', module.read_text(), re.M), "x")}
    known |= set(stage_environment(IDFM, stage, catalog, addresses, granted))
    secrets = {name.upper() for name in IDFM.stages[stage].secrets}
    required = {name.upper() for name, field in settings.model_fields.items() if field.is_required()}
    assert required <= known | secrets
    assert secrets <= {name.upper() for name in settings.model_fields}


def test_lab_overrides_settings_that_exist() -> None:
    """A setting that no program reads would be a lab that is not what its simulation says."""
    given = load_simulations()["idfm"].settings
    assert given and set(given) <= {name.upper() for name in producer.Settings.model_fields}


def test_simulator_knows_the_faults_that_it_is_said_to() -> None:
    assert {*load_simulations()["idfm"].faults} <= {*simulator.FAULTS}


# -- where it writes ---------------------------------------------------------------------------------------------------


def test_tags_are_those_that_points_have() -> None:
    """Dashboards and the check group by the manifest's tags."""
    _, tags, _, _ = parse_line(points.point(FULL))
    assert set(BUCKET["tags"]) == set(tags)


def test_fields_are_those_that_points_can_have() -> None:
    """A manifest declares every field of its buckets."""
    _, _, fields, _ = parse_line(points.point(FULL))
    assert set(BUCKET["fields"]) == set(fields)


def test_measurement_and_bucket_are_the_seeds() -> None:
    """Names keep the seeds' exactly."""
    assert BUCKET["measurement"] == points.MEASUREMENT == "health"
    assert list(IDFM.resources["influxdb"]) == ["idfm_metrics"]
    assert list(IDFM.resources["hdfs"]) == ["/data/idfm/raw_landing.json"]


def test_what_is_kept_is_kept_for_a_time() -> None:
    """Nothing is kept for ever; raw responses no shorter than the points made of them."""
    keeps = {kind: {seconds(one["keep"]) for one in IDFM.resources[kind].values()} for kind in ("hdfs", "influxdb")}
    assert keeps == {"hdfs": {90 * 86400}, "influxdb": {90 * 86400}}


def test_paths_of_hdfs_are_the_pipelines_own() -> None:
    """A reset deletes them: none is inside another, nor inside what the role makes for another pipeline."""
    pipelines = load_pipelines()
    for name, pipeline in pipelines.items():
        paths = list(pipeline.resources.get("hdfs", {}))
        paths += [names.checkpoint(name, one.checkpoint or stage) for stage, one in pipeline.stages.items()]
        others = [f"{top}/{other}" for other in pipelines for top in ("/data", "/user") if other != name]
        others += [path for other in pipelines if other != name for path in pipelines[other].resources.get("hdfs", {})]
        others += [path for one in load_catalog().components.values() for path in one.resources.get("hdfs", {})]
        for one, other in [*permutations(paths, 2), *product(paths, others)]:
            assert not f"{one}/".startswith(f"{other}/"), "one is inside the other"
            assert not f"{other}/".startswith(f"{one}/"), "a reset would delete the other"


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
resources:
  topics:
    one: {partitions: 1, replication: 1, keep: 7d, keep_bytes: 1MiB}
    two: {partitions: 2, keep: 7d}
  hdfs:
    /data/one/raw: {keep: 7d}
  influxdb:
    one_metrics: {keep: 7d, measurement: one, tags: [tag], fields: [field]}
stages:
  only:
    kind: stream
    on: kafka
    run: only.py
    reads: one
    writes: [two, /data/one/raw]
    metrics_port: 9399
"""


def write(folder: Path, text: str = MANIFEST, name: str = "one") -> Path:
    """Write a manifest of a pipeline, with its program, and return its file."""
    file = folder / name / "pipeline.yml"
    file.parent.mkdir()
    file.write_text(text)
    (file.parent / "only.py").touch()
    return file


def test_manifest_is_read(tmp_path: Path) -> None:
    """A pipeline is a folder with a manifest; its name is the folder's."""
    write(tmp_path)
    (tmp_path / "no-pipeline").mkdir()
    found = load_pipelines(tmp_path)
    assert list(found) == ["one"]
    assert found["one"].name == "one"
    assert found["one"].stages["only"].on == "kafka"
    assert found["one"].stages["only"].engine == ""


def test_what_a_manifest_leaves_open_follows(tmp_path: Path) -> None:
    """Defaults of the kind, dead letters of what is read and of nothing else, what a stage needs."""
    write(tmp_path)
    one = load_pipelines(tmp_path)["one"]
    assert one.resources["topics"]["two"] == {"partitions": 2, "replication": 2, "keep": "7d", "keep_bytes": "256MiB"}
    assert one.resources["topics"]["one"]["replication"] == 1
    assert set(one.resources["topics"]) == {"one", "two", "one.dlq"}
    assert one.resources["topics"]["one.dlq"]["keep"] == "30d"
    assert set(one.resources["hdfs"]) == {"/data/one/raw"} and one.resources["hdfs"]["/data/one/raw"]["mode"] == "755"
    only = one.stages["only"]
    assert (only.reads, only.writes) == (["one"], ["two", "/data/one/raw"])
    order = [name for name in load_catalog().components if name in ("hdfs", "kafka")]
    assert only.needs == order and one.requires == {"hdfs", "kafka"}, "no bucket is written: InfluxDB is not needed"
    assert (one.kind("two"), one.kind("/data/one/raw"), one.kind("")) == ("topics", "hdfs", "")
    assert one.writes("only", "topics") == ["two"] and one.reads("only", "hdfs") == []


def test_an_engine_is_needed_with_what_it_requires(tmp_path: Path) -> None:
    """Its own requirements are the stage's as well: Spark's checkpoints are in HDFS."""
    write(tmp_path, MANIFEST.replace("writes: [two, /data/one/raw]", "engine: spark"))
    assert load_pipelines(tmp_path)["one"].requires == {"kafka", "spark", *load_catalog().components["spark"].requires}


def test_dead_letters_that_a_manifest_writes_itself_are_its_own(tmp_path: Path) -> None:
    write(tmp_path, MANIFEST.replace("  hdfs:\n", "    one.dlq: {partitions: 3, keep: 1d}\n  hdfs:\n"))
    assert load_pipelines(tmp_path)["one"].resources["topics"]["one.dlq"]["partitions"] == 3


def refused(folder: Path, file: Path, *told: str) -> None:
    """The manifests of a folder are refused, with the name of a file and words."""
    with pytest.raises(CatalogError) as error:
        load_pipelines(folder)
    for words in (str(file), *told):
        assert words in str(error.value), words


BUCKET_KEYS = "{keep: 7d, measurement: one, tags: [tag], fields: [field]}"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("on: kafka", "at: kafka", "stages.only.at"),
        ("keep: 7d, keep_bytes", "keep: 7 days, keep_bytes", "topics.one.keep: '7 days' is not a time span"),
        ("keep_bytes: 1MiB", "keep_bytes: 1MB", "topics.one.keep_bytes: '1MB' is not a size"),
        ("partitions: 1", "partitions: 0", "topics.one.partitions: 0 is less than 1"),
        ("partitions: 1", "partitions: many", "topics.one.partitions: 'many' is no int"),
        ("partitions: 1", "partitions: true", "topics.one.partitions: True is no int"),
        ("partitions: 1", "partition: 1", "topics.one.partition: unknown; there are partitions"),
        ("partitions: 1", "partition: 1", "topics.one.partitions: is missing"),
        ("keep: 7d, keep_bytes", "keep: 7, keep_bytes", "topics.one.keep: 7 is no span"),
        ("keep: 7d, measurement", "keep: [7d], measurement", "influxdb.one_metrics.keep: ['7d'] is no span"),
        ("tags: [tag]", "tags: tag", "influxdb.one_metrics.tags: 'tag' is no list"),
        ("measurement: one", "measurement: 1", "influxdb.one_metrics.measurement: 1 is no str"),
        (BUCKET_KEYS, "7d", "resources.influxdb.one_metrics"),
        ("resources:", "resource:", "resource"),
        (
            "  influxdb:",
            "  influx:",
            "resources.influx: no component has this kind; there are hbase, hdfs, influxdb, postgresql, topics",
        ),
        ("    two:", "    Two:", "resources.topics.Two: can't be called so: use a to z"),
        (
            "    /data/one/raw: {",
            "    data/one/raw: {",
            "resources.hdfs.data/one/raw: can't be called so: an absolute path",
        ),
        ("    one_metrics:", "    1metrics:", "resources.influxdb.1metrics: can't be called so: use letters"),
        ("    one_metrics:", "    one:", "resources: one is of two kinds"),
        ("reads: one", "reads: won", "stages.only.reads: 'won' is no resource of this pipeline; there are one, two"),
        ("writes: [two,", "writes: [three,", "stages.only.writes: 'three' is no resource of this pipeline"),
        ("writes: [two,", "writes: [source,", "stages.only.writes: 'source' is no resource of this pipeline"),
        ("reads: one", "reads: [one", "pipeline.yml"),
        ("reads: one", "engine: flink", "stages.only.engine: 'flink' runs no stages; there are spark"),
        ("reads: one", "engine: kafka", "stages.only.engine: 'kafka' runs no stages; there are spark"),
        ("on: kafka", "on: kakfa", "stages.only.on: there is no group 'kakfa'"),
        ("run: only.py", "run: other.py", "stages.only.run: there is no other.py beside it"),
        ("run: only.py", "run: ../only.py", "stages.only.run"),
        ("kind: stream", "kind: timer", "stages.only: Value error, calendar: a timer has one, and nothing else has"),
        ("kind: stream", "kind: stream\n    calendar: daily", "stages.only: Value error, calendar: a timer has one"),
        ("kind: stream", "kind: serve", "stages.only: Value error, ports: a stage that serves has some"),
        (
            "kind: stream",
            "kind: stream\n    ports: {http: 9400}",
            "stages.only: Value error, ports: a stage that serves",
        ),
        ("kind: stream", "kind: batch", "stages.only.kind"),
        ("reads: one", "needs: [kafka]", "stages.only.needs: follows from what it reads and writes"),
        ("metrics_port: 9399", "metrics_port: 0", "stages.only.metrics_port"),
        ("  only:\n", "  Only:\n", "stages.Only"),
        ("uid: 6900", "uid: 1000", "user.uid"),
        ("title: One", "title: One\ndashboard: none.json", "dashboard: there is no none.json"),
        ("title: One", "title: One\nname: two", "pipeline.yml: name: is that of its folder"),
    ],
)
def test_wrong_manifest_names_file_and_key(tmp_path: Path, old: str, new: str, told: str) -> None:
    """A typing error is a sentence with the file, not a unit that never starts."""
    assert old in MANIFEST
    refused(tmp_path, write(tmp_path, MANIFEST.replace(old, new)), told)


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    text = (
        MANIFEST.replace("on: kafka", "on: kakfa").replace("reads: one", "reads: won").replace("keep: 7d", "keep: 7w")
    )
    refused(tmp_path, write(tmp_path, text), "'kakfa'", "'won'", "topics.one.keep", "influxdb.one_metrics.keep")


@pytest.mark.parametrize("text", ["", "topics: {\n"])
def test_unreadable_manifest_names_the_file(tmp_path: Path, text: str) -> None:
    """An empty or torn manifest is named like any other mistake."""
    refused(tmp_path, write(tmp_path, text))


# -- what two pipelines share ------------------------------------------------------------------------------------------

TWO = """
title: T
user: {{name: {user}, uid: {uid}}}
resources:
  topics:
    {topic}: {{partitions: 1, keep: 7d}}
stages:
  {stage}: {{kind: stream, on: kafka, run: only.py, reads: {topic}, metrics_port: 9399}}
"""


def two(**words: str) -> str:
    """Return a manifest in which nothing is another's but what is given."""
    return TWO.format(**{"user": "one", "uid": "6900", "topic": "one", "stage": "only"} | words)


def test_units_of_two_pipelines_that_have_one_name_are_refused(tmp_path: Path) -> None:
    """``air`` with ``quality-x`` and ``air-quality`` with ``x`` would be one systemd unit."""
    write(tmp_path, two(user="air", stage="quality-x"), "air")
    write(tmp_path, two(user="air-quality", uid="6901", topic="two", stage="y"), "air-quality")
    assert list(load_pipelines(tmp_path)) == ["air", "air-quality"]
    file = tmp_path / "air-quality" / "pipeline.yml"
    file.write_text(file.read_text().replace("  y:", "  x:"))
    load_pipelines.cache_clear()
    refused(tmp_path, file, "unit berny-air-quality-x is that of air")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"uid": "6900"}, "uid 6900 is that of one"),
        ({"user": "one"}, "user one is that of one"),
        ({"topic": "one"}, "topics one is that of one"),
        ({"topic": "one.dlq"}, "topics one.dlq is that of one"),
        ({"uid": "6002"}, "uid 6002 is that of kafka"),
        ({"user": "kafka"}, "user kafka is that of kafka"),
    ],
)
def test_what_two_may_not_share_is_refused(tmp_path: Path, words: dict[str, str], told: str) -> None:
    """Records of one would be another's, and a reset of one would take both."""
    write(tmp_path, two())
    file = write(tmp_path, two(**{"user": "two", "uid": "6901", "topic": "two"} | words), "two")
    refused(tmp_path, file, told)


def test_what_a_component_asks_for_is_its_own(tmp_path: Path) -> None:
    text = MANIFEST.replace("    /data/one/raw: {", "    /spark: {").replace("/data/one/raw", "/spark")
    refused(tmp_path, write(tmp_path, text), "hdfs /spark is that of spark")


@pytest.mark.parametrize("name", ["One", "my_one", "1one", "one-", "o" * 31])
def test_a_folder_that_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    """It becomes part of units, users and paths."""
    refused(tmp_path, write(tmp_path, MANIFEST, name), f"name: Value error, '{name}' can't be a name")
