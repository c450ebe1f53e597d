# Two targets do everything on a fresh Debian machine with Go:
#   make demo    a cluster of three nodes on an embedded etcd, to play with
#   make test    installs whatever is missing and runs every test
# "make help" lists the others.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# The version that the programs report: the tag, the commit since it, and whether the tree was changed.
VERSION ?= $(shell git describe --tags --match 'v*' --dirty 2>/dev/null || \
	{ h=$$(git describe --always --dirty 2>/dev/null) && echo "0.1.0-dev+$$h"; } || echo 0.1.0-dev)
LDFLAGS := -s -w -X main.version=$(patsubst v%,%,$(VERSION))
GOBUILD := CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)'

# full: as many seeds as the promise names, minutes; short: what continuous integration can afford.
PROVE ?= full
PROVE_CMD ?= go test -json -count=1 -timeout 60m ./ha/policy/... 2>&1 | go run ./.ci/gotest -v
# On real servers, after the simulation. Its short form is part of "make test".
PROVE_REAL ?= go test -json -count=1 -timeout 90m ./cmd/e2e/onewriter 2>&1 | go run ./.ci/gotest -skip fail -v

# More arguments for the measuring programs, such as BENCH='-run switchover -n 20': see docs/performance.md.
BENCH ?=
SCALE ?=

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

.PHONY: demo
demo: ## a cluster of three nodes, live; without a terminal a tour that checks itself
	@.ci/deps demo
	@$(MAKE) --no-print-directory build
	@go build -o bin/pgregent-demo ./examples/demo
	@bin/pgregent-demo -bin bin

.PHONY: test
test: ## install whatever is missing and run every test
	@.ci/deps test
	@.ci/test

.PHONY: build
build: ## bin/pgregent and bin/pgregent-guard
	$(GOBUILD) -o bin/ ./cmd/pgregent ./cmd/pgregent-guard

.PHONY: man
man: build ## man pages in bin/man; "pgregent completion bash" writes what the shells complete by
	@bin/pgregent man bin/man

.PHONY: prove
prove: ## the simulation, then one writer on real servers, at length (PROVE=full or short)
	set -o pipefail; export PROVE='$(PROVE)'; $(PROVE_CMD)
ifeq ($(PROVE),full)
	@.ci/deps test
	@eval "$$(.ci/env)"; set -o pipefail; export PROVE='$(PROVE)' PGREGENT_REQUIRE=1; $(PROVE_REAL)
endif

ifneq ($(wildcard examples/bench/*.go),)
.PHONY: bench
bench: build ## measure against the bare PostgreSQL commands of the same machine
	@.ci/deps test
	@go build -o bin/pgregent-bench ./examples/bench
	@eval "$$(.ci/env)"; bin/pgregent-bench -bin bin $(BENCH)

.PHONY: scale
scale: ## how many clusters one etcd carries
	@.ci/deps test
	@eval "$$(.ci/env)"; go run ./examples/scale $(SCALE)
endif

.PHONY: lint
lint: ## gofmt, vet, staticcheck, tidy go.mod files
	@test -z "$$(gofmt -l . | tee /dev/stderr)"
	go vet work ./.ci/gotest
	go run $(STATICCHECK) $$(go list work) ./.ci/gotest
	.ci/tidy -check

.PHONY: tidy
tidy: ## go mod tidy for every module of the workspace
	.ci/tidy

.PHONY: deps
deps: ## install what the tests need, and nothing else
	@.ci/deps test

.PHONY: clean
clean: ## remove bin/; the cache outside the tree stays
	rm -rf bin
