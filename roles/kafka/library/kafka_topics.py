#!/usr/bin/python3
"""Creates topics with partitions, replication and retention; never reduces partitions or replication."""

from __future__ import annotations

DOCUMENTATION = """
module: kafka_topics
short_description: Create, alter or delete topics
description:
  - Creates missing topics, adds partitions and sets retention. Runs on a node, with the runtime that role C(node) installs.
  - Fewer partitions or another replication require moving data, and are an error.
options:
  bootstrap_servers: {description: HOST:PORT of brokers., type: str, required: true}
  topics:
    description: 'By name: partitions, replication, keep (7d), keep_bytes (256MiB, per partition).'
    type: dict
    required: true
  state: {description: C(absent) deletes those of them that exist., choices: [present, absent], type: str, default: present}
  held:
    description: Topics on the brokers' disks. If one of them is missing in ZooKeeper, which was lost, it is not created.
    type: list
    elements: str
    default: []
author: [Berny (@berny)]
"""
EXAMPLES = """
- name: Create a topic
  kafka_topics:
    bootstrap_servers: master:9092
    topics: {idfm-realtime: {partitions: 3, replication: 2, keep: 7d, keep_bytes: 256MiB}}
"""
RETURN = """
changes: {description: Descriptions of the changes., type: list, returned: always}
"""

import sys
from typing import Any

from ansible.module_utils.basic import AnsibleModule

sys.path[:0] = ["/opt/berny/berny/python", "/opt/berny/runtime/python"]
TIMEOUT = 60


def wanted_configuration(topic: dict[str, Any]) -> dict[str, str]:
    """Return the topic's settings; segments span at most a day, since retention deletes whole segments."""
    from berny.model.component import seconds, size_in_bytes

    keep = seconds(topic["keep"])
    return {
        "retention.ms": str(keep * 1000),
        "retention.bytes": str(size_in_bytes(topic["keep_bytes"])),
        "segment.ms": str(min(keep, 86400) * 1000),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "bootstrap_servers": {"type": "str", "required": True},
            "topics": {"type": "dict", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "held": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    client = AdminClient({"bootstrap.servers": module.params["bootstrap_servers"], "log_level": 0})
    try:
        module.exit_json(**(converge if module.params["state"] == "present" else delete)(module, client))
    except KafkaException as error:
        module.fail_json(
            msg=f"Kafka at {module.params['bootstrap_servers']} refused: {error.args[0].str()}. See berny-probe kafka."
        )


def delete(module: AnsibleModule, client: Any) -> dict[str, Any]:
    """Delete the topics that exist; return descriptions of the changes."""
    found = client.list_topics(timeout=TIMEOUT).topics
    there = [name for name in module.params["topics"] if name in found]
    for future in (
        client.delete_topics(there, operation_timeout=TIMEOUT).values() if there and not module.check_mode else ()
    ):
        future.result()
    return {"changed": bool(there), "changes": [f"{name}: deleted" for name in there]}


def converge(module: AnsibleModule, client: Any) -> dict[str, Any]:
    """Create and alter topics; return descriptions of the changes."""
    from confluent_kafka.admin import (
        AlterConfigOpType,
        ConfigEntry,
        ConfigResource,
        NewPartitions,
        NewTopic,
        ResourceType,
    )

    cluster = client.list_topics(timeout=TIMEOUT)
    found, brokers = cluster.topics, len(cluster.brokers)
    changes, new, more = [], [], []
    for name, topic in module.params["topics"].items():
        if name not in found:
            if name in module.params["held"]:
                module.fail_json(
                    msg=f"topic {name} is on the brokers' disks, but ZooKeeper does not have it. It is not created, since "
                    "that would lose its records. If ZooKeeper's disk is not mounted, mount it. If it is lost, "
                    "see docs/recovery.md."
                )
            if topic["replication"] > brokers:
                module.fail_json(
                    msg=f"topic {name} is to have {topic['replication']} replicas, and Kafka has brokers: {brokers}. Start "
                    "those that are down, put another node into the group kafka, or set the topic's replication in the "
                    "pipeline.yml that declares it"
                )
            changes.append(f"{name}: created")
            settings = wanted_configuration(topic)
            new.append(NewTopic(name, topic["partitions"], topic["replication"], config=settings))
            continue
        partitions = found[name].partitions
        replication = min(len(partition.replicas) for partition in partitions.values())
        if len(partitions) > topic["partitions"] or replication != topic["replication"]:
            module.fail_json(
                msg=f"topic {name} has {len(partitions)} partitions with {replication} replicas, its manifest says "
                f"{topic['partitions']} with {topic['replication']}: correct the manifest, or move the topic's data"
            )
        if len(partitions) < topic["partitions"]:
            changes.append(f"{name}: {len(partitions)} -> {topic['partitions']} partitions")
            more.append(NewPartitions(name, topic["partitions"]))
    old = [ConfigResource(ResourceType.TOPIC, name) for name in module.params["topics"] if name in found]
    alter = []
    for resource, future in client.describe_configs(old, request_timeout=TIMEOUT).items() if old else ():
        settings = future.result()
        wanted = wanted_configuration(module.params["topics"][resource.name])
        differ = {key: value for key, value in wanted.items() if settings[key].value != value}
        if differ:
            changes += [f"{resource.name}: {key} {settings[key].value} -> {value}" for key, value in differ.items()]
            entries = [ConfigEntry(k, v, incremental_operation=AlterConfigOpType.SET) for k, v in differ.items()]
            alter.append(ConfigResource(ResourceType.TOPIC, resource.name, incremental_configs=entries))
    if not module.check_mode:
        for batch in (
            client.create_topics(new, operation_timeout=TIMEOUT) if new else {},
            client.create_partitions(more, operation_timeout=TIMEOUT) if more else {},
            client.incremental_alter_configs(alter) if alter else {},
        ):
            for future in batch.values():
                future.result()
    return {"changed": bool(changes), "changes": changes}


if __name__ == "__main__":
    main()
