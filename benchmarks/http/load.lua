-- wrk: GETs of the URL, or POSTs of the bodies in a file, one a line; what happened as a line of JSON.
--   wrk -s load.lua URL -- [FILE [KEYS]]      KEYS: with it each POST has an Idempotency-Key, KEYS-1, KEYS-2, ...

local pieces, sent, keys = {}, 0, nil

function init(args)
  keys = args[2]
  if not args[1] then
    pieces[1] = wrk.format()
    return
  end
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  for body in io.lines(args[1]) do
    pieces[#pieces + 1] = wrk.format(nil, nil, nil, body)
  end
  if keys then
    for place, piece in ipairs(pieces) do
      local line = piece:find("\r\n", 1, true) - 1
      pieces[place] = { piece:sub(1, line) .. "\r\nIdempotency-Key: " .. keys .. "-", piece:sub(line + 1) }
    end
  end
end

function request()
  sent = sent + 1
  local piece = pieces[sent % #pieces + 1]
  if keys then
    return piece[1] .. sent .. piece[2]
  end
  return piece
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    'result {"requests":%d,"seconds":%.6f,"bytes":%d,"p50_ms":%.3f,"p99_ms":%.3f,"errors":%d}',
    summary.requests, summary.duration / 1e6, summary.bytes,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
