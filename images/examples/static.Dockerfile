FROM ghcr.io/example/pid1:static
COPY server /server
CMD ["/server"]
