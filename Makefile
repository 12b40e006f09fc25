# What a newcomer types. Everything is set up by the first target that needs it; long steps say how long they take.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
# Processes that share the tests, each in a network of its own, which only root can make.
WORKERS ?= $(if $(filter 0,$(shell id -u)),2,0)
# What copies the disks of the one-machine world: qemu, or ceph, for which two real clusters are started.
ENGINE ?= qemu
# What the operator needs, what builds its package, and what tests and the one-machine world need beside them.
LOCKS := requirements.lock requirements-build.lock requirements-dev.lock
PYTEST := $(BIN)/python -m pytest -n $(WORKERS)

.PHONY: demo image sbom test test-image test-evaluation test-unit test-engines test-chart test-docs test-argocd test-ceph test-faults soak bench bench-recovery bench-copying bench-writes bench-resync bench-scale bench-large bench-start lint up down crds clean

# The whole story on this machine: protect, replicate, drill, lose a zone, fail over, commit, and go home.
demo: $(READY)
	$(BIN)/python -m demo story --engine $(ENGINE)

# The one-machine world, to use by hand: `make up`, then kubectl.
up: $(READY)
	$(BIN)/python -m demo up --engine $(ENGINE)

down: $(READY)
	$(BIN)/python -m demo down --engine $(ENGINE)

# Everything: style, types, layers, and all tests on real machines and a real API server.
test: lint
	$(BIN)/python -m demo prepare
	$(BIN)/python -m tests.observability.prometheus
	$(PYTEST)

# Seconds: what needs neither machines nor an API server.
test-unit: $(READY)
	$(PYTEST) tests/unit tests/lifecycle

test-engines: $(READY)
	$(PYTEST) tests/engines

# The chart: linted, rendered, judged by a real API server, installed, upgraded and uninstalled by the real Helm.
test-chart: $(READY)
	$(BIN)/python -m demo prepare
	$(BIN)/python -m tests.chart
	$(PYTEST) tests/chart

# What the pages of the docs tell to type is typed, as it stands there, in a world made as they say: some minutes.
test-docs: $(READY)
	$(BIN)/python -m demo prepare
	$(PYTEST) tests/docs

# A real Argo CD syncs from a git repository to real machines: a few minutes, and 6 more for its build the first time.
test-argocd: $(READY)
	$(BIN)/python -m demo prepare
	$(BIN)/python -m demo.argocd.build
	$(PYTEST) tests/argocd

# Two real Ceph clusters that mirror to each other, in memory: the conformance suite of engines, what can go wrong, and
# the whole story. Some 20 minutes, and Debian's packages of Ceph the first time.
test-ceph: $(READY)
	$(BIN)/python -m demo prepare --engine ceph
	$(PYTEST) tests/ceph tests/engines --ceph

# Each thing that can go wrong in each phase in which a server can be, on real machines, cell by cell. `make test` runs
# one for each group of phases. CELLS chooses some, as pytest's -k: make test-faults CELLS=FullSync
test-faults: $(READY)
	$(BIN)/python -m demo prepare
	$(PYTEST) tests/faults --matrix -v $(if $(CELLS),-k '$(CELLS)')

# Bad luck at random, judged at the end: `make soak SECONDS=900 SEED=7`. Without a seed there is a new one, told first.
SECONDS ?= 900
soak: $(READY)
	$(BIN)/python -m tests.soak $(SECONDS) $(SEED)

# What Lifeboat is for, measured against baselines of the same run: tables, charts and JSON in docs/measurements. A part
# alone: `make bench-recovery`, -copying, -writes, -resync, -scale, -start. The whole takes about half an hour; the longest
# part is run by its name only: `make bench-large`. Each part has a deadline.
bench: $(VENV)/bench-ready
	$(BIN)/python -m demo prepare
	$(BIN)/python -m bench

bench-recovery bench-copying bench-writes bench-resync bench-scale bench-large bench-start: bench-%: $(VENV)/bench-ready
	$(BIN)/python -m demo prepare
	$(BIN)/python -m bench $*

$(VENV)/bench-ready: requirements-bench.lock $(READY)
	$(BIN)/pip install --quiet --require-hashes -r requirements-bench.lock
	@touch $@

# The operator's image, without a daemon: make image BASE=debian:12-slim, or without BASE on one made of Debian's packages.
image: $(READY)
	$(BIN)/python -m image build $(if $(BASE),--base $(BASE))

# What is in the image that was built last, as CycloneDX in dist/.
sbom: $(READY)
	$(BIN)/python -m image sbom

# Builds the image and starts it once against a real API server: a few minutes.
test-image: $(READY)
	BASE=$(BASE) $(BIN)/python -m pytest -n 0 tests/image/test_image.py

# In that image, as the chart's evaluation starts it, a server is protected on machines in the pod: some minutes.
test-evaluation: $(READY)
	BASE=$(BASE) $(BIN)/python -m pytest -n 0 tests/image/test_evaluation.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=operator $(BIN)/lint-imports

# What is generated from the models and the lifecycle: the CRDs and the reference.
crds: $(READY)
	$(BIN)/python -m lifeboat.api.crd
	$(BIN)/python -m lifeboat.reference docs/reference

clean:
	rm -rf $(VENV)

# As root on Debian missing programs are installed; anywhere else they are listed, and nothing is changed.
$(READY): $(LOCKS) pyproject.toml
	$(PYTHON) -m demo.packages
	$(PYTHON) -m venv $(VENV)
	@echo "installing the Python parts into $(VENV) ..."
	$(BIN)/pip install --quiet --require-hashes $(LOCKS:%=-r %)
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@
