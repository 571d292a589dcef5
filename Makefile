# Everything a stranger needs: a Python of 3.11 or newer, git and make. `make` lists the targets.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p && break; done)
VENV := .venv
export NO_MKDOCS_2_WARNING := 1
BIN := $(VENV)/bin
UV := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt
MANIFEST := pyproject.toml constraints.txt

.PHONY: help demo test check conformance env env-demo docs bench constraints protocol format

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: env-demo  ## install, then play a year of real flights through the whole loop
	@$(BIN)/noria demo flights

test: env  ## install what is missing, then run all tests (but for `make conformance`)
	@$(BIN)/python -m pytest -n 2 --dist loadscope -m 'not peer' --ignore tests/conformance

check: env  ## lint, format, types, import contracts, documentation
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/mkdocs build --quiet --strict

conformance: env  ## beside the tools we speak with: Feast's repo, DVC's files, MLflow's protocol endpoint by endpoint
	@$(BIN)/python -m pytest -q -n 2 --dist loadscope -m peer --ignore tests/conformance
	@PYTHONPATH=tests $(BIN)/python -m conformance.report $(if $(JSON),--json $(JSON))

format: env  ## rewrite the code in the house's format
	@$(BIN)/ruff check --fix --quiet
	@$(BIN)/ruff format --quiet

docs: env  ## serve the documentation on http://127.0.0.1:8001
	@$(BIN)/mkdocs serve --dev-addr 127.0.0.1:8001

bench: env  ## NAME=... runs one benchmark side by side with its peer
	@test -n "$(NAME)" || { echo "which one? make bench NAME=..., one of: $$(ls benchmarks 2>/dev/null)"; exit 2; }
	@$(BIN)/python benchmarks/$(NAME).py

protocol: env  ## make the gRPC messages anew from their .proto file
	@cd src/noria/surface/grpc && ../../../../$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. open_inference.proto
	@sed -i 's/_descriptor_pool.Default()/_descriptor_pool.DescriptorPool()/' src/noria/surface/grpc/open_inference_pb2.py

constraints: env  ## resolve the dependencies anew, hashed and without index hosts
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --all-extras --group dev \
		pyproject.toml --output-file constraints.txt

env: $(VENV)/.installed-dev  ## the environment with development tools
env-demo: $(VENV)/.installed  ## the environment a user needs

$(BIN)/uv:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is too old: Python 3.11 or newer is needed; name one with make PYTHON=..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "on Debian: apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/.installed: $(BIN)/uv $(MANIFEST)
	@echo "installing Noria into $(VENV)"
	@$(UV) --editable '.[demo]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed $(MANIFEST)
	@echo "installing the development tools into $(VENV)"
	@$(UV) --editable '.[demo,postgres,s3,oidc,http2,grpc,redis,lmdb,duckdb,lake,pandas,xgboost,kafka,nats,package]' --group dev
	@touch $@
