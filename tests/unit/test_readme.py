"""All pages against the checkout: table, picture, commands, links, names, messages, settings; both inventories."""

from __future__ import annotations

import itertools
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

import documented
from berny import cli
from berny.controller.artifacts.ways import own_code
from berny.controller.mapping import BEGIN, END, MarkersMissing, between, mapping_table, units_by_node
from berny.lab.simulation import select
from berny.model.catalog import load_catalog
from berny.model.manifest import load_pipelines
from berny.model.topology import read_mapping
from berny.pipelines.customers import customer_rows, kafka_producer
from berny.pipelines.idfm.producer import Settings
from berny.pipelines.openweather import consumer, export, hbase, mapreduce, producer

CHECKOUT = Path(__file__).resolve().parents[2]
INVENTORIES = ("lab", "azure")
PAGES = documented.pages()
IDFM = "src/berny/pipelines/idfm/README.md"
README_LINES = 150
# Programs of a controller's or a node's Debian. What Berny brings itself is looked up below.
SYSTEM = {".", "cp", "journalctl", "nano", "nft", "rm", "systemctl", "systemd-run", "systemd-tmpfiles", "tar", "uptime"}
FOLDERS = "ansible|docs|inventory|molecule|playbooks|requirements|roles|src|tests"


def text(document: str) -> str:
    """Return a document's text."""
    return (CHECKOUT / document).read_text()


def lines_of(document: str) -> list[str]:
    """Return the commands of all ``sh`` blocks of a page."""
    return [line for block in documented.blocks(text(document)) for line in block]


def everything() -> str:
    """Return the text of all pages."""
    return "\n".join(map(text, PAGES))


def commands(line: str) -> list[list[str]]:
    """Return the words of each command of a line, without assignments before it and redirections after it."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    parts: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("|&;"):
            parts.append([])
        else:
            parts[-1].append(word)
    found = []
    for words in parts:
        words = words[: words.index("<")] if "<" in words else words
        while re.match(r"[A-Z0-9_]+=", words[0]):
            words = words[1:]
        found.append(words)
    return found


def without_sudo(words: list[str]) -> list[str]:
    """Return the words that sudo is to run."""
    if words[0] != "sudo":
        return words
    return words[3:] if words[1] == "-u" else words[1:]


def options(words: list[str], *names: str) -> list[str]:
    """Return the values of an option."""
    return [value for name, value in itertools.pairwise(words) if name in names]


def check_berny(words: list[str]) -> None:
    """Walk the commands of ``berny``; every option has to be known. What follows ``--`` is a command on a node."""
    command: Any = typer.main.get_command(cli.app)
    own = words[1 : words.index("--")] if "--" in words else words[1:]
    while below := getattr(command, "commands", None):
        assert own and own[0] in below, f"berny has no such command: {words}"
        command = below[own.pop(0)]
    known = {option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]}
    assert {word for word in own if word.startswith("-")} <= known, words
    if words[1:3] == ["lab", "ssh"]:
        assert own[0] in read_mapping()["all"]
    if "--" in words:
        remote = words[words.index("--") + 1 :]
        check(shlex.split(remote[0]) if len(remote) == 1 else remote)


def check_playbook(words: list[str]) -> None:
    """A playbook and its pipeline exist; an inventory does, or was copied from one."""
    assert [word for word in words[1:] if word.endswith(".yml")], words
    for word in words[1:]:
        if word.endswith(".yml"):
            assert (CHECKOUT / word).is_file(), f"there is no playbook {word}"
    for inventory in options(words, "-i"):
        assert (CHECKOUT / inventory).is_dir() or f"cp -r inventory/azure {inventory}" in lines_of("README.md")
    given = dict(pair.split("=", 1) for pair in options(words, "-e"))
    assert given.get("pipeline", "idfm") in load_pipelines()
    if given.get("component"):
        assert given["component"] in {*load_catalog().components, *load_catalog().services}
    if given.get("do"):
        files = "playbooks/tasks/azure_{}.yml" if "playbooks/azure.yml" in words else "roles/pipeline/tasks/{}.yml"
        assert (CHECKOUT / files.format(given["do"])).is_file()
    allowed = {
        "pipeline",
        "do",
        "component",
        "everything",
        "data",
        *re.findall(r"check_\w+", text("playbooks/check.yml")),
    }
    assert given.keys() <= allowed, words


def check_units(words: list[str]) -> None:
    """Units that are named exist: services of the catalog, stages, the targets of pipelines."""
    known = {unit for titles in units_by_node().values() for units in titles.values() for unit in units}
    known |= {f"berny-{pipeline}.target" for pipeline in load_pipelines()}
    known |= {f"{unit}.conf" for unit in known}
    for word in words[1:]:
        if "hdfs" in word or "berny" in word:
            assert word in known, f"there is no unit {word}"


def check_node_command(words: list[str]) -> None:
    """A wrapper's arguments: subcommands, ports, topics and names that exist."""
    facts = load_catalog().services
    pipelines = load_pipelines().values()
    for component in load_catalog().components.values():
        subcommands = component.commands.names.get(words[0])
        assert not isinstance(subcommands, dict) or words[1] in subcommands, words
    if "-examples-" in " ".join(words):
        assert f"-{load_catalog().components['yarn'].version}.jar" in words[2], words
    for server in options(words, "--bootstrap-server"):
        node, port = server.split(":")
        assert node in [*read_mapping()["kafka"], "localhost"] and int(port) == facts["kafka"].ports["broker"]
    for topic in options(words, "--topic"):
        assert any(topic in pipeline.resources.get("topics", {}) for pipeline in pipelines)
    if "-triggerBlockReport" in words:
        node, port = words[-1].split(":")
        assert node.replace("-", "_") in read_mapping()["datanode"]
        assert int(port) == facts["hdfs-datanode"].ports["ipc"]
    if words[0] == "berny-probe":
        stages = {f"berny-{pipeline.name}-{stage}" for pipeline in pipelines for stage in pipeline.stages}
        known = {*facts, *load_catalog().components, *stages}
        source = text("src/berny/runtime/probe/__main__.py")
        positional = [w for w in words[1:] if not w.startswith("-") and w not in options(words, "--want", "--wait")]
        assert set(positional) <= known, words
        assert all(f'"{word}"' in source for word in words[1:] if word.startswith("-")), words


def check_java(words: list[str]) -> None:
    """Java is the catalog's, and the folders it reads are the NameNode's."""
    home = yaml.safe_load(text("ansible/cluster.yml"))["java_home"]
    assert words[0] == f"{home}/bin/java"
    assert options(words, "-cp") == ["/etc/berny/hdfs-namenode:/opt/berny/hadoop:/opt/berny/hadoop/lib/*"]
    assert "org.apache.hadoop.hdfs.server.namenode.NameNode" in words


def check_python(words: list[str]) -> None:
    """A module of the package exists."""
    assert words[1] == "-m"
    assert (CHECKOUT / "src" / f"{words[2].replace('.', '/')}.py").is_file(), words


def check_script(words: list[str]) -> None:
    """A script of a pipeline, where its archive is."""
    match = re.fullmatch(r"/opt/berny/berny-([a-z-]+)/scripts/(\w+\.sh)", words[1])
    assert match and (CHECKOUT / "src/berny/pipelines" / match[1] / "scripts" / match[2]).is_file(), words


def check(words: list[str]) -> None:
    """Hold one command against what there is."""
    words = without_sudo(words)
    if words[0] == "env":
        words = [word for word in words[1:] if not re.match(r"[A-Z_]+=", word)]
    wrappers = {name for component in load_catalog().components.values() for name in component.commands.names}
    wrappers |= {script for component in load_catalog().components.values() for script in component.scripts}
    wrappers |= set(yaml.safe_load(text("roles/node/defaults/main.yml"))["node_commands"])
    if words[0] == "make":
        assert re.search(rf"^{words[1]}: ", text("Makefile"), re.M), f"make has no target {words[1]}"
    elif words[0] == "berny":
        check_berny(words)
    elif words[0] == "ansible-playbook":
        check_playbook(words)
    elif words[0] in ("python", "python3"):
        check_python(words)
    elif words[0].endswith("/java"):
        check_java(words)
    elif words[0] in wrappers:
        check_node_command(words)
    elif words[0] == "sh":
        check_script(words)
    else:
        assert words[0] in SYSTEM, f"what is {words[0]!r}?"
        if words[0] in ("systemctl", "journalctl", "systemd-tmpfiles"):
            check_units(words)


@pytest.mark.parametrize("document", [page for page in PAGES if lines_of(page)])
def test_every_command_exists(document: str) -> None:
    """Targets, subcommands and options, playbooks, wrappers, units, topics, ports."""
    for line in lines_of(document):
        for words in commands(line):
            check(words)


def test_the_readme_is_short() -> None:
    """It says what Berny is, and where to read on."""
    assert len(text("README.md").splitlines()) <= README_LINES


def test_every_component_and_every_pipeline_has_a_page() -> None:
    """With what it is, its settings, and trouble by symptom."""
    expected = {f"roles/{name}/README.md" for name in load_catalog().components}
    expected |= {f"src/berny/pipelines/{name}/README.md" for name in load_pipelines()}
    assert expected <= {*PAGES}
    for page in expected:
        assert {"Settings", "Trouble by symptom"} <= {*re.findall(r"^## (.+)$", text(page), re.M)}, page


def test_pages_are_not_sent_to_nodes() -> None:
    """A word in one would restart stages."""
    sent = own_code()
    assert sent and not [name for name in sent if name.endswith(".md")]


def test_every_page_can_be_reached_from_the_readme() -> None:
    """By links, over other pages."""
    reached: set[str] = set()
    waiting = ["README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            waiting += [target for target, _ in links(page) if target in PAGES]
    assert reached == {*PAGES}


def test_every_page_says_what_it_is_for() -> None:
    """A title, and a sentence below it; a decision has its three headings."""
    for page in PAGES:
        lines = text(page).splitlines()
        if re.search(r"/adr/\d", page):
            assert re.fullmatch(rf"# {int(Path(page).name[:4])}\. .+", lines[0]), page
            assert re.findall(r"^## (.+)$", text(page), re.M) == ["Context", "Decision", "Consequences"], page
        elif page != "CONTRIBUTING.md":
            assert lines[0].startswith("# ") and re.match(r"\w", lines[2]), page


def test_decisions_are_listed() -> None:
    """Each once, by its number and title."""
    pages = [page for page in PAGES if re.search(r"/adr/\d", page)]
    assert [int(Path(page).name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        number, _, title = text(page).splitlines()[0].removeprefix("# ").partition(". ")
        assert f"| [{number}]({Path(page).name}) | {title} |" in text("docs/adr/README.md")


def test_commands_are_told_apart() -> None:
    """What the checks themselves see of a line."""
    assert commands("A=1 make x && b 'c | d' | e < f") == [["make", "x"], ["b", "c | d"], ["e"]]
    assert without_sudo(["sudo", "-u", "hdfs", "hdfs", "fsck"]) == ["hdfs", "fsck"]


@pytest.mark.parametrize(
    "line",
    [
        "make nothing",
        "berny lab jump",
        "berny lab up --nam two",
        "berny lab ssh worker_3",
        "berny lab ssh master -- hdfs nothing",
        "yarn nothing",
        "ansible-playbook playbooks/nothing.yml",
        "ansible-playbook playbooks/pipelines.yml -e do=jump",
        "ansible-playbook playbooks/check.yml -e check_wnat=healthy",
        "systemctl status berny-idfm-nothing",
        "kafka-topics.sh --bootstrap-server master:9093 --list",
        "berny-probe nothing",
        "hbase nothing",
        "influxd inspect",
    ],
)
def test_a_wrong_command_is_noticed(line: str) -> None:
    """The checks do check."""
    with pytest.raises(AssertionError):
        for words in commands(line):
            check(words)


def test_every_line_is_typed_by_a_test_or_can_not_be() -> None:
    """Documented commands work because a test types them; the others are named with their reason, and are still there."""
    lines = [line for block in documented.all_blocks() for line in block]
    for names in (documented.ELSEWHERE, documented.NEVER, documented.AFTER):
        assert set(names) <= {*lines}, set(names) - {*lines}
    for lists in (documented.SLOW, documented.ENDLESS, documented.NODES):
        assert set(lists) <= {*lines}, set(lists) - {*lines}
    assert not documented.ELSEWHERE.keys() & documented.NEVER.keys()
    typed = [line for block in documented.all_blocks() for line in documented.typed(block)]
    assert sorted(typed) == sorted({*typed}), "a line is typed twice"
    for line in typed:
        assert documented.program(line) in documented.CONTROLLER | documented.node_programs(), line
    for test in documented.ELSEWHERE.values():
        file, name = test.split("::")
        assert re.search(rf"^def {name}\(", text(file), re.M), f"there is no test {test}"


def test_the_table_of_commands_is_the_catalogs() -> None:
    """Each command of a component once, with the nodes that have it."""
    rows = re.findall(r"^\| (`.+?) \| (.+?) \|$", text("docs/commands.md"), re.M)
    told = {name: where for names, where in rows for name in re.findall(r"`([^`]+)`", names)}
    mapping = read_mapping()
    for component in load_catalog().components.values():
        nodes = {node for service in component.services.values() for node in mapping[service.group]}
        where = "all nodes" if nodes == {*mapping["all"]} else ", ".join(sorted(nodes))
        for name in component.commands.names:
            assert told.get(name) == where, f"{name}: {where}"
        assert told.keys() >= {*component.scripts}


def test_the_table_is_the_mapping() -> None:
    """``python -m berny.controller.mapping README.md`` has been run."""
    readme = text("README.md")
    assert readme == between(readme, BEGIN, END, mapping_table()), "run: python -m berny.controller.mapping README.md"


def test_the_table_needs_its_markers() -> None:
    """A file without a place for the table is left alone."""
    assert between(f"a\n{BEGIN}\nold\n{END}\nb", BEGIN, END, "new") == f"a\n{BEGIN}\nnew\n{END}\nb"
    for wrong in ("", BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"):
        with pytest.raises(MarkersMissing):
            between(wrong, BEGIN, END, "new")


def test_the_picture_is_the_mapping() -> None:
    """Each box has its node's units, with those of the pipelines that a lab runs by default, and no others."""
    lines = text("README.md").splitlines()
    top = next(number for number, line in enumerate(lines) if "┌─ master" in line)
    boxes: dict[str, set[str]] = {name: set() for name in re.findall(r"┌─ (\S+)", lines[top])}
    for line in lines[top + 1 :]:
        if line.startswith("└"):
            break
        cells = [cell.strip() for cell in line.strip("│").split("│ │")]
        for node, cell in zip(boxes, cells, strict=True):
            boxes[node] |= {cell} - {""}
    other = {one.title for name, one in load_pipelines().items() if name not in select("")}
    assert boxes == {
        node: {unit for title, units in titles.items() if title not in other for unit in units}
        for node, titles in units_by_node().items()
    }


def slug(heading: str) -> str:
    """Return a heading's anchor."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def headings(page: str) -> list[str]:
    """Return the headings of a page; comments in code blocks are none."""
    return re.findall(r"^#+ (.+)$", re.sub(r"^ *```.*?^ *```$", "", text(page), flags=re.M | re.S), re.M)


def links(page: str) -> list[tuple[str, str]]:
    """Return file and anchor of each link of a page to the checkout."""
    found = []
    for target in re.findall(r"\]\(([^)]+)\)", text(page)):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            file = (CHECKOUT / page).parent / path if path else CHECKOUT / page
            found.append((os.path.relpath(file.resolve(), CHECKOUT), anchor))
    return found


@pytest.mark.parametrize("document", PAGES)
def test_links_resolve(document: str) -> None:
    """Files are there, and headings are in them."""
    for file, anchor in links(document):
        assert (CHECKOUT / file).exists(), f"{document} links to {file}"
        if anchor:
            assert anchor in map(slug, headings(file)), f"{document} links to {file}#{anchor}"


@pytest.mark.parametrize("document", PAGES)
def test_anchors_are_unambiguous(document: str) -> None:
    """Two headings of one name would have a link lead to the first."""
    found = [slug(heading) for heading in headings(document)]
    assert len(found) == len({*found}), document


@pytest.mark.parametrize("document", PAGES)
def test_files_that_are_named_exist(document: str) -> None:
    """Paths of the checkout in code spans; those with a NAME in capitals, and secrets, are made by people or plays."""
    for path in re.findall(rf"`((?:{FOLDERS})(?:/[\w.-]+)+)", text(document)):
        if not re.search(r"\b[A-Z]{4,}\b|inventory/production|secrets", path):
            assert (CHECKOUT / path).exists(), f"{document} names {path}"


def test_pages_that_code_sends_people_to() -> None:
    """Messages and comments name pages, with a heading in quotes; both have to be there."""
    files = [file for folder in ("ansible", "roles", "playbooks", "src") for file in (CHECKOUT / folder).rglob("*")]
    sent = 0
    for file in files:
        if file.suffix in (".py", ".yml", ".j2"):
            for heading, page in re.findall(r'(?:"([^"\n]+)" in )?((?:docs|roles)/[\w/-]+\.md)', file.read_text()):
                assert (CHECKOUT / page).is_file(), f"{file} names {page}"
                assert not heading or heading in headings(page), f"{file} names {heading} of {page}"
                sent += 1
    assert sent > 5
    for file in ("roles/hdfs/tasks/format.yml", "roles/kafka/library/kafka_topics.py"):
        assert "see docs/recovery.md" in text(file)


@pytest.mark.parametrize(
    ("words", "source"),
    [
        ("PRIM_API_KEY is missing, wrong or not allowed to read stop-monitoring", "src/berny/pipelines/idfm/prim.py"),
        (" can't be sent: character ", "src/berny/runtime/http_source.py"),
        (": it has to be http:// or https://", "src/berny/runtime/http_source.py"),
        ("parts of responses are dead letters", "src/berny/runtime/poller.py"),
        ("the source failed; trying again later", "src/berny/runtime/poller.py"),
        ("records are older than the bucket's retention", "src/berny/runtime/sinks/influxdb.py"),
        ("Nothing was touched. Correct the inventory: ", "ansible/plugins/action/berny_inventory.py"),
        ("which the inventory does not put there; remove it: ", "src/berny/controller/preflight/node.py"),
        (" is taken by ", "src/berny/controller/preflight/node.py"),
        (", but the data here was created with ", "src/berny/controller/preflight/node.py"),
        ("is the same machine as ", "src/berny/controller/preflight/cluster.py"),
        (" that is not Berny's", "src/berny/controller/preflight/node.py"),
        ("its sshd does not let ", "src/berny/controller/preflight/node.py"),
        (": allowed is ", "src/berny/controller/settings.py"),
        ("has the address of ", "ansible/plugins/action/berny_inventory.py"),
        (" works on this cluster: ", "ansible/plugins/action/berny_lock.py"),
        ("there is no record (/var/lib/berny) of ", "src/berny/controller/removal.py"),
        ("waiting for the package manager, ", "ansible/plugins/action/berny_packages.py"),
        ("would ignore its ansible.cfg", "Makefile"),
        ("can't be read: ", "src/berny/controller/preflight/__init__.py"),
        (" do not reach each other: ", "src/berny/controller/preflight/cluster.py"),
        ("the services placed there need ", "src/berny/controller/preflight/cluster.py"),
        ("is needed by ", "src/berny/controller/removal.py"),
        ("is not the name of this cluster", "src/berny/controller/removal.py"),
        ("put one into the group ", "src/berny/model/topology.py"),
        ("knows no variable ", "ansible/plugins/action/berny_inventory.py"),
        ("is its disk full? Nothing was acknowledged", "src/berny/runtime/spool.py"),
        ("its sinks have to catch up", "src/berny/runtime/spool.py"),
        ("polling pauses", "src/berny/runtime/poller.py"),
        ("is in safe mode", "roles/hdfs/probe.py"),
        ("did not come back: ", "ansible/plugins/module_utils/berny_service.py"),
        ("times in a row", "ansible/plugins/module_utils/berny_service.py"),
        (", which is ready, is not taken down: ", "ansible/plugins/module_utils/berny_service.py"),
        ("works on this lab", "src/berny/lab/lab.py"),
        ("run `berny artifacts fetch", "src/berny/controller/artifacts/store.py"),
        ("(archive not in the store: ", "src/berny/controller/artifacts/recipes.py"),
        (
            "is not what was signed: it was changed, or cut short on its way",
            "src/berny/controller/artifacts/signature.py",
        ),
        ("is signed by another key", "src/berny/controller/artifacts/signature.py"),
        ("; expected is a signature by the key ", "src/berny/controller/artifacts/errors.py"),
        (" can't be downloaded: ", "src/berny/controller/artifacts/download.py"),
        (" this host lacks ", "src/berny/controller/artifacts/golang.py"),
        ("Nothing was installed.", "src/berny/controller/artifacts/errors.py"),
        (
            "The secrets file beside the inventory does not belong to this server",
            "roles/influxdb/library/influxdb_setup.py",
        ),
        ("; site.yml creates it", "src/berny/runtime/probe/ask.py"),
        ("were gone before they were read (partition ", "src/berny/runtime/probe/ask.py"),
        ("holds no metadata", "roles/hdfs/tasks/format.yml"),
    ],
)
def test_messages_are_told_as_they_are(words: str, source: str) -> None:
    """What a page says that a program says, that program says; strings over two lines are one."""
    assert words.replace("`", "") in everything().replace("`", "")
    assert words in re.sub(r'"\n\s*f?"', "", text(source))


def test_settings_of_idfm_are_the_producers() -> None:
    """Names and defaults of the table."""
    rows = re.findall(r"^\| (`PRIM_[^|]*) \| ([^|]*) \|", text(IDFM), re.M)
    found = {name.lower(): default for names, default in rows for name in re.findall("`(PRIM_[A-Z_]+)`", names)}
    fields = {name: field for name, field in Settings.model_fields.items() if name.startswith("prim_")}
    assert set(found) == set(fields) - {"prim_api_key"}
    assert found["prim_base_url"] == f"`{fields['prim_base_url'].default}`"
    pace = [fields[name].default for name in ("prim_poll_seconds", "prim_daily_quota")]
    assert found["prim_poll_seconds"] == ", ".join(map(str, pace))
    for name in ("prim_monitoring_ref", "prim_line_ref"):
        assert f'{name.upper()}: "{fields[name].default}"' in text(IDFM)


def test_settings_of_openweather_are_its_stages() -> None:
    """Names and defaults of the table."""
    page = text("src/berny/pipelines/openweather/README.md").partition("## Settings\n")[2].partition("\n## ")[0]
    found = re.findall(r"^\| (`[A-Z_`, ]+`) \| ([^|]*) \|", page, re.M)
    rows = {name: default for told, default in found for name in re.findall("[A-Z_]+", told)}
    given = ("berny_", "kafka_", "pg_", "hdfs_web_", "hdfs_user", "hbase_table_id")
    own = {
        name: field
        for stage in (producer, consumer, export, mapreduce, hbase)
        for name, field in stage.Settings.model_fields.items()
    }
    own = {name: field for name, field in own.items() if not name.startswith(given)}
    fields = {name.upper(): "" if one.is_required() else one.default for name, one in own.items()}
    del fields["OPENWEATHER_API_KEY"]
    assert rows.keys() == fields.keys()
    for name, default in fields.items():
        assert not default or rows[name].strip("`") == str(default), name


def test_settings_of_customers_are_its_stages() -> None:
    """Names and defaults of the table; both jobs on Spark are read as text, since Spark is in no package."""
    page = text("src/berny/pipelines/customers/README.md").partition("## Settings\n")[2].partition("\n### ")[0]
    rows = dict(re.findall(r"^\| `([A-Z0-9_]+)` \| ([^|]*) \|", page, re.M))
    fields = {**kafka_producer.Settings.model_fields, **customer_rows.TableSettings.model_fields}
    own = {name.upper(): one for name, one in fields.items() if name.startswith(("customers_", "supabase_"))}
    del own["CUSTOMERS_S3_SECRET_KEY"]
    assert rows.keys() == own.keys() | {"FAIL_ON_DATA_LOSS", "BERNY_TRIGGER_SECONDS"}
    for name, one in own.items():
        assert not one.default or rows[name].strip("`") in (str(one.default), f"{one.default}.0"), name
    query = text("src/berny/runtime/microbatch.py")
    assert "fail_on_data_loss: bool = True" in query and "berny_trigger_seconds: float = Field(5, " in query


@pytest.mark.parametrize("name", load_catalog().components)
def test_settings_of_a_component_are_the_roles(name: str) -> None:
    """Each option of the role and each heap has a row, and no other has; plain defaults are the role's."""
    options = yaml.safe_load(text(f"roles/{name}/meta/argument_specs.yml"))["argument_specs"]["main"]["options"]
    services = load_catalog().components[name].services
    heaps = {f"{service.replace('-', '_')}_heap" for service, facts in services.items() if facts.heap}
    section = text(f"roles/{name}/README.md").partition("## Settings\n")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| (`[^|]*) \| ([^|]*) \|", section, re.M))
    told = {option: default for names, default in rows.items() for option in re.findall(r"`(\w+)`", names)}
    assert told.keys() == options.keys() | heaps
    for option, spec in options.items():
        if isinstance(spec.get("default"), int):
            assert told[option] == str(spec["default"]), option
        elif spec.get("default"):
            assert told[option] == f"`{spec['default']}`", option


def test_the_vm_only_tasks_are_listed() -> None:
    """The page on installation names every task that only virtual machines get."""
    tasks = [task["name"] for task in yaml.safe_load(text("roles/node/tasks/vm.yml"))]
    rows = re.findall(r"^\| (.+?) \|", text("docs/install.md").partition("`vm_only`")[2].partition("\n## ")[0], re.M)
    assert rows == ["task", *tasks]


def hosts_file(inventory: str) -> dict[str, Any]:
    """Return the group ``all`` of an inventory's ``hosts.yml``."""
    found: dict[str, Any] = yaml.safe_load(text(f"inventory/{inventory}/hosts.yml"))["all"]
    return found


def test_inventories_have_the_same_mapping() -> None:
    """Same hosts, same groups, same numbers of brokers."""
    lab, azure = map(hosts_file, INVENTORIES)
    assert azure["children"] == lab["children"]
    assert azure["hosts"].keys() == lab["hosts"].keys()
    assert mapping_table(CHECKOUT / "inventory" / "azure") == mapping_table()


def test_addresses_to_be_replaced_belong_to_nobody() -> None:
    """The placeholders are of a network for documentation, one for each host."""
    addresses = [host["ansible_host"] for host in hosts_file("azure")["hosts"].values()]
    assert len(set(addresses)) == len(addresses)
    assert all(address.startswith("192.0.2.") for address in addresses)


@pytest.mark.parametrize("inventory", INVENTORIES)
def test_inventories_set_what_tells_them_apart(inventory: str) -> None:
    """Name, size and kind of the machines."""
    given = yaml.safe_load(text(f"inventory/{inventory}/group_vars/all.yml"))
    assert given["node_is_vm"] is (inventory != "lab")
    assert given["node_size"] == {"lab": "small", "azure": "large"}[inventory]
    assert {"cluster_name", "ansible_user", "ansible_become"} <= given.keys()
