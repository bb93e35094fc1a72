# The report is the last node of a graph: requirements.lock -> .venv -> workload -> notebooks -> report.
#
# A parameter is given on make's command line: make report NAME=mine BLOCK_SIZE=32. A variable of the same name in the
# environment is not read, so that a stray NAME or SEED cannot alter a report (PYTHON and UV are the exceptions).

.DELETE_ON_ERROR:
.SUFFIXES:
.DEFAULT_GOAL := help
.PHONY: help env report make-report quick paper compare engine-check make-engine-check test lab data-full data-agentic docs bench \
    lint lock clean FORCE

# ---- Variables. Those of a report stand in the library's table of parameters, with their defaults; make only hands on
# what is given. Those of the targets stand here: a `##` line and the default, which `make` prints.

## the report's folder below reports/: letters, digits and . _ -
NAME = default
## the live server that engine-check asks: http://host:port
URL =
## the first N requests of the multi-turn trace are sent to it
REQUESTS = 200
## sequential (one at a time: the prediction is exact) or trace (at their arrival times)
TIMING = sequential
## with trace: N times as fast
SPEED = 1
## the reports that compare lays beside each other: names below reports/, or paths (ARGS=C D: more)
A =
## compared with A
B =
## the folder that compare writes (default: reports/A-vs-B)
OUT =
## notebooks that run at a time
JOBS = 2
## where heavy steps run: `local`, or tcp://HOST:PORT, a Dask scheduler (lib/docs/how-to/use-a-cluster.md)
SCHEDULER = local
## true: CSV cells that a spreadsheet would run as formulas begin with an apostrophe
CSV_SAFE = false
## more words for the command behind compare, engine-check, test, lab, bench, lint and lock
ARGS =
## the Python that builds .venv, 3.11 or newer
PYTHON ?= python3
## the uv that builds .venv; UV= builds it with venv and pip
UV ?= uv

TABLE := lib/kvprefix/traces/parameters.toml
PARAMETERS := $(shell awk -F '[][]' '/^\[/ { print toupper($$2) }' $(TABLE))
OWN := $(shell awk 'said && /^[A-Z_]+ \??=/ { print $$1 } { said = /^## / }' Makefile)
KNOWN := $(PARAMETERS) $(OWN)

# What the command line gives, and whether it can be meant. $(value ...): a `$` in a path is a `$`.
define LINE_BREAK


endef
quoted = '$(subst ','\'',$(value $1))'
GIVEN := $(foreach v,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $v))),$v))
UNKNOWN := $(filter-out $(KNOWN) SHELL MAKE MAKEFLAGS GNUMAKEFLAGS MAKEOVERRIDES,$(GIVEN))
guess = $(shell $(call quoted,PYTHON) -I $(dir $(TABLE))../files/words.py '$(subst ','\'',$1)' $(KNOWN) 2>/dev/null)
$(if $(UNKNOWN),$(error unknown parameter $(UNKNOWN); known: $(KNOWN)$(call guess,$(firstword $(UNKNOWN)))))
$(foreach v,$(GIVEN),$(if $(findstring $(LINE_BREAK),$(value $v)),$(error $v holds a line break)))
NAME_IS := $(shell LC_ALL=C; case $(call quoted,NAME) in \
    (''|.|..|*[!A-Za-z0-9._-]*|[Ss][Cc][Rr][Aa][Tt][Cc][Hh]) echo bad;; (*) echo good;; esac)
ifneq ($(NAME_IS),good)
$(error NAME is `$(value NAME)`; expected a folder name of letters, digits and . _ - (`scratch` belongs to JupyterLab))
endif

# reports/default is the report of the defaults: another one needs a name of its own. The line that would be right is
# quoted as a shell needs it.
OF_REPORT := $(filter $(GIVEN),$(PARAMETERS))
ifneq ($(and $(filter report engine-check,$(MAKECMDGOALS)),$(OF_REPORT)),)
ifeq ($(filter NAME,$(GIVEN)),)
as_given = $1=$(shell case $(call quoted,$1) in (*[!A-Za-z0-9._/:,=@+-]*) printf "'%s'" \
    "$$(printf %s $(call quoted,$1) | sed "s/'/'\\\\''/g")";; (*) printf %s $(call quoted,$1);; esac)
$(error $(OF_REPORT) would change reports/default; give the report a name: \
    make $(MAKECMDGOALS) NAME=mine $(foreach v,$(filter $(GIVEN),$(KNOWN)),$(call as_given,$v)))
endif
endif

# The programs that run see none of these, nor another Python's settings.
unexport $(KNOWN) PYTHONPATH PYTHONHOME

help: ## print this
	@echo 'Targets (make TARGET PARAMETER=value ...):'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-29s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'Parameters of a report and their defaults:'
	@for python in $(PYTHONS); do "$$python" -I $(dir $(TABLE))table.py 2>/dev/null && exit; done; \
	    echo '  (Python 3.11 or newer shows them; they stand in $(TABLE))'
	@echo
	@echo 'Variables of the targets and their defaults:'
	@awk '/^## / { text = substr($$0, 4); next } \
	    text && /^[A-Z_]+ \??=/ { name = $$1; sub(/^[A-Z_]+ \??= ?/, ""); printf "  %-29s %s\n", name "=" $$0, text } \
	    { text = "" }' Makefile

# ---- The environment. It is built again when it has been moved or copied here, lost its Python, or is of another
# version than a PYTHON that is given.

RUN := .venv/bin/python
PYTHONS := $(if $(filter file,$(origin PYTHON)),python3 python3.13 python3.12 python3.11,$(call quoted,PYTHON))
VERSION := -c 'import sys; print(sys.version_info[:2])'
VENV_IS := $(if $(wildcard .venv/.ready),$(shell [ "$$(cat .venv/.ready)" = "$$(pwd -P)" ] && [ -x $(RUN) ] && \
    $(if $(filter file,$(origin PYTHON)),:,[ "$$($(RUN) $(VERSION))" = "$$($(PYTHONS) $(VERSION))" ]) || echo stale))

env: .venv/.ready ## build .venv from lib/requirements.lock
	@echo ".venv is ready: $$($(RUN) --version)"

.venv/.ready: lib/requirements.lock lib/pyproject.toml $(if $(VENV_IS),FORCE)
	@for python in $(PYTHONS); do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        UV=$(call quoted,UV) exec "$$python" lib/build_venv.py; \
	    fi; \
	done; \
	echo "No Python 3.11 or newer among:" $(PYTHONS)". Install one, or name it: make env PYTHON=/path/to/python3.12" >&2; \
	exit 1

lock: ## resolve the dependencies of lib/pyproject.toml, for all Pythons and systems (ARGS=--upgrade: to the newest)
	@command -v $(call quoted,UV) >/dev/null || { echo 'make lock needs uv; `pip install uv` brings it' >&2; exit 1; }
	cd lib && $(call quoted,UV) pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
	    --fork-strategy fewest --no-emit-index-url --custom-compile-command 'make lock' --quiet -o requirements.lock $(ARGS)

# ---- The report. Nothing is run again unless what determines it has changed.

WORK := data/derived/make/$(NAME)
FOLDER := reports/$(NAME)
FIXED := $(foreach mode,single_turn multi_turn,$(addprefix $(mode)_, \
    stats.json request_metrics.csv block_metrics.csv trace.jsonl))
FIXED += $(foreach figure,sharing_fraction_cdf block_hit_distribution reuse_gap_cdf comparison, \
    $(figure).png $(figure).pdf) tables figures sections facts parameters.json
TO_PLAY_WITH := notebooks/05-explore.ipynb
SOURCES := $(filter-out $(TO_PLAY_WITH),$(sort $(wildcard notebooks/[0-9]*.ipynb)))
LAST := $(FOLDER)/$(lastword $(SOURCES))
FIXED += report.html report.md $(SOURCES)
# Files of notebooks that were left out, because the data are of another kind.
LEFT_OUT := $(addprefix $(FOLDER)/,$(shell cat $(FOLDER)/left-out.txt 2>/dev/null))
MISSING := $(filter-out $(LEFT_OUT) $(wildcard $(addprefix $(FOLDER)/,$(FIXED))),$(addprefix $(FOLDER)/,$(FIXED)))
# A notebook that failed has no executed copy and is run again. Where all have one, nobody knows which to run.
LOST := $(if $(filter %.ipynb,$(MISSING)),,$(MISSING))

# One make at a time works on a report; its lock ends with it.
LOCKED = $(RUN) lib/locked.py $(WORK) $(FOLDER) $(MAKE) --no-print-directory

report: .venv/.ready ## write reports/NAME/: all results, figures, tables, report.html and report.md
	+@$(LOCKED) make-report

make-report: $(LAST)
	@for file in $(FIXED); do \
	    [ -e $(FOLDER)/$$file ] || grep -qsx "$$file" $(FOLDER)/left-out.txt || { echo "$(FOLDER)/$$file was not written; make report again" >&2; exit 1; }; \
	done
	@echo 'The report is up to date: $(FOLDER)/report.html (and report.md, figures/, tables/)'

quick: ## the same for the first 100 conversations, as reports/quick/
	@$(MAKE) --no-print-directory report JOBS=$(if $(filter JOBS,$(GIVEN)),$(call quoted,JOBS),2) \
	    NAME=$(if $(filter NAME,$(GIVEN)),$(NAME),quick) \
	    MAX_CONVERSATIONS=$(if $(filter MAX_CONVERSATIONS,$(GIVEN)),$(call quoted,MAX_CONVERSATIONS),100)

compare: .venv/.ready ## lay reports beside each other: A=... B=..., as reports/A-vs-B/
	@[ -n $(call quoted,A) ] && [ -n $(call quoted,B) ] || { echo 'give two reports: make compare A=default B=mine' >&2; \
	    exit 2; }
	@$(RUN) -m kvprefix compare $(if $(value OUT),--out $(call quoted,OUT)) $(GUARD) -- $(call quoted,A) $(call quoted,B) \
	    $(ARGS)

write = printf '%s\n' $(foreach p,$1,$p=$(call quoted,$p)) | LC_ALL=C \
    awk '{ equals = index($$0, "="); print tolower(substr($$0, 1, equals)) substr($$0, equals + 1) }'

# The parameters that are given, one `name=value` per line; touched only when they change.
$(WORK)/parameters.txt: FORCE
	@mkdir -p $(@D)
	@$(if $(OF_REPORT),$(call write,$(OF_REPORT)),:) > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

# The state of the files and folders that given parameters name; a path may hold what prerequisites may not.
STATE = import glob, os, sys; [print(ascii(f), os.path.getsize(f), os.path.getmtime(f)) for a in sys.argv[1:] \
    for p in (a, a.partition(":")[2]) for f in [p, *sorted(glob.glob(glob.escape(p) + "/*"))] if p and os.path.isfile(f)]
$(WORK)/inputs.txt: FORCE | .venv/.ready
	@mkdir -p $(@D)
	@$(RUN) -c '$(STATE)' $(foreach p,$(OF_REPORT),$(call quoted,$p)) > $@.new
	@echo $(call quoted,CSV_SAFE) >> $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

# Where tasks run is no part of a report: it changes neither what is written nor its name.
ON_CLUSTER := $(if $(filter SCHEDULER,$(GIVEN)),--scheduler $(call quoted,SCHEDULER))

# How CSV cells are written is no parameter of a report, but changes its files.
GUARD := $(if $(filter true,$(value CSV_SAFE)),--csv-safe)
$(if $(GUARD)$(filter false,$(value CSV_SAFE)),,$(error CSV_SAFE is `$(value CSV_SAFE)`; expected true or false))

# Bad input shows up here, before anything is written to reports/.
$(WORK)/workload.stamp: $(WORK)/parameters.txt $(WORK)/inputs.txt .venv/.ready \
    $(filter-out %/__pycache__,$(wildcard $(addprefix lib/kvprefix/,* */* */*/* */*/*/*)))
	@$(RUN) -m kvprefix prepare --parameters-file $(WORK)/parameters.txt $(ON_CLUSTER)
	@touch $@

# A notebook whose executed copy was made of equal content is left out, unless a fixed file is missing: the command knows.
# If one fails, the others run and the last one's copy stays.
.PRECIOUS: $(LAST)
$(LAST): $(SOURCES) $(WORK)/workload.stamp FORCE
	@$(RUN) -m kvprefix notebooks $(SOURCES) --parameters-file $(WORK)/parameters.txt --output-dir $(FOLDER) \
	    --jobs $(call quoted,JOBS) $(ON_CLUSTER) $(GUARD) $(if $(LOST),,--only-stale)

# What is pasted from: the report makes paper/, and this compiles it. Without pdflatex or pandoc the command ends with 3.
paper: .venv/.ready ## compile reports/NAME/paper/ to all.pdf (needs pdflatex) and all.docx (needs pandoc)
	@$(RUN) -m kvprefix paper $(FOLDER)

# A live server's answers to the report's requests: with the parameters of the report NAME but for those that are given.
# The notebook that shows the recording is run again by the next report. The command ends with 3 where they differ and 4
# where nothing can be compared; make then prints `Error 3` or `Error 4`, and ends with its own 2.
engine-check: .venv/.ready ## send requests to a live server and compare its cached tokens with the replay's
	+@$(LOCKED) make-engine-check

make-engine-check: .venv/.ready $(if $(wildcard $(WORK)/parameters.txt),,$(WORK)/parameters.txt)
	@[ -n $(call quoted,URL) ] || { echo 'give the server: make engine-check URL=http://127.0.0.1:8000' >&2; exit 2; }
	@cp $(WORK)/parameters.txt $(WORK)/check.txt
	@$(if $(OF_REPORT),$(call write,$(OF_REPORT)) >> $(WORK)/check.txt)
	@code=0; $(RUN) -m kvprefix check --url $(call quoted,URL) --parameters-file $(WORK)/check.txt --output-dir $(FOLDER) \
	    --max-requests $(call quoted,REQUESTS) --timing $(call quoted,TIMING) --speed $(call quoted,SPEED) $(GUARD) $(ARGS) \
	    || code=$$?; case $$code in 0|3|4) rm -f $(FOLDER)/notebooks/70-engine-check.ipynb;; esac; exit $$code

# ---- The rest.

test: .venv/.ready ## run the whole test suite, two files at a time (ARGS='-n 0': one)
	cd lib && ../$(RUN) -m pytest -n 2 --dist loadfile $(ARGS)

lab: .venv/.ready ## explore the notebooks in JupyterLab, from the tour on; they write to reports/scratch/
	PATH="$$PWD/.venv/bin:$$PATH" JUPYTER_CONFIG_PATH="$$PWD/lib/jupyter" $(RUN) -m jupyterlab \
	    --LabApp.news_url=None --LabApp.default_url=/lab/tree/notebooks/00-tour.ipynb $(ARGS)

data-full: .venv/.ready ## download the whole ShareGPT V3 to data/raw/
	$(RUN) -m kvprefix fetch

data-agentic: .venv/.ready ## download 739 public sessions of coding agents to data/raw/, for DATA=
	$(RUN) -m kvprefix fetch agentic

docs: .venv/.ready ## write lib/docs/reference, which is made of the code
	$(RUN) lib/make_docs.py

bench: .venv/.ready ## measure speed and memory against other tools, as reports/bench/
	$(RUN) lib/benchmarks/bench.py $(ARGS)

lint: .venv/.ready ## check the library's style
	$(RUN) -m ruff check lib $(ARGS)

clean: ## remove data/derived/* and every report but default, agentic and bench
	@$(if $(wildcard $(RUN)),$(RUN),$(firstword $(PYTHONS))) lib/clean.py
