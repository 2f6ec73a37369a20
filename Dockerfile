# Two targets: `gateway` (HTTP, sweeper, dataset validation; no torch) and `worker` (training, prediction).
FROM python:3.12-slim AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 MR_LOG_FORMAT=json MR_DATA_DIR=/var/lib/mr
RUN useradd --system --uid 10001 --home-dir /var/lib/mr --create-home mr
WORKDIR /opt/mr
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY mr_core ./mr_core
COPY service ./service
COPY api ./api
COPY worker ./worker
COPY cli ./cli
COPY migrations ./migrations

FROM base AS gateway
RUN pip install -c constraints.txt ".[gateway]"
USER mr
WORKDIR /var/lib/mr
EXPOSE 8000
CMD ["mr", "gateway"]

FROM base AS worker
RUN pip install -c constraints.txt ".[worker]"
USER mr
WORKDIR /var/lib/mr
CMD ["mr", "worker", "--queue", "cpu", "--device", "cpu"]
