-- What wrk sends: ready-made requests from a file, one after another (load.py writes it and reads the last line).
--   FILE list    the requests, separated by NUL; from the beginning again when all were sent
--   FILE chain   what stands before a refresh token and after it (neither is empty), then tokens; answers bring more
local threads = {}
local requests, position = {}, 0
local before, after, none, first, last = nil, nil, nil, 1, 0
sent_again = 0

function setup(thread)
    table.insert(threads, thread)
end

function init(arguments)
    local records = {}
    local file = assert(io.open(arguments[1], "rb"))
    for record in file:read("*a"):gmatch("[^%z]+") do records[#records + 1] = record end
    file:close()
    requests = records
    if arguments[2] == "chain" then
        before, after = table.remove(records, 1), table.remove(records, 1)
        last = #records
        none = string.rep("x", #records[1])  -- as long as a token, as Content-Length says
        request, response = next_of_chain, keep_successor
    end
end

function request()
    position = position + 1
    if position > #requests then
        position = 1
        sent_again = sent_again + 1
    end
    return requests[position]
end

function next_of_chain()
    local token = requests[first]
    requests[first] = nil
    first = first + 1
    return before .. (token or none) .. after
end

function keep_successor(status, headers, body)
    local token = status == 200 and body:match('"refresh_token": ?"([^"]+)"')
    if token then
        last = last + 1
        requests[last] = token
    end
end

function done(summary, latency, _)
    local again = 0
    for _, thread in ipairs(threads) do again = again + thread:get("sent_again") end
    local errors = summary.errors
    io.write(string.format(
        '{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "refused": %d, "lost": %d, "sent_again": %d}\n',
        summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
        errors.status, errors.connect + errors.read + errors.write + errors.timeout, again))
end
