# Every target sets itself up: it finds a Python, makes the virtual environment VENV and installs the pinned packages there.
#
#   make demo         the whole pipeline on the embedded samples, and one question to the served model
#   make test         the tests                       (TESTS=tests/serve ARGS='-k batch' narrows them)
#   make test-fast    the tests that start no cluster, ranks, server or browser, in under 3 minutes on 2 cores
#   make coverage     the tests, and how much of the package they run; below the floor is an error
#   make lint         ruff, mypy --strict, import-linter
#   make bench        the benchmarks, each beside its peer
#   make gpu-check    what only a GPU can show of the train stage, in some ten minutes; TINY=--tiny runs it on a CPU
#   make generated    write again what helm/, k8s/ and docs/ have from the package's models
#   make docs         the documentation as a site, in build/site; a broken link is an error
#   make package      the wheel and the source archive, in build/dist
#   make constraints  resolve every version again: constraints.txt and docker/requirements/
#   make clean        remove VENV and the caches

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV ?= .venv
TESTS ?= tests
ARGS ?=
FAST := not (ray or kube or s3 or slow or browser or real_data or gpu or ranks)
ASK ?= 다음 영화 리뷰는 긍정인가요, 부정인가요? 배우들의 연기가 정말 훌륭했다.
# An interpreter that is found but does not run (a pyenv shim without a version behind it) is passed over.
PYTHONS ?= python3.11 python3.12 python3.13 python3

BIN := $(VENV)/bin
# One stamp a checkout: an editable install belongs to the folder it was made from.
STAMP := $(VENV)/.kit19-$(shell printf '%s' '$(CURDIR)' | cksum | cut -d' ' -f1)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export PYTHONUNBUFFERED := 1

.PHONY: help demo test test-fast coverage lint bench gpu-check generated docs package constraints install clean

help:
	@sed -n '3,15s/^#   //p' Makefile

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@
	python=
	for name in $(PYTHONS); do
	  for found in $$(type -aP "$$name" || true); do
	    if "$$found" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
	      python=$$found
	      break 2
	    fi
	  done
	done
	if [ -z "$$python" ]; then
	  echo "make: no Python 3.11 or later with the venv module among: $(PYTHONS). Install one, or set PYTHONS=/path/to/python" >&2
	  exit 2
	fi
	echo "make: installing the pinned packages into $(VENV) with $$("$$python" -V) (2 to 6 minutes, once)" >&2
	if ! "$(BIN)/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
	  "$$python" -m venv --clear "$(VENV)"
	fi
	rm -f "$(VENV)"/.kit19-*
	"$(BIN)/python" -m pip install -qq 'pip>=25.1'  # --group
	"$(BIN)/python" -m pip install -qq --constraint constraints.txt --editable '.[all]' --group dev
	touch "$@"

demo: $(STAMP)
	@echo "make: data, train, evaluate, serve on the embedded samples (under 5 minutes on 2 cores)" >&2
	"$(BIN)/kit19" run --config configs/demo.yaml --ask '$(ASK)'

test: $(STAMP)
	@echo "make: pytest $(TESTS) (the whole suite takes about an hour on 2 cores)" >&2
	"$(BIN)/python" -m pytest $(TESTS) $(ARGS)

test-fast: $(STAMP)
	@echo "make: the fast tests (under 3 minutes on 2 cores)" >&2
	"$(BIN)/python" -m pytest $(TESTS) -m '$(FAST)' -n auto --dist loadfile $(ARGS)

coverage: $(STAMP)
	@echo "make: the tests with coverage; ARGS='-m \"$(FAST)\"' measures the fast ones alone" >&2
	"$(BIN)/python" -m pytest $(TESTS) --cov --cov-report=term:skip-covered --cov-report=xml:build/coverage.xml $(ARGS)

lint: $(STAMP)
	@echo "make: ruff, mypy, import-linter (about a minute)" >&2
	red=0
	"$(BIN)/ruff" check --quiet . || red=1
	"$(BIN)/ruff" format --check --quiet . || red=1
	"$(BIN)/mypy" || red=1
	layers=$$("$(BIN)/lint-imports" --no-cache 2>&1) || red=1
	sed -n '/^Analyzed/,$$p' <<< "$$layers" | grep . || echo "$$layers"
	exit $$red

bench: $(STAMP)
	@echo "make: every benchmark beside its peer (about 10 minutes on 2 cores)" >&2
	for script in benchmarks/*.py; do "$(BIN)/python" "$$script"; done

gpu-check: $(STAMP)
	@echo "make: the train stage on this machine's GPU (about 10 minutes on one H100)" >&2
	if [ -z "$(TINY)" ]; then
	  "$(BIN)/python" -m pip install -qq --constraint constraints.txt --editable '.[all,qlora]'
	fi
	"$(BIN)/python" -m scripts.gpu_check $(TINY)

generated: $(STAMP)
	@"$(BIN)/python" -m kit19_ray.config.reference > docs/reference/config.md
	"$(BIN)/python" -m kit19_ray.operate.api.crd > k8s/crd.yaml
	"$(BIN)/python" -m scripts.charts
	"$(BIN)/python" -m scripts.cli_reference > docs/reference/cli.md
	"$(BIN)/python" -m scripts.templates_review > docs/reference/templates.md

docs: $(STAMP)
	@echo "make: the documentation into build/site (about 5 seconds)" >&2
	"$(BIN)/python" -m pip install -qq --constraint constraints.txt --group docs
	"$(BIN)/zensical" build --clean --strict
	echo build/site/index.html

package: $(STAMP)
	@rm -rf build/dist
	"$(BIN)/python" -m pip install -qq --constraint constraints.txt build
	"$(BIN)/python" -m build --outdir build/dist . >&2
	ls build/dist

constraints: $(STAMP)
	@echo "make: resolving every version for Python 3.11 and later (about 2 minutes)" >&2
	"$(BIN)/python" -m pip install -qq uv
	"$(BIN)/uv" pip compile pyproject.toml --all-extras --group dev --group docs --universal --python-version 3.11 --upgrade --quiet \
	  --no-header --no-annotate --no-emit-package kit19-ray --output-file "$(VENV)/constraints.new"
	{
	  echo '# Every version this project is tested with, for `pip install -c constraints.txt`. Written by `make constraints`.'
	  cat "$(VENV)/constraints.new"
	} > constraints.txt
	"$(BIN)/python" -m scripts.image_requirements

clean:
	rm -rf "$(VENV)" build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
