"""Unpack an archive of the controller's store on a node; see modules/berny_archive.py."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from berny.artifacts import ArtifactMissing, Store, SupplyError
from berny.artifacts.recipes import not_run

ROOT = "/opt/berny/archives"


class ActionModule(ActionBase):
    """Transfers the archive only where its folder (named version and digest) is missing."""

    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return ``changed`` and ``home``, the folder of the unpacked archive: empty where an optional one is not there."""
        result = super().run(tmp, task_vars)
        name, store = self._task.args["name"], Store()
        named = self._task.args.get("archive") or "", self._task.args.get("archive_sha256") or ""
        try:
            archive = store.resolve(name, *named)
        except ArtifactMissing as error:
            recipe = store.recipe(name)
            if not recipe.optional:
                raise AnsibleActionFail(str(error)) from error
            # One that was installed before, from another controller's store, goes on being configured.
            look = {"link": f"/opt/berny/{name}"}
            result.update(self._execute_module(module_name="berny_archive", module_args=look, task_vars=task_vars))
            if not result.get("home") and not result.get("failed"):
                self._display.display(not_run(recipe))
            return result
        except SupplyError as error:
            raise AnsibleActionFail(str(error)) from error
        home = f"{ROOT}/{archive.name}-{archive.version}-{archive.sha256[:12]}"
        args: dict[str, Any] = {"home": home, "link": f"/opt/berny/{name}"}
        result.update(self._execute_module(module_name="berny_archive", module_args=args, task_vars=task_vars))
        damage = result.get("damage", [])
        for line in damage:
            self._display.display(f"{(task_vars or {}).get('inventory_hostname')}: {line}")
        if result.get("missing") and not result.get("failed") and not self._task.check_mode:
            tmpdir = self._connection._shell.tmpdir or self._make_tmp_path()
            source = self._connection._shell.join_path(tmpdir, archive.path.name)
            try:
                self._transfer_file(str(archive.path), source)
                args |= {"source": source, "sha256": archive.sha256}
                result.update(self._execute_module(module_name="berny_archive", module_args=args, task_vars=task_vars))
            finally:
                self._remove_tmp_path(tmpdir)
        result.pop("missing", None)
        result["damage"] = damage
        result["home"] = home
        result["version"] = archive.version
        return result
