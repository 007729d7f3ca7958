# All commands for developers and customers. Each target installs what it needs.
# `make` prints this help; a line `##@` starts a group, `##` after a target is its help.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := libs/contracts libs/common libs/client deploy/admin deploy/cluster deploy/local $(wildcard services/*)
PYTHON_CODE := libs services deploy docs tests benchmarks examples conftest.py
# What `make test-cluster` puts onto its node: an OCI image layout.
IMAGES := $(or $(VESTA_CACHE),$(HOME)/.cache/vesta)/images/layout
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Idle OpenMP threads sleep, as in the services: tests and benchmarks that train share the cores with services.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: help
help:  ## Prints this help
	@awk 'BEGIN {FS = ":.*##"} \
	  /^##@/ {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)} \
	  /^[a-z-]+:.*##/ {printf "  \033[36mmake %-9s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Try it
.PHONY: demo
demo: setup  ## Starts the platform and runs a loop on real photographs: [data=FOLDER] [task=detection|instance-segmentation|semantic-segmentation] [rounds=N], or on an external platform: address=HOST:PORT [kafka=HOST:PORT]
	@$(if $(address),true,python -m vesta_local up)
	@python examples/turn_the_loop/demo.py $(if $(data),--data "$(data)") $(if $(weights),--weights "$(weights)") $(if $(task),--task $(task)) $(if $(rounds),--rounds $(rounds)) \
	  $(if $(address),--address "$(address)") $(if $(kafka),--kafka "$(kafka)")

##@ Run it
.PHONY: up down status logs
up: setup  ## Starts the whole platform and waits until it is healthy: [replicas=N] of each service and of Triton [kafka=apache] for a new home
	@python -m vesta_local up $(if $(replicas),--replicas $(replicas)) $(if $(kafka),--kafka $(kafka))

down: setup  ## Stops the whole platform; its data stays in .vesta/
	@python -m vesta_local down

status: setup  ## Shows each service with its address, state and memory
	@python -m vesta_local status

logs: setup  ## Follows the logs of all services or of one: [s=SERVICE]
	@python -m vesta_local logs $(s)

##@ Change it
# The many processes of the tests would otherwise compile the code that they import again and again.
test: export PYTHONDONTWRITEBYTECODE :=
.PHONY: test kubernetes test-cluster fuzz test-versions check fix verify bench
test: setup  ## Runs the test suite on the real engines, or the tests with events on Apache Kafka: [t=PATH] [kafka=apache] [jobs=N]
	@$(if $(kafka),python -m vesta_local fetch-kafka,true)
	@pytest --numprocesses=$(or $(jobs),$(if $(t),0,2)) --dist=loadfile --no-loadscope-reorder $(if $(kafka),--kafka=$(kafka)) $(t)

kubernetes: setup  ## Builds a Kubernetes API server for the tests; the first build takes at least 12 minutes
	@python -m vesta_cluster --api-only build

test-cluster: setup  ## Installs and tests Vesta on a real Kubernetes, that of KUBECONFIG or one that it builds: [images=FOLDER] [t=PATH] [old=REVISION]
	@$(if $(KUBECONFIG)$(images),true,$(MAKE) images layout=$(IMAGES))
	@$(if $(KUBECONFIG),true,python -m vesta_cluster build)  # takes longer than the time limit of a test
	@folder=$$(mktemp -d); trap 'git worktree remove --force "$$folder/old" 2>/dev/null; rm -rf "$$folder"' EXIT; \
	  $(if $(old),git worktree add --quiet --detach "$$folder/old" $(old) && $(MAKE) -C "$$folder/old" images layout=$(IMAGES)-other tag=other && \
	  export VESTA_TEST_OTHER_CHECKOUT="$$folder/old" VESTA_TEST_OTHER_IMAGES="$(IMAGES)-other" &&) \
	  VESTA_TEST_NODE=1 VESTA_TEST_CONTAINER_IMAGES="$(or $(images),$(IMAGES))" pytest -v $(or $(t),tests/cluster)

fuzz: setup  ## Sends random requests and messages to a temporary platform: [cases=10000] [seed=N]
	@FUZZ_CASES=$(or $(cases),10000) FUZZ_SEED=$(seed) pytest -q tests/fuzz

test-versions: setup  ## Runs the services of this version next to those of another on one database, with a loop: [old=REVISION]
	@folder=$$(mktemp -d); trap 'git worktree remove --force "$$folder/old"; rm -rf "$$folder"' EXIT; \
	  git worktree add --quiet --detach "$$folder/old" $(or $(old),HEAD~1); \
	  VESTA_TEST_OTHER_CHECKOUT="$$folder/old" pytest tests/journeys/test_two_replicas.py

check: setup  ## Lints, checks types, layers, contracts and the Helm chart; edits nothing
	@ruff check $(PYTHON_CODE)
	@ruff format --check $(PYTHON_CODE)
	@mypy $(PACKAGES)
	@mypy deploy/docker/vesta_images deploy/docker/vesta_install
	@mypy docs examples/turn_the_loop benchmarks deploy/helm/chart.py deploy/helm/skaffold.py  # by themselves: another generate.py is in libs/contracts
	@lint-imports
	@hadolint --config deploy/docker/hadolint.yaml deploy/docker/Dockerfile
	@cd protos && buf lint . && buf format --path vesta --diff --exit-code && buf breaking . --against released.binpb
	@python deploy/helm/chart.py check
	@PYTHONPATH=deploy/docker python deploy/helm/skaffold.py

fix: setup  ## Formats, and fixes what can be fixed automatically
	@ruff check --fix $(PYTHON_CODE)
	@ruff format $(PYTHON_CODE)
	@cd protos && buf format --path vesta --write

verify: setup  ## Regenerates all generated files, and fails on a difference
	@before=$$(mktemp -d); trap 'rm -rf "$$before"' EXIT; \
	  cp -r libs/contracts/vesta_contracts docs "$$before"; \
	  python libs/contracts/generate.py; \
	  python docs/generate.py; \
	  diff -r -x __pycache__ "$$before/vesta_contracts" libs/contracts/vesta_contracts; \
	  diff -r -x __pycache__ "$$before/docs" docs

bench: setup  ## Measures speed and memory as ratios, prints a table, writes .vesta/bench/report.json: [only=start,ingest,loop,frames,capacity,deployments,overload,replicas,scale,labels,risk,detection,boxes,weights,segmentation] [data=FOLDER with boxes] [weights=FILE of a pretrained detector] [kafka=apache]
	@PYTHONPATH=examples/turn_the_loop python benchmarks/run.py $(if $(only),--only $(only)) $(if $(data),--data "$(data)") $(if $(weights),--weights "$(weights)") $(if $(kafka),--kafka $(kafka))

##@ Ship it
.PHONY: images bundle
images_options = $(if $(registry),--registry "$(registry)") $(if $(tag),--tag "$(tag)") $(if $(base),--base "$(base)") $(if $(torch),--torch "$(torch)") \
  $(if $(layout),--layout "$(layout)")
images:  ## Builds the container images: [only=NAME,…] [registry=HOST/PATH] [tag=VERSION] [base=IMAGE] [torch=cpu|pypi|cuda] [layout=FOLDER]
	@PYTHONPATH=deploy/docker $(PYTHON) -m vesta_images build $(if $(only),--only "$(only)") $(images_options)

bundle:  ## Packs images, chart and weights into one archive for air-gapped sites: [file=dist/vesta-VERSION.tar] and the options of images
	@PYTHONPATH=deploy/docker $(PYTHON) -m vesta_images bundle $(if $(file),--file "$(file)") $(images_options)

##@ Set it up
.PHONY: setup wheels lock clean
setup: $(VENV)/.installed  ## Installs everything into .venv and .venv-triton (every target does it when needed): [torch=cpu|cuda]

# A different build of torch than the installed one is requested.
ifneq ($(torch),)
ifneq ($(torch),$(shell cat $(VENV)/.torch 2>/dev/null))
.PHONY: $(VENV)/.installed
endif
endif

# requirements.lock has all versions; the pyproject.toml of each package has its requirements.
$(VENV)/.installed: requirements.lock pyproject.toml $(wildcard libs/*/pyproject.toml deploy/*/pyproject.toml services/*/pyproject.toml)
	@test -x $(BIN)/python || $(PYTHON) deploy/local/vesta_local/setup/interpreter.py
	@echo "Installing Vesta into $(VENV) (once; some minutes) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@PYTHONPATH=deploy/local $(BIN)/python -m vesta_local.setup $(if $(torch),--torch $(torch))
	@touch $@

wheels: setup  ## Builds the packages for customers, the SDK and its contracts, into dist/
	@python -m vesta_local wheels

lock: setup  ## Pins all versions again, after a change of a pyproject.toml
	@python -m vesta_local.setup --lock
	@PYTHONPATH=deploy/docker python -m vesta_images lock

clean:  ## Removes what was installed; keeps .vesta/
	@rm -rf $(VENV) .venv-triton
