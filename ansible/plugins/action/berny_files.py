"""Render all files of a service and write them in one go; see modules/berny_files.py."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import generate_ansible_template_vars, trust_as_template

# A unit tells the digest of its own text to what records a start: systemd may still run an older text than the file's.
UNIT_DIGEST = "@UNIT_DIGEST@"
CONFIGURATION = "/etc/berny"


class ActionModule(ActionBase):
    """One round trip for a dozen files: an unchanged cluster converges in seconds."""

    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return ``changed``, ``diff`` (never of secrets) and the destinations that changed."""
        result = super().run(tmp, task_vars)
        args = self.module_arguments(self._task.args, task_vars or {})
        result.update(self._execute_module(module_name="berny_files", module_args=args, task_vars=task_vars))
        return result

    def module_arguments(self, args: Mapping[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of the module: all files rendered, with modes and owners."""
        user = args.get("user", "root")
        files: list[dict[str, str]] = []
        contents: dict[str, str] = {}
        secret_contents: dict[str, str] = {}

        def add(dest: str, template: str, mode: str, owner: str = "root", secret: bool = False) -> None:
            files.append({"dest": dest, "mode": mode, "owner": owner})
            (secret_contents if secret else contents)[dest] = self._render(template, dest, task_vars)

        for name, template in (args.get("files") or {}).items():
            add(f"{args['folder']}/{name}", template, "0644")
        for name, template in (args.get("secret_files") or {}).items():
            add(f"{args['folder']}/{name}", template, "0600", user, secret=True)
        inputs = [file["dest"] for file in files]
        for name, template in (args.get("commands") or {}).items():
            add(f"/usr/local/bin/{name}", template, "0755")
        for dest, template in (args.get("others") or {}).items():
            mode = "0644"
            if isinstance(template, dict):
                template, mode = template["template"], template["mode"]
            add(dest, template, mode)
        if args.get("inputs"):
            files.append({"dest": args["inputs"], "mode": "0644", "owner": "root"})
            contents[args["inputs"]] = "".join(f"{line}\n" for line in [*args.get("started_from", []), *inputs])
        return {
            "files": files,
            "contents": contents,
            "secret_contents": secret_contents,
            "owner": self._owner(args.get("folder")),
            "pipeline": args.get("pipeline", ""),
        }

    def _owner(self, folder: str | None) -> str:
        """Return who has the files: the service or component that the folder is named after, else the role."""
        if folder and Path(folder).parent == Path(CONFIGURATION):
            return Path(folder).name
        return str(self._task._role.get_name()) if self._task._role else "node"

    def _render(self, template: str, dest: str, task_vars: dict[str, Any]) -> str:
        try:
            source = self._find_needle("templates", template)
        except AnsibleError as error:
            raise AnsibleActionFail(f"{dest}: {error}") from error
        variables = task_vars | generate_ansible_template_vars(path=template, fullpath=source, dest_path=dest)
        templar = self._templar.copy_with_new_env(searchpath=[str(Path(source).parent)], available_variables=variables)
        text = trust_as_template(self._loader.get_text_file_contents(source))
        overrides = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
        try:
            rendered = templar.template(text, escape_backslashes=False, overrides=overrides)
        except AnsibleError as error:
            raise AnsibleActionFail(f"{source} (for {dest}): {error}") from error
        rendered = "" if rendered is None else str(rendered)
        return rendered.replace(UNIT_DIGEST, hashlib.sha256(rendered.encode()).hexdigest()[:16])
