FROM debian:trixie-slim
COPY --from=ghcr.io/example/pid1:scratch /sbin/pid1 /sbin/pid1
ENTRYPOINT ["/sbin/pid1"]
CMD ["my-server", "--port", "8080"]
