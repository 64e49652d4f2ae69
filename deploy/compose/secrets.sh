# Creates what is missing: a key with which Prometheus reads the gateway's metrics, and a
# self-signed certificate. Each is in a volume that one other container reads.
umask 077

if [ ! -s /keys/prometheus ]; then
  python -P -m newshelf keys revoke prometheus --workspace /state >/dev/null 2>&1 || true
  python -P -m newshelf keys add prometheus --scope read --workspace /state >/keys/prometheus
fi
if [ ! -s /tls/tls.crt ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
    -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
    -keyout /tls/tls.key -out /tls/tls.crt
fi
