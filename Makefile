# `make demo` and `make test` do everything, on a machine with Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := build/demo
BENCH := build/bench
LIMITS := $(addprefix --fail-on ,float_accuracy:-3pp \
  schemes.minmax-tensor.drop_pp:+2pp schemes.affine-tensor.drop_pp:+2pp \
  schemes.affine-channel.drop_pp:+2pp schemes.minmax-tensor.flip_rate:+3pp \
  schemes.affine-tensor.flip_rate:+3pp schemes.affine-channel.flip_rate:+3pp \
  schemes.minmax-tensor.weights_sqnr_db:-2 schemes.affine-tensor.weights_sqnr_db:-2 \
  schemes.affine-channel.weights_sqnr_db:-2 sqnr_db:-2 folded_sqnr_db:-2 \
  range:+25% range:-25% folded_range:+25% folded_range:-25%)

.PHONY: demo test test-long lint types imports pytest bench-compare baseline clean FORCE

$(VENV)/.user: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/.user
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,onnx,pt2e,search]'
	touch $@

# Two decays, five seeds each; one single-threaded process per core.
demo: $(VENV)/.user
	rm -rf $(DEMO)
	mkdir -p $(DEMO)
	for seed in 0 1 2 3 4; do for wd in 1e-5 1e-4; do echo $$wd $$seed; done; done | \
	  xargs -P 2 -n 2 sh -c '$(BIN)/qwd train --wd $$0 --seed $$1 --threads 1 \
	    --out $(DEMO)/runs/wd$$0-s$$1 2> $(DEMO)/wd$$0-s$$1.log || { cat $(DEMO)/wd$$0-s$$1.log; exit 255; }'
	$(BIN)/qwd quantize-report $(DEMO)/runs/* --json $(DEMO)/report.json \
	  --csv $(DEMO)/tensors.csv --md $(DEMO)/report.md --html $(DEMO)/report.html
	@echo "report files: $(addprefix $(DEMO)/,report.html report.md report.json tensors.csv)"

test: lint types imports pytest bench-compare

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/pyright

imports: $(VENV)/.dev
	$(BIN)/lint-imports

pytest: $(VENV)/.dev
	$(BIN)/pytest -n 2

# What takes minutes: damaged files by the thousand, deep networks, processes that share a search.
test-long: $(VENV)/.dev
	$(BIN)/pytest -n 2 -m long

# A short training and its report against the stored one; see benchmarks/README.md.
$(BENCH)/digits.json: $(VENV)/.dev FORCE
	rm -rf $(BENCH)
	$(BIN)/qwd train --wd 1e-4 --epochs 10 --threads 1 --out $(BENCH)/digits
	$(BIN)/qwd quantize-report $(BENCH)/digits --scheme minmax-tensor --scheme affine-tensor \
	  --scheme affine-channel --json $@

bench-compare: $(BENCH)/digits.json
	$(BIN)/qwd compare benchmarks/baselines/digits.json $< $(LIMITS)

baseline: $(BENCH)/digits.json
	cp $< benchmarks/baselines/digits.json

clean:
	rm -rf $(VENV) build
