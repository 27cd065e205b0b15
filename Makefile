# Two ways in: `make demo` segments the bundled clip with the bundled model, `make test` runs all tests.
# Both make their own environment from the locks in requirements/ and need nothing but make and Python 3.11 to 3.13.

SUITS := 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c $(SUITS) 2>/dev/null && echo $$p && break; done)
DEMO := .venv-demo
TEST := .venv-test
# CUDA where a driver answers; the OpenVINO plugin on Linux with an Intel processor (it offers no device on others);
# plain onnxruntime elsewhere.
ACCELERATOR ?= $(shell if nvidia-smi -L >/dev/null 2>&1; then echo cuda; \
	elif [ "$$(uname -sm)" = "Linux x86_64" ] && grep -q GenuineIntel /proc/cpuinfo; then echo openvino; else echo cpu; fi)
INSTALL = -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint assets clean python

# `python -m`, since a script of an environment names the folder that it was made in, and a clone may be moved.
demo: $(DEMO)/ready-$(ACCELERATOR)
	$(DEMO)/bin/python -m edge_seg demo

# A file's tests stay together: what they share is made once, and none waits for a camera while another measures one.
test: $(TEST)/ready
	$(TEST)/bin/python -m pytest -m "" -rs --numprocesses auto --maxprocesses 4 --dist loadfile

lint: $(TEST)/ready
	$(TEST)/bin/python -m ruff check .
	$(TEST)/bin/python -m ruff format --check .
	$(TEST)/bin/python -m mypy

# The rendered clip, and the float16 weights and int8 files of two finished runs: BEST=runs/best FAST=runs/fast_mean
# DATA=.../dataset1; README's picture is made with the first. Fewer golden frames in the fast one keep it small.
SIZE = 352x480
assets: $(TEST)/ready
	$(TEST)/bin/python -m train clip --out edge_seg/assets/street.mp4
	$(call assets,$(BEST),keras,fcn8_camvid,4)
	$(call assets,$(FAST),keras_fast,fcn8_camvid_fast,1,--calibration percentile --percentile 99.999)
	$(TEST)/bin/python -m train poster edge_seg/assets/fcn8_camvid_int8.onnx edge_seg/assets/street.mp4 \
		--out docs/overlay.png

# run, folder of the float16 weights, name, golden frames, options of the calibration
define assets
	$(TEST)/bin/python -m train ship $(1) --input-size $(SIZE) --out edge_seg/assets/$(2)
	$(TEST)/bin/python -m export $(1) --precision int8 --input-size $(SIZE) --data $(DATA) --golden rendered --golden-frames $(4) --name $(3) $(5) \
		--report docs/$(3)_int8.report.json --out edge_seg/assets/$(3)_int8.onnx
endef

include train/bundled.mk

python:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11, 3.12 or 3.13 with venv on PATH; set PYTHON=/path/to/python3"; exit 2; }
	@$(PYTHON) -c $(SUITS) 2>/dev/null || \
		{ echo "error: PYTHON=$(PYTHON) is not a Python 3.11, 3.12 or 3.13 with venv; set PYTHON=/path/to/python3"; exit 2; }

# Everything that pip fetches has its hash in the lock; the project itself is built with the lock's own setuptools.
define environment
	rm -rf $(1) && $(PYTHON) -m venv $(1)
	$(1)/bin/python $(INSTALL) --require-hashes -r $<
	$(1)/bin/python $(INSTALL) --no-deps --no-build-isolation --editable .
	touch $@
endef

$(DEMO)/ready-%: requirements/demo-%.txt pyproject.toml | python
	$(call environment,$(DEMO))

$(TEST)/ready: requirements/test.txt pyproject.toml | python
	$(call environment,$(TEST))

clean:
	rm -rf $(DEMO) $(TEST) build dist *.egg-info
