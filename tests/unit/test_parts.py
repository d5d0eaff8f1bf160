"""Files of batches in a real HDFS: each once, whatever is repeated, and none of a checkpoint that is not the query's."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hadoop import Hdfs

from berny.runtime.checkpoint import Checkpoint, Progress, following
from berny.runtime.files import Files
from berny.runtime.parts import STATES, Parts
from berny.runtime.stage import ConfigurationError

USER = "parts"
A, B = "a" * 12, "b" * 12
NOW = Progress("topic", {0: 0}, "", A)


@pytest.fixture
def folders(hdfs: Hdfs) -> dict[str, Files]:
    """Two empty directories."""
    hdfs.provide("/parts", USER)
    return {name: Files(hdfs.url, USER, f"/parts/{name}") for name in ("one", "two")}


def begun(folders: dict[str, Files], progress: Progress = NOW) -> Parts:
    """Return the parts after a start."""
    made = Parts(folders, progress)
    made.begin("run the script")
    return made


def write(parts: Parts, folders: dict[str, Files], number: int, name: str = "one", text: bytes = b"x\n") -> None:
    """Do what Spark does, and rename it."""
    folders[name].replace(f"{parts.staged(number)}/part-00000-spark.json", text)
    folders[name].replace(f"{parts.staged(number)}/_SUCCESS", b"")
    parts.place(name, number)


def shown(files: Files) -> list[str]:
    """Return the names that readers see."""
    return sorted(name for name in files.sizes("") if not name.startswith("_"))


def test_a_batch_is_there_once(folders: dict[str, Files]) -> None:
    """Killed after its file was renamed, it is written again, and finds it; then it is complete, also after a start."""
    parts = begun(folders)
    write(parts, folders, 0)
    parts = begun(folders)
    assert not parts.done(0)
    write(parts, folders, 0, text=b"y\n")
    assert shown(folders["one"]) == [f"part-00000-{A}.json"]
    assert folders["one"].read(f"part-00000-{A}.json") == b"x\n"
    parts.complete(0, {"seen": 1})
    parts = begun(folders)
    assert parts.done(0) and not parts.done(1) and parts.state == {"seen": 1}
    assert not [name for name in folders["one"].sizes("") if name.startswith("_batch-")]


def test_a_batch_without_rows_has_no_file(folders: dict[str, Files]) -> None:
    parts = begun(folders)
    write(parts, folders, 0, text=b"")
    parts.place("two", 0)
    assert shown(folders["one"]) == shown(folders["two"]) == []


def test_states_of_old_batches_are_removed(folders: dict[str, Files]) -> None:
    parts = begun(folders)
    for number in range(25):
        parts.complete(number, number)
    assert len(folders["one"].sizes(STATES)) == 20
    assert begun(folders).state == 24


def test_files_of_a_checkpoint_that_is_gone_end_the_stage(folders: dict[str, Files]) -> None:
    """Somebody deleted the checkpoint: all would be written twice."""
    parts = begun(folders)
    write(parts, folders, 0, "two")
    with pytest.raises(
        ConfigurationError, match=f"two/part-00000-{A}.json is of another checkpoint .*: run the script"
    ):
        begun(folders, Progress("topic", {0: 0}, "", B))


def test_directories_that_are_gone_end_the_stage(folders: dict[str, Files]) -> None:
    """Somebody deleted them: what the checkpoint has read would be missing."""
    begun(folders, replace(NOW, batch=-1))
    with pytest.raises(
        ConfigurationError, match="the checkpoint has completed batch 3, of which /parts/one knows nothing"
    ):
        begun(folders, replace(NOW, batch=3))


def test_a_replaced_checkpoint_goes_on(folders: dict[str, Files]) -> None:
    """With what the former one left; of its incomplete batch, which is read again, nothing stays."""
    parts = begun(folders)
    for number in range(2):
        write(parts, folders, number)
        parts.complete(number, number)
    write(parts, folders, 2)
    after = following(NOW, "topic", {0: 9}, "")
    assert after.former == (A,) and after.id not in ("", A)
    parts = begun(folders, after)
    assert shown(folders["one"]) == [f"part-00000-{A}.json", f"part-00001-{A}.json"]
    assert parts.state == 1 and not parts.done(0)
    write(parts, folders, 0)
    assert f"part-00000-{after.id}.json" in shown(folders["one"])


def test_a_checkpoint_remembers_its_id_and_those_before(hdfs: Hdfs, folders: dict[str, Files]) -> None:
    """Also those that it began with, and the store."""
    checkpoint = Checkpoint(hdfs.url, USER, "/parts/checkpoint")
    first = following(None, "topic", {0: 3}, "store")
    checkpoint.begin(first)
    assert checkpoint.progress("one") == first
    second = following(checkpoint.progress("one"), "topic", {0: 4}, "store")
    checkpoint.begin(second)
    assert checkpoint.progress("one") == second and second.former == (first.id,)


def test_files_are_appended_in_one_step(folders: dict[str, Files]) -> None:
    """And are gone then."""
    files = folders["one"]
    for number in range(3):
        files.put(f"part-{number}", b"%d\n" % number)
    files.concat("part-0", ["part-1", "part-2"])
    assert shown(files) == ["part-0"] and files.read("part-0") == b"0\n1\n2\n"
