# FlowAggregator: one way to do each thing. `make help` lists them.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PORT ?= 8080
ONCE ?=
PYTHON := .venv/bin/python
FLOWS ?= 2000000
KEYS ?= 100000
SERVICE ?= writer
SEEDS ?= 500
STEPS ?= 400
ROUNDS ?= 20
HANG ?=
SECONDS ?= 10
RATE ?=
PAIRS ?= 100000
FAILOVERS ?= 6
SEED ?=
BASE ?= python:3.13-slim-bookworm
PYTEST_ARGS ?=
# Processes for tests, each with a Kafka and a Redis of its own; WORKERS=0 for none beside pytest's.
WORKERS ?= 2
WORKERS_ARGS := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
SHAPE ?=
FAULTS ?= 200
POSTED ?= 1000000
SLACK ?= 1
PARTITIONS ?= 100
MINUTES ?= 30
BENCH_AUTOSCALING_FILES := --plot docs/assets/autoscaling.png --markdown docs/assets/autoscaling.md \
  --json benchmarks/results/autoscaling.json

# The others are scripts of one folder.
BENCHMARKS_AS_PACKAGES := benchmarks/autoscaling benchmarks/browser.py benchmarks/commands.py benchmarks/guard.py benchmarks/newcomer.py benchmarks/peers benchmarks/profiles.py \
  tests/unit/benchmarks_autoscaling tests/unit/benchmarks_guard tests/unit/benchmarks_newcomer tests/unit/benchmarks_peers

export UV_PROJECT_ENVIRONMENT := $(CURDIR)/.venv

.PHONY: help
help: ## List what make can do
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

# The workspace's environment, as uv.lock has it. uv itself is fetched where it is missing.
.venv/.synced: uv.lock pyproject.toml $(wildcard libs/*/pyproject.toml libs/native/hatch_build.py libs/native/c/* services/*/pyproject.toml operator/pyproject.toml cli/pyproject.toml dev/*/pyproject.toml)
	@uv=$$(./dev/find-uv.sh) && \
	{ [ -x $(PYTHON) ] || "$$uv" venv --quiet --allow-existing --python '>=3.11,<3.14' .venv 2>/dev/null \
	  || "$$uv" venv --quiet --allow-existing --python '>=3.11' .venv; } && \
	"$$uv" sync --frozen --quiet
	@touch $@

.PHONY: run
run: .venv/.synced ## Run the whole system here and post the sample (PORT=8080; ONCE=1 ends it after that)
	@exec $(PYTHON) -m flowagg_stack run --port $(PORT) $(if $(ONCE),--once)

.PHONY: test
test: .venv/.synced ## Run the tests, on a real Kafka and a real Redis that they start themselves
	@$(PYTHON) -m flowagg_stack provision
	@$(PYTHON) -m flowagg_cluster build helm
	@$(PYTHON) -m pytest -m 'not cluster and not e2e and not operations and not page' $(WORKERS_ARGS) $(PYTEST_ARGS)

SANITIZED_TESTS := tests/unit/test_native.py tests/unit/test_parcels.py tests/unit/test_partition.py tests/unit/test_retention.py \
  tests/unit/test_reader_union.py tests/integration/test_intake.py

.PHONY: test-sanitized
test-sanitized: .venv/.synced ## Run the compiled library's tests under gcc's sanitizers of addresses and undefined behaviour
	@command -v gcc >/dev/null || { echo "install gcc and its sanitizers (apt-get install gcc)"; exit 1; }
	@rm -rf build/sanitized && mkdir -p build/sanitized && cp -r libs/native/src/flowagg_native build/sanitized/
	@gcc -std=gnu17 -g -O1 -fPIC -shared -fvisibility=hidden -fsanitize=address,undefined -fno-sanitize-recover=undefined \
	  -Wall -Wextra -Werror -o build/sanitized/flowagg_native/libflowagg.so libs/native/c/*.c -lpthread
	@$(PYTHON) -m flowagg_stack provision
	@PYTHONPATH=build/sanitized LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0 $(PYTHON) -m pytest -p no:cacheprovider $(SANITIZED_TESTS) $(PYTEST_ARGS)

.PHONY: test-operations
test-operations: .venv/.synced ## Run the tests of backups, views, dead letters, repairs, retention, TLS and tokens, and of the model of Kafka
	@$(PYTHON) -m flowagg_stack provision
	@$(PYTHON) -m flowagg_cluster build versitygw
	@$(PYTHON) -m pytest tests/integration -m operations $(WORKERS_ARGS) $(PYTEST_ARGS)

.PHONY: test-page
test-page: .venv/.synced ## Try the page at /ui in a headless Chromium (SHOTS=docs/assets keeps its pictures there)
	@uv=$$(./dev/find-uv.sh) && "$$uv" sync --frozen --quiet --group browser
	@$(PYTHON) -m flowagg_stack provision
	@$(if $(SHOTS),FLOWAGG_TESTS_SHOTS=$(abspath $(SHOTS))) $(PYTHON) -m pytest tests/page -m page $(PYTEST_ARGS)

.PHONY: test-cluster
test-cluster: .venv/.synced ## Run the tests on three Kafka brokers, a Redis Sentinel set and a Kubernetes API server
	@$(PYTHON) -m flowagg_stack provision
	@$(PYTHON) -m flowagg_cluster build helm helm3
	@$(PYTHON) -m pytest -m cluster $(PYTEST_ARGS)

.PHONY: test-unit
test-unit: .venv/.synced ## Run the unit tests alone: seconds, nothing to install
	@$(PYTHON) -m pytest tests/unit $(PYTEST_ARGS)

.PHONY: sim
sim: .venv/.synced ## Simulate seeds of faults in virtual time (SEEDS=500, SEED=k replays one, STEPS=400)
	@$(PYTHON) -m tests.simulation --seeds $(SEEDS) --steps $(STEPS) $(if $(SEED),--seed $(SEED))

.PHONY: mutations
mutations: .venv/.synced ## Switch off one guard at a time and say which seed or test notices
	@$(PYTHON) -m flowagg_stack provision
	@$(PYTHON) -m tests.simulation.mutations

# Ten seconds a fault. As root it fills disks, too, in mounts of its own.
.PHONY: faults
faults: .venv/.synced ## Strike the whole system with faults under load, and compare totals (FAULTS=200, POSTED=1000000, SEED=1, SLACK=1)
	@$(PYTHON) -m flowagg_stack provision
	@$(PYTHON) -m tests.faults --faults $(FAULTS) --flows $(POSTED) --seed $(or $(SEED),1) --slack $(SLACK)

.PHONY: soak
soak: .venv/.synced ## Load with faults for MINUTES=30: memory, files, connections and latency stay level (SEED=1)
	@$(PYTHON) -m flowagg_stack provision
	@$(PYTHON) -m tests.soak --minutes $(MINUTES) --seed $(or $(SEED),1)

.PHONY: check
check: .venv/.synced ## Format, lint, types, import contracts, lock and docs drift
	@.venv/bin/ruff format --check --quiet . || { echo "make format mends the formatting"; exit 1; }
	@.venv/bin/ruff check --quiet .
	@.venv/bin/mypy --no-error-summary libs services operator/src cli/src dev/stack/src dev/load/src dev/cluster/src dev/cluster/tests dev/dashboards/src dev/site benchmarks tests --exclude 'benchmarks.(autoscaling|browser|commands|guard|newcomer|peers|profiles)'
	@.venv/bin/mypy --no-error-summary --explicit-package-bases $(BENCHMARKS_AS_PACKAGES)
	@.venv/bin/lint-imports --no-cache > .venv/imports.txt || { cat .venv/imports.txt; exit 1; }
	@uv=$$(./dev/find-uv.sh) && "$$uv" lock --check --quiet
	@$(PYTHON) -m flowagg_stack reference --check
	@$(PYTHON) -m flowagg_dashboards --check
	@echo "check: all well"

.PHONY: format
format: .venv/.synced ## Format and mend what can be mended
	@.venv/bin/ruff format --quiet .
	@.venv/bin/ruff check --fix --quiet .

.PHONY: docs
docs: .venv/.synced ## Write the generated reference and the dashboards anew
	@$(PYTHON) -m flowagg_stack reference
	@$(PYTHON) -m flowagg_dashboards

# Its makers' notice about a successor is no finding about these pages.
.PHONY: docs-site
docs-site: .venv/.synced ## Build the docs as a site into build/site, and check its links and what it loads
	@uv=$$(./dev/find-uv.sh) && "$$uv" sync --frozen --quiet --group site
	@NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict --quiet
	@$(PYTHON) dev/site/check.py build/site docs

.PHONY: bench-consumer
bench-consumer: .venv/.synced ## Measure the consumer beside a bare consume-decode-fold loop (FLOWS=, KEYS=)
	@$(PYTHON) -m flowagg_stack provision
	@$(PYTHON) benchmarks/hot_paths/consumer.py --flows $(FLOWS) --keys $(KEYS)

.PHONY: bench-guard
bench-guard: .venv/.synced ## Check that no hot loop takes more CPU a flow than it did, beside a bare loop on the same data
	@$(PYTHON) -m benchmarks.guard

# Java, Go and Python packages of the others are fetched and built once. Some 45 minutes on two cores.
.PHONY: bench-peers
bench-peers: .venv/.synced ## Compare with Kafka Streams, Quix, Faust, Bytewax and Go services, in one run (writes docs/assets/)
	@uv=$$(./dev/find-uv.sh) && "$$uv" sync --frozen --quiet --group plots
	@$(PYTHON) -m flowagg_stack provision
	@$(PYTHON) -m benchmarks.peers

.PHONY: bench-profiles
bench-profiles: .venv/.synced ## Record flame graphs of the hot loops under load (SECONDS=10; writes docs/assets/)
	@uv=$$(./dev/find-uv.sh) && "$$uv" sync --frozen --quiet --group profiles
	@$(PYTHON) -m benchmarks.profiles --seconds $(SECONDS)

.PHONY: bench-failover
bench-failover: .venv/.synced ## Kill the Redis master ROUNDS times and time until applies go on (HANG=1 stops it instead)
	@$(PYTHON) -m flowagg_stack provision
	@$(PYTHON) benchmarks/failover.py --rounds $(ROUNDS) $(if $(HANG),--hang)

.PHONY: bench
bench: ## Measure the writer, the reader and freshness over HTTP: all of the three below, with 5,000 pairs
	@failed=0; for one in bench-writer bench-reader "bench-fresh PAIRS=5000 FAILOVERS=2"; do \
	  echo "== make $$one"; $(MAKE) --no-print-directory $$one || failed=1; done; exit $$failed

.PHONY: bench-post
bench-post: .venv/.synced ## Kill flowagg post ROUNDS times over, measure it, and time queries of a large hour
	@uv=$$(./dev/find-uv.sh) && "$$uv" sync --frozen --quiet --group browser
	@$(PYTHON) -m benchmarks.commands --rounds $(ROUNDS)

.PHONY: bench-newcomer
bench-newcomer: .venv/.synced ## Time README's path: a fresh clone to the top talkers of a VPC flow log in the page
	@uv=$$(./dev/find-uv.sh) && "$$uv" sync --frozen --quiet --group browser
	@$(PYTHON) -m benchmarks.newcomer

.PHONY: bench-writer
bench-writer: .venv/.synced ## Measure POSTs on one core beside a bare produce loop (SECONDS=10 each)
	@$(PYTHON) -m flowagg_stack provision
	@$(PYTHON) benchmarks/http/writer.py --seconds $(SECONDS)

.PHONY: bench-reader
bench-reader: .venv/.synced ## Measure GETs on one core, idle and under half load (SECONDS=10, RATE=flows/s)
	@$(PYTHON) -m flowagg_stack provision
	@$(PYTHON) benchmarks/http/reader.py --seconds $(SECONDS) $(if $(RATE),--rate $(RATE))

.PHONY: bench-fresh
bench-fresh: .venv/.synced ## POST-then-GET pairs through Redis failovers: no fresh answer lacks its write (PAIRS=, FAILOVERS=)
	@$(PYTHON) -m flowagg_stack provision
	@$(PYTHON) benchmarks/http/fresh.py --pairs $(PAIRS) --failovers $(FAILOVERS)

# Virtual time: three days of load take a third of a minute. The lock has matplotlib in a group of its own.
.PHONY: bench-autoscaling
bench-autoscaling: .venv/.synced ## Compare the autoscaler with KEDA and Flink's, in virtual time (SHAPE=; writes docs/assets/)
	@uv=$$(./dev/find-uv.sh) && "$$uv" sync --frozen --quiet --group plots
	@$(PYTHON) -m benchmarks.autoscaling --seeds 3 $(if $(SHAPE),--shape '$(SHAPE)',$(BENCH_AUTOSCALING_FILES))

.PHONY: bench-look
bench-look: .venv/.synced ## Measure the operator's look at a real Kafka and its scaling decision (PARTITIONS=100)
	@$(PYTHON) -m flowagg_stack provision
	@$(PYTHON) benchmarks/operator_look.py --partitions $(PARTITIONS)

.PHONY: bench-backups
bench-backups: .venv/.synced ## Measure the restore of a view and what an export costs the consumers (KEYS=1000000)
	@$(PYTHON) -m flowagg_stack provision
	@$(PYTHON) benchmarks/backups.py $(if $(filter-out file,$(origin KEYS)),--keys $(KEYS))

.PHONY: lock
lock: ## Resolve the dependencies anew into uv.lock
	@uv=$$(./dev/find-uv.sh) && "$$uv" lock --upgrade

.PHONY: image
image: ## Build a service's image (SERVICE=writer|consumer|reader|operator|cli, BASE=a Python image)
	@builder=$$(command -v docker || command -v podman || command -v buildah) \
	  || { echo "install docker, podman or buildah to build images"; exit 1; }; \
	"$$builder" build --build-arg SERVICE=$(SERVICE) --build-arg BASE=$(BASE) -t flow-aggregator/$(SERVICE):dev .

.PHONY: e2e-build
e2e-build: .venv/.synced ## Build what that Kubernetes is made of, once (20 minutes on two cores), as root
	@$(PYTHON) -m flowagg_cluster build

.PHONY: e2e-up
e2e-up: .venv/.synced ## Start a real single-node Kubernetes here, as root (builds it once), or take KUBECONFIG's
	@$(PYTHON) -m flowagg_cluster up

.PHONY: e2e
e2e: e2e-up ## Run the end-to-end tests on that Kubernetes
	@$(PYTHON) -m flowagg_cluster image
	@$(PYTHON) -m flowagg_cluster standins
	@$(PYTHON) -m pytest tests/e2e -m e2e $(PYTEST_ARGS)

.PHONY: e2e-rounds
e2e-rounds: e2e-up ## Time fail-overs of the active writer and reader: SIGTERM, kill -9, SIGSTOP (ROUNDS=20)
	@$(PYTHON) -m flowagg_cluster image
	@$(PYTHON) -m flowagg_cluster standins
	@$(PYTHON) -m tests.e2e.rounds --rounds $(ROUNDS)

.PHONY: e2e-lifecycle
e2e-lifecycle: .venv/.synced ## Bring a second cluster up and down from every half-finished state
	@$(PYTHON) -m pytest dev/cluster/tests $(PYTEST_ARGS)

.PHONY: e2e-down
e2e-down: .venv/.synced ## End that Kubernetes and all that ran on it
	@$(PYTHON) -m flowagg_cluster down

.PHONY: clean
clean: ## Remove the environment and caches of this checkout
	@rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache .hypothesis
