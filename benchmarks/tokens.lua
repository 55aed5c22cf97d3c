-- The requests of a file, one after another, over and over: `wrk -s tokens.lua … -- FILE`.
local requests, at = {}, 0

function init(arguments)
  local file = assert(io.open(arguments[1], "rb"))
  for request in file:read("*a"):gmatch("(.-\r\n\r\n)") do
    requests[#requests + 1] = request
  end
  file:close()
end

function request()
  at = at % #requests + 1
  return requests[at]
end
