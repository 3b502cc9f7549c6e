# One image for the five services, the jobs before them and the operator's commands; the command says
# which: `python -m services.queue`, `python -m services.gateway`, `motcua migrate`, `motcua lag`.
# It runs without root, without capabilities, and on a read-only root file system.
#
# `make image` builds it. A release names its base by digest: make image BASE=python:3.12-slim@sha256:…
ARG BASE=python:3.12-slim

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# What installs stays behind: the environment that is run has no pip.
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/motcua
# Before the code, so that a change of the code alone brings nothing anew. Only wheels, each by its
# hash: what is installed depends on the lock alone, not on the day or on a compiler.
COPY requirements/run.txt /src/requirements/
RUN /opt/build/bin/pip --python /opt/motcua install --no-compile --only-binary :all: \
        --require-hashes -r /src/requirements/run.txt
COPY pyproject.toml README.md LICENSE /src/
COPY libs /src/libs
COPY services /src/services
COPY migrations /src/migrations
# The interpreter could not write its bytecode beside the code later. By hash instead of by time it
# is the same in every build.
RUN /opt/build/bin/pip --python /opt/motcua install --no-compile --no-deps --no-build-isolation /src \
    && /opt/build/bin/pip --python /opt/motcua uninstall --yes hatchling \
    && /opt/motcua/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/motcua/lib

FROM ${BASE}
# Written by hand: `useradd` would note the day. The number is what Kubernetes checks `runAsNonRoot`
# by, the name what libraries ask for; the folder holds the keys of development, production none.
RUN echo 'motcua:x:10001:10001:motcua:/var/lib/motcua:/usr/sbin/nologin' >> /etc/passwd \
    && echo 'motcua:x:10001:' >> /etc/group \
    && install -d -o 10001 -g 10001 /var/lib/motcua
COPY --from=build /opt/motcua /opt/motcua
ENV PATH=/opt/motcua/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MOTCUA_HOST=0.0.0.0 \
    MOTCUA_PORT=8000 \
    MOTCUA_DATA_DIR=/var/lib/motcua
WORKDIR /var/lib/motcua
USER 10001:10001
EXPOSE 8000
# Ready, not only alive: what waits for this container wants to call it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-I", "-S", "-c", \
    "import http.client as http, os, sys; \
     door = http.HTTPConnection('127.0.0.1', int(os.environ['MOTCUA_PORT']), timeout=4); \
     door.request('GET', '/readyz'); \
     sys.exit(door.getresponse().status != 200)"]
CMD ["motcua", "--help"]

# Last, because they change with every commit.
ARG VERSION=unknown
ARG REVISION=unknown
ENV MOTCUA_REVISION=${REVISION}
LABEL org.opencontainers.image.title="motcua" \
      org.opencontainers.image.description="The back end of one-stop public service centres" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
