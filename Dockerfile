# The server of a model, without root. See docs/serving.md.
FROM python:3.12-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY . /source
RUN python -m venv /opt/tdtdecode && /opt/tdtdecode/bin/pip install --no-cache-dir "/source[serve,hub]"

FROM python:3.12-slim-bookworm
COPY --from=build /opt/tdtdecode /opt/tdtdecode
RUN useradd --system --uid 10001 --create-home tdtdecode
USER 10001
ENV PATH=/opt/tdtdecode/bin:$PATH
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["tdtdecode", "serve", "--host", "0.0.0.0"]
CMD ["--model", "demo"]
