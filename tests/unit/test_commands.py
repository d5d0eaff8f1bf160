"""Commands on nodes: what their wrappers run, by ``sh`` itself; and what ``bash`` completes of ``berny``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jinja2
import pytest
import yaml

from berny.model.catalog import CatalogError, load_catalog

COMPONENTS = load_catalog().components
WRAPPED = {name: main for c in COMPONENTS.values() for name, main in c.commands.names.items() if main is not None}
# In place of Java: prints what it is given, a word a line.
JAVA = '#!/bin/sh\nprintf "%s\\n" "$@"\n'


@pytest.fixture(scope="module")
def wrappers(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all wrappers, as the roles write them; what they source is the checkout's."""
    folder = tmp_path_factory.mktemp("wrappers")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(checkout / "roles" / "service" / "templates"),
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters["basename"] = os.path.basename
    environment.tests["contains"] = lambda values, value: value in values
    java = folder / "jdk" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(JAVA)
    java.chmod(0o755)
    catalog = {"components": {name: component.model_dump(mode="json") for name, component in COMPONENTS.items()}}
    sourced = {"java-tmp": "node/templates/java-tmp.sh.j2", "hadoop-options": "hdfs/templates/hadoop-options.sh.j2"}
    for name in WRAPPED:
        text = environment.get_template("java-command.sh.j2").render(
            catalog=catalog, template_destpath=f"/usr/local/bin/{name}", ansible_managed="-", java_home=folder / "jdk"
        )
        for file, source in sourced.items():
            text = text.replace(f"/usr/local/lib/berny/{file}", str(checkout / "roles" / source))
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def run(wrappers: Path, name: str, *words: str, code: int = 0, **variables: str) -> list[str]:
    """Return the words that Java is given by a command, or what is printed instead."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **variables}
    done = subprocess.run([wrappers / name, *words], env=environment, capture_output=True, text=True, timeout=20)
    assert done.returncode == code, done.stdout + done.stderr
    return (done.stdout + done.stderr).splitlines()


@pytest.mark.parametrize("name", WRAPPED)
def test_a_wrapper_runs_its_class_with_the_users_words(wrappers: Path, name: str) -> None:
    """Words are handed on as they are, also those with spaces and signs; a subcommand has its class."""
    main = WRAPPED[name]
    given = ["--topic", "a b", "$(id)", "*"]
    for subcommand, words in main.items() if isinstance(main, dict) else [("", main)]:
        said = run(wrappers, name, *([subcommand] if subcommand else [] if words else ["a.Class"]), *given)
        wanted = [*(words.split() or ["a.Class"]), *given]
        assert said[-len(wanted) :] == wanted
        assert said[-len(wanted) - 2] == "-cp"


def test_a_command_without_its_subcommand_says_which_there_are(wrappers: Path) -> None:
    assert "  balancer" in "\n".join(run(wrappers, "hdfs", code=2))
    assert "streaming" in "\n".join(run(wrappers, "mapred", "nothing", code=2))
    assert "usage: yarn" in run(wrappers, "yarn", "--help")[0]
    assert "the name of a class" in run(wrappers, "kafka-run-class.sh", code=2)[-1]


def test_hadoops_own_options_and_variables(wrappers: Path) -> None:
    """What its users know of Hadoop's scripts: --config, --loglevel, a class by its name, options and jars of theirs."""
    said = run(wrappers, "hadoop", "--config", "/my conf", "--loglevel", "DEBUG", "fs", "-ls")
    assert said[said.index("-cp") + 1].split(":")[0] == "/my conf"
    assert "-Dhadoop.root.logger=DEBUG,stdout" in said and said[-2:] == ["org.apache.hadoop.fs.FsShell", "-ls"]
    said = run(wrappers, "yarn", "my.Main", "x", HADOOP_CLASSPATH="/my.jar", HADOOP_CLIENT_OPTS="-Xmx1g -Da=b")
    assert said[said.index("-cp") + 1].endswith("/*:/my.jar") and said[-2:] == ["my.Main", "x"]
    assert said.index("-Xmx256m") < said.index("-Xmx1g") < said.index("-Da=b")
    assert run(wrappers, "yarn", "app", "-list")[-2:] == ["app", "-list"]


def test_kafkas_own_variables(wrappers: Path) -> None:
    said = run(wrappers, "kafka-topics.sh", "--list", KAFKA_HEAP_OPTS="-Xmx1g", KAFKA_OPTS="-Da=b", CLASSPATH="/my.jar")
    assert said.index("-Xmx256m") < said.index("-Xmx1g") < said.index("-Da=b")
    assert said[said.index("-cp") + 1] == "/opt/berny/kafka/lib/*:/my.jar"


def test_libraries_are_unpacked_where_they_can_be_loaded(wrappers: Path, tmp_path: Path) -> None:
    """Where /tmp is mounted noexec, in a folder of the user's; who has no home gets what there is."""
    (tmp_path / "tmp").mkdir()
    mount = f"mount -t tmpfs -o noexec tmpfs {tmp_path}/tmp && exec {wrappers}/hadoop version"

    def folder(home: str, *command: str) -> str:
        environment = {"PATH": os.environ["PATH"], "TMPDIR": f"{tmp_path}/tmp", "HOME": home}
        said = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=True).stdout
        return next(line for line in said.splitlines() if line.startswith("-Djava.io.tmpdir=")).partition("=")[2]

    noexec = ("unshare", "--map-root-user", "--mount", "sh", "-c", mount)
    assert folder(str(tmp_path), str(wrappers / "hadoop"), "version") == f"{tmp_path}/tmp"
    assert not (tmp_path / ".cache").exists()
    assert folder(str(tmp_path), *noexec) == f"{tmp_path}/.cache/berny"
    assert (tmp_path / ".cache" / "berny").stat().st_mode & 0o777 == 0o700
    assert folder("/proc/nobody", *noexec) == f"{tmp_path}/tmp"


def test_every_command_on_java_minds_noexec(checkout: Path) -> None:
    """Templates of roles that run Java or Spark for a person take the folder that was picked."""
    found = 0
    for component in COMPONENTS.values():
        for name in (name for name, main in component.commands.names.items() if main is None):
            folder = checkout / "roles" / component.name / "templates"
            file = folder / f"{name.removesuffix('.sh')}.sh.j2"
            text = (file if file.exists() else folder / "command.sh.j2").read_text()
            if "java_home" in text:
                found += 1
                assert ". /usr/local/lib/berny/java-tmp" in text and "$BERNY_TMP" in text, name
    assert found == 5


def test_a_command_that_no_call_proves_is_refused(tmp_path: Path) -> None:
    """A component's commands.yml: every name is called, and classes have a class path."""
    facts = {
        "title": "X", "version": "1", "archive": "x", "user": {"name": "x", "uid": 6001}, "needs": [], "services": {},
    }  # fmt: skip
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "component.yml").write_text(yaml.safe_dump(facts))
    for words, message in (
        ({"names": {"x": None, "y.sh": None}, "calls": [{"run": "x --y.sh", "shows": ""}]}, "nothing calls y.sh"),
        ({"names": {"x": "a.Class"}, "calls": [{"run": "x", "shows": ""}]}, "java: is missing"),
        ({"names": {}, "cals": []}, "cals"),
    ):
        (tmp_path / "x" / "commands.yml").write_text(yaml.safe_dump(words))
        load_catalog.cache_clear()
        with pytest.raises(CatalogError, match=message):
            load_catalog(tmp_path)


def complete(*words: str) -> list[str]:
    """Return what bash offers for the last of the words, in a shell with the environment that ``make venv`` made."""
    activate = Path(sys.executable).with_name("activate")
    script = (
        f". {activate}; COMP_WORDS=({' '.join(map(repr, words))}); COMP_CWORD={len(words) - 1};"
        ' words=($(complete -p berny)); while [ "${words[0]}" != -F ]; do words=("${words[@]:1}"); done;'
        ' "${words[1]}" berny "${COMP_WORDS[COMP_CWORD]}" ""; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_bash_completes_berny() -> None:
    assert complete("berny", "art") == ["artifacts"]
    assert complete("berny", "lab", "d") == ["down"]
    assert "--purge" in complete("berny", "lab", "down", "--")
