"""What Ansible compiles on the controller is kept, and a damaged or stale entry changes no result."""

from __future__ import annotations

import hashlib
import marshal
import pickle
from pathlib import Path

import pytest
from ansible._internal._templating._jinja_bits import AnsibleEnvironment
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from berny.controller import compiled
from berny.controller.compiled import Templates

TEXT = "{{ greeting | upper }}\n{% for name in names %}\n{{ name }}\n{% endfor %}\n"


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder where templates are kept."""
    monkeypatch.setattr(AnsibleEnvironment, "compile", Templates(tmp_path, AnsibleEnvironment.compile), raising=True)
    return tmp_path


def render(text: str = TEXT, **options: bool) -> str:
    """Return the template's result, by a templar that has compiled nothing yet."""
    templar = Templar(DataLoader(), variables={"greeting": "hello", "names": ["a", "b"]})
    return str(templar.template(trust_as_template(text), **options))


def replace(file: Path, text: str) -> None:
    """Have an entry return a text, which proves that it is used."""
    code = marshal.dumps(AnsibleEnvironment().compile(text, name=None))
    file.write_bytes(hashlib.sha256(code).digest() + code)


def test_a_template_is_compiled_once(kept: Path) -> None:
    before = render()
    (entry,) = kept.iterdir()
    assert render() == before == "HELLO\na\nb\n"
    replace(entry, "kept")
    assert render() == "kept\n"


@pytest.mark.parametrize("damage", [b"", b"\0" * 40, None])
def test_a_damaged_entry_is_compiled_again(kept: Path, damage: bytes | None) -> None:
    before = render()
    (entry,) = kept.iterdir()
    entry.write_bytes(entry.read_bytes()[:-9] if damage is None else damage)
    assert render() == before
    replace(entry, "kept")
    assert render() == "kept\n"


def test_syntax_and_the_reading_of_backslashes_are_told_apart(kept: Path) -> None:
    """The same text, compiled otherwise, is another entry."""
    text = "{% if true %}\n{{ 'a\\tb' }}{% endif %}"
    found = [render(text), render(text, escape_backslashes=False), render(f"#jinja2: trim_blocks:False\n{text}")]
    assert found == ["a\\tb", "a\tb", "\na\\tb"]
    assert len(list(kept.iterdir())) == 3


def test_expressions_are_compiled_as_ever(kept: Path) -> None:
    templar = Templar(DataLoader(), variables={"count": 2})
    assert templar.evaluate_expression(trust_as_template("1 + count")) == 3
    assert not list(kept.iterdir())


def test_another_input_is_another_cache(tmp_path: Path) -> None:
    plugin = tmp_path / "ansible" / "plugins" / "filter" / "one.py"
    plugin.parent.mkdir(parents=True)
    plugin.write_text("a = 1\n")
    before = compiled.key(tmp_path)
    assert compiled.key(tmp_path) == before
    plugin.write_text("a = 2\n")
    changed = compiled.key(tmp_path)
    plugin.rename(plugin.with_name("two.py"))
    assert len({before, changed, compiled.key(tmp_path)}) == 3


def test_archives_of_modules_are_kept_unless_damaged(tmp_path: Path) -> None:
    folder, temporary = tmp_path / "modules", tmp_path / "run"
    folder.mkdir()
    temporary.mkdir()
    (folder / "whole").write_bytes(pickle.dumps({"zip_data": b"PK"}))
    (folder / "whole.lock").touch()
    (folder / "half").write_bytes(pickle.dumps({"zip_data": b"PK"})[:-4])
    (folder / "empty").touch()
    for _ in range(2):
        compiled.link_modules(folder, temporary)
        assert sorted(path.name for path in (temporary / "ansiballz_cache").iterdir()) == ["whole", "whole.lock"]


def test_a_folder_that_cannot_be_written_costs_the_cache_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    original = AnsibleEnvironment.compile
    compiled.enable(tmp_path / "file")
    assert AnsibleEnvironment.compile is original and render() == "HELLO\na\nb\n"


def test_caches_that_nobody_uses_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old").mkdir()
    monkeypatch.setattr(compiled, "KEEP_SECONDS", -60)
    compiled.remove_unused(tmp_path)
    assert not (tmp_path / "old").exists()
