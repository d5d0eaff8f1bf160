"""The command blocks of all pages: what a test types, and why another line is typed by none.

A line that is in neither ``ELSEWHERE`` nor ``NEVER`` is typed by ``cluster/test_2_readme.py``, on a node as the login user
or on the controller; ``unit/test_readme.py`` compares both with the pages.
"""

from __future__ import annotations

import re
import shlex

from berny.model.catalog import load_catalog
from berny.model.topology import CHECKOUT

GUEST = "tests/vm/test_vm.py::test_it_is_a_kernel_of_its_own"
FAULTS = "tests/faults/test_nothing_lost.py::test_nothing_is_lost"
OPERATORS = "tests/unit/test_supply.py::test_operators_archive_is_taken_instead"
MACHINES = "tests/lab/test_lab.py::test_down_and_up_keep_the_disks"
SUBMITTED = "tests/cluster/test_5_pipelines/test_2_customers.py::test_a_job_is_submitted_by_hand"
CHECK = (
    "berny lab ssh worker_2 -- sudo env "
    "PYTHONPATH=/opt/berny/berny-idfm/python:/opt/berny/berny/python:/opt/berny/runtime/python "
    "python3 -m berny.runtime.harness idfm check --truth - < ~/.local/state/berny/labs/lab/simulators/idfm.truth.jsonl"
)
# Lines that a test of their own types, or calls what they call, and which.
ELSEWHERE = {
    "make lab": "tests/conftest.py::cluster",
    "pyspark": "tests/cluster/test_2_commands.py::test_call",
    "mapred streaming -files mapper.py,reducer.py -mapper mapper.py -reducer reducer.py -input /tmp/in -output /tmp/out":
        "tests/cluster/test_7_yarn.py::test_streaming_outlives_a_node_manager",
    "spark-submit --master yarn --deploy-mode cluster job.py":
        "tests/cluster/test_7_yarn.py::test_spark_outlives_a_node_manager",
    "ansible-playbook playbooks/preflight.yml":
        "tests/cluster/test_9_reset.py::test_preflight_finds_nothing_and_is_quick",
    "ansible-playbook playbooks/reset.yml -e component=spark-worker --limit worker_1":
        "tests/cluster/test_9_reset.py::test_an_orphan_is_removed_by_the_command_that_is_told",
    "ansible-playbook playbooks/reset.yml -e pipeline=idfm":
        "tests/cluster/test_9_reset.py::test_a_pipeline_goes_without_its_data_and_comes_back",
    "ansible-playbook playbooks/reset.yml -e pipeline=idfm -e data=lab":
        "tests/cluster/test_9_reset.py::test_a_pipeline_goes_with_its_data_and_comes_back",
    "ansible-playbook playbooks/reset.yml -e everything=true -e data=lab":
        "tests/removal/test_nothing_is_left.py::test_everything_goes_even_where_a_reset_is_cut_off",
    "ansible-playbook -i inventory/production site.yml --ask-vault-pass":
        "tests/cluster/test_B_rotate.py::test_an_encrypted_file_needs_its_password",
    "ansible-playbook playbooks/rotate.yml": "tests/cluster/test_B_rotate.py::test_tokens_are_renewed_under_load",
    "berny plan": "tests/cluster/test_4_plan.py::test_nothing_is_planned_where_nothing_would_change",
    "berny plan -i inventory/production --diff": "tests/cluster/test_4_plan.py::test_the_plan_is_what_a_dry_run_finds",
    "berny bundle-logs": "tests/cluster/test_A_support.py::test_everything_is_in_it_but_secrets",
    "berny artifacts fetch": "tests/support.py::machines",
    "BERNY_INFLUXDB_SHA256=DIGEST berny artifacts fetch influxdb":
        "tests/unit/test_supply.py::test_operators_digest_goes_before_the_catalogs",
    "BERNY_INFLUXDB_ARCHIVE=influxdb2-2.7.12_linux_amd64.tar.gz BERNY_INFLUXDB_SHA256=DIGEST berny artifacts fetch influxdb":
        OPERATORS,
    "BERNY_INFLUX_ARCHIVE=influxdb2-client-2.7.5-linux-amd64.tar.gz BERNY_INFLUX_SHA256=DIGEST berny artifacts fetch influx":
        OPERATORS,
    "BERNY_GRAFANA_ARCHIVE=grafana-13.1.1.linux-amd64.tar.gz BERNY_GRAFANA_SHA256=DIGEST berny artifacts fetch grafana":
        OPERATORS,
    "berny artifacts bundle berny.tar": "tests/unit/test_air_gap.py::test_bundle_comes_back_as_it_was",
    "berny artifacts load berny.tar": "tests/unit/test_air_gap.py::test_bundle_comes_back_as_it_was",
    "BERNY_MIRROR=http://mirror.example/berny berny artifacts fetch":
        "tests/unit/test_air_gap.py::test_archives_come_from_the_mirror",
    "berny lab up": MACHINES,
    "berny lab down": MACHINES,
    "berny lab down --purge": "tests/support.py::remove",
    "berny lab up --name two": MACHINES,
    "berny lab down --name two --purge": "tests/support.py::remove",
    "BERNY_LAB=two ansible-playbook playbooks/check.yml": "tests/cluster/test_2_readme.py::test_block",
    "berny faults run kill-kafka-master cut-worker_1": FAULTS,
    "berny faults run 'power-*' --rate 20": FAULTS,
    "berny faults heal": FAULTS,
    "make vm": GUEST,
    "berny vm up": GUEST,
    "berny vm ssh": GUEST,
    "berny vm ssh -- sudo nft list ruleset": GUEST,
    "berny vm down": GUEST,
    CHECK: "tests/cluster/test_3_delivery.py::test_without_faults_every_observation_is_everywhere_once",
    "sudo systemctl stop berny-customers-kafka-hdfs": SUBMITTED,
    "sudo systemd-run --pty --collect -p User=customers -p EnvironmentFile=/etc/berny/berny-customers-kafka-hdfs/stage.env "
    "spark-submit /opt/berny/berny-customers/python/berny/pipelines/customers/spark_streaming_job_kafka_hdfs.py": SUBMITTED,
    "sudo systemctl start berny-customers-kafka-hdfs": SUBMITTED,
    "sh /opt/berny/berny-customers/scripts/reset_environment.sh":
        "tests/unit/test_customers_reset.py::test_a_person_has_to_type_the_name",
    "make lint": "tests/style/test_style.py::test_style",
    "python -m berny.controller.mapping README.md": "tests/unit/test_readme.py::test_the_table_is_the_mapping",
}  # fmt: skip
VMS = "needs four virtual machines; tests/vm converges one"
AZURE = "needs an account of Azure; tests/unit/test_azure.py holds plan, refusals and arguments"
GRAFANA = "needs the vendor's archive; where the store has it tests/cluster/test_A_grafana.py runs"
LOST = "runs where disks are lost; the rows lost-* of the fault bench do that (make faults)"
# Lines that no test can type, and why.
NEVER = {
    "make test": "is this run",
    "make unit": "is a part of this run",
    "make test-all": "is this run",
    "make test-all ONLY='roles vm'": "is this run",
    "cp -r inventory/azure inventory/production": VMS,
    "nano inventory/production/hosts.yml inventory/production/group_vars/all.yml": "an editor, for a person",
    "PRIM_API_KEY=KEY ansible-playbook -i inventory/production site.yml": VMS,
    "make azure": AZURE,
    "ansible-playbook -i inventory/production playbooks/azure.yml": AZURE,
    "ansible-playbook -i inventory/production playbooks/azure.yml -e do=make": AZURE,
    "ansible-playbook -i inventory/production playbooks/azure.yml -e do=stop": AZURE,
    "ansible-playbook -i inventory/production playbooks/azure.yml -e do=start": AZURE,
    "ansible-playbook -i inventory/production playbooks/azure.yml -e do=delete -e data=NAME": AZURE,
    "berny artifacts fetch grafana": GRAFANA,
    "ansible-playbook site.yml --tags grafana": GRAFANA,
    'berny bundle-logs -i inventory/production --since "3 days ago" --to /tmp': VMS,
    "BERNY_LAB=two make lab": "a second whole lab needs the memory of two",
    "berny faults random --seconds 600 --seed 7": "takes ten minutes and breaks what other tests need",
    "make faults": "takes hours",
    "ansible-playbook playbooks/restore.yml": LOST,
    "ansible-playbook playbooks/restore.yml -e data=lab": LOST,
}  # fmt: skip
# Lines that are typed in the second tier alone, with the others of their block.
SLOW = {
    "ansible-playbook playbooks/pipelines.yml -e pipeline=idfm -e do=stop",
    "ansible-playbook playbooks/reset.yml -e component=kafka --limit worker_2",
    "sudo stop-dfs.sh",
}
# What has to follow a line before other tests go on.
AFTER = {
    "ansible-playbook playbooks/reset.yml -e component=kafka --limit worker_2": "ansible-playbook site.yml --tags kafka",
}
# Nodes other than master that lines are typed on.
NODES = {
    "sudo systemctl restart berny-idfm-influx-consumer": "worker_2",
    "influx ping": "worker_2",
    "psql -c '\\l'": "worker_1",
    "psql -c '\\dt+'": "worker_1",
    "sudo -u postgres psql -c 'SELECT datname FROM pg_database'": "worker_1",
    "sudo influx query 'from(bucket: \"idfm_metrics\") |> range(start: -1h) |> count()'": "worker_2",
}
# Lines that a person ends.
ENDLESS = {"sudo journalctl -u berny-idfm-producer -f"}
CONTROLLER = {".", "ansible-playbook", "berny", "make", "python"}


def blocks(text: str) -> list[list[str]]:
    """Return the commands of each ``sh`` block of a page, continued lines joined, without comments."""
    found = []
    for block in re.findall(r"^ *```sh\n(.*?)^ *```$", text, re.M | re.S):
        lines = re.sub(r" *\\\n *", " ", block).splitlines()
        found.append([line.split(" #")[0].strip() for line in lines if line.strip()])
    return found


def pages() -> list[str]:
    """Return the names of all pages: README and contributing first, then docs, then components and pipelines."""
    found = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md"]
    for pattern in ("docs/**/*.md", "roles/*/README.md", "src/berny/pipelines/*/README.md"):
        found += sorted(CHECKOUT.glob(pattern))
    return [str(file.relative_to(CHECKOUT)) for file in found]


def all_blocks() -> list[list[str]]:
    """Return the blocks of all pages."""
    return [block for page in pages() for block in blocks((CHECKOUT / page).read_text())]


def typed(block: list[str]) -> list[str]:
    """Return the lines of a block that ``cluster/test_2_readme.py`` types."""
    return [line for line in block if line not in ELSEWHERE and line not in NEVER]


def program(line: str) -> str:
    """Return the program of a line, past variables and sudo."""
    words = [word for word in shlex.split(line) if not re.match(r"[A-Z0-9_]+=", word)]
    if words[0] == "sudo":
        words = words[3:] if words[1] == "-u" else words[1:]
    return words[0]


def on_node(line: str) -> bool:
    """Tell whether a line is typed on a node."""
    return program(line) not in CONTROLLER


def optional_archive(line: str) -> str:
    """Return the optional archive that a line's program is from, or nothing."""
    components = load_catalog().components.values()
    return next((c.commands.archive for c in components if program(line) in c.commands.names), "")


def node_programs() -> set[str]:
    """Return the programs that nodes have: components' commands and scripts, probes, and systemd's."""
    components = load_catalog().components.values()
    names = {name for component in components for name in [*component.commands.names, *component.scripts]}
    return names | {"berny-probe", "systemctl", "systemd-run", "journalctl"}
