-- What wrk sends, and how it reports: wrk --script load.lua URL -- SHAPE
--
-- A shape is a function that gives one request as bytes. Add one here, and a row to loads.py.
--
-- `browser` has the 15 fields of a browser that follows a link. The target, Referer and Cookie differ on every
-- request and User-Agent is one of 200, as on a public site: no server can answer from a table of heads it has seen.

local AGENTS = {}
for major = 1, 200 do
   AGENTS[major] = "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/"
      .. major .. ".0.0.0 Safari/537.36\r\n"
end

local SAME = table.concat({
   'sec-ch-ua: "Chromium";v="142", "Not_A Brand";v="99"',
   "sec-ch-ua-mobile: ?0",
   'sec-ch-ua-platform: "Linux"',
   "Upgrade-Insecure-Requests: 1",
   "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
   "Sec-Fetch-Site: same-origin",
   "Sec-Fetch-Mode: navigate",
   "Sec-Fetch-Dest: document",
   "Accept-Encoding: gzip, deflate, br, zstd",
   "Accept-Language: en-GB,en;q=0.9,de;q=0.8",
}, "\r\n") .. "\r\n"

local number = 0

local function browser(connection, target)
   local host = "Host: " .. wrk.host .. ":" .. wrk.port .. "\r\n"
   local site = "Referer: http://" .. wrk.host .. ":" .. wrk.port .. "/articles/"
   local ending = "\r\nConnection: " .. connection .. "\r\n\r\n"
   return function()
      number = number + 1
      return "GET " .. target(number) .. "?page=" .. number % 7 .. " HTTP/1.1\r\n" .. host .. AGENTS[number % 200 + 1]
         .. SAME .. site .. number - 1 .. "\r\nCookie: theme=dark; session=6f1ed002ab5595859014ebf0951522d9." .. number
         .. ending
   end
end

local function article(number) return "/articles/" .. number end
local function front() return "/" end

-- The same request again and again.
local function fixed(method, fields, body)
   local text = method .. " / HTTP/1.1\r\nHost: " .. wrk.host .. ":" .. wrk.port .. "\r\n" .. fields .. "\r\n" .. body
   return function() return text end
end

local function posted(kind, body)
   return fixed("POST", "Content-Type: " .. kind .. "\r\nContent-Length: " .. #body .. "\r\n", body)
end

-- 10 KiB of JSON: an order of 123 lines.
local function order()
   local lines = {}
   for line = 1, 123 do
      lines[line] = string.format('{"article": "Nuts & bolts, size %03d", "quantity": %d, "cents": %d, "note": null}',
         line, line % 9 + 1, 1000 + line)
   end
   return '{"customer": "O\'Brien", "lines": [' .. table.concat(lines, ", ") .. "]}"
end

local SHAPES = {
   ["browser"] = function() return browser("keep-alive", article) end,
   ["browser-close"] = function() return browser("close", article) end,
   ["browser-front"] = function() return browser("keep-alive", front) end,
   ["minimal"] = function() return fixed("GET", "", "") end,
   ["post"] = function() return posted("application/json", order()) end,
   ["upload"] = function() return posted("application/octet-stream", string.rep("0123456789abcdef", 65536)) end,
}

function init(arguments)
   request = SHAPES[arguments[1]]()
end

-- One line of JSON for measure.py. Latencies come in microseconds, the duration too.
function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      '\nresult {"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "failed": %d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
      errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
