# Hostler's commands. `make demo` and `make test` do all their set-up themselves
# on a fresh machine with Go, apt and root.
SHELL := /bin/bash
.DEFAULT_GOAL := help

MACHINE ?= dgx-h100
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
IMAGE   := localhost/hostler-dev/hostler:dev
TAR     := bin/hostler-image.tar
CLUSTER := go run ./test/cluster/cmd/cluster

# go-nvml's generated bindings name deprecated functions of its header.
export CGO_CFLAGS := -O2 -g -Wno-deprecated-declarations

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: deps deps-test
deps:
	@test/deps.sh
deps-test:
	@test/deps.sh test

.PHONY: demo demo-down
demo: deps ## A GPU node comes alive: drawn, published, allocated, measured, broken, healed
	@go run ./test/demo up
demo-down: cluster-down ## Remove everything that the demo made

.PHONY: test test-unit test-e2e test-churn test-apiserver test-vm bench lint
# Compilers, tests and the clusters' programs are all written in Go, and wait for the processors
# rather than for memory: they collect garbage a fourth as often as by default. Agents in pods do not see this.
test test-unit test-e2e test-churn test-apiserver test-vm: export GOGC = 400
test test-unit test-e2e test-churn test-apiserver test-vm: export GOMEMLIMIT = 3GiB
test: deps-test ## All tests: unit with the race detector, real cluster, API servers, emulated machine
	@test/all.sh
test-unit: deps-test ## Unit, property and network namespace tests
	@test/unit.sh
test-e2e: deps-test image-race ## Scenarios in a real one-node cluster
	@$(CLUSTER) build
	older=$$(test/older.sh) && later=$$(test/later.sh) && HOSTLER_E2E=1 HOSTLER_OLDER=$$older HOSTLER_LATER=$$later HOSTLER_IMAGE=$(CURDIR)/bin/race/hostler-image.tar go tool -modfile=test/tools/go.mod gotestsum --format testname -- -p 1 -count=1 -timeout 30m ./test/cluster/... ./test/e2e/...
test-churn: deps-test image-race ## Two hundred pods through eight GPUs, twice, and eight NICs, with faults
	@$(CLUSTER) build
	HOSTLER_E2E=1 HOSTLER_E2E_CHURN=200 HOSTLER_IMAGE=$(CURDIR)/bin/race/hostler-image.tar go test -v -count=1 -timeout 30m -run TestManyPodsThroughEight ./test/e2e
test-apiserver: deps-test ## Slices and rights against real API servers, Kubernetes 1.34 to 1.37
	HOSTLER_APISERVER=1 go tool -modfile=test/tools/go.mod gotestsum --format testname -- -count=1 -timeout 40m ./test/apiserver/...
test-vm: deps-test ## The agent's discovery in an emulated machine with real SR-IOV and RDMA
	HOSTLER_VM=1 go tool -modfile=test/tools/go.mod gotestsum --format testname -- -count=1 -timeout 20m ./test/vm/...
bench: deps image ## Measure against the budgets; writes .run/bench.json
	@go run ./test/bench
lint: ## gofmt, go vet and golangci-lint
	@test/lint.sh

.PHONY: image image-race
image: deps ## The container image as an archive, bin/hostler-image.tar
	@go run ./deploy/image -output $(TAR) -bin bin -tag $(IMAGE) -version $(VERSION)
image-race: deps
	@go run ./deploy/image -race -output bin/race/hostler-image.tar -bin bin/race -tag $(IMAGE) -version $(VERSION)

.PHONY: cluster-up deploy cluster-down
cluster-up: deps ## A real Kubernetes 1.37 on this machine, its node a simulated MACHINE=dgx-h100
	@$(CLUSTER) up --machine $(MACHINE)
deploy: image ## Image and chart into the cluster
	@$(CLUSTER) deploy --image $(TAR)
cluster-down: ## Remove the cluster and everything it made
	@$(CLUSTER) down
	@rm -f .run/env
