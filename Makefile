.PHONY: demo test verify verify-attacks verify-hostile lint bench compare docs fuzz run-env dev-env
PY := .venv/bin/python
ARGS ?=
SECONDS ?= 600
PATHS ?=
export PYTHONDONTWRITEBYTECODE = 1

demo: run-env
	$(PY) -m glovebox_cli demo $(ARGS)

test: dev-env
	$(PY) -m pytest -q -m "not slow and not cluster and not browser" -n 2 --dist loadfile $(ARGS)
	# Browsers wait for real processes: they get the machine to themselves.
	$(PY) -m pytest -q -m "browser and not slow" tests/browser

verify: dev-env
	$(PY) -m pytest -q $(ARGS)

# Every hostile submission and every honest program on each backend that is here, slow ones too.
# One after the other: some measure time.
verify-attacks: dev-env
	$(PY) -m pytest -q -p no:cacheprovider tests/attacks tests/sandbox_runner/test_benign.py \
		--attacks-table $(ARGS)

# Every hostile output through the whole gate, and every attack on the inspection without a sandbox
# first; prints the table of docs/release-gate.md.
verify-hostile: dev-env
	$(PY) -m pytest -q -p no:cacheprovider tests/hostile_models/test_hostile_models.py \
		--hostile-table $(ARGS)

lint: dev-env
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m mypy --config-file mypy-portal.ini

bench: dev-env
	$(PY) -m bench $(ARGS)

compare: dev-env
	$(PY) -m bench.compare $(ARGS)

# Each of PATHS (all: dicom photo video weights onnx metrics config) with each fuzzer for SECONDS; what
# breaks a promise is kept in .fuzz.
fuzz: dev-env
	@scripts/fuzz $(SECONDS) $(PATHS)

docs: dev-env
	$(PY) scripts/make_docs.py

run-env:
	@scripts/setup run

dev-env:
	@scripts/setup dev
