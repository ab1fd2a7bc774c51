# costd: one sentence per target; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
TYPESCRIPT := clients/typescript
NODE_STAMP := $(TYPESCRIPT)/node_modules/.package-lock.json
PROMETHEUS := $(BIN)/prometheus
ENVOY_API := $(VENV)/envoy-api

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-unit collect lint types contracts manifests image format bench crash soak sim mutants proto lock coverage clean

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) $(PROMETHEUS) $(ENVOY_API) $(NODE_STAMP) ## Make .venv and node_modules from the lock files, with the Prometheus that tests ask.

$(STAMP): requirements.lock pyproject.toml clients/python/pyproject.toml
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "costd needs Python 3.11 or newer"'
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { \
	  echo "python3-venv is missing; installing it with apt-get"; \
	  apt-get update -qq && apt-get install -y -qq python3-venv && $(PYTHON) -m venv $(VENV); }
	@echo "installing locked packages into $(VENV) …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . -e clients/python
	@touch $@

# Envoy's own protos, apart: they own files that a package of ours owns as well.
$(ENVOY_API): envoy-api.lock | $(STAMP)
	@rm -rf $@ && $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --no-compile --target $@ -r $<
	@touch $@

# Debian's, unpacked and not installed: installing it starts a service.
$(PROMETHEUS): | $(STAMP)
	@mkdir -p build/debian && cd build/debian && rm -f prometheus_*.deb && \
	{ apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }; } 2>/dev/null && \
	dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x -C "$(CURDIR)/$(BIN)" --strip-components=3 ./usr/bin && rm -f prometheus_*.deb || \
	echo "prometheus cannot be had with apt-get here; what is tested with it is skipped"

$(NODE_STAMP): $(TYPESCRIPT)/package.json $(TYPESCRIPT)/package-lock.json
	@if command -v npm >/dev/null; then \
	  echo "installing locked packages into $(TYPESCRIPT)/node_modules …"; \
	  cd $(TYPESCRIPT) && npm ci --silent && touch node_modules/.package-lock.json; \
	else echo "npm is missing, so the TypeScript client is not tested; install Node 20 or newer"; fi

demo: $(STAMP) ## Run the main job: a daemon, a few hundred agents, a live screen; TRACE=FILE.csv replays a trace, FLEET=8 lets so many daemons race for one budget.
	@$(BIN)/python -m costd.cli.demo $(if $(TRACE),--trace "$(TRACE)") $(if $(FLEET),--fleet "$(FLEET)") $(DEMO_ARGS)

# The tests start a few hundred programs, and wait for them: what those import is compiled once, and
# there is one worker more than the smallest machine has cores.
test test-unit coverage collect: export PYTHONDONTWRITEBYTECODE :=
test test-unit coverage collect: export PYTHONPYCACHEPREFIX := $(CURDIR)/build/pycache

test: $(STAMP) $(PROMETHEUS) $(ENVOY_API) $(NODE_STAMP) ## Run every test.
	$(BIN)/pytest -n 3 --dist worksteal

test-unit: $(STAMP) ## Run the tests that take seconds.
	$(BIN)/pytest -q -n 2 tests/unit tests/contract tests/style

collect: $(STAMP) $(ENVOY_API) $(NODE_STAMP) ## Import every test and run none, so that `make test` finds them compiled.
	@found=$$($(BIN)/pytest -q --collect-only 2>&1) || { echo "$$found"; exit 1; }; echo "$$found" | tail -n 1

lint: $(STAMP) ## Check style and format.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

manifests: $(STAMP) ## Render the Kubernetes manifests and hold them against the schemas of the three newest releases.
	$(BIN)/python deploy/k8s/prometheus_rule.py
	sed '1i # From policies/envoy, by `make manifests`; change it there.' policies/envoy/policy.yaml > deploy/k8s/base/gateway/policy.yaml
	$(BIN)/pytest -q tests/integration/test_manifests.py

image: $(STAMP) ## Install what each container image holds, as its build does, and see that it starts.
	PATH=$(CURDIR)/$(BIN):$$PATH sh deploy/image/check.sh

format: $(STAMP) ## Format the code.
	$(BIN)/ruff check --fix-only -q .
	$(BIN)/ruff format -q .

types: $(STAMP) ## Check types.
	$(BIN)/mypy

contracts: $(STAMP) ## Check that imports point down only.
	$(BIN)/lint-imports

coverage: $(STAMP) ## Measure branch coverage; 100 % of model and engine is required.
	$(BIN)/pytest -q -n 2 --cov --cov-report= tests/unit tests/property tests/contract tests/integration
	$(BIN)/coverage report --skip-covered
	$(BIN)/coverage report --include='costd/model/*,costd/engine/*' --fail-under=100

bench: $(STAMP) ## Measure speed and size side by side; writes build/bench.json.
	$(BIN)/python -m bench.run $(BENCH_ARGS)

crash: $(STAMP) ## Kill -9 the daemon 50 times under load and check that the books add up.
	$(BIN)/python -m bench.crash $(CRASH_ARGS)

soak: $(STAMP) ## Put 10 million asks through 100,000 short windows and check that the store stays bounded.
	$(BIN)/python -m bench.soak $(SOAK_ARGS)

sim: $(STAMP) ## Put daemons, their clients and their coordinators through thousands of orders of events; SEEDS=N of each.
	$(BIN)/python tests/simulation/simulate.py $(if $(SEEDS),--orders $(SEEDS)) $(SIM_ARGS)

mutants: $(STAMP) ## Put mistakes into the engine and the lease code, one at a time, and show which test catches each; MUTANTS=all for every one.
	$(BIN)/python tests/mutants/mutants.py $(if $(MUTANTS),--count $(MUTANTS)) $(MUTANTS_ARGS)

proto: $(STAMP) $(NODE_STAMP) ## Generate the wire code from proto/.
	$(BIN)/python proto/generate.py

lock: ## Pin every dependency in requirements.lock.
	uv pip compile -q --no-strip-extras pyproject.toml --extra dev --extra build --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --universal -o requirements.lock

clean: ## Remove what the other targets made.
	rm -rf $(VENV) $(TYPESCRIPT)/node_modules $(TYPESCRIPT)/build build .mypy_cache .ruff_cache .pytest_cache .hypothesis
