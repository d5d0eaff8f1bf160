#!/usr/bin/python3
"""Remove what a pipeline keeps in the cluster: topics, directories in HDFS, its bucket and the tokens of that alone."""

from __future__ import annotations

DOCUMENTATION = """
module: pipeline_data
short_description: Remove a pipeline's topics, directories in HDFS and bucket
options:
  topics: {description: Names of topics., type: list, elements: str, required: true}
  bootstrap_servers: {description: HOST:PORT of brokers., type: str, required: true}
  directories: {description: Directories in HDFS., type: list, elements: str, required: true}
  hdfs_web_url: {description: The NameNode's web address., type: str, required: true}
  hdfs_user: {description: HDFS's superuser., type: str, required: true}
  bucket: {description: A bucket of InfluxDB; empty for none., type: str, required: true}
  influxdb_url: {description: The server., type: str, required: true}
  influxdb_token: {description: The first user's token., type: str, required: true}
author: [Berny (@berny)]
"""
EXAMPLES = """
- name: Remove
  pipeline_data:
    topics: [idfm-realtime]
    bootstrap_servers: master:9092
    directories: [/data/idfm]
    hdfs_web_url: http://master:9870
    hdfs_user: hdfs
    bucket: idfm_metrics
    influxdb_url: http://worker-2:8086
    influxdb_token: "{{ secrets.influxdb_admin_token }}"
"""
RETURN = """
removed: {description: What went., type: list, returned: always}
"""

import sys
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule

sys.path[:0] = ["/opt/berny/berny/python", "/opt/berny/runtime/python"]
TIMEOUT = 60


def topics(words: dict[str, Any], dry: bool) -> list[str]:
    """Delete the topics that there are."""
    from confluent_kafka.admin import AdminClient

    client = AdminClient({"bootstrap.servers": words["bootstrap_servers"], "log_level": 0})
    there = [name for name in words["topics"] if name in client.list_topics(timeout=TIMEOUT).topics]
    for future in client.delete_topics(there, operation_timeout=TIMEOUT).values() if there and not dry else ():
        future.result()
    return [f"topic {name}" for name in there]


def directories(words: dict[str, Any], dry: bool) -> list[str]:
    """Delete the directories that there are, with all that is in them and past the trash."""
    from hdfs import InsecureClient

    client = InsecureClient(words["hdfs_web_url"], user=words["hdfs_user"], timeout=TIMEOUT)
    there = [path for path in words["directories"] if client.status(path, strict=False)]
    for path in there if not dry else ():
        client.delete(path, recursive=True, skip_trash=True)
    return [f"hdfs {path}" for path in there]


def bucket(words: dict[str, Any], dry: bool) -> list[str]:
    """Delete the bucket, and the tokens that reach no other."""
    from influxdb_client import InfluxDBClient

    removed = []
    with InfluxDBClient(words["influxdb_url"], words["influxdb_token"], timeout=TIMEOUT * 1000) as client:
        found = client.buckets_api().find_bucket_by_name(words["bucket"]) if words["bucket"] else None
        if not found:
            return []
        authorizations = client.authorizations_api()
        for token in authorizations.find_authorizations():
            reached = {permission.resource.id for permission in token.permissions}
            if reached == {found.id}:
                removed.append(f"token {token.description}")
                if not dry:
                    authorizations.delete_authorization(token)
        removed.append(f"bucket {found.name}")
        if not dry:
            client.buckets_api().delete_bucket(found)
    return removed


def main() -> None:
    text, texts = {"type": "str", "required": True}, {"type": "list", "elements": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            "topics": texts,
            "bootstrap_servers": text,
            "directories": texts,
            "hdfs_web_url": text,
            "hdfs_user": text,
            "bucket": text,
            "influxdb_url": text,
            "influxdb_token": text | {"no_log": True},
        },
        supports_check_mode=True,
    )
    removed: list[str] = []
    steps: dict[str, Callable[[dict[str, Any], bool], list[str]]]
    steps = {"kafka": topics, "hdfs": directories, "influxdb": bucket}
    for component, remove in steps.items():
        try:
            removed += remove(module.params, module.check_mode)
        except Exception as error:  # each library has errors of its own; what was said is what helps
            said = str(error).strip().splitlines()[:1]
            gone = f" Gone are {', '.join(removed)}." if removed else ""
            module.fail_json(
                msg=f"{component} refused: {' '.join(said) or type(error).__name__}.{gone} Have it serve (berny-probe "
                f"{component}) and run the play again: it goes on."
            )
    module.exit_json(changed=bool(removed), removed=removed)


if __name__ == "__main__":
    main()
