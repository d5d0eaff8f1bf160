#!/usr/bin/python3
"""Reports whether directories contain metadata, checkpoints or blocks of an HDFS."""

from __future__ import annotations

DOCUMENTATION = """
module: hdfs_metadata
short_description: Look for metadata of HDFS; changes nothing
options:
  directories: {description: Directories that may contain a VERSION file., type: list, elements: path, required: true}
author: [Berny (@berny)]
"""
EXAMPLES = """
- name: Look
  hdfs_metadata: {directories: [/data/hdfs-namenode/name/current]}
"""
RETURN = """
held: {description: 'The cluster ids found, by directory.', type: dict, returned: always}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule


def cluster_id(directory: Path) -> str | None:
    """Return the id in the directory's VERSION; a NameNode's, after an interrupted format, counts only if it has an image."""
    version = directory / "VERSION"
    if not version.exists():
        return None
    facts = dict(line.split("=", 1) for line in version.read_text().splitlines() if "=" in line)
    if facts.get("storageType") == "NAME_NODE" and not list(directory.glob("fsimage_*")):
        return None
    return facts.get("clusterID")


def main() -> None:
    module = AnsibleModule(
        argument_spec={"directories": {"type": "list", "elements": "path", "required": True}}, supports_check_mode=True
    )
    found = {name: cluster_id(Path(name)) for name in module.params["directories"]}
    module.exit_json(changed=False, held={name: identity for name, identity in found.items() if identity})


if __name__ == "__main__":
    main()
