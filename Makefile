# The same recipes for people and for CI. `make` alone lists them.

CARGO ?= cargo
CLIENTS := tests/clients
VENV := $(CLIENTS)/python/.venv
EXAMPLES := clinic tickets chat sync-progress
export BINARY_UNDER_TEST := $(abspath target/release/carillon)

# What stands in for that binary when a suite that is written for one process runs against a cluster.
IN_CLUSTER := BINARY_UNDER_TEST=$(abspath target/debug/cluster) BINARY_IN_CLUSTER=$(BINARY_UNDER_TEST)

.PHONY: help build lint docs test test-rust test-node test-node-fallback test-python test-node-cluster test-python-cluster test-deploy test-k6 test-helm cluster needs deny fuzz bench \
        bench-smoke bench-compare bench-growth bench-pieces test-browser screenshots $(EXAMPLES:%=example-%)

help: ## List the recipes
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 24

build: ## Build the binary, and the tool that loads it
	$(CARGO) build --release --locked -p carillon -p bench

lint: ## Check format, lints and documentation, with warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items --locked

# A test compares the files with the types, so `make test` fails when they differ.
docs: ## Write the pages that are generated from the source
	WRITE_DOCS=1 $(CARGO) test --locked -p carillon --test configuration

test: needs build test-rust test-node test-node-fallback test-python test-node-cluster test-python-cluster bench-smoke test-browser test-deploy test-k6 test-helm ## Install what the tests need, and run all of them

# Most tests wait, those of faults, webhooks and HTTP transports most of all, so more run at a time than there are cores.
test-rust: build
	$(CARGO) test --workspace --locked -- --skip cluster::faults --skip cluster::webhooks --skip fallback:: --test-threads=4
	$(CARGO) test --workspace --locked --test it -- cluster::faults cluster::webhooks --test-threads=6
	$(CARGO) test --workspace --locked --lib --test it -- fallback:: --skip thousands_of_polls --test-threads=6
	$(CARGO) test --workspace --locked --test it -- thousands_of_polls

test-node: build $(CLIENTS)/node/node_modules
	cd $(CLIENTS)/node && npm test

# The same clients over the transports that they fall back to. Mostly waits.
test-node-fallback: build $(CLIENTS)/node/node_modules ## Run pusher-js over HTTP
	cd $(CLIENTS)/node && TRANSPORT=xhr_streaming npm run test:fallback && TRANSPORT=xhr_polling npm run test:fallback

test-python: build $(VENV)
	cd $(CLIENTS)/python && .venv/bin/python -m pytest -q

# The same suites against two gateways, a publisher and Redis behind nginx.
test-node-cluster: build cluster $(CLIENTS)/node/node_modules
	cd $(CLIENTS)/node && $(IN_CLUSTER) npm test

test-python-cluster: build cluster $(VENV)
	cd $(CLIENTS)/python && $(IN_CLUSTER) .venv/bin/python -m pytest -q

# The examples, and falling back to HTTP, in Chromium. CHROMIUM names another one than Debian's.
test-browser: build examples/node_modules tests/browser/node_modules ## Run examples and HTTP fallback in a browser
	cd tests/browser && npm test

screenshots: build examples/node_modules tests/browser/node_modules ## Take the pictures in docs/examples anew
	cd tests/browser && node screenshots.mjs

$(EXAMPLES:%=example-%): example-%: examples/node_modules
	node examples/$*/server.mjs

example-clinic: ## Appointments in two windows; needs a running `carillon up`
example-tickets: ## A list with statistics, which falls back to HTTP
example-chat: ## Presence, typing, notifications
example-sync-progress: ## The progress of a long job

# Configurations of everything around it, by the tools that read them.
test-deploy: build
	deploy/check.sh

# Every load scenario in small, against a cluster behind nginx, with its thresholds enforced.
test-k6: build
	k6/check.sh

# The chart, without a cluster. Its own helm is built with Go, which Debian's is too old for.
test-helm: build
	@if command -v go >/dev/null || command -v helm >/dev/null || [ -n "$$HELM" ]; then helm/check.sh; \
	else echo "skipped: the chart is checked where Go or helm (3 or 4) is installed"; fi

cluster:
	$(CARGO) build --workspace --locked --bin cluster

# Debian's packages, and only those that are missing. A C compiler is for ring, TLS' cryptography, and for
# jemalloc, the allocator.
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
	fail() { echo "missing:$$missing"; echo "make needs: $$1; install what these Debian packages have, then try again" >&2; exit 1; }; \
	command -v apt-get >/dev/null || fail "there is no apt-get here"; \
	sudo=""; \
	if [ "$$(id -u)" != 0 ]; then sudo=sudo; command -v sudo >/dev/null || fail "this is not root, and there is no sudo"; fi; \
	$$sudo apt-get update -q && $$sudo apt-get install -yq $$missing || fail "apt-get could not install them"

$(CLIENTS)/node/node_modules examples/node_modules tests/browser/node_modules: %/node_modules: %/package-lock.json
	cd $* && npm ci --no-audit --no-fund
	@touch $@

$(VENV): $(CLIENTS)/python/requirements.txt
	python3 -m venv $@
	$@/bin/pip install -q -r $<
	@touch $@

deny: ## Check licences, sources and known weaknesses of dependencies (needs the network)
	command -v cargo-deny >/dev/null || $(CARGO) install cargo-deny --locked
	$(CARGO) deny check

FUZZ_SECONDS ?= 60
FUZZ_TARGETS := channel_name client_message request_signature frame_reader

fuzz: ## Run every fuzz target for a minute (needs a nightly toolchain)
	command -v cargo-fuzz >/dev/null || $(CARGO) install cargo-fuzz --locked
	for target in $(FUZZ_TARGETS); do \
	  mkdir -p fuzz/corpus/$$target; \
	  seeds=$$(test -d fuzz/seeds/$$target && echo fuzz/seeds/$$target); \
	  cargo +nightly fuzz run $$target fuzz/corpus/$$target $$seeds -- -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

BENCH := target/release/bench

bench: build ## Measure this server next to the floor
	rm -rf target/bench
	$(BENCH) compare --servers carillon,carillon-cluster --output target/bench

bench-smoke: build ## Run the scenarios in small, and fail if anything is lost
	$(BENCH) smoke --servers carillon,carillon-cluster

bench-compare: build ## Measure all servers of bench/servers.toml, into bench/runs
	$(BENCH) compare

bench-growth: build ## Plot how cost grows, into bench/runs
	$(BENCH) growth --servers carillon,soketi,sockudo,carillon-cluster

bench-pieces: ## Measure parsing, signatures, encoding and a broadcast alone
	$(CARGO) bench -p bench --features broadcast --locked
