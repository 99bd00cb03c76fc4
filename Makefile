# The front door: what a person types. Each target is one line here and one script that does it.
# `make` or `make help` lists the targets, from the comments behind `##`.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# The built-in cluster's instance. Two names live side by side. Only from the command line or from within cluster-run:
# an environment may have a NAME of its own.
NAME := $(or $(MCPFLEET_CLUSTER_NAME),mcpfleet)
export MCPFLEET_CLUSTER_NAME := $(NAME)
LEVEL := node
HARNESS := tests/cluster

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ The built-in cluster

.PHONY: cluster-up cluster-down cluster-status cluster-run cluster-load cluster-forward cluster-signal cluster-tool cluster-metrics
cluster-up: ## Bring a real Kubernetes up: LEVEL=node (default), fleet or control-plane, NAME=mcpfleet
	@$(HARNESS)/up.sh $(LEVEL)

cluster-down: ## Remove it, with everything it put on this machine
	@$(HARNESS)/down.sh

cluster-status: ## Say how it and each of its parts are
	@$(HARNESS)/status.sh

# The command goes through the environment as it was typed: make would expand its dollars, the shell its quotes.
# make itself ends with 2 for every failure; tests/cluster/run.sh gives the command's own exit code.
cluster-run: export MCPFLEET_CMD := $(value CMD)
cluster-run: ## Run a command in it: make -s cluster-run CMD='kubectl get nodes'
	@$(HARNESS)/run.sh
unexport CMD

cluster-load: ## Import images into its node: IMAGE=operator, sandbox-server, chat-worker, bridge, or a docker-archive tar
	@$(HARNESS)/load.sh $(IMAGE)

cluster-forward: ## Open a Service on 127.0.0.1: SERVICE=namespace/name PORT=8080
	@$(HARNESS)/forward.sh '$(SERVICE)' '$(PORT)'

cluster-signal: ## Signal a pod's processes: POD=namespace/name SIGNAL=STOP
	@$(HARNESS)/signal.sh '$(POD)' '$(SIGNAL)'

cluster-tool: ## Build a tool for cluster-run: TOOL=helm, kwok, kstatus or alerts
	@$(HARNESS)/tool.sh $(TOOL)

cluster-metrics: ## Start metrics-server in it: for kubectl top, and autoscalers by CPU
	@$(HARNESS)/metrics.sh

##@ Images

.PHONY: images
images: ## Build the four images as docker-archives from static binaries, without Docker
	@$(HARNESS)/images.sh $(IMAGE)

.PHONY: dockerfile-test
dockerfile-test: ## Prove the Dockerfile with buildah, where there is no Docker
	@$(HARNESS)/dockerfile-test.sh

##@ See it

# What is given on make's command line reaches the scripts through the environment: CONTEXT, CLUSTER, REGISTRY, PUSH, MODEL.
.PHONY: demo demo-down chat
demo: ## Watch all of it work. CONTEXT=name: an existing cluster, with REGISTRY=; CLUSTER=kind; MODEL=anthropic or standin
	@tests/demo/demo.sh

demo-down: ## Remove what the demo made (CONTEXT= or CLUSTER= as before)
	@tests/demo/down.sh

chat: ## Chat in this terminal over config/mcp.json; MODEL=anthropic, openai, or standin, which needs no key
	@tests/demo/chat.sh

##@ The chart

.PHONY: generate chart-test
generate: ## Make crds/, the chart's copy of them and k8s/ again
	@tests/chart/generate.sh

chart-test: ## Test the chart and the plain manifests against a real API server
	@tests/chart/test.sh

##@ Tests

.PHONY: test
test: ## Run every check; ONLY='format unit' runs some: format tools clippy unit conformance s3 real-servers api web generated chart control-plane node
	@tests/test.sh

.PHONY: drills
drills: ## Failures on a real node that take minutes; ONLY=part-of-a-name runs some
	@tests/drills.sh

.PHONY: mutants
mutants: ## Which small changes of the operator's code no test finds: FILES='operator/src/ssa.rs', SHARD=0/4 a quarter of them, CLUSTER=1 by the control plane's tests, too
	@tests/mutants.sh

.PHONY: fuzz-sandbox
fuzz-sandbox: ## Fuzz what callers send to sandbox-server: SECONDS=60
	@sandbox-server/fuzz/fuzz.sh $(SECONDS)

.PHONY: bench-health
bench-health: ## What health costs, beside bare hyper: SIZES='100 1000 10000'
	@ulimit -n "$$(ulimit -Hn)" && "$$(tests/release.sh)/examples/bench_health" $(SIZES)

.PHONY: bench-sandbox bench-chat bench-gateway bench-bridge bench-converge bench
bench-sandbox: ## What sandbox-server does beside its peers, and beside two limits
	@tests/bench-sandbox/bench-sandbox

bench-chat: ## What chat-worker adds to a round, and what 500 streams cost, beside programs of the official Python packages
	@tests/bench-chat/bench-chat

bench-gateway: ## What /mcp of a gateway adds to a call, with 1, 10 and 50 servers behind it, beside proxies of others
	@tests/bench-gateway/bench-gateway

bench-bridge: ## What the bridge adds to a server on standard input and output, beside other bridges
	@tests/bench-bridge/bench-bridge

bench-converge: ## How long a fleet takes to come about, beside a bare client: SIZES='100 1000 5000' REST=600; ALONE=1; ASLEEP=500: what servers that sleep cost
	@tests/bench-converge/bench-converge $(SIZES)

bench: bench-health bench-sandbox bench-chat bench-gateway bench-bridge bench-converge ## Every benchmark
