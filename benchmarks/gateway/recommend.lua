-- Recommendations for another unit each time. Argument after "--": the gateway's key.
-- done() prints one line of JSON.

function init(args)
  number = 0
  headers = {["Content-Type"] = "application/json", ["Authorization"] = "Bearer " .. args[1]}
end

function request()
  number = number + 1
  local body = '{"unit":"u' .. number .. '","history":["NS00012","NS00045","NS00100"],"k":10}'
  return wrk.format("POST", nil, headers, body)
end

function done(summary, latency, _)
  local errors = summary.errors
  print(string.format(
    '{"requests": %d, "duration_us": %d, "p50_us": %d, "p90_us": %d, "p99_us": %d, "failed": %d}',
    summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(90), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.timeout + errors.status
  ))
end
