COPY --from=ghcr.io/example/pid1:scratch /sbin/pid1 /usr/bin/tini
