FROM stand-in:base
RUN apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv python3-pip \
 && ln -s python3 /usr/bin/python && rm -rf /var/lib/apt/lists/*
COPY trusted.crt /etc/ssl/certs/ca-certificates.crt
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DEFAULT_TIMEOUT=180
CMD ["python"]
