# Deixis. `make` lists the targets; each sets up what it needs, once.
#
#   make test PYTEST_ARGS="-m 'not parity'"     pass arguments to pytest
#   make setup PYTHON=/path/to/python3.12       choose the interpreter of a new .venv
#   make setup PIP_FLAGS=                       show what pip does

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format parity minis pretraining findings clean distclean

VENV := .venv
PY := $(VENV)/bin/python
EXTRAS := data,demo,dev,export,teacher,train,world
PIP_FLAGS ?= -qq
PYTEST_ARGS ?=
# Two processes: the full-size models need some 6 GB each. A file's tests stay together, for what they set up takes long.
PYTEST_WORKERS ?= 2
PARITY_DIR ?= tests/parity/fixtures/evp

# The stamp says for which requirements, extras and place .venv is complete.
# The marker stands beside .venv while it is being built: if it is found, a build was cut off.
STAMP := $(VENV)/.deixis-stamp
MARKER := .venv-unfinished
CAN_MAKE_VENV := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))

export PIP_DISABLE_PIP_VERSION_CHECK := 1

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

setup: ## make or finish .venv; nothing is installed when it is up to date
	@set -eu; \
	key="$$(cat pyproject.toml constraints.txt | cksum) $(EXTRAS) $$(pwd -P)"; \
	if [ ! -e $(MARKER) ] && [ -x $(PY) ] && [ "$$(cat $(STAMP) 2>/dev/null)" = "$$key" ]; then exit 0; fi; \
	if [ -e $(MARKER) ] || ! $(PY) -m pip --version >/dev/null 2>&1; then \
		python='$(PYTHON)'; \
		for candidate in python3.11 python3.12 python3.10 python3; do \
			if [ -z "$$python" ] && $$candidate -c '$(CAN_MAKE_VENV)' >/dev/null 2>&1; then python=$$candidate; fi; \
		done; \
		if [ -z "$$python" ]; then \
			echo "setup: no Python >= 3.10 with venv found; install one or say make setup PYTHON=/path/to/python" >&2; \
			exit 1; \
		fi; \
		echo "setup 1/3: virtual environment in $(VENV) ($$("$$python" --version))"; \
		touch $(MARKER); \
		"$$python" -m venv --clear $(VENV); \
	else \
		echo "setup 1/3: virtual environment in $(VENV) is there"; \
		touch $(MARKER); \
	fi; \
	rm -f $(STAMP); \
	{ \
		echo "setup 2/3: torch (the big one: a minute or more)" && \
		$(PY) -m pip install $(PIP_FLAGS) -c constraints.txt torch && \
		echo "setup 3/3: deixis[$(EXTRAS)] and the rest (a minute or more)" && \
		$(PY) -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[$(EXTRAS)]'; \
	} || { rm -f $(MARKER); echo "setup: pip failed; the lines above say why, PIP_FLAGS= says more" >&2; exit 1; }; \
	printf '%s' "$$key" > $(STAMP); \
	rm -f $(MARKER); \
	echo "setup: done"

demo: setup ## depth in metres and a mask for a real photograph, into demo-output/
	@$(VENV)/bin/deixis demo --out demo-output

test: lint ## lint, then every test
	$(PY) -m pytest -n $(PYTEST_WORKERS) --dist loadscope --no-loadscope-reorder $(PYTEST_ARGS)

lint: setup ## ruff (rules, format) and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: setup ## rewrite the code as ruff wants it
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

parity: setup ## number by number against the published models (CASE=x.manifest.json for one)
	@set -eu; failed=0; \
	for manifest in $(or $(CASE),$(PARITY_DIR)/*.manifest.json); do \
		if [ ! -f "$$manifest" ]; then \
			echo "parity: $$manifest: no such file; set PARITY_DIR=folder or CASE=file" >&2; exit 2; \
		fi; \
		echo "== $$manifest"; \
		$(PY) -m tests.parity.evp "$$manifest" "$${manifest%.manifest.json}.npz" || failed=1; \
	done; \
	exit $$failed

# The chain of recipes/mini: each run goes on where it was interrupted, and is passed over once it is done.
DATA ?=
RUNS ?= runs/mini
ROOMS ?= 4000
ROADS ?= 1250
# Small pictures and Muon: without it nothing is found after so few steps. The teacher would blur what a start is worth.
STUDY_STEPS ?= 240
STUDY := "data.size=[80,104]" "data.stored=[90,120]" teacher.weight=0 optimisation.optimiser=muon \
	optimisation.batch_size=8 optimisation.warmup=30
QUICK_STEPS := optimisation.steps=20 optimisation.warmup=2 optimisation.eval_every=20 optimisation.batch_size=8
# Freed memory stays with the process, in large pages: a fifth faster on Linux, where steps allocate what they freed.
ALLOCATOR := MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 GLIBC_TUNABLES=glibc.malloc.hugetlb=1
define CHAIN
set -eu; \
export $(ALLOCATOR); \
rooms=$(ROOMS); roads=$(ROADS); quick=; study="optimisation.steps=$(STUDY_STEPS) optimisation.eval_every=$(STUDY_STEPS)"; \
if [ -n "$(QUICK)" ]; then rooms=60; roads=40; quick="$(QUICK_STEPS)"; study="$(QUICK_STEPS)"; fi; \
$(VENV)/bin/deixis world render $(RUNS)/world --kind rooms --frames $$rooms; \
$(VENV)/bin/deixis world render $(RUNS)/world --kind roads --frames $$roads --seed 100000; \
data="data.world=$(RUNS)/world$(if $(DATA), data.root=$(DATA))"; \
run() { recipe=$$1; shift; $(VENV)/bin/deixis train recipes/mini/$$recipe.yaml $$data $$quick "$$@"; }; \
run 1_vae out=$(RUNS)/1_vae; \
run 2_text out=$(RUNS)/2_text init=$(RUNS)/1_vae/weights; \
run 3_sd out=$(RUNS)/mini-sd init=$(RUNS)/2_text/weights
endef
minis: setup ## the small weights from nothing: DATA=NYUv2 folder, RUNS=folder, QUICK=1 for minutes instead of hours
	@$(CHAIN); \
	run 4_evp_depth out=$(RUNS)/evp-depth-coarse init=$(RUNS)/mini-sd/weights; \
	run 4_evp_depth_fine out=$(RUNS)/evp-depth-mini init=$(RUNS)/evp-depth-coarse/weights; \
	run 4_evp_depth_roads out=$(RUNS)/evp-depth-roads-mini init=$(RUNS)/evp-depth-mini/weights; \
	run 5_evp_refer out=$(RUNS)/evp-refer-coarse init=$(RUNS)/mini-sd/weights; \
	run 5_evp_refer_fine out=$(RUNS)/evp-refer-mini init=$(RUNS)/evp-refer-coarse/weights; \
	run 6_vpd_depth out=$(RUNS)/vpd-depth-mini init=$(RUNS)/evp-depth-mini/weights; \
	run 7_marigold out=$(RUNS)/marigold-mini init=$(RUNS)/mini-sd/weights; \
	run 7_lotus_d out=$(RUNS)/lotus-d-mini init=$(RUNS)/mini-sd/weights; \
	run 7_lotus_g out=$(RUNS)/lotus-g-mini init=$(RUNS)/lotus-d-mini/weights; \
	run 7_e2e_ft out=$(RUNS)/e2e-ft-mini init=$(RUNS)/mini-sd/weights

pretraining: setup ## what pre-training and its text are worth: DATA, RUNS and QUICK as for minis
	@$(CHAIN); \
	run 3_sd_no_text out=$(RUNS)/3_sd_no_text init=$(RUNS)/1_vae/weights; \
	$(PY) -m deixis.training.pretraining $(RUNS)/pretraining --recipe recipes/mini/4_evp_depth.yaml \
		--recipe recipes/mini/5_evp_refer.yaml --start "text=$(RUNS)/mini-sd/weights" \
		--start "no text=$(RUNS)/3_sd_no_text/weights" $$data $(STUDY) $$study threads=1

FINDINGS_STEPS ?= 240
findings: setup ## what language does for affine-invariant depth, after minis: DATA, RUNS and QUICK as there
	@set -eu; export $(ALLOCATOR); \
	steps="optimisation.steps=$(FINDINGS_STEPS) optimisation.warmup=50 optimisation.eval_every=60"; \
	if [ -n "$(QUICK)" ]; then steps="$(QUICK_STEPS)"; fi; \
	$(PY) -m deixis.training.findings $(RUNS)/findings $(foreach system,marigold lotus_d lotus_g e2e_ft,\
		--recipe recipes/mini/7_$(system).yaml) init=$(RUNS)/mini-sd/weights data.world=$(RUNS)/world \
		$(if $(DATA),data.root=$(DATA)) "data.size=[64,88]" "data.stored=[72,96]" $$steps threads=1

clean: ## remove what was generated, but for .venv
	rm -rf build dist demo-output .mypy_cache .pytest_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove .venv too
	rm -rf $(VENV) $(MARKER)
