FROM stand-in:base
RUN apt-get update && apt-get install --yes --no-install-recommends postgresql && rm -rf /var/lib/apt/lists/*
COPY postgres-entrypoint /usr/local/bin/
RUN chmod 0755 /usr/local/bin/postgres-entrypoint \
 && chmod 3777 /var/run/postgresql \
 && install --directory --owner=postgres --group=postgres --mode=0700 /var/lib/postgresql/data
ENV PATH=/usr/lib/postgresql/15/bin:$PATH
USER postgres
ENTRYPOINT ["postgres-entrypoint"]
