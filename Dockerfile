# One file, three images: registry (the service and its gateway), mlflow, trainer (with torch; the engine too).
# docker build --target registry .

FROM python:3.12-slim-bookworm AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# An ordinary user: nothing here needs root, and file secrets are mounted readable.
RUN useradd --uid 10001 --create-home countersign \
    && install --directory --owner=countersign --mode=0755 /srv/countersign
WORKDIR /app
COPY constraints.txt ./

FROM base AS mlflow
RUN pip install --constraint constraints.txt mlflow "psycopg[binary]"
USER countersign
EXPOSE 5000

# The service without the trainer and without the embedded PostgreSQL: neither is copied or installed here.
FROM base AS registry
COPY requirements-service.lock ./
RUN pip install --require-hashes --no-deps --requirement requirements-service.lock
COPY pyproject.toml setup.py README.md LICENSE ./
COPY migrations ./migrations
COPY registry ./registry
RUN pip install --no-deps .
ENV COUNTERSIGN_HOME=/srv/countersign/home
VOLUME /srv/countersign
USER countersign
EXPOSE 8080
CMD ["countersign", "up", "--host", "0.0.0.0"]

FROM registry AS trainer
USER root
COPY trainer ./trainer
RUN pip install --constraint constraints.txt ".[trainer]"
USER countersign
CMD ["python", "-m", "trainer", "worker"]
