# What a person types. `make help` lists it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
# Installed once per lock: the stamp's name holds the digest of the locks, and of what is done with them.
STAMP := $(VENV)/.locked-$(shell cat requirements/dev.txt requirements/bootstrap.txt Makefile 2>/dev/null | sha256sum | cut -c1-16)
, := ,
# What the collection for Azure says that it needs; too much, and too strict, for .venv.
AZURE := $(VENV)/lib/python3.11/site-packages/ansible_collections/azure/azcollection/requirements.txt
# Ansible reads no ansible.cfg in a folder that everybody may write to, and then finds neither plugins nor inventory.
ifneq ($(shell find . -maxdepth 0 -perm -o+w),)
$(error $(CURDIR) may be written to by everybody, so Ansible would ignore its ansible.cfg: chmod o-w $(CURDIR))
endif
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: help
help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: lab
lab: $(STAMP) ## four machines, the whole cluster, and the delay of the RER B; PIPELINES='idfm other' or all runs these
	@$(VENV)/bin/berny lab start$(if $(PIPELINES), --pipelines '$(PIPELINES)')

.PHONY: test
test: $(STAMP) ## style, types, pure logic, and one cluster under load, restarts and faults
	@tests/run

.PHONY: test-all
test-all: $(STAMP) ## all tests, hours of them; ONLY='roles vm' runs parts; given again it continues for the same commit
	@tests/run --all $(ONLY)

.PHONY: faults
faults: $(STAMP) ## break the running lab in every way, hold every sink against what was served, write docs/faults.md
	@$(VENV)/bin/berny faults run --resume '*'; held=$$?; $(VENV)/bin/berny faults report; exit $$held

.PHONY: vm
vm: $(STAMP) ## a virtual machine with a kernel of its own through what only such get, and a reboot
	@$(if $(SUDO),sudo --preserve-env=HOME$(,)XDG_CACHE_HOME$(,)XDG_STATE_HOME) $(VENV)/bin/pytest -s tests/vm

.PHONY: venv
venv: $(STAMP) ## make .venv alone

.PHONY: lint
lint: $(STAMP) ## style and types alone
	@tests/lint

.PHONY: unit
unit: $(STAMP) ## tests of pure logic alone
	@$(VENV)/bin/pytest tests/unit

.PHONY: lock
lock: $(STAMP) ## resolve the Python packages of pyproject.toml anew, and lock them by digest
	@for set in dev:dev,controller controller:controller node:; do \
	    $(VENV)/bin/uv pip compile -q --generate-hashes --python-version 3.11 --no-header --no-annotate pyproject.toml \
	        $$(tr ',' '\n' <<< "$${set#*:}" | sed '/^$$/d; s/^/--extra /') \
	        $$([ "$${set%%:*}" = dev ] || echo -c requirements/dev.txt) -o "requirements/$${set%%:*}.txt"; done
	@$(VENV)/bin/uv pip compile -q --generate-hashes --python-version 3.11 --no-header --no-annotate $(AZURE) -o requirements/azure.txt

.PHONY: azure
azure: .venv-azure/.locked ## make .venv-azure, which playbooks/azure.yml needs

.venv-azure/.locked: requirements/azure.txt $(STAMP)
	@echo "making .venv-azure from requirements/azure.txt"
	@$(VENV)/bin/uv venv -q --clear --python $(PYTHON) .venv-azure
	@$(VENV)/bin/uv pip install -q --require-hashes -r requirements/azure.txt --python .venv-azure/bin/python
	@touch $@

.PHONY: clean
clean: ## remove the lab with its data, and .venv; caches outside the checkout stay
	@if [ -x $(VENV)/bin/berny ]; then $(VENV)/bin/berny lab down --purge; fi
	@rm -rf $(VENV) .venv-azure

$(STAMP): requirements/dev.txt requirements/bootstrap.txt
	@command -v $(PYTHON) > /dev/null || { echo "error: Berny's controller needs Python 3.11 (Debian 12 has it): set PYTHON" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2> /dev/null || { \
	    echo "installing python3-venv, which makes .venv"; \
	    $(SUDO) apt-get update -q && $(SUDO) apt-get install -q -y --no-install-recommends python3-venv; }
	@echo "making .venv from requirements/dev.txt"
	@[ -x $(VENV)/bin/python ] || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/pip install -q --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@$(VENV)/bin/uv pip install -q --require-hashes -r requirements/dev.txt --python $(VENV)/bin/python
	@echo "$(CURDIR)/src" > $$($(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/berny-src.pth
	@printf '#!/bin/sh\nexec "%s/bin/python" -m berny.cli "$$@"\n' "$(CURDIR)/$(VENV)" > $(VENV)/bin/berny
	@chmod +x $(VENV)/bin/berny
	@_BERNY_COMPLETE=source_bash $(VENV)/bin/berny > $(VENV)/bin/berny-completion.bash
	@grep -q berny-completion $(VENV)/bin/activate || \
	    echo '[ -z "$${BASH_VERSION:-}" ] || . "$$VIRTUAL_ENV/bin/berny-completion.bash"' >> $(VENV)/bin/activate
	@rm -f $(VENV)/.locked-*
	@touch $@
