# Commands for a fresh machine with Python 3.10 to 3.13 and nothing else: make demo, make test, make test-all.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MELCODEC := $(BIN)/melcodec
# torchaudio 2.11 is the last one and wants torch of its own line, also on a CPU
TORCH := torch==2.11.0 torchaudio==2.11.0

.PHONY: demo test test-all lint types unit unit-all test-ray parity bench wheel clean

demo: $(VENV)/installed
	$(MELCODEC) encode examples -o out/codes --to npz -f
	$(MELCODEC) decode out/codes -o out/mels -f
	$(MELCODEC) decode out/codes -o out/sound --to wav -f
	$(MELCODEC) plot roundtrip examples/lj_en.flac -o out/lj_en.png -f
	@echo
	@echo "out/codes   the speech of examples/ as codes, 215 bit/s"
	@echo "out/mels    the mels that the codes give back"
	@echo "out/sound   how that sounds"
	@echo "out/lj_en.png   original, reconstruction and difference"

# What a change is checked with while it is made; test-all is what CI runs.
test: lint types unit

test-all: lint types unit-all

lint: $(VENV)/developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/developing
	$(BIN)/mypy

# file by file on every core; one thread each, or they would stand in each other's way
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile

unit: $(VENV)/developing
	$(PYTEST) -m 'not slow'

unit-all: $(VENV)/developing
	$(PYTEST)

# also part of make test-all, where ray could be installed
test-ray: $(VENV)/developing
	$(BIN)/python -m pytest -q tests/corpus/test_ray.py

# compares with Coqui's own code at full size, in an environment of its own
parity: .venv-parity/installed
	.venv-parity/bin/python benchmarks/parity.py

bench: $(VENV)/developing
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/long_file.py
	$(BIN)/python benchmarks/vocoder.py
	$(BIN)/python benchmarks/preprocess.py
	$(BIN)/python benchmarks/store.py
	$(BIN)/python benchmarks/prior.py

wheel: $(VENV)/developing
	$(BIN)/python -m build --wheel --no-isolation

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q --disable-pip-version-check $(TORCH) -e .
	touch $@

# The extras are tested where they can be installed (pesq is compiled); where not, their tests are skipped and say so.
$(VENV)/developing: $(VENV)/installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	for extra in av eval exports hf library onnx prior ray remote umap; do \
	  $(BIN)/python -m pip install -q --disable-pip-version-check -e ".[$$extra]" || echo "no $$extra: its tests will be skipped"; \
	done
	touch $@

.venv-parity/installed: pyproject.toml
	$(PYTHON) -m venv .venv-parity
	.venv-parity/bin/python -m pip install -q --disable-pip-version-check $(TORCH) coqui-tts 'torchcodec<0.12' -e .
	touch $@

clean:
	rm -rf out dist build .pytest_cache .mypy_cache .ruff_cache
