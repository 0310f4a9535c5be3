FROM stand-in:base
RUN apt-get update && apt-get install --yes --no-install-recommends redis-server && rm -rf /var/lib/apt/lists/* \
 && install --directory --owner=redis --group=redis /data
USER redis
CMD ["redis-server"]
