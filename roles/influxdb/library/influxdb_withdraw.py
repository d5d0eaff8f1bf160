#!/usr/bin/python3
"""Deletes buckets, and the tokens that are limited to them."""

from __future__ import annotations

DOCUMENTATION = """
module: influxdb_withdraw
short_description: Delete buckets of InfluxDB, and the tokens that are limited to them
options:
  url: {description: The server., type: str, required: true}
  token: {description: The first user's token., type: str, required: true}
  buckets: {description: Names of buckets., type: list, elements: str, required: true}
author: [Berny (@berny)]
"""
EXAMPLES = """
- name: Delete the bucket
  influxdb_withdraw:
    url: http://localhost:8086
    token: "{{ secrets.influxdb_admin_token }}"
    buckets: [idfm_metrics]
"""
RETURN = """
removed: {description: What was deleted., type: list, returned: always}
"""

import sys
from typing import Any

from ansible.module_utils.basic import AnsibleModule

sys.path[:0] = ["/opt/berny/berny/python", "/opt/berny/runtime/python"]
TIMEOUT = 60


def withdraw(words: dict[str, Any], dry: bool) -> list[str]:
    """Delete the buckets that exist, and the tokens that are limited to them; return what was deleted."""
    from influxdb_client import InfluxDBClient

    removed = []
    with InfluxDBClient(words["url"], words["token"], timeout=TIMEOUT * 1000) as client:
        named = [client.buckets_api().find_bucket_by_name(name) for name in words["buckets"]]
        found = {bucket.id: bucket for bucket in named if bucket}
        authorizations = client.authorizations_api()
        for token in authorizations.find_authorizations() if found else []:
            reached = {permission.resource.id for permission in token.permissions}
            if reached <= found.keys():
                removed.append(f"token {token.description}")
                if not dry:
                    authorizations.delete_authorization(token)
        for bucket in found.values():
            removed.append(f"bucket {bucket.name}")
            if not dry:
                client.buckets_api().delete_bucket(bucket)
    return removed


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "token": {"type": "str", "required": True, "no_log": True},
            "buckets": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        removed = withdraw(module.params, module.check_mode)
    except Exception as error:  # the library raises several kinds of errors; their first line is helpful
        said = " ".join(str(error).strip().splitlines()[:1]) or type(error).__name__
        module.fail_json(
            msg=f"InfluxDB at {module.params['url']} refused: {said}. See berny-probe influxdb, then run the play again: "
            "it continues here."
        )
    module.exit_json(changed=bool(removed), removed=removed)


if __name__ == "__main__":
    main()
