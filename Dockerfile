# One image, roles as commands; docs/guides/containers.md has more:
#   docker run --init IMAGE start app:app --bind 0.0.0.0:8000
#   docker run --init IMAGE interface --bind 0.0.0.0:8000       with ASGICTL_REDIS in the environment
#   docker run --init IMAGE worker app:app                      the same
# `make dockerfile` runs these steps without a container engine.

FROM debian:bookworm-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv
WORKDIR /source
COPY pyproject.toml constraints.txt supervisor.conf README.md LICENSE ./
COPY asgictl asgictl
COPY interface interface
COPY loadtests loadtests
COPY worker worker
RUN python3 -m venv /opt/asgictl \
 && /opt/asgictl/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /wheels --constraint constraints.txt . \
 && /opt/asgictl/bin/pip install --no-cache-dir --constraint constraints.txt "$(ls /wheels/*.whl)[embedded]"

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --create-home asgictl
COPY --from=build /opt/asgictl /opt/asgictl
ENV PATH=/opt/asgictl/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1
WORKDIR /app
USER asgictl
EXPOSE 8000
STOPSIGNAL SIGTERM
ENTRYPOINT ["asgictl"]
CMD ["start"]
