# make setup | test | test-portable | test-cluster | sanitize | demo | bench | images | site | lint | clean          PYTHON=python3.12 chooses the interpreter of .venv
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.mga-setup
TORCH := 2.13.0
CONSTRAINTS := $(VENV)/constraints.txt
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check
SOURCES := pyproject.toml constraints.txt setup.py $(wildcard csrc/*.* csrc/*/*.* csrc/*/*/*.*)

.PHONY: setup test test-portable test-cluster sanitize demo bench images site lint clean
setup: $(STAMP)

# A constraint may not name a local version (+cpu), so torch goes first and by itself.
$(STAMP): $(SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "setup: $(PYTHON) is missing or older than Python 3.11; give another one: make setup PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "setup: $(PYTHON) has no venv module; install it (Debian, Ubuntu: apt install python3-venv)"; exit 1; }
	@command -v $${CXX:-g++} >/dev/null || { echo "setup: there is no C++ compiler; install g++ or set CXX"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys, importlib.metadata as m; sys.exit(m.version("torch").split("+")[0] != "$(TORCH)")' 2>/dev/null || \
	  if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then \
	    echo "setup: NVIDIA GPU found: installing torch $(TORCH) with CUDA, a large download"; \
	    $(INSTALL) torch==$(TORCH); \
	  else \
	    echo "setup: no NVIDIA GPU: installing the CPU build of torch $(TORCH)"; \
	    $(INSTALL) torch==$(TORCH)+cpu 2>/dev/null || { \
	      echo "setup: pip finds no CPU build of torch, so it takes the one with CUDA, a large download; to avoid that, point pip to PyTorch's CPU wheels (PIP_EXTRA_INDEX_URL) and start again"; \
	      $(INSTALL) torch==$(TORCH); }; \
	  fi
	@# A torch with CUDA demands a triton of its own, which need not be the one pinned here.
	@$(BIN)/python -c "import importlib.metadata as m; own = any(r.startswith('triton') for r in m.requires('torch') or []); \
	  print(*(line for line in open('constraints.txt') if not (own and line.startswith('triton'))), sep='', end='')" > $(CONSTRAINTS)
	$(INSTALL) -c $(CONSTRAINTS) setuptools wheel ninja pybind11
	$(INSTALL) --no-build-isolation -c $(CONSTRAINTS) -e '.[dev]'
	@$(BIN)/python -c "from mga_kernels._native import host; cuda = host().build_facts()['cuda']; \
	  print('setup: done; native operators for CPU', f'and CUDA (toolkit {cuda})' if cuda else 'only, for want of a CUDA toolkit')"
	@touch $@

# A file's tests stay in one process, since they share what is dear to make; conftest.py puts long files first. Processes
# that tests start would each compile the package anew if bytecode were not kept. A test that hangs fails after minutes,
# and says where it stood.
export PYTHONDONTWRITEBYTECODE =
HANGS := -o faulthandler_timeout=600 -o faulthandler_exit_on_timeout=true --max-worker-restart 2
TEST := $(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder $(HANGS)
test: setup
	$(TEST)

# Again with the kernels in plain C++, which the oldest processors run: what has kernels for several instruction sets in it,
# and what has convolutions in it, in float maps and in pairs of bf16, unless this processor runs these in plain C++ anyway.
PORTABLE := large_tiles mask_head dynamic_filter filter_and_select output_to_image high_pass convolve_maps map_bands backends engine
PAIRS := pair_chain pair_planes convolution_kernels
CONVOLUTIONS := convolution_operators plans tiles runtimes safety published stream plain_plans
USUAL = $(shell $(BIN)/python -c "from mga_kernels.runtimes.cpu.choose import STORAGES as s; print(s['float32'].kernels(), s['bfloat16'].kernels())")
FASTER = $(if $(filter-out portable,$(word $(1),$(USUAL))),$(2))
test-portable: setup
	MGA_CPU_ISA=baseline $(TEST) $(patsubst %,tests/test_%.py,$(PORTABLE) $(call FASTER,1,$(CONVOLUTIONS)) $(call FASTER,2,$(PAIRS))) \
	  $(if $(call FASTER,2,yes),,-k 'not (bfloat16 and (plans or runtimes or safety))')

# What needs Ray and a server of S3's protocol, which are large: `make test` skips these tests where they are not installed.
test-cluster: setup
	$(INSTALL) 'ray[data]' pyarrow fsspec s3fs 'moto[server]'
	$(BIN)/python -m pytest -q -rs tests/test_distributed.py tests/test_places.py tests/test_object_storage.py

sanitize: setup
	.ci/sanitize $(BIN)/python

demo: setup
	$(BIN)/python -m mga.demo

bench: setup
	$(BIN)/python -m pytest bench/ --benchmark-only

# Whole images in every stock runtime: many hours for all networks; bench/images.py takes a choice.
images: setup
	$(INSTALL) --no-build-isolation -c $(CONSTRAINTS) -e '.[peers]'
	$(BIN)/python bench/images.py --scales 2 4
	$(BIN)/python bench/images.py --sizes 8K --only ours
	$(BIN)/python bench/memory.py
	$(BIN)/python bench/report.py

# docs/ as web pages in site/; a link that leads nowhere is an error.
site: setup
	$(INSTALL) -c $(CONSTRAINTS) mkdocs-material
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf build dist site *.egg-info python/*.egg-info mga_kernels/*.so .pytest_cache .ruff_cache .mypy_cache .benchmarks
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
	rm -f $(STAMP)
