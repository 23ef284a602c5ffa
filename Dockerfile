# docker build -t authserver .
# docker build -t authserver --build-arg ARGON2_OPTIMISED=avx2 .      only for processors that have it: faster password
# docker build -t authserver --build-arg ARGON2_OPTIMISED=avx512f .   hashes, and faster still
FROM python:3.13-slim AS builder
ARG ARGON2_OPTIMISED=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# argon2's ready-made wheel is compiled for every x86-64 (SSE2); its C code is faster where it may use more.
COPY requirements/argon2.txt requirements/build.txt requirements/runtime.txt requirements/
# hadolint ignore=DL3008
RUN pip install --require-hashes -r requirements/build.txt \
    && if [ -n "$ARGON2_OPTIMISED" ]; then \
        apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev libffi-dev \
        && rm -rf /var/lib/apt/lists/* \
        && pip install --require-hashes -r requirements/argon2.txt; \
    fi
RUN CFLAGS="${ARGON2_OPTIMISED:+-O3 -m$ARGON2_OPTIMISED}" pip wheel --require-hashes --no-deps --no-build-isolation \
    ${ARGON2_OPTIMISED:+--no-binary argon2-cffi-bindings} --wheel-dir /wheels -r requirements/runtime.txt

COPY pyproject.toml README.md ./
COPY alembic alembic
COPY authserver authserver
COPY docs/errors.md docs/
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && python -m venv --without-pip /opt/authserver \
    && pip --python /opt/authserver/bin/python install --no-index --no-deps --no-compile /wheels/*.whl \
    && /opt/authserver/bin/python -m compileall -q /opt/authserver


FROM python:3.13-slim
COPY --from=builder /opt/authserver /opt/authserver
# SQLite's file would lie here; with PostgreSQL nothing is written, and the file system may be read-only.
RUN install -d -o 10001 -g 10001 /var/lib/authserver
WORKDIR /var/lib/authserver
ENV PATH=/opt/authserver/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    AUTHSERVER_ENVIRONMENT=production
USER 10001:10001
EXPOSE 8000
# Alive, not ready: a container must not be replaced because its database is away.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health/live', timeout=2)"]
# Without a shell in between, SIGTERM reaches the server: it stops accepting, finishes what is in flight, exits 0.
ENTRYPOINT ["authserver"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
