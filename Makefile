# make serve: a virtual environment with the light set, then the service on the committed weights.
# make test:  everything installed, everything checked and tested.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: serve test check format bench bench-peers bench-accuracy test-ultralytics clean

# So that the README's heatmaps need no id; environment and .env have the last word.
ifeq ($(shell grep -isE '^ *(export +)?SUBPOSE_LATEST *=' .env),)
serve: export SUBPOSE_LATEST ?= true
endif
serve: $(VENV)/.light
	$(BIN)/subpose serve

test: check
	$(BIN)/pytest -q

check: $(VENV)/.full
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.full
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.full
	$(BIN)/python -m tests.bench.serve

# Against other servers, in an environment of their own; BENCH=--quick takes two minutes and writes nothing.
BENCH ?= --page docs/bench.md
bench-peers: $(VENV)-peers/.full
	$(VENV)-peers/bin/python -m tests.bench.compare $(BENCH)

# MediaPipe's joints beside ours, on the labelled people of ../shared/data; its environment is its own.
bench-accuracy: $(VENV)/.full $(VENV)-mediapipe/.full
	$(BIN)/python -m tests.bench.accuracy $(VENV)-mediapipe/bin/python

# AGPL-3.0 code, in an environment of its own that nothing else uses.
test-ultralytics: $(VENV)-ultralytics/.full
	YOLO_CONFIG_DIR=$$(mktemp -d) $(VENV)-ultralytics/bin/pytest -q -m ultralytics

$(VENV)/.light: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e '.[cpu]'
	touch $@

$(VENV)/.full: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e '.[cpu,openvino,otel,redis,triton,training,dev]'
	touch $@ $(VENV)/.light

$(VENV)-ultralytics/.full: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-ultralytics
	$(VENV)-ultralytics/bin/pip install -q -c constraints.txt -e '.[cpu,otel,redis,training,dev,ultralytics]'
	touch $@

$(VENV)-peers/.full: pyproject.toml constraints.txt tests/bench/peers/requirements.txt
	$(PYTHON) -m venv $(VENV)-peers
	$(VENV)-peers/bin/pip install -q -c constraints.txt -e '.[cpu,openvino]' -r tests/bench/peers/requirements.txt
	touch $@

# Its solutions need neither jax nor a sound card.
$(VENV)-mediapipe/.full: tests/bench/peers/mediapipe.txt
	$(PYTHON) -m venv $(VENV)-mediapipe
	$(VENV)-mediapipe/bin/pip install -q --no-deps -r tests/bench/peers/mediapipe.txt
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-ultralytics $(VENV)-peers $(VENV)-mediapipe
