# `make demo` and `make test` are all a newcomer needs; both set up .venv on their first call.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
STAMP := $(VENV)/.installed

# One workstation's defaults: without arguments the demo's shards, teacher and labels.
DEMO := demo
REPRODUCE := reproduce
LABELS ?= labels.zarr
OUT ?= runs/$(RECIPE)

.PHONY: docs setup demo reproduce demo-shards annotate train test test-all bench bench-report bench-gpu check format clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade 'pip>=25.1'
	@# setuptools warns of every editable installation that there could be folders of the same names
	PYTHONWARNINGS='ignore:Editable installation' \
		$(BIN)/python -m pip install -q -c constraints.txt -e '.[annotate,train,view,web,ray,cloud]' \
		--group test --group lint --group docs --group demo
	touch $@

demo: setup
	$(BIN)/python -m pipelines.demo run --out $(DEMO)

# The paper's ablation on the demo's scenes: reports/ablation.md and .png. It continues where it was
# stopped.
reproduce: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pipelines.reproduce --out $(REPRODUCE)

demo-shards: setup
	$(BIN)/python -m pipelines.demo shards --out $(DEMO)

ifdef SHARDS
annotate: setup
	@test -n "$(TEACHER)" || { echo "make annotate: TEACHER is missing; name a timm model, such as TEACHER=resnet50.a1_in1k, or your own, such as TEACHER=my_teacher:make" >&2; exit 2; }
	$(BIN)/relabel-annotate run $(foreach s,$(SHARDS),--shards '$(s)') --labels '$(LABELS)' --teacher '$(TEACHER)' $(ARGS)
else
annotate: demo-shards
	$(BIN)/python -m pipelines.demo annotate --out $(DEMO)
endif

ifdef SHARDS
train: setup
	@test -n "$(RECIPE)" || { echo "make train: RECIPE is missing, such as RECIPE=resnet18_relabel" >&2; exit 2; }
	$(BIN)/relabel-train run --recipe $(RECIPE) $(foreach s,$(SHARDS),--shards '$(s)') --labels '$(LABELS)' \
		$(foreach v,$(VAL),--val '$(v)') --out '$(OUT)' $(ARGS)
else
train: annotate
	$(BIN)/python -m pipelines.demo train --out $(DEMO)
endif

# Two processes; the tests of a file stay together, since they share what is slow to make.
PYTEST = $(BIN)/python -m pytest -q -n 2 --dist loadfile

test: setup
	$(PYTEST)

test-all: setup
	$(PYTEST) -m 'slow or not slow'

# Every figure is a ratio to something measured in the same run. REAL=FOLDER takes the photographs of
# docs/real_photographs.md in place of the demo's scenes.
BENCH = $(BIN)/python -m benchmarks.suite $(if $(REAL),--real '$(REAL)')

bench: setup
	$(BENCH) quick

bench-report: setup
	$(BENCH) full --report benchmarks/reports

bench-gpu: setup
	$(BENCH) gpu --report benchmarks/reports

# The documentation as a site, in site/; a link that leads nowhere is an error.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) docs
	$(MAKE) test

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(DEMO) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
