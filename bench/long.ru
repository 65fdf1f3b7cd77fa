# long.py for servers of Ruby.

BODY = "Hello, world!\n"
LENGTH = 1.0 # s
STEPS = 10_000

def spin
  finish = Process.clock_gettime(Process::CLOCK_THREAD_CPUTIME_ID) + LENGTH
  while Process.clock_gettime(Process::CLOCK_THREAD_CPUTIME_ID) < finish
    STEPS.times {}
  end
end

run(lambda do |env|
  case env["PATH_INFO"]
  when "/sleep" then sleep LENGTH
  when "/spin" then spin
  end
  [200, { "Content-Type" => "text/plain", "Content-Length" => BODY.bytesize.to_s }, [BODY]]
end)
