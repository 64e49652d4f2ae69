-- The requests of benchmarks/serve/wrk.py, and what came of them.
--
-- Arguments after "--": a file with one request per line, each as
--   METHOD <tab> path <tab> body file <tab> header: value <tab> …
-- and the least number of bytes of a right answer's body; then, if given, the mean pause of a
-- connection before each request in milliseconds, exponentially distributed.
--
-- Every thread goes through the requests in turn. done() prints one line of JSON.

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

local function split(line)
  local parts = {}
  for part in (line .. "\t"):gmatch("(.-)\t") do
    table.insert(parts, part)
  end
  return parts
end

local function read(path)
  local file = assert(io.open(path, "rb"))
  local bytes = file:read("*a")
  file:close()
  return bytes
end

function init(args)
  requests = {}
  least = tonumber(args[2])
  local pause_ms = tonumber(args[3] or 0)
  if pause_ms > 0 then
    -- wrk asks for a pause when there is such a function.
    function delay()
      return math.floor(0.5 - pause_ms * math.log(1 - math.random()))
    end
  end
  at, other_status, short = 0, 0, 0
  for line in io.lines(args[1]) do
    local parts = split(line)
    local headers = {}
    for number = 4, #parts do
      local name, value = parts[number]:match("^(.-): (.*)$")
      headers[name] = value
    end
    table.insert(requests, wrk.format(parts[1], parts[2], headers, read(parts[3])))
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function response(status, headers, body)
  if status ~= 200 then
    other_status = other_status + 1
  elseif #body < least then
    short = short + 1
  end
end

function done(summary, latency, _)
  local other, small = 0, 0
  for _, thread in ipairs(threads) do
    other = other + thread:get("other_status")
    small = small + thread:get("short")
  end
  local errors = summary.errors
  print(string.format(
    '{"requests": %d, "duration_us": %d, "bytes": %d, "mean_us": %.1f, "stdev_us": %.1f, '
      .. '"p50_us": %d, "p90_us": %d, "p99_us": %d, "max_us": %d, "connect": %d, "read": %d, '
      .. '"write": %d, "timeout": %d, "other_status": %d, "short": %d}',
    summary.requests, summary.duration, summary.bytes, latency.mean, latency.stdev,
    latency:percentile(50), latency:percentile(90), latency:percentile(99), latency.max,
    errors.connect, errors.read, errors.write, errors.timeout, other, small
  ))
end
