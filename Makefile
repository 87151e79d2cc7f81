# The recipes of developers and CI. `make` without arguments lists them.

CARGO ?= cargo
CLIENTS := tests/clients
VENV := $(CLIENTS)/python/.venv
EXAMPLES := clinic tickets chat sync-progress
export BINARY_UNDER_TEST := $(abspath target/release/carillon)

# Replaces the binary by a cluster in suites that are written for one process.
IN_CLUSTER := BINARY_UNDER_TEST=$(abspath target/debug/cluster) BINARY_IN_CLUSTER=$(BINARY_UNDER_TEST)

.PHONY: help build lint docs test test-rust test-node test-node-fallback test-python test-node-cluster test-python-cluster test-deploy test-k6 test-helm cluster needs deny fuzz bench \
        bench-smoke bench-compare bench-growth bench-pieces test-browser screenshots $(EXAMPLES:%=example-%)

help: ## List the recipes
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 24

build: ## Build the server and the load generator
	$(CARGO) build --release --locked -p carillon -p bench

lint: ## Check the format, lints and documentation; warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items --locked

# A test compares the files with the types, so `make test` fails when they differ.
docs: ## Write the pages that are generated from the source
	WRITE_DOCS=1 $(CARGO) test --locked -p carillon --test configuration --test metrics

test: needs build test-rust test-node test-node-fallback test-python test-node-cluster test-python-cluster bench-smoke test-browser test-deploy test-k6 test-helm ## Install the requirements of the tests, and run all tests

# Most tests wait, especially those of faults, webhooks and HTTP transports, so more of them run at a time than there are cores.
test-rust: build
	$(CARGO) test --workspace --locked -- --skip cluster::faults --skip cluster::webhooks --skip fallback:: --test-threads=4
	$(CARGO) test --workspace --locked --test it -- cluster::faults cluster::webhooks --test-threads=6
	$(CARGO) test --workspace --locked --lib --test it -- fallback:: --skip thousands_of_polls --test-threads=6
	$(CARGO) test --workspace --locked --test it -- thousands_of_polls

test-node: build $(CLIENTS)/node/node_modules
	cd $(CLIENTS)/node && npm test

# The same clients over the HTTP transports. These tests mostly wait.
test-node-fallback: build $(CLIENTS)/node/node_modules ## Run pusher-js over HTTP
	cd $(CLIENTS)/node && TRANSPORT=xhr_streaming npm run test:fallback && TRANSPORT=xhr_polling npm run test:fallback

test-python: build $(VENV)
	cd $(CLIENTS)/python && .venv/bin/python -m pytest -q

# The same suites against two gateways, a publisher and Redis behind nginx.
test-node-cluster: build cluster $(CLIENTS)/node/node_modules
	cd $(CLIENTS)/node && $(IN_CLUSTER) npm test

test-python-cluster: build cluster $(VENV)
	cd $(CLIENTS)/python && $(IN_CLUSTER) .venv/bin/python -m pytest -q

# The examples and the HTTP fallback in Chromium. CHROMIUM selects another binary than that of Debian.
test-browser: build examples/node_modules tests/browser/node_modules ## Run examples and HTTP fallback in a browser
	cd tests/browser && npm test

screenshots: build examples/node_modules tests/browser/node_modules ## Take the screenshots in docs/examples again
	cd tests/browser && node screenshots.mjs

$(EXAMPLES:%=example-%): example-%: examples/node_modules
	node examples/$*/server.mjs

example-clinic: ## Appointments in two windows; needs a running `carillon up`
example-tickets: ## A list with statistics, which falls back to HTTP
example-chat: ## Presence, typing, notifications
example-sync-progress: ## The progress of a long job

# Checks the configuration files in deploy/ with the tools that read them.
test-deploy: build
	deploy/check.sh

# Runs every load scenario on a small scale against a cluster behind nginx, and enforces its thresholds.
test-k6: build
	k6/check.sh

# Checks the chart without a cluster. helm is built with Go if it is not installed; the Go of Debian is too old.
test-helm: build
	@if command -v go >/dev/null || command -v helm >/dev/null || [ -n "$$HELM" ]; then helm/check.sh; \
	else echo "skipped: checking the chart requires Go or helm (3 or 4)"; fi

cluster:
	$(CARGO) build --workspace --locked --bin cluster

# Installs missing Debian packages. ring and jemalloc require a C compiler.
needs:
	@missing=""; \
	command -v cc >/dev/null || missing="$$missing gcc libc6-dev"; \
	command -v node >/dev/null || missing="$$missing nodejs"; \
	command -v npm >/dev/null || missing="$$missing npm"; \
	command -v python3 >/dev/null || missing="$$missing python3"; \
	command -v redis-server >/dev/null || missing="$$missing redis-server"; \
	command -v nginx >/dev/null || missing="$$missing nginx"; \
	command -v openssl >/dev/null || missing="$$missing openssl"; \
	command -v chromium >/dev/null || [ -n "$$CHROMIUM" ] || missing="$$missing chromium"; \
	python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$$missing python3-venv"; \
	[ -n "$$missing" ] || exit 0; \
	fail() { echo "missing:$$missing"; echo "make needs: $$1; install the software of these Debian packages, then retry" >&2; exit 1; }; \
	command -v apt-get >/dev/null || fail "apt-get is not installed"; \
	sudo=""; \
	if [ "$$(id -u)" != 0 ]; then sudo=sudo; command -v sudo >/dev/null || fail "the user is not root, and sudo is not installed"; fi; \
	$$sudo apt-get update -q && $$sudo apt-get install -yq $$missing || fail "apt-get could not install them"

$(CLIENTS)/node/node_modules examples/node_modules tests/browser/node_modules: %/node_modules: %/package-lock.json
	cd $* && npm ci --no-audit --no-fund
	@touch $@

$(VENV): $(CLIENTS)/python/requirements.txt
	python3 -m venv $@
	$@/bin/pip install -q -r $<
	@touch $@

deny: ## Check licenses, sources and advisories of dependencies (requires the network)
	command -v cargo-deny >/dev/null || $(CARGO) install cargo-deny --locked
	$(CARGO) deny check

FUZZ_SECONDS ?= 60
FUZZ_TARGETS := channel_name client_message request_signature frame_reader

fuzz: ## Run every fuzz target for a minute (requires a nightly toolchain)
	command -v cargo-fuzz >/dev/null || $(CARGO) install cargo-fuzz --locked
	for target in $(FUZZ_TARGETS); do \
	  mkdir -p fuzz/corpus/$$target; \
	  seeds=$$(test -d fuzz/seeds/$$target && echo fuzz/seeds/$$target); \
	  cargo +nightly fuzz run $$target fuzz/corpus/$$target $$seeds -- -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

BENCH := target/release/bench

bench: build ## Measure this server and the baseline
	rm -rf target/bench
	$(BENCH) compare --servers carillon,carillon-cluster --output target/bench

bench-smoke: build ## Run small scenarios, and fail if a message is lost
	$(BENCH) smoke --servers carillon,carillon-cluster

bench-compare: build ## Measure all servers of bench/servers.toml, into bench/runs
	$(BENCH) compare

bench-growth: build ## Plot the growth of costs, into bench/runs
	$(BENCH) growth --servers carillon,soketi,sockudo,carillon-cluster

bench-pieces: ## Measure parsing, signatures, encoding and a broadcast in isolation
	$(CARGO) bench -p bench --features broadcast --locked
